//! How many replicas each member shall hold, and how many of one partition a zone may hold.
//!
//! Replicas are given out one at a time to whoever has the least for its weight (Sainte-Laguë), within what
//! distinct owners and distinct zones allow: a member holds a partition at most once; a zone holds it at
//! least once where there are no more zones than replicas, and at most once where there are no fewer.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A member that can own partitions.
pub(super) struct Candidate {
    /// Above 0.
    pub(super) weight: u32,
    /// `0..zones`.
    pub(super) zone: usize,
    /// How many replicas it holds before this plan: of two equals, the one that holds more keeps more.
    pub(super) held: usize,
}

/// What a layout must come to.
pub(super) struct Shares {
    /// Replicas per partition.
    pub(super) factor: usize,
    /// Replicas per candidate; they sum to `factor` times the partitions.
    pub(super) quota: Vec<usize>,
    /// The zone of each candidate.
    pub(super) zone_of: Vec<usize>,
    /// The fewest and the most replicas of one partition per zone.
    pub(super) bounds: Vec<(usize, usize)>,
}

impl Shares {
    /// Needs at least `factor` candidates; `zones` says how many distinct zones they are in.
    pub(super) fn of(candidates: &[Candidate], zones: usize, partitions: usize, factor: usize) -> Self {
        let zone_min = if zones <= factor { partitions } else { 0 };
        let zone_max = if zones >= factor { partitions } else { usize::MAX };
        let mut giving =
            Giving { candidates, partitions, quota: vec![0; candidates.len()], zone_total: vec![0; zones] };
        for zone in 0..zones {
            giving.give(zone_min, zone_min, |c| c.zone == zone);
        }
        giving.give(factor * partitions - zone_min * zones, zone_max, |_| true);
        let Giving { quota, zone_total, .. } = giving;
        Self {
            factor,
            quota,
            zone_of: candidates.iter().map(|c| c.zone).collect(),
            bounds: zone_total.iter().map(|t| (t / partitions, t.div_ceil(partitions))).collect(),
        }
    }
}

struct Giving<'a> {
    candidates: &'a [Candidate],
    partitions: usize,
    quota: Vec<usize>,
    zone_total: Vec<usize>,
}

impl Giving<'_> {
    /// Gives `count` replicas to those among the candidates who have the least for their weight.
    fn give(&mut self, count: usize, zone_max: usize, among: impl Fn(&Candidate) -> bool) {
        let indices = (0..self.candidates.len()).filter(|&i| among(&self.candidates[i]));
        let mut queue: BinaryHeap<Reverse<Claim>> = indices.map(|i| Reverse(self.claim(i))).collect();
        let mut left = count;
        while left > 0
            && let Some(Reverse(Claim { index, .. })) = queue.pop()
        {
            let zone = self.candidates[index].zone;
            if self.quota[index] == self.partitions || self.zone_total[zone] == zone_max {
                continue; // Full: its claim is not renewed.
            }
            self.quota[index] += 1;
            self.zone_total[zone] += 1;
            left -= 1;
            queue.push(Reverse(self.claim(index)));
        }
    }

    fn claim(&self, index: usize) -> Claim {
        let Candidate { weight, held, .. } = self.candidates[index];
        Claim { half_steps: 2 * self.quota[index] as u64 + 1, weight: u64::from(weight), held, index }
    }
}

/// A candidate's place in the queue for the next replica: the smallest is served first.
struct Claim {
    /// Twice the replicas that it would have had, halfway through the next one.
    half_steps: u64,
    weight: u64,
    held: usize,
    index: usize,
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> Ordering {
        // half_steps / weight without the fraction: both factors are small enough for 64 bits.
        let (mine, theirs) = (self.half_steps * other.weight, other.half_steps * self.weight);
        mine.cmp(&theirs).then(other.held.cmp(&self.held)).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Claim {}
