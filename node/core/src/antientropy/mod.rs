//! Anti-entropy: two replicas of a partition find the keys in which they differ, and exchange only those.
//!
//! Each replica keeps one [`Tree`] of hashes a partition, always up to date by deltas, so that nothing is ever
//! scanned to begin an exchange (Riak's Tictac trees do the same with XOR, and for the same reason). One of the
//! two runs an [`Exchange`]: it compares roots, descends where cells differ, compares the entries of the leaves,
//! fetches what the peer has differently, merges, and pushes what the peer then lacks. The other only answers
//! ([`answer`]) and remembers nothing, so a lost message costs one repetition, and a broken exchange nothing:
//! what was repaired is equal by then.
//!
//! An *entry* is a key's hash and the digest of its version set. Keys that share their 64-bit hash are one
//! entry, whose digest is [`combined`] from theirs: whoever fetches a hash gets all keys that have it.
//!
//! Invariants: only sets of keys that differ cross the wire. Every message, list and repetition is bounded
//! (INV-BOUND). A partition is reported as synced only when all of it was compared and all that differed is
//! stored on both sides (INV-CONVERGE).
//!
//! Sources: Merkle trees in DeCandia et al., "Dynamo" (2007), section 4.7; push-pull in Demers et al.,
//! "Epidemic Algorithms for Replicated Database Maintenance" (1987).

mod answer;
mod exchange;
mod message;
mod parcel;
mod prefix;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

pub use answer::{Answer, View, answer};
pub use exchange::{Exchange, Report, Step, TRIES_MAX};
pub use message::{
    CONTENT_BYTES_MAX, ENTRIES_MAX, Entry, HASHES_MAX, ITEMS_MAX, Item, Items, PREFIXES_MAX, Refused, Reply,
    Request, Shown,
};
pub use parcel::{Cursor, Parcel, pack};
pub use prefix::{DEPTH_MAX, FANOUT, Prefix};
pub use tree::Tree;

/// The digest of an entry from the digests of all version sets whose keys have its hash; that of the one, where
/// there is one.
pub fn combined(digests: impl IntoIterator<Item = u64>) -> u64 {
    digests.into_iter().fold(0, u64::wrapping_add)
}
