//! Requests out of a stream of bytes: arrays of bulk strings, and lines as a person types them (inline commands).
//!
//! Nothing is held but what counts: an argument that nobody would take is skipped as it comes, so that its client
//! gets an answer and keeps its connection, and costs no memory (INV-BOUND). A stream that is not of this protocol is
//! refused in the words of Redis, and its connection is closed.

use bytes::{Buf, Bytes, BytesMut};
use quorate_core::limits::VALUE_BYTES_MAX;

use super::number::integer;

/// The longest line, without its end: an inline command, a count or a length.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// The most arguments that a request may have; Redis takes as many.
pub const ARGUMENTS_MAX: usize = 1024 * 1024;
/// The longest bulk string that may be announced; Redis takes as long ones.
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// The longest argument that is held: the largest value. Longer ones are skipped.
pub const ARGUMENT_BYTES_MAX: usize = VALUE_BYTES_MAX;
/// What all arguments of a request may take in memory; beyond, they are skipped.
pub const REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What an argument takes in memory besides its bytes, about.
const ARGUMENT_OVERHEAD_BYTES: usize = 64;
/// Arguments of at least so many bytes share the memory that they arrived in; shorter ones are copied, because each
/// would hold on to a whole buffer for as long as it is in use.
const SHARED_BYTES_MIN: usize = 4096;
/// Arguments that room is made for before they come.
const EXPECTED_ARGUMENTS: usize = 8;

/// What a client asks: the command's name and its arguments, at least the name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The name is the first. Of one that was skipped they are not all here.
    pub arguments: Vec<Bytes>,
    /// Why it is not whole; such a request must not be done.
    pub skipped: Option<Skipped>,
}

/// Why a request was not held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skipped {
    /// An argument, or all of them, are longer than is taken.
    TooLong {
        /// How long, at least.
        bytes: usize,
    },
    /// [`Decoder::refuse`] was called.
    NoRoom,
}

/// A stream that is not of this protocol. The words are those of Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// An inline command without an end.
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// An inline command with a quote that is never closed.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// A number of arguments without an end.
    #[error("Protocol error: too big mbulk count string")]
    CountTooBig,
    /// A number of arguments that is none, or too large.
    #[error("Protocol error: invalid multibulk length")]
    Count,
    /// A length without an end.
    #[error("Protocol error: too big bulk count string")]
    LengthTooBig,
    /// A length that is none, or too large.
    #[error("Protocol error: invalid bulk length")]
    Length,
    /// Something else than a bulk string as an argument.
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    NotBulk(u8),
    /// A bulk string that does not end where it said.
    #[error("Protocol error: expected CRLF after a bulk string")]
    BulkEnd,
}

/// Reads one client's stream.
#[derive(Default, Debug)]
pub struct Decoder {
    /// Bytes at the start of the buffer that hold no end of a line.
    scanned: usize,
    partial: Option<Partial>,
}

/// A request of which more must come.
#[derive(Debug)]
struct Partial {
    /// Arguments that must come.
    left: usize,
    arguments: Vec<Bytes>,
    /// What the arguments take in memory, about.
    held_bytes: usize,
    bulk: Bulk,
    skipped: Option<Skipped>,
}

/// Where in an argument the stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bulk {
    /// Its length must come.
    Length,
    /// So many bytes, and an end of line.
    Bytes(usize),
    /// So many bytes into nowhere, and an end of line.
    Skip(usize),
}

impl Partial {
    fn skip(&mut self, why: Skipped) {
        self.skipped = self.skipped.or(Some(why));
        // The name is kept: it says in the books what was refused.
        self.arguments.truncate(1);
        self.held_bytes = self.arguments.iter().map(Bytes::len).sum();
        if let Bulk::Bytes(bytes) = self.bulk {
            self.bulk = Bulk::Skip(bytes);
        }
    }
}

impl Decoder {
    /// Takes the first whole request from a buffer; `None` when more bytes are needed.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        loop {
            if let Some(partial) = &mut self.partial {
                let whole = take_arguments(partial, &mut self.scanned, buffer)?;
                return Ok(whole
                    .then(|| self.partial.take())
                    .flatten()
                    .map(|partial| Request { arguments: partial.arguments, skipped: partial.skipped }));
            }
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => {
                    let Some(line) = take_line(&mut self.scanned, buffer, ProtocolError::CountTooBig)? else {
                        return Ok(None);
                    };
                    self.partial = begin(&line)?;
                }
                Some(_) => {
                    let Some(line) = take_line(&mut self.scanned, buffer, ProtocolError::InlineTooBig)?
                    else {
                        return Ok(None);
                    };
                    let arguments = split(&line).ok_or(ProtocolError::UnbalancedQuotes)?;
                    if !arguments.is_empty() {
                        return Ok(Some(Request { arguments, skipped: None }));
                    }
                }
            }
        }
    }

    /// Whether a request has begun and is not whole.
    pub fn is_within(&self) -> bool {
        self.partial.is_some()
    }

    /// What the request that is not whole takes in memory, and what has been announced of it, about.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| match partial.bulk {
            Bulk::Bytes(bytes) => partial.held_bytes + bytes,
            Bulk::Length | Bulk::Skip(_) => partial.held_bytes,
        })
    }

    /// How many bytes more the buffer must hold until it is worth to call [`Decoder::decode`] again.
    pub fn missing_bytes(&self, buffer: &BytesMut) -> usize {
        let whole = self.partial.as_ref().map_or(1, |partial| match partial.bulk {
            Bulk::Bytes(bytes) => bytes + 2,
            Bulk::Length | Bulk::Skip(_) => 1,
        });
        whole.saturating_sub(buffer.len()).max(1)
    }

    /// There is no room for the request that is not whole: the rest of it is skipped.
    pub fn refuse(&mut self) {
        if let Some(partial) = &mut self.partial {
            partial.skip(Skipped::NoRoom);
        }
    }
}

/// The request that a line such as `*2` begins; none for one without arguments, which means nothing.
fn begin(line: &[u8]) -> Result<Option<Partial>, ProtocolError> {
    let count = integer(&line[1..]).ok_or(ProtocolError::Count)?;
    if count <= 0 {
        return Ok(None);
    }
    let left = usize::try_from(count).ok().filter(|&count| count <= ARGUMENTS_MAX);
    let left = left.ok_or(ProtocolError::Count)?;
    let arguments = Vec::with_capacity(left.min(EXPECTED_ARGUMENTS));
    Ok(Some(Partial { left, arguments, held_bytes: 0, bulk: Bulk::Length, skipped: None }))
}

/// Takes what is there of a request's arguments; whether all are.
fn take_arguments(
    partial: &mut Partial,
    scanned: &mut usize,
    buffer: &mut BytesMut,
) -> Result<bool, ProtocolError> {
    while partial.left > 0 {
        match partial.bulk {
            Bulk::Length => {
                if buffer.first().is_some_and(|&first| first != b'$') {
                    return Err(ProtocolError::NotBulk(buffer[0]));
                }
                let Some(line) = take_line(scanned, buffer, ProtocolError::LengthTooBig)? else {
                    return Ok(false);
                };
                let bytes = integer(&line[1..]).and_then(|length| usize::try_from(length).ok());
                let bytes = bytes.filter(|&bytes| bytes <= BULK_BYTES_MAX).ok_or(ProtocolError::Length)?;
                partial.bulk = Bulk::Bytes(bytes);
                let held = partial.held_bytes + bytes + ARGUMENT_OVERHEAD_BYTES;
                if partial.skipped.is_some() || bytes > ARGUMENT_BYTES_MAX || held > REQUEST_BYTES_MAX {
                    partial.skip(Skipped::TooLong { bytes: bytes.max(partial.held_bytes) });
                }
            }
            Bulk::Bytes(bytes) => {
                if buffer.len() < bytes + 2 {
                    return Ok(false);
                }
                if buffer[bytes..bytes + 2] != *b"\r\n" {
                    return Err(ProtocolError::BulkEnd);
                }
                partial.arguments.push(take(buffer, bytes));
                buffer.advance(2);
                partial.held_bytes += bytes + ARGUMENT_OVERHEAD_BYTES;
                (partial.bulk, partial.left) = (Bulk::Length, partial.left - 1);
            }
            Bulk::Skip(0) => {
                if buffer.len() < 2 {
                    return Ok(false);
                }
                if buffer[..2] != *b"\r\n" {
                    return Err(ProtocolError::BulkEnd);
                }
                buffer.advance(2);
                if partial.arguments.is_empty() {
                    partial.arguments.push(Bytes::new()); // What was skipped was the name itself.
                }
                (partial.bulk, partial.left) = (Bulk::Length, partial.left - 1);
            }
            Bulk::Skip(bytes) => {
                let here = bytes.min(buffer.len());
                if here == 0 {
                    return Ok(false);
                }
                buffer.advance(here);
                partial.bulk = Bulk::Skip(bytes - here);
            }
        }
    }
    Ok(true)
}

fn take(buffer: &mut BytesMut, bytes: usize) -> Bytes {
    if bytes >= SHARED_BYTES_MIN {
        return buffer.split_to(bytes).freeze();
    }
    let copy = Bytes::copy_from_slice(&buffer[..bytes]);
    buffer.advance(bytes);
    copy
}

/// Takes a line, without its end: a line feed, and a carriage return before it.
fn take_line(
    scanned: &mut usize,
    buffer: &mut BytesMut,
    too_long: ProtocolError,
) -> Result<Option<BytesMut>, ProtocolError> {
    let end = buffer[*scanned..].iter().position(|&byte| byte == b'\n').map(|at| *scanned + at);
    let Some(end) = end else {
        *scanned = buffer.len();
        return if buffer.len() > LINE_BYTES_MAX { Err(too_long) } else { Ok(None) };
    };
    if end > LINE_BYTES_MAX {
        return Err(too_long);
    }
    *scanned = 0;
    let mut line = buffer.split_to(end + 1);
    line.truncate(end);
    if line.last() == Some(&b'\r') {
        line.truncate(end - 1);
    }
    Ok(Some(line))
}

/// The words of an inline command, quoted as in redis-cli; none when a quote is not closed.
fn split(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let (word, after) = word(rest)?;
        words.push(word.into());
        rest = after;
    }
}

fn word(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut word, mut at) = (Vec::new(), 0);
    while let Some(&byte) = line.get(at) {
        match byte {
            b'"' | b'\'' => {
                let after = quoted(&line[at..], &mut word)?;
                // Whatever follows a closing quote must be apart from it.
                return after.first().is_none_or(u8::is_ascii_whitespace).then_some((word, after));
            }
            byte if byte.is_ascii_whitespace() => break,
            byte => word.push(byte),
        }
        at += 1;
    }
    Some((word, &line[at..]))
}

/// Reads a quoted text; what follows its closing quote, and none without one.
fn quoted<'a>(text: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    let double = text[0] == b'"';
    let mut at = 1;
    loop {
        let rest = &text[at..];
        let (byte, length) = match rest {
            [b'\\', b'x', high, low, ..] if double && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex(*high) << 4 | hex(*low), 4)
            }
            [b'\\', escaped, ..] if double => (unescaped(*escaped), 2),
            [b'\\', b'\'', ..] if !double => (b'\'', 2),
            [quote, ..] if *quote == text[0] => return Some(&rest[1..]),
            [byte, ..] => (*byte, 1),
            [] => return None,
        };
        word.push(byte);
        at += length;
    }
}

fn unescaped(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit.to_ascii_lowercase() - b'a') + 10,
    }
}

/// Appends a request, as clients send it.
pub fn encode(arguments: &[impl AsRef<[u8]>], out: &mut BytesMut) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments.iter().map(AsRef::as_ref) {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}
