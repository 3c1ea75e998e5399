//! Commands that read a key and write what they make of it: the making, pure.

use bytes::{Bytes, BytesMut};
use quorate_core::limits::VALUE_BYTES_MAX;

use super::command::{Look, Moment};
use super::error::CommandError;
use super::number::{float, float_text, integer};
use super::reply::Reply;

/// What a key holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The value.
    pub value: Bytes,
    /// When it ends, in milliseconds since 1970; none for never.
    pub ends_unix_ms: Option<u64>,
}

/// What is to be made of a key.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// `SET` with a condition, `GET` or `KEEPTTL`; `SETNX`, `GETSET`.
    Set {
        /// What.
        value: Bytes,
        /// When it ends.
        ends: Ends,
        /// Whether the key must hold something, or must not.
        only_if: Option<bool>,
        /// What is told.
        tells: Tells,
    },
    /// `GETDEL`.
    Take,
    /// `GETEX` with an option.
    Touch(Ends),
    /// `EXPIRE` and the like.
    Expire {
        /// When it is to end.
        at: Moment,
        /// Under which condition.
        only_if: Option<ExpireIf>,
    },
    /// `PERSIST`.
    Persist,
    /// `APPEND`.
    Append(Bytes),
    /// `SETRANGE`.
    Overwrite {
        /// Where.
        offset: usize,
        /// By what.
        bytes: Bytes,
    },
    /// `INCR` and the like.
    Add(i64),
    /// `INCRBYFLOAT`.
    AddFloat(f64),
}

/// When a value ends after a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// Never.
    Never,
    /// When it did before.
    AsBefore,
    /// Then.
    At(Moment),
}

/// What a conditional write tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tells {
    /// `OK`, or nothing when it did not write.
    Done,
    /// What the key held before.
    Before,
    /// 1 or 0.
    Flag,
}

/// When an expiry may be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpireIf {
    /// The value never ends.
    Endless,
    /// It ends.
    Ending,
    /// The new end is later. What never ends, ends later than all.
    Later,
    /// The new end is earlier.
    Earlier,
    /// It ends, and the new end is later.
    EndingAndLater,
    /// It ends, and the new end is earlier.
    EndingAndEarlier,
}

/// What comes of a change.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// What is written; none for nothing.
    pub write: Option<Write>,
    /// What the client is told when that is done.
    pub reply: Reply,
}

/// What a change writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// This.
    Put(Held),
    /// Nothing is to be there.
    Delete,
}

impl Change {
    /// What this makes of what a key holds.
    pub fn apply(&self, held: Option<&Held>, now_unix_ms: u64) -> Result<Outcome, CommandError> {
        match self {
            Self::Set { value, ends, only_if, tells } => {
                let writes = only_if.is_none_or(|wanted| wanted == held.is_some());
                let write = writes.then(|| put(value.clone(), *ends, held, now_unix_ms));
                let reply = match tells {
                    Tells::Done if writes => Reply::OK,
                    Tells::Done => Reply::Null,
                    Tells::Before => Reply::maybe(held.map(|held| held.value.clone())),
                    Tells::Flag => Reply::flag(writes),
                };
                Ok(Outcome { write, reply })
            }
            Self::Take => Ok(match held {
                Some(held) => Outcome::new(Write::Delete, Reply::Bulk(held.value.clone())),
                None => Outcome::nothing(Reply::Null),
            }),
            Self::Touch(ends) => Ok(match held {
                Some(held) => {
                    let write = put(held.value.clone(), *ends, Some(held), now_unix_ms);
                    Outcome::new(write, Reply::Bulk(held.value.clone()))
                }
                None => Outcome::nothing(Reply::Null),
            }),
            Self::Expire { at, only_if } => {
                let at = at.unix_ms(now_unix_ms);
                let held =
                    held.filter(|held| only_if.is_none_or(|only_if| only_if.allows(held.ends_unix_ms, at)));
                Ok(match held {
                    Some(held) => {
                        let ends = Ends::At(Moment::At(i64::try_from(at).unwrap_or(i64::MAX)));
                        Outcome::new(put(held.value.clone(), ends, None, now_unix_ms), Reply::Integer(1))
                    }
                    None => Outcome::nothing(Reply::Integer(0)),
                })
            }
            Self::Persist => Ok(match held.filter(|held| held.ends_unix_ms.is_some()) {
                Some(held) => {
                    let held = Held { value: held.value.clone(), ends_unix_ms: None };
                    Outcome::new(Write::Put(held), Reply::Integer(1))
                }
                None => Outcome::nothing(Reply::Integer(0)),
            }),
            Self::Append(more) => {
                let before = held.map_or(&b""[..], |held| &held.value);
                let bytes = before.len() + more.len();
                if bytes > VALUE_BYTES_MAX {
                    return Err(CommandError::StringTooLong);
                }
                let value = [before, more].concat().into();
                Ok(Outcome::new(keep(value, held), Reply::Integer(bytes as i64)))
            }
            Self::Overwrite { offset, bytes } => overwrite(held, *offset, bytes),
            Self::Add(amount) => {
                let before = held.map_or(Some(0), |held| integer(&held.value));
                let before = before.ok_or(CommandError::NotInteger)?;
                let sum = before.checked_add(*amount).ok_or(CommandError::Overflow)?;
                Ok(Outcome::new(keep(sum.to_string().into(), held), Reply::Integer(sum)))
            }
            Self::AddFloat(amount) => {
                let before = held.map_or(Some(0.0), |held| float(&held.value));
                let sum = before.ok_or(CommandError::NotFloat)? + amount;
                if !sum.is_finite() {
                    return Err(CommandError::NotFinite);
                }
                let text = float_text(sum);
                Ok(Outcome::new(keep(text.clone().into(), held), Reply::text(text)))
            }
        }
    }
}

impl ExpireIf {
    fn allows(self, ends: Option<u64>, at: u64) -> bool {
        let later = ends.is_some_and(|ends| at > ends);
        let earlier = ends.is_none_or(|ends| at < ends);
        match self {
            Self::Endless => ends.is_none(),
            Self::Ending => ends.is_some(),
            Self::Later | Self::EndingAndLater => later,
            Self::Earlier => earlier,
            Self::EndingAndEarlier => ends.is_some() && earlier,
        }
    }
}

impl Outcome {
    fn new(write: Write, reply: Reply) -> Self {
        Self { write: Some(write), reply }
    }

    fn nothing(reply: Reply) -> Self {
        Self { write: None, reply }
    }
}

/// A value with an end; one that is over already is a deletion.
fn put(value: Bytes, ends: Ends, held: Option<&Held>, now_unix_ms: u64) -> Write {
    let ends_unix_ms = match ends {
        Ends::Never => None,
        Ends::AsBefore => held.and_then(|held| held.ends_unix_ms),
        Ends::At(moment) => Some(moment.unix_ms(now_unix_ms)),
    };
    if ends_unix_ms.is_some_and(|ends| ends <= now_unix_ms) {
        Write::Delete
    } else {
        Write::Put(Held { value, ends_unix_ms })
    }
}

/// Another value that ends when the one before would have.
fn keep(value: Bytes, held: Option<&Held>) -> Write {
    Write::Put(Held { value, ends_unix_ms: held.and_then(|held| held.ends_unix_ms) })
}

fn overwrite(held: Option<&Held>, offset: usize, bytes: &Bytes) -> Result<Outcome, CommandError> {
    let before = held.map_or(&b""[..], |held| &held.value);
    if bytes.is_empty() {
        return Ok(Outcome::nothing(Reply::Integer(before.len() as i64)));
    }
    let end = offset.checked_add(bytes.len()).filter(|&end| end <= VALUE_BYTES_MAX);
    let end = end.ok_or(CommandError::StringTooLong)?;
    let mut value = BytesMut::from(before);
    value.resize(end.max(before.len()), 0);
    value[offset..end].copy_from_slice(bytes);
    let length = value.len() as i64;
    Ok(Outcome::new(keep(value.freeze(), held), Reply::Integer(length)))
}

impl Look {
    /// What it tells of what a key holds.
    pub fn tell(self, held: Option<&Held>, now_unix_ms: u64) -> Reply {
        match (self, held) {
            (Self::Value, held) => Reply::maybe(held.map(|held| held.value.clone())),
            (Self::Length, held) => Reply::Integer(held.map_or(0, |held| held.value.len() as i64)),
            (Self::Type, held) => Reply::Simple(if held.is_some() { "string" } else { "none" }),
            (Self::Range { start, end }, held) => {
                let value = held.map_or(Bytes::new(), |held| held.value.clone());
                let range = range(start, end, value.len());
                Reply::Bulk(value.slice(range))
            }
            (Self::Ends { .. }, None) => Reply::Integer(-2),
            (Self::Ends { milliseconds, absolute }, Some(held)) => match held.ends_unix_ms {
                None => Reply::Integer(-1),
                Some(ends) => {
                    let ms = if absolute { ends } else { ends.saturating_sub(now_unix_ms) };
                    let told = if milliseconds { ms } else { ms.saturating_add(500) / 1000 };
                    Reply::Integer(i64::try_from(told).unwrap_or(i64::MAX))
                }
            },
        }
    }
}

/// The bytes from `start` to `end`, both included, of so many; negative ones count from the end.
fn range(start: i64, end: i64, length: usize) -> std::ops::Range<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_start = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at };
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let (start, end) = (from_start(start), from_start(end).min(length - 1));
    if start > end || length == 0 { 0..0 } else { start as usize..end as usize + 1 }
}
