//! What a node tells about itself in a change of the ring.
//!
//! Invariant: what was told stays true, so marks of one epoch only grow, and those of a later epoch replace them, all but the
//! reads that are refused: those stay refused in every later epoch, so that an epoch that was retired stays retired. The
//! merge is commutative, associative and idempotent, in whatever order they come around.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::{Bits, LIVE_MAX};
use crate::bounded;
use crate::id::NodeId;
use crate::ring::Partition;

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
    /// By epoch, the oldest first: where it refuses reads routed by less, and by no later one.
    #[serde(deserialize_with = "bounded::list::<_, _, LIVE_MAX>")]
    reading: Vec<(u64, Bits)>,
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
    /// How much was said: more and more.
    pub count: u64,
    /// Of what was said: a disk that went back in time may say as much again, and other things.
    pub digest: u64,
}

impl Known {
    /// Whether it may know something that another does not.
    pub fn is_news_to(&self, other: &Self) -> bool {
        self.epoch > other.epoch || (self.epoch == other.epoch && self.digest != other.digest)
    }

    /// Whether it knows more than another does.
    pub fn is_ahead_of(&self, other: &Self) -> bool {
        (self.epoch, self.count) > (other.epoch, other.count)
    }
}

impl Marks {
    /// Those of a node that has just heard of an epoch.
    pub fn new(epoch: u64, partitions: usize) -> Self {
        let partitions = u16::try_from(partitions).unwrap_or(u16::MAX);
        Self { epoch, partitions, synced: Bits::default(), reading: Vec::new(), clear: Bits::default() }
    }

    /// Those of the same node when it hears of a later epoch: the reads that it refuses stay refused.
    pub fn next(&self, epoch: u64) -> Self {
        let mut next = Self::new(epoch, self.partitions());
        next.reading.clone_from(&self.reading);
        next.forget_old();
        next
    }

    /// It refuses reads of a partition that are routed by less than an epoch, up to its own.
    pub fn read_from(&mut self, partition: Partition, epoch: u64) {
        if epoch > self.epoch || self.reads_from(partition) >= epoch {
            return;
        }
        let mut bits = Bits::default();
        bits.insert(partition);
        self.add_reading(&[(epoch, bits)]);
    }

    fn add_reading(&mut self, more: &[(u64, Bits)]) {
        for (epoch, bits) in more {
            match self.reading.binary_search_by_key(epoch, |(known, _)| *known) {
                Ok(at) => self.reading[at].1.merge(bits),
                Err(at) => self.reading.insert(at, (*epoch, bits.clone())),
            }
        }
        let mut later = Bits::default();
        for (_, bits) in self.reading.iter_mut().rev() {
            bits.subtract(&later);
            later.merge(bits);
        }
        self.forget_old();
    }

    /// The epoch by less than which it refuses reads of a partition; 0 for none.
    pub fn reads_from(&self, partition: Partition) -> u64 {
        let reading = self.reading.iter().rev().find(|(_, bits)| bits.contains(partition));
        reading.map_or(0, |(epoch, _)| *epoch)
    }

    /// What is refused since before any epoch that may be live says nothing.
    fn forget_old(&mut self) {
        let oldest = (self.epoch + 1).saturating_sub(LIVE_MAX as u64);
        self.reading.retain(|(epoch, bits)| *epoch >= oldest && !bits.words().is_empty());
    }

    /// Of the ring.
    pub fn partitions(&self) -> usize {
        usize::from(self.partitions)
    }

    /// What they take in memory, about.
    pub fn bytes(&self) -> usize {
        let each = |(_, bits): &(u64, Bits)| size_of::<(u64, Bits)>() + bits.bytes();
        let reading: usize = self.reading.iter().map(each).sum();
        size_of::<Self>() + self.synced.bytes() + self.clear.bytes() + reading
    }

    /// Takes in what was said before or since; whether anything is new.
    pub fn merge(&mut self, other: &Self) -> bool {
        let before = (self.epoch, self.digest());
        if other.epoch > self.epoch {
            *self =
                Self { synced: other.synced.clone(), clear: other.clear.clone(), ..self.next(other.epoch) };
        } else if other.epoch == self.epoch {
            self.synced.merge(&other.synced);
            self.clear.merge(&other.clear);
        }
        self.add_reading(&other.reading);
        (self.epoch, self.digest()) != before
    }

    /// How far they are.
    pub fn known(&self, node: NodeId) -> Known {
        Known { node, epoch: self.epoch, count: self.count(), digest: self.digest() }
    }

    fn digest(&self) -> u64 {
        let mut hasher = Xxh3::new();
        let mut add = |bits: &Bits| {
            hasher.update(&(bits.words().len() as u64).to_le_bytes());
            bits.words().iter().for_each(|word| hasher.update(&word.to_le_bytes()));
        };
        add(&self.synced);
        add(&self.clear);
        self.reading.iter().for_each(|(_, bits)| add(bits));
        self.reading.iter().for_each(|(epoch, _)| hasher.update(&epoch.to_le_bytes()));
        hasher.digest()
    }

    fn count(&self) -> u64 {
        let reading = self.reading.iter().map(|(epoch, bits)| epoch.saturating_mul(bits.count().into()));
        reading.fold(u64::from(self.synced.count() + self.clear.count()), u64::saturating_add)
    }
}
