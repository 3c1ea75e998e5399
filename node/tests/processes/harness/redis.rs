//! A Redis client of our own: bytes over a socket, so that tests see what is really said.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bytes::BytesMut;
use quorate_wire::resp::request;
use quorate_wire::resp::value::{Value, decode};

use super::{DEADLINE, TestNode};

/// One connection.
pub(crate) struct Redis {
    pub(crate) stream: TcpStream,
    buffer: BytesMut,
}

impl Redis {
    pub(crate) fn connect(node: &TestNode) -> Self {
        let stream = TcpStream::connect((node.host.as_str(), 7002)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { stream, buffer: BytesMut::new() }
    }

    /// Sends words as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next reply; none when the connection is closed.
    pub(crate) fn reply(&mut self) -> Option<Value> {
        let mut piece = [0; 64 * 1024];
        loop {
            if let Some(value) = decode(&mut self.buffer).expect("a reply") {
                return Some(value);
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(bytes) => self.buffer.extend_from_slice(&piece[..bytes]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply: {error}"),
            }
        }
    }

    /// Asks, and waits for the reply.
    pub(crate) fn ask(&mut self, arguments: &[&[u8]]) -> Value {
        self.send(&encoded(arguments));
        self.reply().expect("a reply before the end")
    }

    /// The same, with words that blanks part; the reply as redis-cli would print it, on one line.
    pub(crate) fn says(&mut self, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        shown(&self.ask(&words))
    }
}

/// A request as bytes.
pub(crate) fn encoded(arguments: &[&[u8]]) -> BytesMut {
    let mut out = BytesMut::new();
    request::encode(arguments, &mut out);
    out
}

/// A reply on one line.
pub(crate) fn shown(value: &Value) -> String {
    let all = |values: &[Value]| values.iter().map(shown).collect::<Vec<_>>().join(" ");
    match value {
        Value::Simple(word) | Value::Error(word) => word.clone(),
        Value::Integer(number) => format!("({number})"),
        Value::Bulk(bytes) | Value::Verbatim(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        Value::Null => "nil".to_owned(),
        Value::Array(values) => format!("[{}]", all(values)),
        Value::Set(values) => format!("<{}>", all(values)),
        Value::Map(values) => format!("{{{}}}", all(values)),
    }
}
