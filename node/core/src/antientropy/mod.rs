//! Anti-entropy: two replicas of a partition find the keys in which they differ, and exchange only those.
//!
//! Each replica keeps one [`Tree`] of hashes a partition, always up to date by deltas, so that nothing is ever
//! scanned to begin an exchange (Riak's Tictac trees do the same with XOR, and for the same reason).
//!
//! An *entry* is a key's hash and the digest of its version set. Keys that share their 64-bit hash are one
//! entry, whose digest is [`combined`] from theirs: whoever fetches a hash gets all keys that have it.

mod prefix;
mod tree;

pub use prefix::{DEPTH_MAX, FANOUT, Prefix};
pub use tree::Tree;

/// The digest of an entry from the digests of all version sets whose keys have its hash; that of the one, where
/// there is one.
pub fn combined(digests: impl IntoIterator<Item = u64>) -> u64 {
    digests.into_iter().fold(0, u64::wrapping_add)
}
