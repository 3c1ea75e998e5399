//! The options of commands that write: `EX 60 NX GET` and the like.

use bytes::Bytes;

use super::change::{Change, Ends, ExpireIf, Tells};
use super::command::{Data, Moment};
use super::error::CommandError;
use super::number::integer;

const SECOND_MS: i64 = 1000;

/// How a time is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Clock {
    pub(super) absolute: bool,
    pub(super) unit_ms: i64,
}

pub(super) const IN_SECONDS: Clock = Clock { absolute: false, unit_ms: SECOND_MS };
pub(super) const IN_MILLISECONDS: Clock = Clock { absolute: false, unit_ms: 1 };
pub(super) const AT_SECONDS: Clock = Clock { absolute: true, unit_ms: SECOND_MS };
pub(super) const AT_MILLISECONDS: Clock = Clock { absolute: true, unit_ms: 1 };

impl Clock {
    fn of_option(option: &[u8]) -> Option<Self> {
        let known =
            [("EX", IN_SECONDS), ("PX", IN_MILLISECONDS), ("EXAT", AT_SECONDS), ("PXAT", AT_MILLISECONDS)];
        known.into_iter().find(|(name, _)| is(option, name)).map(|(_, clock)| clock)
    }

    /// A moment; of the command that is named, should it be none.
    pub(super) fn moment(self, text: &[u8], command: &'static str) -> Result<Moment, CommandError> {
        let number = integer(text).ok_or(CommandError::NotInteger)?;
        let ms = number.checked_mul(self.unit_ms).ok_or(CommandError::ExpireTime(command))?;
        Ok(if self.absolute { Moment::At(ms) } else { Moment::In(ms) })
    }

    /// A moment of a value that is new: one that is not even meant to be in the future is a mistake.
    pub(super) fn end(self, text: &[u8], command: &'static str) -> Result<Moment, CommandError> {
        let moment = self.moment(text, command)?;
        let (Moment::In(ms) | Moment::At(ms)) = moment;
        if ms <= 0 { Err(CommandError::ExpireTime(command)) } else { Ok(moment) }
    }
}

/// Whether a word is this one, in capitals or not.
pub(super) fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// `SET key value …`.
pub(super) fn set(key: Bytes, value: Bytes, options: &[Bytes]) -> Result<Data, CommandError> {
    let (mut ends, mut only_if, mut get) = (None, None, false);
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        if is(option, "NX") && only_if.is_none() {
            only_if = Some(false);
        } else if is(option, "XX") && only_if.is_none() {
            only_if = Some(true);
        } else if is(option, "GET") {
            get = true;
        } else if is(option, "KEEPTTL") && ends.is_none() {
            ends = Some(Ends::AsBefore);
        } else if let (Some(clock), None) = (Clock::of_option(option), ends) {
            ends = Some(Ends::At(clock.end(rest.next().ok_or(CommandError::Syntax)?, "set")?));
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(match (ends, only_if, get) {
        (None | Some(Ends::Never), None, false) => Data::Set { key, value, ends: None },
        (Some(Ends::At(moment)), None, false) => Data::Set { key, value, ends: Some(moment) },
        (ends, only_if, get) => {
            let (ends, tells) = (ends.unwrap_or(Ends::Never), if get { Tells::Before } else { Tells::Done });
            Data::Change { key, change: Change::Set { value, ends, only_if, tells } }
        }
    })
}

/// When a value is to end that `GETEX` reads; none to leave that.
pub(super) fn touch(options: &[Bytes]) -> Result<Option<Ends>, CommandError> {
    match options {
        [] => Ok(None),
        [option] if is(option, "PERSIST") => Ok(Some(Ends::Never)),
        [option, time] => {
            let clock = Clock::of_option(option).ok_or(CommandError::Syntax)?;
            Ok(Some(Ends::At(clock.end(time, "getex")?)))
        }
        _ => Err(CommandError::Syntax),
    }
}

/// The condition of `EXPIRE` and the like.
pub(super) fn expire_if(options: &[Bytes]) -> Result<Option<ExpireIf>, CommandError> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for option in options {
        match option {
            option if is(option, "NX") => nx = true,
            option if is(option, "XX") => xx = true,
            option if is(option, "GT") => gt = true,
            option if is(option, "LT") => lt = true,
            other => {
                let words = format!("ERR Unsupported option {}", super::error::quote(other));
                return Err(CommandError::Words(words.into()));
            }
        }
    }
    match (nx, xx, gt, lt) {
        (true, true, ..) | (true, _, true, _) | (true, _, _, true) => Err(CommandError::Words(
            "ERR NX and XX, GT or LT options at the same time are not compatible".into(),
        )),
        (_, _, true, true) => {
            Err(CommandError::Words("ERR GT and LT options at the same time are not compatible".into()))
        }
        (true, ..) => Ok(Some(ExpireIf::Endless)),
        (_, true, true, _) => Ok(Some(ExpireIf::EndingAndLater)),
        (_, true, _, true) => Ok(Some(ExpireIf::EndingAndEarlier)),
        (_, _, true, _) => Ok(Some(ExpireIf::Later)),
        (_, _, _, true) => Ok(Some(ExpireIf::Earlier)),
        (_, true, ..) => Ok(Some(ExpireIf::Ending)),
        (false, false, false, false) => Ok(None),
    }
}
