use bytes::Bytes;
use proptest::prelude::*;

use super::super::change::{Change, Ends, ExpireIf, Tells};
use super::super::command::{
    Client, Cluster, Command, Credentials, Data, Describe, Hello, Look, Moment, Server,
};
use super::super::{parse, table};
use super::words;

fn command(line: &str) -> Command {
    parse(words(line)).command.unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn error(line: &str) -> String {
    parse(words(line)).command.expect_err(line).to_string()
}

fn key() -> Bytes {
    Bytes::from_static(b"k")
}

fn value() -> Bytes {
    Bytes::from_static(b"v")
}

fn change(change: Change) -> Command {
    Command::Data(Data::Change { key: key(), change })
}

fn set(ends: Option<Moment>) -> Command {
    Command::Data(Data::Set { key: key(), value: value(), ends })
}

#[test]
fn the_table_is_in_order_and_says_what_is_parsed() {
    assert!(table::COMMANDS.is_sorted_by(|a, b| a.name < b.name));
    for entry in table::COMMANDS {
        assert_eq!(table::find(entry.name.to_uppercase().as_bytes()).unwrap().name, entry.name);
        let few = vec![entry.name; entry.arity.unsigned_abs() as usize - 1].join(" ");
        if !few.is_empty() {
            assert_eq!(error(&few), format!("ERR wrong number of arguments for '{}' command", entry.name));
        }
        if entry.arity > 0 {
            let many = vec![entry.name; entry.arity as usize + 1].join(" ");
            assert_eq!(error(&many), format!("ERR wrong number of arguments for '{}' command", entry.name));
        }
        assert_eq!(
            entry.keys != (0, 0, 0),
            entry.flags.iter().any(|flag| ["write", "readonly"].contains(flag))
        );
    }
    for name in table::ABSENT.iter().flat_map(|absent| absent.names) {
        assert!(table::find(name.as_bytes()).is_none(), "{name} is there and not there");
    }
}

#[test]
fn plain_writes_are_plain() {
    assert_eq!(command("SET k v"), set(None));
    assert_eq!(command("set k v ex 10"), set(Some(Moment::In(10_000))));
    assert_eq!(command("SET k v PX 10"), set(Some(Moment::In(10))));
    assert_eq!(command("SET k v EXAT 10"), set(Some(Moment::At(10_000))));
    assert_eq!(command("SET k v PXAT 10"), set(Some(Moment::At(10))));
    assert_eq!(command("SETEX k 5 v"), set(Some(Moment::In(5000))));
    assert_eq!(command("PSETEX k 5 v"), set(Some(Moment::In(5))));
}

#[test]
fn writes_that_look_first_are_told_apart() {
    let conditional = |only_if, tells, ends| change(Change::Set { value: value(), ends, only_if, tells });
    for (line, wanted) in [
        ("SET k v NX", conditional(Some(false), Tells::Done, Ends::Never)),
        ("SET k v XX PX 9", conditional(Some(true), Tells::Done, Ends::At(Moment::In(9)))),
        ("SET k v EX 9 NX GET", conditional(Some(false), Tells::Before, Ends::At(Moment::In(9000)))),
        ("SET k v GET", conditional(None, Tells::Before, Ends::Never)),
        ("SET k v KEEPTTL", conditional(None, Tells::Done, Ends::AsBefore)),
        ("SETNX k v", conditional(Some(false), Tells::Flag, Ends::Never)),
        ("GETSET k v", conditional(None, Tells::Before, Ends::Never)),
        ("GETDEL k", change(Change::Take)),
        ("GETEX k PERSIST", change(Change::Touch(Ends::Never))),
        ("GETEX k PXAT 9", change(Change::Touch(Ends::At(Moment::At(9))))),
        ("EXPIRE k -1", change(Change::Expire { at: Moment::In(-1000), only_if: None })),
        (
            "PEXPIREAT k 7 XX GT",
            change(Change::Expire { at: Moment::At(7), only_if: Some(ExpireIf::EndingAndLater) }),
        ),
        ("PERSIST k", change(Change::Persist)),
        ("APPEND k v", change(Change::Append(value()))),
        ("SETRANGE k 3 v", change(Change::Overwrite { offset: 3, bytes: value() })),
        ("INCR k", change(Change::Add(1))),
        ("DECRBY k 3", change(Change::Add(-3))),
        ("INCRBYFLOAT k 1.5", change(Change::AddFloat(1.5))),
    ] {
        assert_eq!(command(line), wanted, "{line}");
    }
}

#[test]
fn reads_and_several_keys() {
    let look = |look| Command::Data(Data::Look { key: key(), look });
    assert_eq!(command("GET k"), look(Look::Value));
    assert_eq!(command("GETEX k"), look(Look::Value));
    assert_eq!(command("GETRANGE k 0 -1"), look(Look::Range { start: 0, end: -1 }));
    assert_eq!(command("PEXPIRETIME k"), look(Look::Ends { milliseconds: true, absolute: true }));
    assert_eq!(command("MGET k k"), Command::Data(Data::GetMany(vec![key(), key()])));
    let Command::Data(pairs) = command("MSET k v k v") else { panic!() };
    assert_eq!(pairs, Data::SetMany(vec![(key(), value()), (key(), value())]));
    assert_eq!((pairs.key_count(), pairs.keys().count(), pairs.is_read()), (2, 2, false));
}

#[test]
fn connections() {
    let server = |line: &str| match command(line) {
        Command::Server(server) => server,
        Command::Data(_) => panic!("{line}"),
    };
    assert_eq!(server("PING"), Server::Ping(None));
    assert_eq!(server("PING k"), Server::Ping(Some(key())));
    assert_eq!(server("HELLO"), Server::Hello(Hello::default()));
    let credentials = |user: Option<&'static str>| Credentials {
        user: user.map(Bytes::from),
        password: Bytes::from("password"),
    };
    let hello = Hello { version: Some(3), credentials: Some(credentials(Some("user"))), name: Some(key()) };
    assert_eq!(server("HELLO 3 AUTH user password SETNAME k"), Server::Hello(hello));
    assert_eq!(server("AUTH password"), Server::Auth(credentials(None)));
    assert_eq!(server("AUTH user password"), Server::Auth(credentials(Some("user"))));
    assert!(!format!("{:?}", server("AUTH password")).contains("password\""), "passwords are not shown");
    assert_eq!(
        server("CLIENT setinfo LIB-NAME v"),
        Server::Client(Client::SetLibrary { is_name: true, value: value() })
    );
    assert_eq!(server("CLIENT NO-EVICT on"), Server::Agree);
    assert_eq!(server("COMMAND DOCS"), Server::Describe(Describe::Docs(vec![])));
    assert_eq!(server("config get save"), Server::ConfigGet(vec![Bytes::from_static(b"save")]));
    assert_eq!(server("CLUSTER SLOTS"), Server::Cluster(Cluster::Slots));
    assert_eq!(server("cluster keyslot k"), Server::Cluster(Cluster::KeySlot(key())));
    assert!(
        matches!(server("CLUSTER FORGET k"), Server::Refused(words) if words.contains("changes nothing"))
    );
    assert_eq!((server("READONLY"), server("ASKING")), (Server::Agree, Server::Agree));
    assert!(matches!(server("CLIENT REPLY OFF"), Server::Refused(_)));
}

#[test]
fn errors_have_the_words_of_redis() {
    for (line, words) in [
        ("FOO a b", "ERR unknown command 'FOO', with args beginning with: 'a' 'b' "),
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("CLUSTER KEYSLOT", "ERR wrong number of arguments for 'cluster|keyslot' command"),
        ("CLUSTER LINKS", "ERR unknown subcommand 'LINKS'. Try CLUSTER HELP."),
        ("MSET a b c", "ERR wrong number of arguments for 'mset' command"),
        ("SET k v NX XX", "ERR syntax error"),
        ("SET k v EX 1 PX 1", "ERR syntax error"),
        ("SET k v EX", "ERR syntax error"),
        ("SET k v EX x", "ERR value is not an integer or out of range"),
        ("SET k v EX 0", "ERR invalid expire time in 'set' command"),
        ("SET k v EX 9223372036854775807", "ERR invalid expire time in 'set' command"),
        ("SETEX k -1 v", "ERR invalid expire time in 'setex' command"),
        ("EXPIRE k 9223372036854775807", "ERR invalid expire time in 'expire' command"),
        ("EXPIRE k 1 XX NX", "ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE k 1 GT LT", "ERR GT and LT options at the same time are not compatible"),
        ("EXPIRE k 1 YY", "ERR Unsupported option YY"),
        ("GETEX k EX 1 PERSIST", "ERR syntax error"),
        ("INCRBY k 1.0", "ERR value is not an integer or out of range"),
        ("INCRBYFLOAT k x", "ERR value is not a valid float"),
        ("SETRANGE k -1 v", "ERR offset is out of range"),
        ("DECRBY k -9223372036854775808", "ERR decrement would overflow"),
        ("PING a b", "ERR wrong number of arguments for 'ping' command"),
        ("HELLO x", "ERR Protocol version is not an integer or out of range"),
        ("HELLO 3 AUTH x", "ERR Syntax error in HELLO option 'AUTH'"),
        ("CLIENT KILL x", "ERR unknown subcommand 'KILL'. Try CLIENT HELP."),
        ("CLIENT ID x", "ERR wrong number of arguments for 'client|id' command"),
        ("CLIENT SETINFO x y", "ERR Unrecognized option 'x'"),
        ("CONFIG GET", "ERR wrong number of arguments for 'config|get' command"),
    ] {
        assert_eq!(error(line), words, "{line}");
    }
    assert!(error("watch k").starts_with("ERR unknown command 'watch': there are no transactions"));
    let long = error(&format!("FOO {}", "x".repeat(10_000)));
    assert!(long.len() < 400, "{} bytes", long.len());
}

proptest! {
    #[test]
    fn whatever_is_asked_is_understood_or_refused(
        entry in prop::sample::select(table::COMMANDS),
        arguments in prop::collection::vec(
            prop_oneof!["[A-Z]{2,5}", "-?[0-9]{1,20}", ".{0,8}", Just("EX".to_owned()), Just("GET".to_owned())], 0..6),
    ) {
        let all = std::iter::once(entry.name.to_owned()).chain(arguments).map(Bytes::from).collect();
        match parse(all).command {
            Ok(Command::Data(data)) => prop_assert!(data.keys().count() == data.key_count() && data.key_count() > 0),
            Ok(Command::Server(_)) => {}
            Err(error) => {
                let words = error.to_string();
                prop_assert!(words.starts_with("ERR "), "{}", words);
            }
        }
    }
}
