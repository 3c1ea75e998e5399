//! Who owns a key.
//!
//! The 64-bit hash space is cut into Q equal partitions, Q a power of two. An [`Epoch`] is one immutable,
//! numbered version of the ring: its members and, for each partition, the replica set in preference order.
//! [`planner`] computes replica sets; [`Epoch::fallbacks`] says who stands in for owners that are down.

mod epoch;
mod fallback;
pub mod planner;

pub use epoch::{Epoch, EpochError, EpochHash, EpochMark, Member, MemberState, Replication};

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::PARTITIONS_MAX;

/// The name of [`key_hash`], part of every epoch: a ring hashed otherwise is another ring.
pub const KEY_HASH_NAME: &str = "xxh3-64";

/// A key's place in the hash space.
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// One of the Q equal slices of the hash space, `0..Q`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u16);

impl Partition {
    /// The position in per-partition tables.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// Q: how many partitions the ring has. A power of two, so that a partition is a prefix of the hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PartitionCount(u32);

impl PartitionCount {
    /// Q as a number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The partition that owns a hash.
    pub fn of_hash(self, hash: u64) -> Partition {
        // The top log2(Q) bits. At most 12 of them, so the cast cannot truncate; Q = 1 shifts by 64.
        Partition(hash.checked_shr(64 - self.0.trailing_zeros()).unwrap_or(0) as u16)
    }

    /// The partition that owns a key.
    pub fn of_key(self, key: &[u8]) -> Partition {
        self.of_hash(key_hash(key))
    }

    /// Every partition, in order.
    pub fn iter(self) -> impl Iterator<Item = Partition> {
        (0..self.0).map(|p| Partition(p as u16))
    }
}

impl TryFrom<u32> for PartitionCount {
    type Error = EpochError;

    fn try_from(count: u32) -> Result<Self, Self::Error> {
        if count.is_power_of_two() && count <= PARTITIONS_MAX {
            Ok(Self(count))
        } else {
            Err(EpochError::Partitions { count })
        }
    }
}

impl From<PartitionCount> for u32 {
    fn from(count: PartitionCount) -> Self {
        count.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_equal_prefixes_of_the_hash() {
        let q = PartitionCount::try_from(256).unwrap();
        assert_eq!(q.of_hash(0), Partition(0));
        assert_eq!(q.of_hash(u64::MAX), Partition(255));
        assert_eq!(q.of_hash(1 << 56), Partition(1));
        assert_eq!(PartitionCount::try_from(1).unwrap().of_hash(u64::MAX), Partition(0));
    }

    #[test]
    fn a_count_that_is_no_power_of_two_is_refused() {
        for count in [0, 3, 255, 8192] {
            assert!(PartitionCount::try_from(count).is_err(), "{count}");
        }
    }

    #[test]
    fn the_key_hash_never_changes() {
        // A changed hash would silently move every key: pinned for good.
        assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(key_hash(b"hello"), 0x9555_e855_5c62_dcfd);
    }
}
