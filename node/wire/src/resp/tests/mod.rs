//! The codec as a whole: streams, commands, changes, replies.

mod changes;
mod commands;
mod replies;
mod streams;

use bytes::Bytes;

/// Words as arguments.
fn words(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}
