//! What a Redis client meets.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::thread;

use bytes::BytesMut;
use quorate_wire::resp::value::Value;
use reqwest::StatusCode;

use crate::harness::redis::{Redis, encoded, shown};
use crate::harness::{Setup, TestCluster, TestNode, eventually};

pub(super) async fn cluster(options: &[&str]) -> TestCluster {
    let options = options.iter().map(|&option| option.to_owned()).collect();
    TestCluster::start(Setup { options, ..Setup::default() }).await
}

/// A talk: what is said, and what is answered.
fn talk(redis: &mut Redis, lines: &[(&str, &str)]) {
    for (line, answer) in lines {
        let said = redis.says(line);
        // An answer that ends with a star is only the beginning.
        match answer.strip_suffix('*') {
            Some(start) => assert!(said.starts_with(start), "{line}: {said}"),
            None => assert_eq!(said, *answer, "{line}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_as_clients_know_them() {
    let cluster = cluster(&[]).await;
    let mut redis = Redis::connect(&cluster.nodes[0]);
    talk(
        &mut redis,
        &[
            ("PING", "PONG"),
            ("ECHO hi", "\"hi\""),
            ("CLIENT GETNAME", "nil"),
            ("CLIENT SETNAME tester", "OK"),
            ("CLIENT SETINFO LIB-NAME test", "OK"),
            ("CLIENT GETNAME", "\"tester\""),
            ("CLIENT LIST", "\"id=*"),
            ("CLIENT NO-EVICT ON", "OK"),
            ("SELECT 0", "OK"),
            ("SELECT 1", "ERR DB index is out of range"),
            ("AUTH secret", "ERR AUTH <password> called without any password configured*"),
            ("HELLO 4", "NOPROTO unsupported protocol version"),
            ("HELLO 2", "[\"server\" \"redis\" \"version\"*"),
            ("HELLO 3 SETNAME other", "{\"server\" \"redis\" \"version\" \"7.4.0\" \"proto\" (3)*"),
            ("CLIENT GETNAME", "\"other\""),
            ("GET nothing", "nil"),
            ("CONFIG GET save appendonly", "{\"appendonly\" \"yes\" \"save\" \"\"}"),
            ("CLUSTER KEYSLOT foo", "(12182)"),
            ("CLUSTER FORGET x", "ERR CLUSTER changes nothing here: *"),
            ("READONLY", "OK"),
            ("COMMAND COUNT", "(51)"),
            ("COMMAND INFO get nothing", "[[\"get\" (2) <readonly fast> (1) (1) (1) <> [] [] []] nil]"),
            ("COMMAND DOCS get", "{\"get\" {\"summary\" \"Reads a value\"*"),
            ("INFO persistence", "\"# Persistence\\r\\nloading:0\\r\\n\""),
            ("RESET", "RESET"),
            ("CLIENT GETNAME", "nil"),
            ("FOO bar", "ERR unknown command 'FOO', with args beginning with: 'bar' "),
            ("LPUSH k v", "ERR unknown command 'lpush': a key holds a string*"),
        ],
    );
    let info = redis.says("INFO");
    let all = ["redis_version:7.4.0", "role:master", "connected_clients:1", "loading:0", "cluster_enabled:1"];
    assert!(all.iter().all(|part| info.contains(part)), "{info}");
    assert_eq!(redis.says("QUIT"), "OK");
    assert_eq!(redis.reply(), None, "and it is closed");

    let mut line = Redis::connect(&cluster.nodes[0]);
    line.send(b"\r\nset inline \"a b\"\r\nget inline\r\nPING\r\n");
    line.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let said: Vec<_> = std::iter::from_fn(|| line.reply()).map(|value| shown(&value)).collect();
    assert_eq!(said, ["OK", "\"a b\"", "PONG"], "all is answered before the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_reads_and_writes_through_any_node() {
    let cluster = cluster(&[]).await;
    let mut all: Vec<Redis> = cluster.nodes.iter().map(Redis::connect).collect();
    for number in 0..30 {
        let (writer, reader) = (number % 3, (number + 1) % 3);
        assert_eq!(all[writer].says(&format!("SET key:{number} value:{number}")), "OK");
        assert_eq!(all[reader].says(&format!("GET key:{number}")), format!("\"value:{number}\""));
    }
    talk(
        &mut all[0],
        &[
            ("MSET a 1 b 2 a 3", "OK"),
            ("MGET a b c", "[\"3\" \"2\" nil]"),
            ("EXISTS a a c", "(2)"),
            ("STRLEN a", "(1)"),
            ("TYPE a", "string"),
            ("TYPE c", "none"),
            ("DEL a a c", "(1)"),
            ("UNLINK a b", "(1)"),
            ("MGET a b", "[nil nil]"),
            ("SET e v EX 1000", "OK"),
            ("TTL e", "(1000)"),
            ("EXPIREAT nothing 1", "NOTDONE not_atomic: not done: 'expireat' reads a key*"),
            ("PTTL c", "(-2)"),
            ("SETEX e 100 hello", "OK"),
            ("GETRANGE e 1 -2", "\"ell\""),
            ("SET e v", "OK"),
            ("TTL e", "(-1)"),
            ("SET e v PXAT 1", "OK"),
            ("GET e", "nil"),
            ("SET e v EX 0", "ERR invalid expire time in 'set' command"),
        ],
    );
    assert_eq!(all[1].ask(&[b"SET", b"", b"\0\r\n\xff"]), Value::Simple("OK".into()), "any bytes, also none");
    assert_eq!(shown(&all[2].ask(&[b"GET", b""])), "\"\\x00\\r\\n\\xff\"");
    talk(&mut all[0], &[("PSETEX short 1 v", "OK")]);
    eventually("it has expired", || async { Redis::connect(&cluster.nodes[1]).says("GET short") == "nil" })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reads_and_then_writes_is_refused_unless_it_is_allowed() {
    let cluster = cluster(&[]).await;
    let mut redis = Redis::connect(&cluster.nodes[0]);
    for line in [
        "INCR n",
        "SET n 1 NX",
        "SETNX n 1",
        "APPEND n x",
        "GETSET n x",
        "SET n 1 GET",
        "GETDEL n",
        "EXPIRE n 9",
    ] {
        let said = redis.says(line);
        assert!(said.starts_with("NOTDONE not_atomic: not done: '"), "{line}: {said}");
    }
    assert_eq!(redis.says("GET n"), "nil", "and nothing was written");
    assert_eq!(redis.says("INCRBY n x"), "ERR value is not an integer or out of range");
    let refused =
        cluster.metric(0, "quorate_requests_total", "operation=\"incr\",outcome=\"not_atomic\"").await;
    assert_eq!(refused, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_refused_and_nothing_of_it_is_done() {
    let cluster = cluster(&[]).await;
    let mut redis = Redis::connect(&cluster.nodes[0]);
    // In one piece, as client libraries send it.
    redis.send(b"MULTI\r\nSET k v\r\nGET k\r\nFOO\r\nEXEC\r\nGET k\r\nEXEC\r\n");
    let said: Vec<_> = (0..7).map(|_| shown(&redis.reply().unwrap())).collect();
    assert!(said[0].starts_with("ERR unknown command 'multi': there are no transactions"), "{said:?}");
    assert!(
        said[1..4]
            .iter()
            .all(|said| said.starts_with("NOTDONE not_atomic: not done: it was sent behind MULTI")),
        "{said:?}"
    );
    assert_eq!(
        said[4..],
        ["EXECABORT Transaction discarded because of previous errors.", "nil", "ERR EXEC without MULTI"]
    );
    talk(&mut redis, &[("MULTI", "ERR unknown command 'multi'*"), ("DISCARD", "OK"), ("SET k v", "OK")]);
    talk(&mut redis, &[("MULTI", "ERR unknown command 'multi'*"), ("RESET", "RESET"), ("GET k", "\"v\"")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_allowed_it_is_done_as_redis_does_it() {
    let cluster = cluster(&["--resp-read-modify-write", "best-effort"]).await;
    let mut redis = Redis::connect(&cluster.nodes[1]);
    talk(
        &mut redis,
        &[
            ("INCR n", "(1)"),
            ("INCRBY n 41", "(42)"),
            ("DECRBY n 2", "(40)"),
            ("INCRBYFLOAT n 0.5", "\"40.5\""),
            ("INCR n", "ERR value is not an integer or out of range"),
            ("APPEND s hello", "(5)"),
            ("SETRANGE s 1 i", "(5)"),
            ("GET s", "\"hillo\""),
            ("SETNX s x", "(0)"),
            ("SET s x NX", "nil"),
            ("SET t x XX", "nil"),
            ("SET s x XX GET", "\"hillo\""),
            ("GETSET s y", "\"x\""),
            ("EXPIRE s 100", "(1)"),
            ("TTL s", "(100)"),
            ("EXPIRE s 50 GT", "(0)"),
            ("SET s z KEEPTTL", "OK"),
            ("TTL s", "(100)"),
            ("GETEX s PERSIST", "\"z\""),
            ("TTL s", "(-1)"),
            ("PERSIST s", "(0)"),
            ("PEXPIREAT s 1", "(1)"),
            ("GET s", "nil"),
            ("GETDEL n", "\"40.5\""),
            ("EXISTS n", "(0)"),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_sees_the_same_data() {
    let cluster = cluster(&[]).await;
    let mut redis = Redis::connect(&cluster.nodes[0]);
    cluster.put(1, "k", "one").await;
    cluster.put(2, "k", "two").await;
    assert_eq!(cluster.get(0, "k").await.status(), StatusCode::MULTIPLE_CHOICES);
    assert_eq!(redis.says("GET k"), "\"two\"", "the last of the siblings");
    assert_eq!(redis.says("SET k three"), "OK");
    let answer = cluster.get(1, "k").await;
    assert_eq!((answer.status(), answer.text().await.unwrap()), (StatusCode::OK, "three".to_owned()));
    assert_eq!(redis.says("DEL k"), "(1)");
    assert_eq!(cluster.get(2, "k").await.status(), StatusCode::NOT_FOUND);
    let served = |labels: &'static str| cluster.metric(0, "quorate_requests_total", labels);
    assert_eq!(served("operation=\"get\",outcome=\"ok\",protocol=\"resp\"").await, 1.0);
    assert_eq!(served("operation=\"get\",outcome=\"siblings\",protocol=\"http\"").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_answered_in_order_and_sees_its_own_writes() {
    let cluster = cluster(&[]).await;
    let mut redis = Redis::connect(&cluster.nodes[0]);
    let mut pipeline = BytesMut::new();
    for number in 0..500 {
        let value = number.to_string();
        let key = format!("k{}", number % 7);
        pipeline.extend_from_slice(&encoded(&[b"SET", key.as_bytes(), value.as_bytes()]));
        pipeline.extend_from_slice(&encoded(&[b"GET", key.as_bytes()]));
        pipeline.extend_from_slice(&encoded(&[b"ECHO", value.as_bytes()]));
    }
    redis.send(&pipeline);
    for number in 0..500 {
        let value = format!("\"{number}\"");
        let said = [0; 3].map(|_| shown(&redis.reply().unwrap()));
        assert_eq!(said, ["OK", value.as_str(), value.as_str()], "{number}");
    }
}

/// As client libraries do it: the whole pipeline is sent before the first answer is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_before_it_has_sent_all_is_no_deadlock() {
    // Within what may wait to be sent.
    const REQUESTS: usize = 13_000;
    let cluster = cluster(&[]).await;
    let mut redis = Redis::connect(&cluster.nodes[0]);
    let value = "x".repeat(1000);
    assert_eq!(redis.says(&format!("SET k {value}")), "OK");
    let pipeline = encoded(&[b"ECHO", value.as_bytes()]).repeat(REQUESTS);
    redis.send(&pipeline);
    for _ in 0..REQUESTS {
        assert!(matches!(redis.reply(), Some(Value::Bulk(bytes)) if bytes.len() == value.len()));
    }
    assert!(cluster.nodes[0].resident_bytes() < 512 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_refused_and_what_is_no_protocol_is_closed() {
    let cluster = cluster(&[]).await;
    let node = &cluster.nodes[0];
    let mut redis = Redis::connect(node);
    let largest = vec![7; 4 << 20];
    assert_eq!(shown(&redis.ask(&[b"SET", b"large", &largest])), "OK");
    assert!(matches!(redis.ask(&[b"GET", b"large"]), Value::Bulk(bytes) if bytes == largest));
    let too_long = vec![7; (4 << 20) + 1];
    let said = shown(&redis.ask(&[b"SET", b"large", &too_long]));
    assert!(said.starts_with("NOTDONE too_large: not done: 4194305 bytes"), "{said}");
    let said = shown(&redis.ask(&[b"GET", &[b'k'; 5000]]));
    assert!(said.starts_with("NOTDONE too_large: not done: the key has 5000 bytes"), "{said}");
    assert_eq!(redis.says("PING"), "PONG", "it is still open");
    let said = closes(node, b"*1\r\n$-5\r\n");
    assert_eq!(said, ["ERR Protocol error: invalid bulk length"]);
    assert_eq!(closes(node, b"*9999999\r\n"), ["ERR Protocol error: invalid multibulk length"]);
    assert_eq!(closes(node, b"PING\r\n*1\r\n:1\r\n"), ["PONG", "ERR Protocol error: expected '$', got ':'"]);
    assert_eq!(closes(node, b"POST / HTTP/1.1\r\n\r\nset a b\r\n"), [""; 0]);
    assert!(cluster.metric(0, "quorate_refused_connections_total", "resp").await >= 4.0);
}

/// What a node says to these bytes until it closes the connection.
fn closes(node: &TestNode, bytes: &[u8]) -> Vec<String> {
    let mut redis = Redis::connect(node);
    redis.send(bytes);
    std::iter::from_fn(|| redis.reply()).map(|value| shown(&value)).collect()
}

/// Where cluster clients find the nodes: all that are up, soon after they are.
#[tokio::test(flavor = "multi_thread")]
async fn cluster_clients_find_the_nodes_that_are_up() {
    let mut cluster = cluster(&["--detect-after", "2s"]).await;
    let slots = |node: &TestNode| {
        let Value::Array(ranges) = Redis::connect(node).ask(&[b"CLUSTER", b"SLOTS"]) else {
            panic!("no list")
        };
        ranges.iter().map(shown).collect::<Vec<_>>()
    };
    eventually("all three are found", || {
        let all = cluster.nodes.iter().all(|node| slots(node).len() == 3);
        async move { all }
    })
    .await;
    let told = slots(&cluster.nodes[0]);
    assert!(cluster.nodes.iter().all(|node| slots(node) == told), "by every node alike");
    assert!(told[0].starts_with("[(0) (5460) [") && told[2].starts_with("[(10922) (16383) ["), "{told:?}");
    assert!(cluster.nodes.iter().all(|node| told.concat().contains(&format!("[\"{}\" (7002)", node.host))));

    let mut redis = Redis::connect(&cluster.nodes[0]);
    let id = redis.says("CLUSTER MYID");
    let lines = redis.says("CLUSTER NODES");
    assert!(lines.contains("myself,master") && lines.contains(id.trim_matches('"')), "{id}: {lines}");
    assert!(redis.says("CLUSTER INFO").contains("cluster_state:ok\\r\\ncluster_slots_assigned:16384"));
    assert!(redis.says("CLUSTER SHARDS").contains(&cluster.nodes[2].host));

    cluster.nodes[2].kill();
    eventually("who is down has no slots", || {
        let told = slots(&cluster.nodes[0]);
        let gone = told.len() == 2 && !told.concat().contains(&cluster.nodes[2].host);
        async move { gone }
    })
    .await;
}

/// INV-ACK over this protocol, with a node that dies in the middle of pipelines.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_in_the_middle_loses_nothing_that_was_acknowledged() {
    const ROUNDS: usize = 60;
    const PIPELINE: usize = 16;
    let mut cluster = cluster(&["--detect-after", "2s"]).await;
    let mut redis = Redis::connect(&cluster.nodes[0]);
    let (mut acknowledged, mut errors) = (Vec::new(), BTreeMap::<String, usize>::new());
    for round in 0..ROUNDS {
        if round == ROUNDS / 3 {
            cluster.nodes[2].kill();
        }
        let keys: Vec<String> = (0..PIPELINE).map(|number| format!("{round}/{number}")).collect();
        let mut pipeline = BytesMut::new();
        keys.iter()
            .for_each(|key| pipeline.extend_from_slice(&encoded(&[b"SET", key.as_bytes(), key.as_bytes()])));
        redis.send(&pipeline);
        for key in keys {
            match redis.reply().unwrap() {
                Value::Simple(_) => acknowledged.push(key),
                Value::Error(words) => *errors.entry(words).or_default() += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    for words in errors.keys() {
        assert!(words.starts_with("INDETERMINATE timeout: ") || words.starts_with("NOTDONE "), "{words}");
    }
    assert!(acknowledged.len() > PIPELINE * ROUNDS / 2, "two of three serve on: {errors:?}");
    for through in [0, 1] {
        let mut reader = Redis::connect(&cluster.nodes[through]);
        for keys in acknowledged.chunks(100) {
            let words: Vec<&[u8]> =
                std::iter::once("MGET").chain(keys.iter().map(String::as_str)).map(str::as_bytes).collect();
            let values: Vec<Value> = keys.iter().map(|key| Value::Bulk(key.clone().into())).collect();
            assert_eq!(reader.ask(&words), Value::Array(values), "through {through}");
        }
    }

    cluster.nodes[1].kill();
    let mut alone = Redis::connect(&cluster.nodes[0]);
    eventually("writes are refused", || {
        let said = alone.says("SET refused x");
        assert!(
            said == "OK" || said.starts_with("INDETERMINATE timeout: ") || said.starts_with("NOTDONE "),
            "{said}"
        );
        async move { said.starts_with("NOTDONE unavailable: not done: 1 of the 2 owners") }
    })
    .await;
    let said = alone.says("GET refused");
    assert!(said.starts_with("NOTDONE unavailable: not done: 1 of the 2 owners"), "{said}");
    assert!(alone.says("MSET never a written b").starts_with("NOTDONE unavailable: of 2 keys 0 are done"));
    assert!(alone.says("INFO persistence").contains("loading:1"), "clients that ask wait");
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.whole().await;
    assert_eq!(alone.says("MGET never written"), "[nil nil]", "not done means not written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_about_to_stop_closes_connections_behind_an_answer() {
    let mut cluster = cluster(&[]).await;
    let node = &mut cluster.nodes[2];
    node.kill();
    node.set_flag("--drain-linger", "10m");
    node.start();
    cluster.whole().await;
    let mut redis = Redis::connect(&cluster.nodes[2]);
    assert_eq!(redis.says("PING"), "PONG");
    cluster.nodes[2].terminate();
    eventually("it is not ready any more", || async {
        cluster.status(2).await.is_some_and(|status| !status.health.ready)
    })
    .await;
    for _ in 0..2 {
        assert_eq!(redis.says("SET k v"), "OK", "who has not heard yet is still served, once");
        assert_eq!(redis.reply(), None, "and then it closes");
        redis = Redis::connect(&cluster.nodes[2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_answers_what_it_took_and_closes() {
    let mut cluster = cluster(&[]).await;
    let mut idle = Redis::connect(&cluster.nodes[2]);
    assert_eq!(idle.says("PING"), "PONG");
    let mut busy = Redis::connect(&cluster.nodes[2]);
    let mut sender = busy.stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        // Until the node closes.
        while sender.write_all(&encoded(&[b"SET", b"k", b"v"])).is_ok() {}
    });
    assert_eq!(shown(&busy.reply().unwrap()), "OK");
    cluster.nodes[2].terminate();
    while let Some(value) = busy.reply() {
        assert_eq!(shown(&value), "OK", "whatever is answered was done");
    }
    sending.join().unwrap();
    assert_eq!(idle.reply(), None);
    assert!(cluster.nodes[2].ended().await.success());
}
