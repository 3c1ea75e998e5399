//! What Redis clients send, and what such a client reads.

use bytes::{Bytes, BytesMut};
use quorate_wire::resp::change::Held;
use quorate_wire::resp::command::{Command, Data};
use quorate_wire::resp::parse;
use quorate_wire::resp::reply::{Reply, Version};
use quorate_wire::resp::request::{Decoder, ProtocolError, REQUEST_BYTES_MAX, Request, encode};
use quorate_wire::resp::value::decode;

pub(crate) fn run(bytes: &[u8]) -> bool {
    a_client_reads_it_or_not(bytes);
    let (requests, error) = cut([bytes]);
    assert_eq!(cut(bytes.chunks(1)), (requests.clone(), error), "cutting makes a difference");
    assert_eq!(cut(bytes.chunks(7)), (requests.clone(), error), "cutting makes a difference");
    for request in &requests {
        assert!(!request.arguments.is_empty(), "a request without a name");
        if request.skipped.is_none() {
            comes_again(request);
            is_answered(request.arguments.clone());
        }
    }
    !requests.is_empty() && error.is_none()
}

fn cut<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Request>, Option<ProtocolError>) {
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
        assert!(decoder.missing_bytes(&buffer) > 0);
        assert!(decoder.held_bytes() <= REQUEST_BYTES_MAX, "more is held than is taken");
    }
    (seen, None)
}

fn comes_again(request: &Request) {
    let mut stream = BytesMut::new();
    encode(&request.arguments, &mut stream);
    assert_eq!(Decoder::default().decode(&mut stream), Ok(Some(request.clone())));
    assert!(stream.is_empty());
}

/// Whatever is asked has an answer that a client reads.
fn is_answered(arguments: Vec<Bytes>) {
    let held = Held { value: Bytes::from_static(b"12"), ends_unix_ms: Some(2000) };
    let reply = match parse(arguments).command {
        Ok(Command::Data(Data::Change { change, .. })) => match change.apply(Some(&held), 1000) {
            Ok(outcome) => outcome.reply,
            Err(error) => Reply::Error(error.to_string().into()),
        },
        Ok(Command::Data(Data::Look { look, .. })) => look.tell(Some(&held), 1000),
        Ok(Command::Data(data)) => Reply::Integer(data.keys().count() as i64),
        Ok(Command::Server(_)) => Reply::OK,
        Err(error) => Reply::Error(error.to_string().into()),
    };
    for version in [Version::Resp2, Version::Resp3] {
        let mut stream = BytesMut::new();
        reply.encode(version, &mut stream);
        assert!(matches!(decode(&mut stream), Ok(Some(_))), "no client reads {reply:?}");
        assert!(stream.is_empty(), "more than a reply");
    }
}

fn a_client_reads_it_or_not(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(_)) = decode(&mut buffer) {}
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let lines = [
        "SET key value EX 10",
        "SET key value NX GET PXAT 99",
        "GETEX key PERSIST",
        "EXPIRE key 10 XX GT",
        "GETRANGE key 0 -1",
        "SETRANGE key 1 x",
        "INCRBYFLOAT key 1.5e1",
        "MSET a 1 b 2",
        "DEL a b",
        "HELLO 3 AUTH user word SETNAME name",
        "CLIENT SETINFO LIB-NAME x",
        "COMMAND DOCS get",
        "CONFIG GET s*",
        "LPUSH key value",
    ];
    let whole = lines.iter().map(|line| {
        let mut stream = BytesMut::new();
        encode(&line.split(' ').collect::<Vec<_>>(), &mut stream);
        stream.to_vec()
    });
    let inline = [&b"set a \"b\\x00\\n\" 'c'\r\nGET a\r\n"[..], b"*0\r\n*1\r\n$4\r\nPING\r\nPING\n"];
    whole.chain(inline.map(<[u8]>::to_vec)).collect()
}
