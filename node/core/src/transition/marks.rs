//! What a node tells about itself in a change of the ring.
//!
//! Invariant: what was told stays true, so marks of one epoch only grow, and those of a later epoch replace them. The merge
//! is commutative, associative and idempotent, in whatever order they come around.

use serde::{Deserialize, Serialize};

use super::Bits;
use crate::id::NodeId;

/// The most members whose marks one message tells.
pub const MARKS_TOLD_MAX: usize = 64;

/// What one node says about itself, for the newest epoch that it holds. [`super`] says what the words mean.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marks {
    /// The epoch.
    pub epoch: u64,
    /// Of the ring.
    partitions: u16,
    /// Where it has every write that older epochs acknowledged.
    pub synced: Bits,
    /// Where it refuses reads routed by less than the epoch.
    pub reading: Bits,
    /// Where it holds nothing that it does not own.
    pub clear: Bits,
}

/// How far somebody knows a member's marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Known {
    /// The member.
    pub node: NodeId,
    /// The epoch.
    pub epoch: u64,
    /// How many marks are set: they only grow, so this tells which of two is further.
    pub count: u32,
}

impl Known {
    /// Whether it knows something that another does not.
    pub fn is_ahead_of(&self, other: &Self) -> bool {
        (self.epoch, self.count) > (other.epoch, other.count)
    }
}

impl Marks {
    /// Those of a node that has just heard of an epoch.
    pub fn new(epoch: u64, partitions: usize) -> Self {
        let partitions = u16::try_from(partitions).unwrap_or(u16::MAX);
        Self { epoch, partitions, synced: Bits::default(), reading: Bits::default(), clear: Bits::default() }
    }

    /// Of the ring.
    pub fn partitions(&self) -> usize {
        usize::from(self.partitions)
    }

    /// What they take in memory, about.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.synced.bytes() + self.reading.bytes() + self.clear.bytes()
    }

    /// Takes in what was said before or since; whether anything is new.
    pub fn merge(&mut self, other: &Self) -> bool {
        if other.epoch < self.epoch {
            return false;
        }
        if other.epoch > self.epoch {
            *self = other.clone();
            return true;
        }
        let before = self.count();
        self.synced.merge(&other.synced);
        self.reading.merge(&other.reading);
        self.clear.merge(&other.clear);
        self.count() > before
    }

    /// How far they are.
    pub fn known(&self, node: NodeId) -> Known {
        Known { node, epoch: self.epoch, count: self.count() }
    }

    fn count(&self) -> u32 {
        self.synced.count() + self.reading.count() + self.clear.count()
    }
}
