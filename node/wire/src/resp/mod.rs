//! RESP, the protocol of Redis clients, versions 2 and 3, as pure functions.
//!
//! [`request`] cuts what a client sends into requests, [`table`] knows every command, [`parse()`] makes one of the
//! [`command`]s of a request, [`change`] says what a command that reads and then writes makes of a value, [`reply`]
//! writes what the client is told, and [`value`] reads that, for clients and tests. [`slots`] are for clients of Redis Cluster.
//!
//! Errors have the words of Redis where Redis has the error, because clients look for them.

pub mod change;
pub mod command;
mod error;
mod number;
mod options;
mod parse;
pub mod reply;
pub mod request;
pub mod slots;
pub mod table;
#[cfg(test)]
mod tests;
pub mod value;

pub use error::CommandError;
pub use number::integer;
pub use parse::{Parsed, parse};
