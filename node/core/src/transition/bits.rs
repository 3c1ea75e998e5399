//! A set of partitions, as small as it can be.

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::limits::PARTITIONS_MAX;
use crate::ring::Partition;

const WORD_BITS: usize = 64;
const WORDS_MAX: usize = (PARTITIONS_MAX as usize).div_ceil(WORD_BITS);

/// A set of partitions, one bit each.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bits(#[serde(deserialize_with = "bounded::list::<_, _, WORDS_MAX>")] Vec<u64>);

impl Bits {
    /// Adds a partition.
    pub fn insert(&mut self, partition: Partition) {
        let at = partition.index();
        if self.0.len() <= at / WORD_BITS {
            self.0.resize(at / WORD_BITS + 1, 0);
        }
        self.0[at / WORD_BITS] |= 1 << (at % WORD_BITS);
    }

    /// Whether a partition is in it.
    pub fn contains(&self, partition: Partition) -> bool {
        let at = partition.index();
        self.0.get(at / WORD_BITS).is_some_and(|word| word >> (at % WORD_BITS) & 1 == 1)
    }

    /// How many are in it.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// 64 in a word, up to the last that is in it.
    pub fn words(&self) -> &[u64] {
        let words = self.0.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        &self.0[..words]
    }

    /// What it takes in memory beyond itself.
    pub fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }

    /// Leaves what is in another set too.
    pub fn intersect(&mut self, other: &Self) {
        self.0.truncate(other.0.len());
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    /// Leaves what is not in another set.
    pub fn subtract(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
    }

    /// Adds all of another set.
    pub fn merge(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }
}
