//! Requests that were not done, as Redis clients see it. The first word says what is known:
//!
//! - `NOTDONE`: nothing was written, for certain;
//! - `PARTIAL`: of a command with several keys, some are written and the others are not;
//! - `INDETERMINATE`: it is not known whether it was written;
//! - `ERR`: the request itself is wrong, in the words of Redis.
//!
//! The second is the code that the other protocols give as well.

use quorate_core::limits::KEY_BYTES_MAX;
use quorate_wire::peer::Refusal;
use quorate_wire::resp::CommandError;
use quorate_wire::resp::reply::Reply;
use quorate_wire::resp::request::{ARGUMENT_BYTES_MAX, REQUEST_BYTES_MAX, Skipped};
use quorate_wire::resp::table::NO_TRANSACTIONS;

use crate::refusal;
use crate::users::Denied;

/// Why.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(Refusal),
    Denied(Denied),
    Command(CommandError),
    /// The command needs what this store does not have.
    NotAtomic(&'static str),
    /// It was sent as a part of a transaction.
    InTransaction,
    KeyTooLong {
        bytes: usize,
    },
    Skipped(Skipped),
    AnswerTooLong {
        bytes_max: usize,
    },
    /// Of several keys.
    Several {
        done: usize,
        keys: usize,
        unknown: usize,
        first: Box<Failure>,
    },
}

impl Failure {
    /// Whether it is not known if something was written.
    pub(super) fn is_unknown(&self) -> bool {
        match self {
            Self::Refused(Refusal::Indeterminate { .. }) => true,
            Self::Several { unknown, .. } => *unknown > 0,
            _ => false,
        }
    }

    /// Stable, for programs and metrics.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal::code(refusal),
            Self::Denied(denied) => denied.code(),
            Self::Command(error) => error.code(),
            Self::NotAtomic(_) | Self::InTransaction => "not_atomic",
            Self::KeyTooLong { .. } | Self::AnswerTooLong { .. } => "too_large",
            Self::Skipped(Skipped::TooLong { .. }) => "too_large",
            Self::Skipped(Skipped::NoRoom) => refusal::code(&Refusal::Busy),
            Self::Several { first, .. } => first.code(),
        }
    }

    fn sentence(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal::sentence(refusal),
            Self::Denied(denied) => denied.to_string(),
            Self::Command(error) => error.to_string(),
            Self::NotAtomic(command) => format!(
                "not done: '{command}' reads a key and writes what it makes of it, and this store cannot do both as one \
                 step: of two clients at the same time both could succeed, and one would be lost. Use plain SET (with \
                 EX or PX), or HTTP with contexts; or run nodes with --resp-read-modify-write best-effort, knowing that"
            ),
            Self::InTransaction => format!("not done: it was sent behind MULTI, and {NO_TRANSACTIONS}"),
            Self::KeyTooLong { bytes } => {
                format!("not done: the key has {bytes} bytes; at most {KEY_BYTES_MAX} are taken")
            }
            Self::Skipped(Skipped::TooLong { bytes }) => format!(
                "not done: {bytes} bytes are too long; at most {ARGUMENT_BYTES_MAX} are taken in a value, and \
                 {REQUEST_BYTES_MAX} in a request"
            ),
            Self::Skipped(Skipped::NoRoom) => refusal::sentence(&Refusal::Busy),
            Self::AnswerTooLong { bytes_max } => {
                format!("not done: the answer is longer than {bytes_max} bytes: ask for fewer keys at once")
            }
            Self::Several { done, keys, unknown, first } => {
                format!(
                    "of {keys} keys {done} are done and {unknown} are not known; the first that failed: {}",
                    first.sentence()
                )
            }
        }
    }

    pub(super) fn reply(&self) -> Reply {
        let known = match self {
            Self::Command(error) => return Reply::Error(error.to_string().into()),
            Self::Denied(Denied::NoRight) => {
                return Reply::Error("NOPERM No permissions to access a key".into());
            }
            Self::Denied(_) => return Reply::Error("NOAUTH Authentication required.".into()),
            failure if failure.is_unknown() => "INDETERMINATE",
            Self::Several { done, .. } if *done > 0 => "PARTIAL",
            _ => "NOTDONE",
        };
        Reply::Error(format!("{known} {}: {}", self.code(), self.sentence()).into())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(failure: &Failure) -> String {
        match failure.reply() {
            Reply::Error(words) => words.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_word_says_what_is_known_and_the_second_why() {
        let unavailable = || Failure::from(Refusal::Unavailable { needed: 2, reachable: 1 });
        let unknown = || Failure::from(Refusal::Indeterminate { needed: 2, acknowledged: 1 });
        let several =
            |done, unknown, first| Failure::Several { done, keys: 3, unknown, first: Box::new(first) };
        for (failure, start) in [
            (unavailable(), "NOTDONE unavailable: not done: 1 of the 2 owners"),
            (unknown(), "INDETERMINATE timeout: it is not known whether the write was done: "),
            (Refusal::Busy.into(), "NOTDONE busy: not done: too many requests"),
            (CommandError::Syntax.into(), "ERR syntax error"),
            (Denied::NoRight.into(), "NOPERM "),
            (Denied::WrongPassword.into(), "NOAUTH "),
            (Failure::NotAtomic("incr"), "NOTDONE not_atomic: not done: 'incr' reads a key"),
            (several(0, 0, unavailable()), "NOTDONE unavailable: of 3 keys 0 are done"),
            (several(2, 0, unavailable()), "PARTIAL unavailable: of 3 keys 2 are done and 0 are not known"),
            (several(0, 1, unknown()), "INDETERMINATE timeout: of 3 keys"),
        ] {
            assert!(words(&failure).starts_with(start), "{}", words(&failure));
        }
    }
}
