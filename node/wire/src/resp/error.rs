//! Requests that are well-formed and cannot be done, in the words of Redis.

use std::borrow::Cow;

use bytes::Bytes;

/// Bytes of a client's own words that are repeated to it.
const QUOTED_BYTES_MAX: usize = 128;

/// Why a request is no command. As a text it is the error that the client sees, with its kind.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such command.
    #[error("ERR unknown command '{}', with args beginning with: {}", quote(.name), beginnings(.arguments))]
    Unknown {
        /// Its name.
        name: Bytes,
        /// What follows it.
        arguments: Vec<Bytes>,
    },
    /// Redis has it, and this store does not. It begins as for an unknown one: clients look for that.
    #[error("ERR unknown command '{name}': {why}")]
    Absent {
        /// Its name.
        name: &'static str,
        /// Why, as a sentence without an end.
        why: &'static str,
    },
    /// There is no such command below another.
    #[error("ERR unknown subcommand '{}'. Try {command} HELP.", quote(.subcommand))]
    UnknownSubcommand {
        /// The upper command, in capitals.
        command: &'static str,
        /// What is not below it.
        subcommand: Bytes,
    },
    /// Too few or too many arguments.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    /// Arguments in an order that means nothing.
    #[error("ERR syntax error")]
    Syntax,
    /// Not a whole number of 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// Not a number.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// A moment that cannot be.
    #[error("ERR invalid expire time in '{0}' command")]
    ExpireTime(&'static str),
    /// A sum that does not fit.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// A sum that is no number.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// An offset before the start.
    #[error("ERR offset is out of range")]
    Offset,
    /// A value that would be longer than is taken.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    StringTooLong,
    /// Other words of Redis.
    #[error("{0}")]
    Words(Cow<'static, str>),
}

impl CommandError {
    /// For books: no word of the client's is in it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } | Self::Absent { .. } | Self::UnknownSubcommand { .. } => "unknown_command",
            _ => "bad_request",
        }
    }
}

/// A client's words as one line of text.
pub(super) fn quote(words: &[u8]) -> String {
    String::from_utf8_lossy(&words[..words.len().min(QUOTED_BYTES_MAX)]).into_owned()
}

fn beginnings(arguments: &[Bytes]) -> String {
    let mut text = String::new();
    for argument in arguments {
        if text.len() >= QUOTED_BYTES_MAX {
            break;
        }
        text += &format!("'{}' ", quote(argument));
    }
    text
}
