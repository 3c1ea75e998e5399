"""What a program with redis-py meets: every kind of command, in both versions of the protocol, against a real ring.

Arguments: the ports of the nodes.
"""

import asyncio
import sys
import threading
import time
import warnings

import redis
import redis.asyncio
import redis.cluster
from redis.backoff import NoBackoff
from redis.retry import Retry

# Commands that are old are still asked for.
warnings.simplefilter("ignore", DeprecationWarning)

PORTS = [int(port) for port in sys.argv[1:]]
PIPELINE = 10_000
CHECKS = 0


def check(what, found, wanted):
    global CHECKS
    assert found == wanted, f"{what}: {found!r} instead of {wanted!r}"
    CHECKS += 1


def refused(what, ask, words):
    try:
        found = ask()
    except redis.ResponseError as error:
        check(what, words in str(error), True)
    else:
        raise AssertionError(f"{what}: {found!r} instead of an error with {words!r}")


def client(port, protocol, **options):
    return redis.Redis(port=port, protocol=protocol, retry=Retry(NoBackoff(), 0), client_name="tester", **options)


def connections(r):
    check("ping", r.ping(), True)
    check("echo", r.echo("hi"), b"hi")
    check("name", r.client_getname() in ("tester", b"tester"), True)
    check("id", r.client_id() > 0, True)
    check("info of the client", r.client_info()["lib-name"], "redis-py")
    check("list of clients", any(line["name"] == "tester" for line in r.client_list()), True)
    info = r.info()
    check("info", (info["loading"], info["role"]), (0, "master"))
    check("config", r.config_get("save"), {"save": ""})
    check("command", r.command_count() > 40, True)
    check("a command", r.command()["get"]["arity"], 2)
    check("time", abs(r.time()[0] - time.time()) < 60, True)
    refused("another database", lambda: r.execute_command("SELECT", 3), "DB index is out of range")


def values(r, other):
    check("get nothing", r.get("nothing"), None)
    check("set", r.set("k", b"\0\xff\r\n"), True)
    check("get through another node", other.get("k"), b"\0\xff\r\n")
    check("mset", r.mset({"a": 1, "b": 2.5}), True)
    check("mget", r.mget("a", "b", "nothing"), [b"1", b"2.5", None])
    check("exists", r.exists("a", "b", "nothing"), 2)
    check("strlen", r.strlen("b"), 3)
    check("type", (r.type("a"), r.type("nothing")), (b"string", b"none"))
    check("getrange", r.getrange("b", -2, -1), b".5")
    check("substring of nothing", r.getrange("nothing", 0, -1), b"")
    check("delete", r.delete("a", "nothing"), 1)
    check("unlink", r.unlink("b"), 1)
    large = bytes(range(256)) * 4096
    check("a large value", (r.set("large", large), other.get("large") == large), (True, True))


def times(r):
    check("set ex", r.set("t", "v", ex=1000), True)
    check("ttl", 990 <= r.ttl("t") <= 1000, True)
    check("pttl", 990_000 <= r.pttl("t") <= 1_000_000, True)
    check("expiretime", abs(r.expiretime("t") - time.time() - 1000) < 10, True)
    check("setex", r.setex("t", 500, "v"), True)
    check("psetex", r.psetex("t", 1, "v"), True)
    until(lambda: r.get("t") is None)
    check("ttl of nothing", (r.ttl("t"), r.set("t", "v"), r.ttl("t")), (-2, True, -1))


def until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it does not come true"


def two_steps(r):
    """What reads and then writes, where it is allowed."""
    r.delete("n", "s")
    check("incr", (r.incr("n"), r.incrby("n", 9), r.decr("n"), r.decrby("n", 4)), (1, 10, 9, 5))
    check("incrbyfloat", r.incrbyfloat("n", 0.5), 5.5)
    check("append", (r.append("s", "hel"), r.append("s", "lo")), (3, 5))
    check("setrange", (r.setrange("s", 1, "i"), r.get("s")), (5, b"hillo"))
    check("set nx", (r.set("s", "x", nx=True), r.setnx("s", "x")), (None, False))
    check("set xx get", r.set("s", "x", xx=True, get=True), b"hillo")
    check("getset", r.getset("s", "y"), b"x")
    check("expire", (r.expire("s", 100), r.expire("s", 50, gt=True), r.ttl("s")), (True, False, 100))
    check("keepttl", (r.set("s", "z", keepttl=True), r.ttl("s")), (True, 100))
    check("getex", (r.getex("s", persist=True), r.ttl("s")), (b"z", -1))
    check("persist", r.persist("s"), False)
    check("getdel", (r.getdel("s"), r.exists("s")), (b"z", 0))


def refusals(r):
    refused("a list", lambda: r.lpush("k", "v"), "unknown command 'lpush'")
    refused("a transaction", lambda: r.pipeline().set("multi", "v").execute(), "unknown command 'multi'")
    check("of which nothing is done", r.exists("multi"), 0)
    refused("a script", lambda: r.eval("return 1", 0), "unknown command 'eval'")
    refused("no number", lambda: r.execute_command("SET", "k", "v", "EX", "x"), "not an integer")
    refused("arity", lambda: r.execute_command("GET"), "wrong number of arguments for 'get' command")


def pipelines(r, other):
    pipeline = r.pipeline(transaction=False)
    for number in range(PIPELINE):
        pipeline.set(f"p{number}", number)
    check("a pipeline of writes", pipeline.execute(), [True] * PIPELINE)
    pipeline = other.pipeline(transaction=False)
    for number in range(PIPELINE):
        pipeline.get(f"p{number}")
    check("a pipeline of reads", pipeline.execute(), [str(number).encode() for number in range(PIPELINE)])


def many_at_once(r):
    def work(thread):
        for number in range(200):
            key = f"thread:{thread}:{number}"
            assert r.set(key, number) and r.get(key) == str(number).encode()

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    failures = []
    threading.excepthook = lambda failure: failures.append(failure.exc_value)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check("threads", failures, [])


def cluster_mode():
    """A client of a cluster goes by slots, and is never redirected."""
    r = redis.cluster.RedisCluster(host="127.0.0.1", port=PORTS[0])
    check("nodes", sorted(node.port for node in r.get_nodes()), sorted(PORTS))
    check("keyslot", r.cluster_keyslot("foo"), 12182)
    for number in range(300):
        key = f"slots:{number}"
        check("set", (r.set(key, number), r.get(key)), (True, str(number).encode()))
    check("of one slot", (r.mset({"{tag}a": 1, "{tag}b": 2}), r.mget("{tag}a", "{tag}b")), (True, [b"1", b"2"]))
    check("of many", r.mget_nonatomic("slots:1", "slots:2", "slots:nothing"), [b"1", b"2", None])


def whole():
    """Nodes find each other's doors within seconds."""
    until(lambda: all(len(client(port, 2).execute_command("CLUSTER SLOTS")) == len(PORTS) for port in PORTS))


async def asynchronous(protocol):
    async with redis.asyncio.Redis(port=PORTS[0], protocol=protocol) as r:
        await asyncio.gather(*(r.set(f"async:{number}", number) for number in range(100)))
        found = await asyncio.gather(*(r.get(f"async:{number}") for number in range(100)))
    check("asynchronously", found, [str(number).encode() for number in range(100)])


for protocol in (2, 3):
    first, second = client(PORTS[0], protocol), client(PORTS[1], protocol)
    connections(first)
    values(first, second)
    times(first)
    two_steps(first)
    refusals(first)
    pipelines(first, second)
    many_at_once(first)
    asyncio.run(asynchronous(protocol))
    texts = client(PORTS[2], protocol, decode_responses=True)
    check("texts", (texts.set("text", "grüße"), texts.get("text")), (True, "grüße"))
whole()
cluster_mode()
print(f"redis-py {redis.__version__}: {CHECKS} checks")
