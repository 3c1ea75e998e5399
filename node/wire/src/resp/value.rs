//! Reads replies: what a client sees of them. For tests and for clients of our own.

use bytes::{Buf, Bytes, BytesMut};

use super::number::integer;

/// How deep lists may lie in each other.
const DEPTH_MAX: usize = 8;
/// The most elements of one list.
const ELEMENTS_MAX: usize = 1024 * 1024;

/// What a client understands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A word.
    Simple(String),
    /// What went wrong.
    Error(String),
    /// A whole number.
    Integer(i64),
    /// Bytes.
    Bulk(Bytes),
    /// A text for people.
    Verbatim(Bytes),
    /// Nothing, of any kind.
    Null,
    /// A list.
    Array(Vec<Value>),
    /// A set.
    Set(Vec<Value>),
    /// Pairs, one after the other.
    Map(Vec<Value>),
}

/// A stream that no server sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this is no reply")]
pub struct NoReply;

/// Takes the first whole reply from a buffer; `None` when more bytes are needed.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Value>, NoReply> {
    let mut rest: &[u8] = buffer;
    let value = read(&mut rest, DEPTH_MAX)?;
    if value.is_some() {
        let taken = buffer.len() - rest.len();
        buffer.advance(taken);
    }
    Ok(value)
}

fn read(rest: &mut &[u8], depth: usize) -> Result<Option<Value>, NoReply> {
    let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let (line, after) = (&rest[..end], &rest[end + 2..]);
    let (&kind, text) = line.split_first().ok_or(NoReply)?;
    let number = || integer(text).ok_or(NoReply);
    let words = || String::from_utf8_lossy(text).into_owned();
    *rest = after;
    Ok(Some(match kind {
        b'+' => Value::Simple(words()),
        b'-' => Value::Error(words()),
        b':' => Value::Integer(number()?),
        b'_' => Value::Null,
        b'$' | b'*' if text == b"-1" => Value::Null,
        b'$' | b'=' => {
            let bytes = usize::try_from(number()?).map_err(|_| NoReply)?;
            let Some(whole) = rest.get(..bytes.checked_add(2).ok_or(NoReply)?) else { return Ok(None) };
            let content = whole.strip_suffix(b"\r\n").ok_or(NoReply)?;
            *rest = &rest[whole.len()..];
            match kind {
                b'$' => Value::Bulk(Bytes::copy_from_slice(content)),
                _ => Value::Verbatim(Bytes::copy_from_slice(content.get(4..).ok_or(NoReply)?)),
            }
        }
        b'*' | b'~' | b'%' => {
            let elements = usize::try_from(number()?).ok().filter(|&n| n <= ELEMENTS_MAX && depth > 0);
            let elements = elements.ok_or(NoReply)? * if kind == b'%' { 2 } else { 1 };
            let mut values = Vec::new();
            for _ in 0..elements {
                let Some(value) = read(rest, depth - 1)? else { return Ok(None) };
                values.push(value);
            }
            match kind {
                b'*' => Value::Array(values),
                b'~' => Value::Set(values),
                _ => Value::Map(values),
            }
        }
        _ => return Err(NoReply),
    }))
}
