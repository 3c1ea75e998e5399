use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::super::reply::{Reply, Version};
use super::super::value::{NoReply, Value, decode};

fn encoded(reply: &Reply, version: Version) -> BytesMut {
    let mut out = BytesMut::new();
    reply.encode(version, &mut out);
    out
}

#[test]
fn each_version_has_its_words() {
    let map = Reply::Map(vec![(Reply::text("a"), Reply::Set(vec![Reply::Null]))]);
    for (reply, two, three) in [
        (Reply::OK, "+OK\r\n", "+OK\r\n"),
        (Reply::Error("ERR a\r\nb".into()), "-ERR a  b\r\n", "-ERR a  b\r\n"),
        (Reply::Integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
        (Reply::Integer(0), ":0\r\n", ":0\r\n"),
        (Reply::text("hi"), "$2\r\nhi\r\n", "$2\r\nhi\r\n"),
        (Reply::Verbatim("hi".into()), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
        (Reply::Null, "$-1\r\n", "_\r\n"),
        (Reply::NullArray, "*-1\r\n", "_\r\n"),
        (Reply::Array(vec![Reply::Integer(1)]), "*1\r\n:1\r\n", "*1\r\n:1\r\n"),
        (map, "*2\r\n$1\r\na\r\n*1\r\n$-1\r\n", "%1\r\n$1\r\na\r\n~1\r\n_\r\n"),
    ] {
        assert_eq!(encoded(&reply, Version::Resp2), two);
        assert_eq!(encoded(&reply, Version::Resp3), three);
    }
}

/// What a client of the third version reads.
fn seen(reply: &Reply) -> Value {
    let all = |replies: &[Reply]| replies.iter().map(seen).collect();
    match reply {
        Reply::Simple(word) => Value::Simple((*word).to_owned()),
        Reply::Error(words) => Value::Error(words.clone().into_owned()),
        Reply::Integer(number) => Value::Integer(*number),
        Reply::Bulk(bytes) => Value::Bulk(bytes.clone()),
        Reply::Verbatim(text) => Value::Verbatim(text.clone().into()),
        Reply::Null | Reply::NullArray => Value::Null,
        Reply::Array(replies) => Value::Array(all(replies)),
        Reply::Set(replies) => Value::Set(all(replies)),
        Reply::Map(pairs) => Value::Map(pairs.iter().flat_map(|(a, b)| [seen(a), seen(b)]).collect()),
    }
}

fn replies() -> impl Strategy<Value = Reply> {
    let leaf = prop_oneof![
        Just(Reply::OK),
        "[A-Z]{1,8} .{0,20}".prop_map(|text| Reply::Error(Cow::Owned(text.replace(['\r', '\n'], "")))),
        any::<i64>().prop_map(Reply::Integer),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Reply::Bulk(Bytes::from(bytes))),
        ".{0,20}".prop_map(Reply::Verbatim),
        Just(Reply::Null),
        Just(Reply::NullArray),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            list.clone().prop_map(Reply::Array),
            list.prop_map(Reply::Set),
            prop::collection::vec((inner.clone(), inner), 0..3).prop_map(Reply::Map),
        ]
    })
}

proptest! {
    #[test]
    fn a_client_reads_what_was_said_and_not_before_it_is_whole(reply in replies(), other in replies()) {
        let mut stream = encoded(&reply, Version::Resp3);
        for cut in 0..stream.len() {
            prop_assert_eq!(decode(&mut BytesMut::from(&stream[..cut])), Ok(None));
        }
        prop_assert!(stream.len() <= 2 * reply.bytes() + 16, "{} > {}", stream.len(), reply.bytes());
        other.encode(Version::Resp3, &mut stream);
        prop_assert_eq!(decode(&mut stream), Ok(Some(seen(&reply))));
        prop_assert_eq!(decode(&mut stream), Ok(Some(seen(&other))));
        prop_assert!(stream.is_empty());
        let mut older = encoded(&reply, Version::Resp2);
        prop_assert!(decode(&mut older).is_ok_and(|value| value.is_some()) && older.is_empty());
    }

    #[test]
    fn no_reply_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _: Result<_, NoReply> = decode(&mut BytesMut::from(&bytes[..]));
    }
}
