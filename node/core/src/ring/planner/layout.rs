//! Which partitions each candidate holds, so that the shares come out exactly.
//!
//! The sets of one partition that respect the zone bounds are the bases of a matroid, so whenever some layout
//! meets the shares, any other reaches it by exchanges ("this partition goes from you to me") along shortest
//! paths from a candidate with too many to one with too few; along a *shortest* path the exchanges never
//! spoil each other (matroid intersection; Schrijver, Combinatorial Optimization, chapter 41). A layout that
//! meets the shares always exists: [`Layout::fresh`] builds one.
//!
//! Of the paths, one is taken that moves the fewest replicas of the layout before: a replica that this plan has
//! just given out can change hands for nothing. A path that is not the shortest spoils nothing either as long as it
//! touches no partition twice; else the shortest is taken. As far as it was measured, nothing moves then that need not
//! (`tests/optimum.rs` finds the fewest moves in another way).

use std::collections::{BTreeSet, VecDeque};

use super::share::Shares;

/// Random exchanges per replica of a fresh layout. Enough that no trace of the construction is left.
const SHUFFLES_PER_REPLICA: usize = 4;

/// Replicas that are looked at, in one plan, to save moves: a fraction of a second. What is found by then will do.
const SAVING_STEPS_MAX: usize = 20_000_000;

/// The replica set of each partition, as indices of candidates.
pub(super) struct Layout<'a> {
    shares: &'a Shares,
    sets: Vec<Vec<usize>>,
    load: Vec<usize>,
    /// The owners that the partitions had before this plan.
    before: Vec<Vec<usize>>,
    /// What is left of [`SAVING_STEPS_MAX`].
    saving_steps: usize,
}

/// One replica changes hands.
struct Exchange {
    partition: usize,
    from: usize,
    to: usize,
}

impl<'a> Layout<'a> {
    /// A layout out of nothing, by McNaughton's wrap-around rule: write the candidates in a row, zone by
    /// zone, each as often as its share says, and deal the row out to the partitions in turns. A run of equal
    /// entries that is no longer than a round meets no partition twice; one that is longer meets each of
    /// them.
    pub(super) fn fresh(shares: &'a Shares, partitions: usize) -> Self {
        let mut by_zone: Vec<usize> = (0..shares.quota.len()).collect();
        by_zone.sort_by_key(|&c| (shares.zone_of[c], c));
        let row = by_zone.into_iter().flat_map(|c| std::iter::repeat_n(c, shares.quota[c]));
        let mut sets = vec![Vec::with_capacity(shares.factor); partitions];
        for (turn, candidate) in row.enumerate() {
            sets[turn % partitions].push(candidate);
        }
        // The first round holds the first candidates only: turn each set by another step.
        for (partition, set) in sets.iter_mut().enumerate() {
            set.rotate_left(partition % shares.factor);
        }
        let mut layout =
            Self { shares, sets, load: shares.quota.clone(), before: Vec::new(), saving_steps: 0 };
        layout.shuffle();
        layout
    }

    /// The layout that keeps as much as possible of `before`, the candidates that own each partition now.
    pub(super) fn after(before: Vec<Vec<usize>>, shares: &'a Shares) -> Self {
        let (sets, load) = (Vec::with_capacity(before.len()), vec![0; shares.quota.len()]);
        let mut layout = Self { shares, sets, load, before, saving_steps: SAVING_STEPS_MAX };
        for partition in 0..layout.before.len() {
            layout.keep(partition);
        }
        for partition in 0..layout.sets.len() {
            layout.fill(partition);
        }
        layout.settle();
        layout
    }

    /// The replica sets.
    pub(super) fn into_sets(self) -> Vec<Vec<usize>> {
        self.sets
    }

    /// Exchanges replicas at random, so that any two members share few partitions: when one is lost, all the
    /// others help to rebuild it.
    fn shuffle(&mut self) {
        let partitions = self.sets.len();
        for step in 0..partitions * self.shares.factor * SHUFFLES_PER_REPLICA {
            let pick = |salt: usize, below: usize| scatter(step, salt) % below;
            let (p, q) = (pick(0, partitions), pick(1, partitions));
            let (i, j) = (pick(2, self.shares.factor), pick(3, self.shares.factor));
            let (mine, theirs) = (self.sets[p][i], self.sets[q][j]);
            if self.may_exchange(p, mine, theirs) && self.may_exchange(q, theirs, mine) {
                self.sets[p][i] = theirs;
                self.sets[q][j] = mine;
            }
        }
    }

    /// Adds a partition with those of its owners that may stay together.
    fn keep(&mut self, partition: usize) {
        let mut set = Vec::with_capacity(self.shares.factor);
        for &owner in &self.before[partition] {
            if self.may_join(&set, owner) {
                set.push(owner);
                self.load[owner] += 1;
            }
        }
        self.sets.push(set);
    }

    /// Completes a partition's set with the candidates that lack most.
    fn fill(&mut self, partition: usize) {
        while self.sets[partition].len() < self.shares.factor {
            let fitting = (0..self.load.len()).filter(|&c| self.may_join(&self.sets[partition], c));
            let lacks = |&c: &usize| self.shares.quota[c] as isize - self.load[c] as isize;
            // Never empty: a set that respects the bounds can always be completed within them.
            let Some(candidate) = fitting.max_by_key(lacks) else { return };
            self.sets[partition].push(candidate);
            self.load[candidate] += 1;
        }
    }

    /// Exchanges until every load is its quota.
    fn settle(&mut self) {
        for candidate in 0..self.load.len() {
            while self.load[candidate] < self.shares.quota[candidate] {
                // There always is a path (see above). Were there none, the layout would be valid but uneven.
                let cheap = self.cheap_path_to(candidate);
                let Some(path) = cheap.or_else(|| self.path_to(candidate)) else { return };
                path.iter().for_each(|exchange| self.apply(exchange));
            }
        }
    }

    /// A chain of exchanges that takes one replica from a candidate with too many to this one, and moves as few as
    /// possible away from where they were before (breadth first, what is free before the rest). None when there
    /// is none, when it touches a partition twice, or when enough was looked for.
    fn cheap_path_to(&mut self, receiver: usize) -> Option<Vec<Exchange>> {
        let mut gives: Vec<Option<(usize, usize)>> = vec![None; self.load.len()];
        let mut moves = vec![usize::MAX; self.load.len()];
        let mut done = vec![false; self.load.len()];
        moves[receiver] = 0;
        let mut queue = VecDeque::from([receiver]);
        while let Some(to) = queue.pop_front() {
            if std::mem::replace(&mut done[to], true) {
                continue;
            }
            if self.load[to] > self.shares.quota[to] {
                let path = trace(&gives, to);
                let partitions: BTreeSet<usize> = path.iter().map(|exchange| exchange.partition).collect();
                return (partitions.len() == path.len()).then_some(path);
            }
            self.saving_steps = self.saving_steps.checked_sub(self.sets.len() * self.shares.factor)?;
            let start = scatter(to, self.load[to]);
            for step in 0..self.sets.len() {
                let partition = (start + step) % self.sets.len();
                for &from in &self.sets[partition] {
                    let costs = usize::from(self.stays(partition, from) && !self.stays(partition, to));
                    let sum = moves[to] + costs;
                    if sum >= moves[from] || !self.may_exchange(partition, from, to) {
                        continue;
                    }
                    moves[from] = sum;
                    gives[from] = Some((partition, to));
                    if costs == 0 { queue.push_front(from) } else { queue.push_back(from) }
                }
            }
        }
        None
    }

    /// Whether a candidate owned the partition before.
    fn stays(&self, partition: usize, candidate: usize) -> bool {
        self.before[partition].contains(&candidate)
    }

    /// The shortest chain of exchanges that takes one replica from a candidate with too many to this one.
    fn path_to(&self, receiver: usize) -> Option<Vec<Exchange>> {
        let mut gives: Vec<Option<(usize, usize)>> = vec![None; self.load.len()];
        let mut queue = VecDeque::from([receiver]);
        while let Some(to) = queue.pop_front() {
            // From a place that differs each time, so that neighbours in the ring do not move together.
            let start = scatter(to, self.load[to]);
            for step in 0..self.sets.len() {
                let partition = (start + step) % self.sets.len();
                for &from in &self.sets[partition] {
                    if from == receiver || gives[from].is_some() || !self.may_exchange(partition, from, to) {
                        continue;
                    }
                    gives[from] = Some((partition, to));
                    if self.load[from] > self.shares.quota[from] {
                        return Some(trace(&gives, from));
                    }
                    queue.push_back(from);
                }
            }
        }
        None
    }

    fn apply(&mut self, &Exchange { partition, from, to }: &Exchange) {
        for owner in &mut self.sets[partition] {
            if *owner == from {
                *owner = to;
            }
        }
        self.load[from] -= 1;
        self.load[to] += 1;
    }

    /// Whether a partition's set stays within the bounds when `to` takes the place of `from`.
    fn may_exchange(&self, partition: usize, from: usize, to: usize) -> bool {
        let set = &self.sets[partition];
        if set.contains(&to) {
            return false;
        }
        let (lost, gained) = (self.shares.zone_of[from], self.shares.zone_of[to]);
        lost == gained
            || (self.in_zone(set, lost) > self.shares.bounds[lost].0
                && self.in_zone(set, gained) < self.shares.bounds[gained].1)
    }

    /// Whether a set can be completed within the bounds once `candidate` is in it.
    fn may_join(&self, set: &[usize], candidate: usize) -> bool {
        let zone = self.shares.zone_of[candidate];
        let (fewest, most) = self.shares.bounds[zone];
        let present = self.in_zone(set, zone);
        let free = self.shares.factor - set.len();
        let owed = || -> usize {
            let zones = self.shares.bounds.iter().enumerate().filter(|(_, bounds)| bounds.0 > 0);
            zones.map(|(zone, bounds)| bounds.0.saturating_sub(self.in_zone(set, zone))).sum()
        };
        free > 0 && !set.contains(&candidate) && present < most && (present < fewest || owed() < free)
    }

    fn in_zone(&self, set: &[usize], zone: usize) -> usize {
        set.iter().filter(|&&c| self.shares.zone_of[c] == zone).count()
    }
}

/// The exchanges from `donor` to the receiver, the only one that gives nothing.
fn trace(gives: &[Option<(usize, usize)>], donor: usize) -> Vec<Exchange> {
    let mut path = Vec::new();
    let mut from = donor;
    while let Some((partition, to)) = gives[from] {
        path.push(Exchange { partition, from, to });
        from = to;
    }
    path
}

/// A number that depends on both arguments in no visible way (splitmix64), and on nothing else.
fn scatter(a: usize, b: usize) -> usize {
    let mut x = ((a as u64) << 32 ^ b as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ x >> 31) >> 1) as usize
}
