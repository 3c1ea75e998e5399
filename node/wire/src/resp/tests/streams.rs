use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::super::request::{
    ARGUMENT_BYTES_MAX, ARGUMENTS_MAX, BULK_BYTES_MAX, Decoder, LINE_BYTES_MAX, ProtocolError, Request,
    Skipped, encode,
};

/// What comes out of a stream that arrives in these pieces.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Request>, Option<ProtocolError>) {
    let (mut decoder, mut buffer, mut seen) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(request)) => seen.push(request),
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
    }
    (seen, None)
}

fn lines(stream: &str) -> Vec<Vec<String>> {
    let (requests, error) = read([stream.as_bytes()]);
    assert_eq!(error, None, "{stream:?}");
    let text = |argument: &Bytes| argument.escape_ascii().to_string();
    requests.iter().map(|request| request.arguments.iter().map(text).collect()).collect()
}

fn error(stream: &[u8]) -> String {
    read([stream]).1.expect("refused").to_string()
}

#[test]
fn lines_are_commands_too() {
    assert_eq!(lines("PING\r\n"), [["PING"]]);
    assert_eq!(lines("\r\n\n  \r\nset  a 'b c'\n"), [["set", "a", "b c"]]);
    assert_eq!(lines("x \"\\x41\\n\\\"\" '\\'' \"\"\r\n"), [["x", "A\\n\\\"", "\\'", ""]]);
    assert_eq!(lines("*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\nPING\r\n"), [["PING"], ["PING"]]);
}

#[test]
fn what_is_not_of_this_protocol_is_refused_in_the_words_of_redis() {
    for (stream, words) in [
        ("*1048577\r\n", "Protocol error: invalid multibulk length"),
        ("*x\r\n", "Protocol error: invalid multibulk length"),
        ("*1\r\n:1\r\n", "Protocol error: expected '$', got ':'"),
        ("*1\r\n\n", "Protocol error: expected '$', got '\\n'"),
        ("*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$536870913\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$01\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$1\r\nabc\r\n", "Protocol error: expected CRLF after a bulk string"),
        ("set \"a\"b\r\n", "Protocol error: unbalanced quotes in request"),
        ("set 'a\r\n", "Protocol error: unbalanced quotes in request"),
    ] {
        assert_eq!(error(stream.as_bytes()), words, "{stream:?}");
    }
    let long = |start: &str| format!("{start}{}", "1".repeat(LINE_BYTES_MAX + 1));
    assert_eq!(error(long("").as_bytes()), "Protocol error: too big inline request");
    assert_eq!(error(long("*").as_bytes()), "Protocol error: too big mbulk count string");
    assert_eq!(error(long("*1\r\n$").as_bytes()), "Protocol error: too big bulk count string");
    assert_eq!(BULK_BYTES_MAX, 536_870_912);
    assert_eq!(ARGUMENTS_MAX, 1_048_576);
}

#[test]
fn an_argument_that_is_too_long_is_skipped_and_costs_nothing() {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    let bytes = ARGUMENT_BYTES_MAX + 1;
    buffer.extend_from_slice(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${bytes}\r\n").as_bytes());
    let piece = vec![0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        buffer.extend_from_slice(&piece[..left.min(piece.len())]);
        left -= left.min(piece.len());
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        assert!(buffer.is_empty() && decoder.held_bytes() <= 3 && decoder.is_within());
    }
    buffer.extend_from_slice(b"\r\nPING\r\n");
    let refused = decoder.decode(&mut buffer).unwrap().unwrap();
    assert_eq!(refused.skipped, Some(Skipped::TooLong { bytes }));
    assert_eq!(refused.arguments, ["SET"]);
    assert_eq!(decoder.decode(&mut buffer).unwrap().unwrap().arguments, ["PING"]);
}

#[test]
fn what_there_is_no_room_for_is_skipped_too() {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    buffer.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\nab");
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert!(decoder.held_bytes() > 100_000, "what is announced counts");
    assert_eq!(decoder.missing_bytes(&buffer), 100_000);
    decoder.refuse();
    assert!(decoder.held_bytes() < 10);
    buffer.extend_from_slice(&[b'a'; 100_000]);
    buffer.extend_from_slice(b"\n");
    // Two bytes came before it was refused: what was said is what counts.
    assert_eq!(decoder.decode(&mut buffer), Err(ProtocolError::BulkEnd));
}

#[test]
fn so_many_arguments_are_not_held() {
    let mut stream = BytesMut::new();
    encode(&vec!["x"; 600_000], &mut stream);
    let (requests, error) = read([&stream[..]]);
    assert_eq!(error, None);
    assert!(matches!(requests[0].skipped, Some(Skipped::TooLong { .. })), "{:?}", requests[0].skipped);
}

proptest! {
    #[test]
    fn requests_come_out_as_they_went_in_however_the_stream_is_cut(
        requests in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 1..6), 0..8),
        long in 4000usize..6000,
        cuts in prop::collection::vec(1usize..64, 1..20),
    ) {
        let mut wanted: Vec<Vec<Bytes>> =
            requests.into_iter().map(|request| request.into_iter().map(Bytes::from).collect()).collect();
        wanted.push(vec![Bytes::from_static(b"SET"), Bytes::from(vec![b'\r'; long])]);
        let mut stream = BytesMut::new();
        wanted.iter().for_each(|request| encode(request, &mut stream));
        let (mut pieces, mut rest) = (Vec::new(), &stream[..]);
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = after;
            if rest.is_empty() { break }
        }
        let (seen, error) = read(pieces);
        prop_assert_eq!(error, None);
        prop_assert!(seen.iter().all(|request| request.skipped.is_none()));
        prop_assert_eq!(seen.into_iter().map(|request| request.arguments).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn garbage_is_the_same_garbage_however_it_is_cut(
        stream in prop::collection::vec(
            prop_oneof![3 => prop::sample::select(b"*$\r\n0123456789-'\" setGET\\x".to_vec()), 1 => any::<u8>()],
            0..200),
        cut in 1usize..9,
    ) {
        prop_assert_eq!(read(stream.chunks(cut)), read([&stream[..]]));
    }
}
