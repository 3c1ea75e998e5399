//! Tombstone collection: a deleted key is forgotten when it is proven that nothing can bring it back
//! (INV-NOZOMBIE). Evidence, and no grace period: a period is a guess about how long a message, a hint or a
//! dead node may take, and wrong guesses bring deleted values back.
//!
//! # The protocol
//!
//! A key is a *candidate* when an owner holds a set without a live value: nothing but tombstones, or expired.
//! Any owner may lead a [`Round`] for some candidates of a partition; each is named with the digest of its set.
//!
//! 1. **Confirm.** Each owner, in every live epoch, says for which candidates it holds durably exactly that
//!    digest, dead by its own clock; and afterwards its [`Mark`]: how far it has counted its content messages.
//! 2. **Fence.** Each owner, and each fallback that may keep a hint, raises its [`Floors`] to the owners' marks, so
//!    that it takes nothing more that they sent before, *then* says for which candidates it keeps no hint, stored
//!    or being stored, and afterwards its own mark.
//! 3. **Collect.** Each owner raises its floors to the latest marks of all owners and fallbacks, and forgets each
//!    candidate that all have cleared, if it still holds exactly that digest.
//!
//! All must answer, in this order, or nothing goes; a later round tries again. Rounds of several leaders at once
//! do no harm, nor do messages that are lost, doubled, reordered or late by any time.
//!
//! # Why nothing comes back
//!
//! Let T be the set, and v a value that T has replaced. *Content* is any message that carries a version set.
//!
//! - What an owner holds only grows, until it forgets. So content that it read after it confirmed carries T, and
//!   a set that includes T no longer includes v.
//! - Content counted above a mark was read after the mark was drawn: **the count is drawn before the read**, also
//!   when the message waits, is sent to somebody else later, or is repeated. Content with v is therefore counted
//!   at most at the mark of its sender.
//! - An owner that has not forgotten T holds at least T: merging v changes nothing. One that has forgotten has
//!   raised its floors before, and refuses v.
//! - A hint with v is nowhere (step 2), and can be made only of content that is now refused.
//! - A start that has just begun knows no floors. **It takes no content from a sender before it was told that
//!   sender's mark, in answer to a question of its own**; v was counted before that, as T was confirmed before.
//!
//! What was accepted (and so checked against the floors) is handed to the store before whatever is forgotten
//! later, and the store works in order.
//!
//! # Holes that were found on the way
//!
//! Each has a test that brings a deleted value back without its rule (`tests/world.rs`).
//!
//! - *Counting at the time of sending.* An owner reads v for a message, merges the delete, confirms, then counts
//!   and sends the message: it is above the floor and brings v back. So the count comes first, and a message
//!   that is repeated or redirected (a hint after a time-out) keeps the count of its read.
//! - *A restart forgets floors.* That an earlier start's messages are refused does not help: an owner may still
//!   hold, in an unfinished operation, a set that it read before it confirmed, and send it to the new start. So
//!   a sender is refused until it was asked.
//! - *A late request of a leader is no answer to a question.* A new start that hears old marks from it must not
//!   take them for what it would be told now: they raise floors, and admit nobody.
//! - *An owner may keep hints*, as a fallback of another epoch. That it has none when it confirms is not enough:
//!   its store is proof against late content, since it holds T, but the place for hints is not. A hint with v, sent
//!   before its maker confirmed, may arrive after this owner has, and be delivered above this owner's mark. So
//!   owners are fenced like fallbacks, and the mark that counts is the one after that. (Found by the test; the
//!   first design let owners raise their floors in the last step only.)
//!
//! # What the caller must keep
//!
//! "Durably" is the disk's word: a node whose disk may lose what it acknowledged (durability `interval` or
//! `memory`) syncs before it confirms or says that a hint is gone. Keys that were read from beside a rotten
//! segment are neither confirmed nor sent. Whoever still holds a partition's data or hints is a participant,
//! whatever the epoch calls it. Requests that make dots are not content, but they are carried out at most once.

mod answer;
mod floors;
mod message;
mod round;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Holder, answer};
pub use floors::{FLOORS_MAX, Floors, Mark, Turned};
pub use message::{
    CANDIDATES_MAX, Candidate, KEYS_BYTES_MAX, PARTICIPANTS_MAX, Refused, Reply, Request, RoundId,
};
pub use round::{Action, Outcome, Round, TRIES_MAX};
