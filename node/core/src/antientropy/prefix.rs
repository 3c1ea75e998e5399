//! A place in a tree: all key hashes of a partition that begin alike.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ring::Partition;

/// Children of a cell.
pub const FANOUT: usize = 16;
/// Bits of a key's hash that choose a child.
const BITS: u32 = FANOUT.ilog2();
/// The deepest leaves: 16⁵ cells, 8 MiB, good for sixteen million keys in one partition.
pub const DEPTH_MAX: u8 = 5;

/// The first bits of a key's hash below those that choose the partition, four a level.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Prefix {
    /// The level; 0 is the root.
    pub depth: u8,
    /// The position among the `16^depth` cells of the level.
    pub path: u64,
}

impl Prefix {
    /// The whole partition.
    pub const ROOT: Self = Self { depth: 0, path: 0 };

    /// The cell of a level that a hash belongs to.
    pub fn of(key_hash: u64, depth: u8, partition_bits: u32) -> Self {
        let below_partition = key_hash.checked_shl(partition_bits).unwrap_or(0);
        Self { depth, path: below_partition.checked_shr(64 - BITS * u32::from(depth)).unwrap_or(0) }
    }

    /// One of the cells below.
    pub fn child(self, index: usize) -> Self {
        debug_assert!(index < FANOUT);
        Self { depth: self.depth + 1, path: self.path << BITS | index as u64 }
    }

    /// Whether a hash of this partition is below.
    pub fn covers(self, key_hash: u64, partition_bits: u32) -> bool {
        Self::of(key_hash, self.depth, partition_bits) == self
    }

    /// The hashes that are below, in a partition.
    pub fn hashes(self, partition: Partition, partition_bits: u32) -> RangeInclusive<u64> {
        let bits = partition_bits + BITS * u32::from(self.depth);
        let first = u64::from(partition.0) << (bits - partition_bits) | self.path;
        let first = first.checked_shl(64 - bits).unwrap_or(0);
        first..=first | u64::MAX.checked_shr(bits).unwrap_or(0)
    }

    /// Whether there can be such a place: one that comes from a peer may be anything.
    pub fn is_valid(self) -> bool {
        self.depth <= DEPTH_MAX && self.path < cells(self.depth) as u64
    }

    /// The cells of a deeper level that are below.
    pub(super) fn below(self, depth: u8) -> std::ops::Range<usize> {
        let width = cells(depth - self.depth);
        let first = self.path as usize * width;
        first..first + width
    }
}

/// How many cells a level has.
pub(super) fn cells(depth: u8) -> usize {
    1 << (BITS * u32::from(depth))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ring::PartitionCount;

    proptest! {
        #[test]
        fn the_range_of_a_prefix_is_what_it_covers(
            hash: u64, other: u64, bits in 0..=12u32, depth in 0..=DEPTH_MAX,
        ) {
            let partition = PartitionCount::try_from(1 << bits).unwrap().of_hash(hash);
            let prefix = Prefix::of(hash, depth, bits);
            prop_assert!(prefix.is_valid() && prefix.covers(hash, bits));
            let range = prefix.hashes(partition, bits);
            prop_assert!(range.contains(&hash));
            // Another hash of the same partition, and one nearby.
            let mask = u64::MAX.checked_shr(bits).unwrap_or(0);
            for other in [hash & !mask | other & mask, range.end().saturating_add(1), range.start().saturating_sub(1)] {
                if other & !mask == hash & !mask {
                    prop_assert_eq!(range.contains(&other), prefix.covers(other, bits));
                }
            }
        }

        #[test]
        fn children_split_their_parent(hash: u64, bits in 0..=12u32, depth in 0..DEPTH_MAX) {
            let (parent, child) = (Prefix::of(hash, depth, bits), Prefix::of(hash, depth + 1, bits));
            let is_child = |index: &usize| parent.child(*index) == child;
            prop_assert_eq!((0..FANOUT).filter(is_child).count(), 1);
            prop_assert!(parent.below(depth + 1).contains(&(child.path as usize)));
        }
    }

    #[test]
    fn a_place_that_cannot_be_is_refused() {
        assert!(!Prefix { depth: DEPTH_MAX + 1, path: 0 }.is_valid());
        assert!(!Prefix { depth: 1, path: 16 }.is_valid());
        assert!(Prefix { depth: 1, path: 15 }.is_valid());
    }
}
