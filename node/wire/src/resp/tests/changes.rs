use bytes::Bytes;
use quorate_core::limits::VALUE_BYTES_MAX;

use super::super::change::{Held, Outcome, Write};
use super::super::command::{Command, Data, Look};
use super::super::parse;
use super::super::reply::Reply;
use super::words;

const NOW: u64 = 1_000_000;

fn held(value: &str, ends_unix_ms: Option<u64>) -> Held {
    Held { value: Bytes::copy_from_slice(value.as_bytes()), ends_unix_ms }
}

/// What a command makes of a value.
fn make(line: &str, held: Option<&Held>) -> Result<Outcome, String> {
    match parse(words(line)).command.unwrap() {
        Command::Data(Data::Change { change, .. }) => {
            change.apply(held, NOW).map_err(|error| error.to_string())
        }
        other => panic!("{line} is {other:?}"),
    }
}

#[track_caller]
fn puts(line: &str, before: Option<&Held>, after: &Held, reply: Reply) {
    assert_eq!(make(line, before), Ok(Outcome { write: Some(Write::Put(after.clone())), reply }), "{line}");
}

#[track_caller]
fn deletes(line: &str, before: Option<&Held>, reply: Reply) {
    assert_eq!(make(line, before), Ok(Outcome { write: Some(Write::Delete), reply }), "{line}");
}

#[track_caller]
fn leaves(line: &str, before: Option<&Held>, reply: Reply) {
    assert_eq!(make(line, before), Ok(Outcome { write: None, reply }), "{line}");
}

#[test]
fn conditions() {
    let old = held("old", Some(NOW + 5));
    let new = held("v", None);
    puts("SET k v NX", None, &new, Reply::OK);
    leaves("SET k v NX", Some(&old), Reply::Null);
    puts("SET k v XX", Some(&old), &new, Reply::OK);
    leaves("SET k v XX", None, Reply::Null);
    puts("SETNX k v", None, &new, Reply::Integer(1));
    leaves("SETNX k v", Some(&old), Reply::Integer(0));
    puts("GETSET k v", Some(&old), &new, Reply::text("old"));
    puts("GETSET k v", None, &new, Reply::Null);
    leaves("SET k v NX GET", Some(&old), Reply::text("old"));
    puts("SET k v KEEPTTL", Some(&old), &held("v", Some(NOW + 5)), Reply::OK);
    puts("SET k v XX EX 1", Some(&old), &held("v", Some(NOW + 1000)), Reply::OK);
    deletes("GETDEL k", Some(&old), Reply::text("old"));
    leaves("GETDEL k", None, Reply::Null);
}

#[test]
fn expiry() {
    let (endless, ending) = (held("v", None), held("v", Some(NOW + 5000)));
    puts("EXPIRE k 3", Some(&endless), &held("v", Some(NOW + 3000)), Reply::Integer(1));
    leaves("EXPIRE k 3", None, Reply::Integer(0));
    deletes("EXPIRE k 0", Some(&endless), Reply::Integer(1));
    deletes("EXPIREAT k 1", Some(&ending), Reply::Integer(1));
    leaves("EXPIRE k 3 NX", Some(&ending), Reply::Integer(0));
    leaves("EXPIRE k 3 XX", Some(&endless), Reply::Integer(0));
    leaves("EXPIRE k 3 GT", Some(&ending), Reply::Integer(0));
    leaves("EXPIRE k 9 GT", Some(&endless), Reply::Integer(0));
    puts("EXPIRE k 9 GT", Some(&ending), &held("v", Some(NOW + 9000)), Reply::Integer(1));
    puts("EXPIRE k 9 LT", Some(&endless), &held("v", Some(NOW + 9000)), Reply::Integer(1));
    leaves("EXPIRE k 9 LT", Some(&ending), Reply::Integer(0));
    leaves("EXPIRE k 3 XX LT", Some(&endless), Reply::Integer(0));
    puts("PERSIST k", Some(&ending), &endless, Reply::Integer(1));
    leaves("PERSIST k", Some(&endless), Reply::Integer(0));
    puts("GETEX k PX 7", Some(&endless), &held("v", Some(NOW + 7)), Reply::text("v"));
    deletes("GETEX k PXAT 7", Some(&endless), Reply::text("v"));
    leaves("GETEX k PERSIST", None, Reply::Null);
}

#[test]
fn sums() {
    let ten = held("10", Some(NOW + 5));
    puts("INCRBY k 5", Some(&ten), &held("15", Some(NOW + 5)), Reply::Integer(15));
    puts("DECR k", None, &held("-1", None), Reply::Integer(-1));
    puts("INCRBYFLOAT k 0.5", Some(&ten), &held("10.5", Some(NOW + 5)), Reply::text("10.5"));
    let says = |line: &str, value: &str| make(line, Some(&held(value, None))).unwrap_err();
    assert_eq!(says("INCR k", "x"), "ERR value is not an integer or out of range");
    assert_eq!(says("INCR k", "9223372036854775807"), "ERR increment or decrement would overflow");
    assert_eq!(says("INCRBYFLOAT k 1", "x"), "ERR value is not a valid float");
    assert_eq!(says("INCRBYFLOAT k 1e308", "1.7e308"), "ERR increment would produce NaN or Infinity");
}

#[test]
fn parts() {
    let hello = held("hello", Some(NOW + 5));
    puts("APPEND k v", Some(&hello), &held("hellov", Some(NOW + 5)), Reply::Integer(6));
    puts("APPEND k v", None, &held("v", None), Reply::Integer(1));
    puts("SETRANGE k 1 i", Some(&hello), &held("hillo", Some(NOW + 5)), Reply::Integer(5));
    puts("SETRANGE k 2 x", None, &held("\0\0x", None), Reply::Integer(3));
    leaves("SETRANGE k 2 ", Some(&hello), Reply::Integer(5));
    let too_long = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(make(&format!("SETRANGE k {VALUE_BYTES_MAX} x"), None).unwrap_err(), too_long);
    assert_eq!(make("SETRANGE k 9223372036854775807 x", None).unwrap_err(), too_long);
    let full = held(&"x".repeat(VALUE_BYTES_MAX), None);
    assert_eq!(make("APPEND k x", Some(&full)).unwrap_err(), too_long);
}

#[test]
fn looks() {
    let hello = held("hello", Some(NOW + 1499));
    let tell = |look: Look| look.tell(Some(&hello), NOW);
    let range = |start, end| tell(Look::Range { start, end });
    for ((start, end), part) in [
        ((0, -1), "hello"),
        ((1, 2), "el"),
        ((-3, -1), "llo"),
        ((3, 100), "lo"),
        ((-100, 0), "h"),
        ((2, 1), ""),
        ((5, 9), ""),
        ((-1, -3), ""),
        ((i64::MIN, i64::MAX), "hello"),
        ((i64::MAX, i64::MIN), ""),
    ] {
        assert_eq!(range(start, end), Reply::text(part), "{start} {end}");
    }
    assert_eq!(Look::Range { start: 0, end: -1 }.tell(None, NOW), Reply::text(""));
    let ends = |milliseconds, absolute| Look::Ends { milliseconds, absolute };
    assert_eq!(tell(ends(false, false)), Reply::Integer(1));
    assert_eq!(tell(ends(true, false)), Reply::Integer(1499));
    assert_eq!(tell(ends(true, true)), Reply::Integer(NOW as i64 + 1499));
    assert_eq!(tell(ends(false, true)), Reply::Integer(1001));
    assert_eq!(ends(true, true).tell(None, NOW), Reply::Integer(-2));
    assert_eq!(ends(true, true).tell(Some(&held("", None)), NOW), Reply::Integer(-1));
    assert_eq!(tell(Look::Type), Reply::Simple("string"));
    assert_eq!(Look::Length.tell(None, NOW), Reply::Integer(0));
}
