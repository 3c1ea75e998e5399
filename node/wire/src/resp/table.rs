//! Every command: what it is called, what it takes, and how its arguments are read.
//!
//! The table is what `COMMAND` tells, and docs/redis.md says the same for people.

use super::change::{Change, Ends, Tells};
use super::command::{Client, Cluster, Command, Credentials, Data, Describe, Hello, Look, Server};
use super::error::CommandError;
use super::number::{float, integer};
use super::options::{self, AT_MILLISECONDS, AT_SECONDS, Clock, IN_MILLISECONDS, IN_SECONDS, is};
use super::parse::Arguments;

/// One command.
#[derive(Clone, Debug)]
pub struct Entry {
    /// In small letters.
    pub name: &'static str,
    /// How many arguments, the name included; negative for at least so many.
    pub arity: i64,
    /// Words of Redis about it.
    pub flags: &'static [&'static str],
    /// Where keys stand: the first, the last (negative from the end), and how far apart.
    pub keys: (i64, i64, i64),
    /// The chapter of the book of Redis.
    pub group: &'static str,
    /// The version of Redis that brought it.
    pub since: &'static str,
    /// For people.
    pub summary: &'static str,
    pub(super) read: fn(Arguments) -> Result<Command, CommandError>,
}

/// A command that Redis has and this store does not.
#[derive(Debug)]
pub struct Absent {
    /// In small letters.
    pub names: &'static [&'static str],
    /// Why, as a sentence without an end.
    pub why: &'static str,
}

const READ: &[&str] = &["readonly", "fast"];
const READ_SLOW: &[&str] = &["readonly"];
const WRITE: &[&str] = &["write", "denyoom"];
const REMOVE: &[&str] = &["write", "fast"];
const SERVER: &[&str] = &["loading", "stale", "fast"];

const NO_KEYS: (i64, i64, i64) = (0, 0, 0);
const ONE_KEY: (i64, i64, i64) = (1, 1, 1);
const ALL_KEYS: (i64, i64, i64) = (1, -1, 1);
const PAIRS: (i64, i64, i64) = (1, -1, 2);

type Read = fn(Arguments) -> Result<Command, CommandError>;

#[rustfmt::skip]
const fn entry(name: &'static str, arity: i64, flags: &'static [&'static str], keys: (i64, i64, i64), chapter: (&'static str, &'static str), summary: &'static str, read: Read) -> Entry {
    Entry { name, arity, flags, keys, group: chapter.0, since: chapter.1, summary, read }
}

/// Every command, by name.
#[rustfmt::skip]
pub const COMMANDS: &[Entry] = &[
    entry("append",      3,  WRITE,     ONE_KEY,  ("string", "2.0.0"),  "Appends to a value", |a| a.change(|a| Ok(Change::Append(a.take())))),
    entry("asking",      1,  SERVER,    NO_KEYS,  ("cluster", "3.0.0"),  "Agreed to: any node answers for any key", |_| Ok(Command::Server(Server::Agree))),
    entry("auth",        -2, SERVER,    NO_KEYS,  ("connection", "1.0.0"),  "Says who the client is", auth),
    entry("client",      -2, SERVER,    NO_KEYS,  ("connection", "2.4.0"),  "What is known of connections", client),
    entry("cluster",     -2, SERVER,    NO_KEYS,  ("cluster", "3.0.0"),  "Where the nodes are, for clients of Redis Cluster", cluster),
    entry("command",     -1, SERVER,    NO_KEYS,  ("server", "2.8.13"), "What commands there are", describe),
    entry("config",      -2, SERVER,    NO_KEYS,  ("server", "2.0.0"),  "Reads settings", config),
    entry("decr",        2,  WRITE,     ONE_KEY,  ("string", "1.0.0"),  "Subtracts one", |a| a.change(|_| Ok(Change::Add(-1)))),
    entry("decrby",      3,  WRITE,     ONE_KEY,  ("string", "1.0.0"),  "Subtracts", |a| a.change(|a| Ok(Change::Add(a.integer()?.checked_neg().ok_or(CommandError::Words("ERR decrement would overflow".into()))?)))),
    entry("del",         -2, REMOVE,    ALL_KEYS, ("generic", "1.0.0"),  "Deletes keys", |a| Ok(Command::Data(Data::Delete(a.rest())))),
    entry("discard",     1,  SERVER,    NO_KEYS,  ("transactions", "2.0.0"), "Ends what MULTI began", |_| Ok(Command::Server(Server::Discard))),
    entry("echo",        2,  SERVER,    NO_KEYS,  ("connection", "1.0.0"),  "Says the same", |mut a| Ok(Command::Server(Server::Echo(a.take())))),
    entry("exec",        1,  SERVER,    NO_KEYS,  ("transactions", "1.2.0"), "Refused: there are no transactions", |_| Ok(Command::Server(Server::Exec))),
    entry("exists",      -2, READ,      ALL_KEYS, ("generic", "1.0.0"),  "How many of these keys hold a value", |a| Ok(Command::Data(Data::Exists(a.rest())))),
    entry("expire",      -3, WRITE,     ONE_KEY,  ("generic", "1.0.0"),  "Sets when a value ends, in seconds from now", |a| expire(a, IN_SECONDS, "expire")),
    entry("expireat",    -3, WRITE,     ONE_KEY,  ("generic", "1.2.0"),  "Sets when a value ends, in seconds since 1970", |a| expire(a, AT_SECONDS, "expireat")),
    entry("expiretime",  2,  READ,      ONE_KEY,  ("generic", "7.0.0"),  "When a value ends, in seconds since 1970", |a| look(a, |_| Ok(ends(false, true)))),
    entry("get",         2,  READ,      ONE_KEY,  ("string", "1.0.0"),  "Reads a value", |a| look(a, |_| Ok(Look::Value))),
    entry("getdel",      2,  WRITE,     ONE_KEY,  ("string", "6.2.0"),  "Reads and deletes", |a| a.change(|_| Ok(Change::Take))),
    entry("getex",       -2, WRITE,     ONE_KEY,  ("string", "6.2.0"),  "Reads, and sets when the value ends", getex),
    entry("getrange",    4,  READ_SLOW, ONE_KEY,  ("string", "2.4.0"),  "Reads a part of a value", |a| look(a, |a| Ok(Look::Range { start: a.integer()?, end: a.integer()? }))),
    entry("getset",      3,  WRITE,     ONE_KEY,  ("string", "1.0.0"),  "Reads and overwrites", |a| a.change(|a| Ok(Change::Set { value: a.take(), ends: Ends::Never, only_if: None, tells: Tells::Before }))),
    entry("hello",       -1, SERVER,    NO_KEYS,  ("connection", "6.0.0"),  "Chooses the version of the protocol", hello),
    entry("incr",        2,  WRITE,     ONE_KEY,  ("string", "1.0.0"),  "Adds one", |a| a.change(|_| Ok(Change::Add(1)))),
    entry("incrby",      3,  WRITE,     ONE_KEY,  ("string", "1.0.0"),  "Adds", |a| a.change(|a| Ok(Change::Add(a.integer()?)))),
    entry("incrbyfloat", 3,  WRITE,     ONE_KEY,  ("string", "2.6.0"),  "Adds a fraction", |a| a.change(|a| Ok(Change::AddFloat(float(&a.take()).ok_or(CommandError::NotFloat)?)))),
    entry("info",        -1, SERVER,    NO_KEYS,  ("server", "1.0.0"),  "How the node is", |a| Ok(Command::Server(Server::Info(a.rest())))),
    entry("mget",        -2, READ,      ALL_KEYS, ("string", "1.0.0"),  "Reads several values", |a| Ok(Command::Data(Data::GetMany(a.rest())))),
    entry("mset",        -3, WRITE,     PAIRS,    ("string", "1.0.1"),  "Writes several values", mset),
    entry("multi",       1,  SERVER,    NO_KEYS,  ("transactions", "1.2.0"), "Refused: there are no transactions", |_| Ok(Command::Server(Server::Multi))),
    entry("persist",     2,  WRITE,     ONE_KEY,  ("generic", "2.2.0"),  "Makes a value that never ends", |a| a.change(|_| Ok(Change::Persist))),
    entry("pexpire",     -3, WRITE,     ONE_KEY,  ("generic", "2.6.0"),  "Sets when a value ends, in milliseconds from now", |a| expire(a, IN_MILLISECONDS, "pexpire")),
    entry("pexpireat",   -3, WRITE,     ONE_KEY,  ("generic", "2.6.0"),  "Sets when a value ends, in milliseconds since 1970", |a| expire(a, AT_MILLISECONDS, "pexpireat")),
    entry("pexpiretime", 2,  READ,      ONE_KEY,  ("generic", "7.0.0"),  "When a value ends, in milliseconds since 1970", |a| look(a, |_| Ok(ends(true, true)))),
    entry("ping",        -1, SERVER,    NO_KEYS,  ("connection", "1.0.0"),  "Says that the node is there", ping),
    entry("psetex",      4,  WRITE,     ONE_KEY,  ("string", "2.6.0"),  "Writes a value that ends, in milliseconds from now", |a| setex(a, IN_MILLISECONDS, "psetex")),
    entry("pttl",        2,  READ,      ONE_KEY,  ("generic", "2.6.0"),  "How long a value lives on, in milliseconds", |a| look(a, |_| Ok(ends(true, false)))),
    entry("quit",        -1, SERVER,    NO_KEYS,  ("connection", "1.0.0"),  "Closes the connection", |_| Ok(Command::Server(Server::Quit))),
    entry("readonly",    1,  SERVER,    NO_KEYS,  ("cluster", "3.0.0"),  "Agreed to: any node answers for any key", |_| Ok(Command::Server(Server::Agree))),
    entry("readwrite",   1,  SERVER,    NO_KEYS,  ("cluster", "3.0.0"),  "Agreed to: any node answers for any key", |_| Ok(Command::Server(Server::Agree))),
    entry("reset",       1,  SERVER,    NO_KEYS,  ("connection", "6.2.0"),  "Makes the connection as new", |_| Ok(Command::Server(Server::Reset))),
    entry("select",      2,  SERVER,    NO_KEYS,  ("connection", "1.0.0"),  "Chooses the database: there is one", |mut a| Ok(Command::Server(Server::Select(a.integer()?)))),
    entry("set",         -3, WRITE,     ONE_KEY,  ("string", "1.0.0"),  "Writes a value", |mut a| Ok(Command::Data(options::set(a.take(), a.take(), &a.rest())?))),
    entry("setex",       4,  WRITE,     ONE_KEY,  ("string", "2.0.0"),  "Writes a value that ends, in seconds from now", |a| setex(a, IN_SECONDS, "setex")),
    entry("setnx",       3,  WRITE,     ONE_KEY,  ("string", "1.0.0"),  "Writes a value where there is none", |a| a.change(|a| Ok(Change::Set { value: a.take(), ends: Ends::Never, only_if: Some(false), tells: Tells::Flag }))),
    entry("setrange",    4,  WRITE,     ONE_KEY,  ("string", "2.2.0"),  "Overwrites a part of a value", setrange),
    entry("strlen",      2,  READ,      ONE_KEY,  ("string", "2.2.0"),  "How long a value is", |a| look(a, |_| Ok(Look::Length))),
    entry("time",        1,  SERVER,    NO_KEYS,  ("server", "2.6.0"),  "The node's time", |_| Ok(Command::Server(Server::Time))),
    entry("ttl",         2,  READ,      ONE_KEY,  ("generic", "1.0.0"),  "How long a value lives on, in seconds", |a| look(a, |_| Ok(ends(false, false)))),
    entry("type",        2,  READ,      ONE_KEY,  ("generic", "1.0.0"),  "Whether a key holds a value: string or none", |a| look(a, |_| Ok(Look::Type))),
    entry("unlink",      -2, REMOVE,    ALL_KEYS, ("generic", "4.0.0"),  "Deletes keys", |a| Ok(Command::Data(Data::Delete(a.rest())))),
];

/// What people will miss, and why it is not here.
#[rustfmt::skip]
pub const ABSENT: &[Absent] = &[
    Absent { names: &["unwatch", "watch"], why: NO_TRANSACTIONS },
    Absent { names: &["eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro", "function", "script"], why: "a script would have to run at one place, and this store has no such place" },
    Absent { names: &["monitor", "psubscribe", "publish", "pubsub", "punsubscribe", "spublish", "ssubscribe", "subscribe", "sunsubscribe", "unsubscribe"], why: "messages between clients are not kept by anybody here" },
    Absent { names: &["dbsize", "keys", "randomkey", "scan"], why: "this version lists no keys" },
    Absent { names: &["flushall", "flushdb"], why: "this version does not delete everything at once" },
    Absent { names: &["copy", "msetnx", "rename", "renamenx"], why: "keys have different owners, and nothing is done at several of them as one step" },
    Absent { names: &["move", "swapdb"], why: "there is one database" },
    Absent { names: &["wait", "waitaof"], why: "every acknowledged write has its quorum of durable copies already" },
    Absent { names: &["bgrewriteaof", "bgsave", "failover", "lastsave", "psync", "replicaof", "save", "shutdown", "slaveof", "sync"], why: "storage and replication are run by the nodes themselves" },
    Absent { names: &["acl"], why: "users are in a file of the nodes" },
    Absent { names: &["bitcount", "bitfield", "bitop", "bitpos", "getbit", "hdel", "hexists", "hget", "hgetall", "hincrby", "hkeys", "hlen", "hmget", "hmset", "hscan", "hset", "hsetnx", "hvals", "blpop", "brpop", "lindex", "llen", "lpop", "lpush", "lrange", "lrem", "lset", "ltrim", "rpop", "rpush", "sadd", "scard", "sdiff", "sinter", "sismember", "smembers", "spop", "srem", "sscan", "sunion", "xack", "xadd", "xdel", "xgroup", "xlen", "xrange", "xread", "xreadgroup", "zadd", "zcard", "zcount", "zincrby", "zrange", "zrangebyscore", "zrank", "zrem", "zscore", "zscan", "pfadd", "pfcount", "pfmerge", "geoadd", "geosearch", "sort"], why: "a key holds a string of bytes here, and nothing else" },
];

/// Why there is no `MULTI`.
pub const NO_TRANSACTIONS: &str =
    "there are no transactions over several commands; with a client library, use a pipeline that is none";

const CLUSTER_IS_GIVEN: &str = "ERR CLUSTER changes nothing here: which nodes there are is said by an epoch of the ring, on Kubernetes as the \
                                KVCluster wishes";
const NO_KEYS_OF_SLOTS: &str =
    "ERR a slot holds no keys here: any node answers for any key, and slots only spread requests";

const NO_REPLY_MODES: &str = "ERR CLIENT REPLY is not supported: every command is answered, in order";

/// The entry with a name, in capitals or not.
pub fn find(name: &[u8]) -> Option<&'static Entry> {
    let mut small = [0; 16];
    let small = small.get_mut(..name.len())?;
    small.copy_from_slice(name);
    small.make_ascii_lowercase();
    let at = COMMANDS.binary_search_by(|entry| entry.name.as_bytes().cmp(small));
    at.ok().map(|at| &COMMANDS[at])
}

/// Why a command of Redis is not here.
pub(super) fn absent(name: &[u8]) -> Option<CommandError> {
    let same = |known: &&&'static str| is(name, known);
    ABSENT.iter().find_map(|Absent { names, why }| {
        let name = names.iter().find(same)?;
        Some(CommandError::Absent { name, why })
    })
}

fn refused(words: &'static str) -> Command {
    Command::Server(Server::Refused(words))
}

fn ends(milliseconds: bool, absolute: bool) -> Look {
    Look::Ends { milliseconds, absolute }
}

fn look(
    mut arguments: Arguments,
    read: fn(&mut Arguments) -> Result<Look, CommandError>,
) -> Result<Command, CommandError> {
    let key = arguments.take();
    let look = read(&mut arguments)?;
    Ok(Command::Data(Data::Look { key, look }))
}

fn expire(mut arguments: Arguments, clock: Clock, name: &'static str) -> Result<Command, CommandError> {
    let (key, time) = (arguments.take(), arguments.take());
    let only_if = options::expire_if(&arguments.rest())?;
    let at = clock.moment(&time, name)?;
    Ok(Command::Data(Data::Change { key, change: Change::Expire { at, only_if } }))
}

fn getex(mut arguments: Arguments) -> Result<Command, CommandError> {
    let key = arguments.take();
    Ok(Command::Data(match options::touch(&arguments.rest())? {
        None => Data::Look { key, look: Look::Value },
        Some(ends) => Data::Change { key, change: Change::Touch(ends) },
    }))
}

fn setex(mut arguments: Arguments, clock: Clock, name: &'static str) -> Result<Command, CommandError> {
    let (key, time, value) = (arguments.take(), arguments.take(), arguments.take());
    Ok(Command::Data(Data::Set { key, value, ends: Some(clock.end(&time, name)?) }))
}

fn setrange(mut arguments: Arguments) -> Result<Command, CommandError> {
    let key = arguments.take();
    let offset = usize::try_from(arguments.integer()?).map_err(|_| CommandError::Offset)?;
    let bytes = arguments.take();
    Ok(Command::Data(Data::Change { key, change: Change::Overwrite { offset, bytes } }))
}

fn mset(arguments: Arguments) -> Result<Command, CommandError> {
    let mut rest = arguments.rest().into_iter();
    if rest.len() % 2 == 1 {
        return Err(CommandError::Arity("mset"));
    }
    let pairs = std::iter::from_fn(|| Some((rest.next()?, rest.next()?)));
    Ok(Command::Data(Data::SetMany(pairs.collect())))
}

fn ping(arguments: Arguments) -> Result<Command, CommandError> {
    let mut rest = arguments.rest();
    if rest.len() > 1 {
        Err(CommandError::Arity("ping"))
    } else {
        Ok(Command::Server(Server::Ping(rest.pop())))
    }
}

fn auth(arguments: Arguments) -> Result<Command, CommandError> {
    let mut rest = arguments.rest();
    match (rest.pop(), rest.pop(), rest.is_empty()) {
        (Some(password), user, true) => Ok(Command::Server(Server::Auth(Credentials { user, password }))),
        _ => Err(CommandError::Syntax),
    }
}

fn hello(mut arguments: Arguments) -> Result<Command, CommandError> {
    let mut hello = Hello::default();
    if let Some(version) = arguments.next() {
        let number = integer(&version);
        let words = "ERR Protocol version is not an integer or out of range";
        hello.version = Some(number.ok_or(CommandError::Words(words.into()))?);
    }
    while let Some(option) = arguments.next() {
        if is(&option, "AUTH") && arguments.len() >= 2 {
            let (user, password) = (arguments.next(), arguments.next().unwrap_or_default());
            hello.credentials = Some(Credentials { user, password });
        } else if is(&option, "SETNAME") && arguments.len() >= 1 {
            hello.name = arguments.next();
        } else {
            let words = format!("ERR Syntax error in HELLO option '{}'", super::error::quote(&option));
            return Err(CommandError::Words(words.into()));
        }
    }
    Ok(Command::Server(Server::Hello(hello)))
}

const CLIENT_HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME, GETREDIR, ID, INFO, LIST, NO-EVICT (ON|OFF), NO-TOUCH (ON|OFF), SETINFO <LIB-NAME|LIB-VER> <value>, \
     SETNAME <name>, HELP",
];

fn client(mut arguments: Arguments) -> Result<Command, CommandError> {
    let subcommand = arguments.take();
    let rest = arguments.rest();
    let client = match (subcommand.to_ascii_lowercase().as_slice(), rest.as_slice()) {
        (b"id", []) => Client::Id,
        (b"getname", []) => Client::GetName,
        (b"setname", [name]) => Client::SetName(name.clone()),
        (b"setinfo", [option, value]) => {
            let is_name = is(option, "LIB-NAME");
            if !is_name && !is(option, "LIB-VER") {
                let words = format!("ERR Unrecognized option '{}'", super::error::quote(option));
                return Err(CommandError::Words(words.into()));
            }
            Client::SetLibrary { is_name, value: value.clone() }
        }
        (b"info", []) => Client::Info,
        (b"list", _) => Client::List,
        (b"no-evict" | b"no-touch", [switch]) if is(switch, "ON") || is(switch, "OFF") => {
            return Ok(Command::Server(Server::Agree));
        }
        (b"no-evict" | b"no-touch", [_]) => return Err(CommandError::Syntax),
        (b"getredir", []) => Client::Redirection,
        (b"help", []) => return Ok(Command::Server(Server::Help(CLIENT_HELP))),
        (b"reply", _) => return Ok(refused(NO_REPLY_MODES)),
        (b"id", _) => return Err(CommandError::Arity("client|id")),
        (b"getname", _) => return Err(CommandError::Arity("client|getname")),
        (b"setname", _) => return Err(CommandError::Arity("client|setname")),
        (b"setinfo", _) => return Err(CommandError::Arity("client|setinfo")),
        (b"info", _) => return Err(CommandError::Arity("client|info")),
        (b"no-evict", _) => return Err(CommandError::Arity("client|no-evict")),
        (b"no-touch", _) => return Err(CommandError::Arity("client|no-touch")),
        _ => return Err(CommandError::UnknownSubcommand { command: "CLIENT", subcommand }),
    };
    Ok(Command::Server(Server::Client(client)))
}

const CLUSTER_HELP: &[&str] = &[
    "CLUSTER <subcommand> [<arg> ...]. Subcommands are:",
    "INFO, KEYSLOT <key>, MYID, NODES, SHARDS, SLOTS, HELP",
    "Any node answers for any key: slots are shared out evenly among the nodes that are up.",
];

fn cluster(mut arguments: Arguments) -> Result<Command, CommandError> {
    let subcommand = arguments.take();
    let rest = arguments.rest();
    let cluster = match (subcommand.to_ascii_lowercase().as_slice(), rest.as_slice()) {
        (b"info", []) => Cluster::Info,
        (b"myid", []) => Cluster::Id,
        (b"keyslot", [key]) => Cluster::KeySlot(key.clone()),
        (b"nodes", []) => Cluster::Nodes,
        (b"shards", []) => Cluster::Shards,
        (b"slots", []) => Cluster::Slots,
        (b"help", []) => return Ok(Command::Server(Server::Help(CLUSTER_HELP))),
        (b"countkeysinslot" | b"getkeysinslot", _) => return Ok(refused(NO_KEYS_OF_SLOTS)),
        (
            b"addslots" | b"addslotsrange" | b"bumpepoch" | b"delslots" | b"delslotsrange" | b"failover"
            | b"flushslots" | b"forget" | b"meet" | b"replicate" | b"reset" | b"saveconfig"
            | b"set-config-epoch" | b"setslot",
            _,
        ) => return Ok(refused(CLUSTER_IS_GIVEN)),
        (b"info", _) => return Err(CommandError::Arity("cluster|info")),
        (b"myid", _) => return Err(CommandError::Arity("cluster|myid")),
        (b"keyslot", _) => return Err(CommandError::Arity("cluster|keyslot")),
        (b"nodes", _) => return Err(CommandError::Arity("cluster|nodes")),
        (b"shards", _) => return Err(CommandError::Arity("cluster|shards")),
        (b"slots", _) => return Err(CommandError::Arity("cluster|slots")),
        _ => return Err(CommandError::UnknownSubcommand { command: "CLUSTER", subcommand }),
    };
    Ok(Command::Server(Server::Cluster(cluster)))
}

const COMMAND_HELP: &[&str] = &[
    "(no subcommand)",
    "    Every command in full.",
    "COUNT, DOCS [<name> ...], INFO [<name> ...], LIST, HELP",
];

fn describe(mut arguments: Arguments) -> Result<Command, CommandError> {
    let Some(subcommand) = arguments.next() else {
        return Ok(Command::Server(Server::Describe(Describe::All)));
    };
    let rest = arguments.rest();
    Ok(Command::Server(Server::Describe(match subcommand.to_ascii_lowercase().as_slice() {
        b"count" if rest.is_empty() => Describe::Count,
        b"list" if rest.is_empty() => Describe::List,
        b"info" if rest.is_empty() => Describe::All,
        b"info" => Describe::Info(rest),
        b"docs" => Describe::Docs(rest),
        b"help" if rest.is_empty() => return Ok(Command::Server(Server::Help(COMMAND_HELP))),
        b"count" => return Err(CommandError::Arity("command|count")),
        b"list" => return Err(CommandError::Syntax),
        _ => return Err(CommandError::UnknownSubcommand { command: "COMMAND", subcommand }),
    })))
}

fn config(mut arguments: Arguments) -> Result<Command, CommandError> {
    let subcommand = arguments.take();
    let rest = arguments.rest();
    match subcommand.to_ascii_lowercase().as_slice() {
        b"get" if rest.is_empty() => Err(CommandError::Arity("config|get")),
        b"get" => Ok(Command::Server(Server::ConfigGet(rest))),
        b"set" | b"rewrite" | b"resetstat" => Ok(refused(
            "ERR CONFIG changes nothing here: a node is configured by flags, environment and file, as a KVCluster says",
        )),
        b"help" => Ok(Command::Server(Server::Help(&["CONFIG GET <pattern> ..."]))),
        _ => Err(CommandError::UnknownSubcommand { command: "CONFIG", subcommand }),
    }
}
