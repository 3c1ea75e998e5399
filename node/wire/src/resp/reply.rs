//! What a client is told, in the words of its version of the protocol.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// The version of the protocol that a client asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Version {
    /// What every client speaks before it says more.
    #[default]
    Resp2,
    /// With maps, sets and a null of its own.
    Resp3,
}

/// One reply.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// A word, such as `OK`.
    Simple(&'static str),
    /// A sentence; its first word is the kind of the error.
    Error(Cow<'static, str>),
    /// A whole number.
    Integer(i64),
    /// Any bytes.
    Bulk(Bytes),
    /// A text for people; the third version marks it as such.
    Verbatim(String),
    /// Nothing.
    Null,
    /// No list.
    NullArray,
    /// A list.
    Array(Vec<Reply>),
    /// A list in which order means nothing.
    Set(Vec<Reply>),
    /// Pairs; in the second version a list of twice the length.
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    /// The word that says that all is well.
    pub const OK: Self = Self::Simple("OK");

    /// A text as bytes.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bulk(Bytes::from(text.into()))
    }

    /// Bytes, or nothing.
    pub fn maybe(bytes: Option<Bytes>) -> Self {
        bytes.map_or(Self::Null, Self::Bulk)
    }

    /// 1 for yes.
    pub fn flag(yes: bool) -> Self {
        Self::Integer(i64::from(yes))
    }

    /// Appends it. Ends of lines in an error, which would end it early, become blanks.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        let new = version >= Version::Resp3;
        match self {
            Self::Simple(word) => line(b'+', word, out),
            Self::Error(sentence) if sentence.contains(['\r', '\n']) => {
                line(b'-', &sentence.replace(['\r', '\n'], " "), out);
            }
            Self::Error(sentence) => line(b'-', sentence, out),
            Self::Integer(number) => head(b':', *number, out),
            Self::Bulk(bytes) => bulk(b'$', &[bytes], out),
            Self::Verbatim(text) if new => bulk(b'=', &[b"txt:", text.as_bytes()], out),
            Self::Verbatim(text) => bulk(b'$', &[text.as_bytes()], out),
            Self::Null | Self::NullArray if new => out.extend_from_slice(b"_\r\n"),
            Self::Null => out.extend_from_slice(b"$-1\r\n"),
            Self::NullArray => out.extend_from_slice(b"*-1\r\n"),
            Self::Array(replies) => list(b'*', replies, version, out),
            Self::Set(replies) => list(if new { b'~' } else { b'*' }, replies, version, out),
            Self::Map(pairs) => {
                let entries = if new { pairs.len() } else { 2 * pairs.len() };
                head(if new { b'%' } else { b'*' }, entries as i64, out);
                for (key, value) in pairs {
                    key.encode(version, out);
                    value.encode(version, out);
                }
            }
        }
    }

    /// Bytes that it is sent as, about: for bounds.
    pub fn bytes(&self) -> usize {
        const HEAD_BYTES: usize = 16;
        HEAD_BYTES
            + match self {
                Self::Bulk(bytes) => bytes.len(),
                Self::Verbatim(text) => text.len(),
                Self::Error(text) => text.len(),
                Self::Array(replies) | Self::Set(replies) => replies.iter().map(Self::bytes).sum(),
                Self::Map(pairs) => pairs.iter().map(|(key, value)| key.bytes() + value.bytes()).sum(),
                Self::Simple(_) | Self::Integer(_) | Self::Null | Self::NullArray => 0,
            }
    }
}

fn line(kind: u8, text: &str, out: &mut BytesMut) {
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A kind, a number and an end of line.
fn head(kind: u8, number: i64, out: &mut BytesMut) {
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), number.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&[kind]);
    if number < 0 {
        out.extend_from_slice(b"-");
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

fn bulk(kind: u8, parts: &[&[u8]], out: &mut BytesMut) {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(bytes + 24);
    head(kind, bytes as i64, out);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

fn list(kind: u8, replies: &[Reply], version: Version, out: &mut BytesMut) {
    head(kind, replies.len() as i64, out);
    replies.iter().for_each(|reply| reply.encode(version, out));
}
