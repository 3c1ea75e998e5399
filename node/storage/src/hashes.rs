//! Entries by hash, in the order of the hashes.
//!
//! A sorted list in leaves of some kilobytes. Of a large index hardly anything is in a processor's caches, and a look-up
//! takes as long as the memory that it must wait for, one place after the other: here that is one, or two neighbours.
//! Hashes are spread evenly, so where in a leaf one is can be guessed. Where they are not (anybody can make keys whose
//! hashes are not) the guess is bad and the search takes a few steps more, no worse than halving would.
//!
//! Invariants:
//! - A leaf holds the hashes from its first one (the least it may hold) up to the next leaf's; the first leaf's is 0.
//! - No leaf is empty but the only one, and none holds more than [`LEAF_ENTRIES_MAX`].

use std::ops::RangeInclusive;

use crate::entry::Entry;

/// How many entries share a leaf.
const LEAF_ENTRIES_MAX: usize = 64;
/// A leaf grows by so many at a time: memory for more is not taken before it is needed.
const LEAF_GROWS_BY: usize = 8;
/// Two neighbours become one when together they hold no more than this.
const LEAF_ENTRIES_SPARSE: usize = LEAF_ENTRIES_MAX / 2;

type Leaf = Vec<(u64, Entry)>;

/// A sorted list of entries, one a hash.
#[derive(Default)]
pub(crate) struct Hashes {
    /// The first hash that each leaf may hold.
    firsts: Vec<u64>,
    leaves: Vec<Leaf>,
}

impl Hashes {
    pub(crate) fn get(&self, hash: u64) -> Option<Entry> {
        let leaf = self.leaf_of(hash)?;
        let at = self.position(leaf, hash).ok()?;
        Some(self.leaves[leaf][at].1)
    }

    pub(crate) fn get_mut(&mut self, hash: u64) -> Option<&mut Entry> {
        let leaf = self.leaf_of(hash)?;
        let at = self.position(leaf, hash).ok()?;
        Some(&mut self.leaves[leaf][at].1)
    }

    /// Adds an entry, or replaces the one of this hash.
    pub(crate) fn insert(&mut self, hash: u64, entry: Entry) {
        let Some(leaf) = self.leaf_of(hash) else {
            self.firsts.push(0);
            self.leaves.push(vec![(hash, entry)]);
            return;
        };
        match self.position(leaf, hash) {
            Ok(at) => self.leaves[leaf][at].1 = entry,
            Err(at) if self.leaves[leaf].len() < LEAF_ENTRIES_MAX => {
                let entries = &mut self.leaves[leaf];
                if entries.len() == entries.capacity() {
                    entries.reserve_exact(LEAF_GROWS_BY);
                }
                entries.insert(at, (hash, entry));
            }
            Err(at) => {
                self.split(leaf, at, hash);
                self.insert(hash, entry);
            }
        }
    }

    /// Makes room in a full leaf, into which a hash is to go at a place.
    fn split(&mut self, leaf: usize, at: usize, hash: u64) {
        let entries = &mut self.leaves[leaf];
        // What comes in order fills leaf after leaf.
        let upper = if at == entries.len() { Leaf::new() } else { entries.split_off(entries.len() / 2) };
        entries.shrink_to(entries.len() + LEAF_GROWS_BY);
        self.firsts.insert(leaf + 1, upper.first().map_or(hash, |(first, _)| *first));
        self.leaves.insert(leaf + 1, upper);
    }

    pub(crate) fn remove(&mut self, hash: u64) -> Option<Entry> {
        let leaf = self.leaf_of(hash)?;
        let at = self.position(leaf, hash).ok()?;
        let (_, entry) = self.leaves[leaf].remove(at);
        self.join(leaf);
        self.join(leaf.saturating_sub(1));
        Some(entry)
    }

    /// Joins a leaf with the next one, if both are sparse, or one is empty.
    fn join(&mut self, leaf: usize) {
        let Some([one, next]) = self.leaves.get_mut(leaf..leaf + 2) else { return };
        if one.is_empty() || next.is_empty() || one.len() + next.len() <= LEAF_ENTRIES_SPARSE {
            one.append(next);
            self.leaves.remove(leaf + 1);
            self.firsts.remove(leaf + 1);
        }
    }

    /// The entries of these hashes, in order.
    pub(crate) fn range(&self, hashes: RangeInclusive<u64>) -> impl Iterator<Item = (u64, Entry)> + '_ {
        let (first, last) = hashes.into_inner();
        let leaf = self.leaf_of(first).unwrap_or(0);
        let behind = self.leaves.get(leaf..).unwrap_or_default().iter().flatten().copied();
        behind.skip_while(move |(hash, _)| *hash < first).take_while(move |(hash, _)| *hash <= last)
    }

    /// Every entry.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Entry)> {
        self.leaves.iter_mut().flatten().map(|(hash, entry)| (*hash, entry))
    }

    /// The leaf that may hold a hash.
    pub(crate) fn leaf_of(&self, hash: u64) -> Option<usize> {
        self.firsts.partition_point(|first| *first <= hash).checked_sub(1)
    }

    /// Looks where a look-up will look first, and does not wait for what is there: so that it is in a cache by then. What
    /// it gives means nothing.
    pub(crate) fn glance(&self, leaf: usize, hash: u64) -> u64 {
        self.leaves[leaf].get(self.guess(leaf, hash)).map_or(0, |(hash, _)| *hash)
    }

    /// Where in a leaf a hash is likely to be.
    fn guess(&self, leaf: usize, hash: u64) -> usize {
        // Without as many of the lower bits as the number of entries has.
        let upper = |hash: u64| hash >> (LEAF_ENTRIES_MAX.ilog2() + 1);
        let first = self.firsts[leaf];
        let span = upper(self.firsts.get(leaf + 1).copied().unwrap_or(u64::MAX) - first);
        (upper(hash - first) * self.leaves[leaf].len() as u64 / (span + 1)) as usize
    }

    /// Where in a leaf a hash is, or belongs.
    fn position(&self, leaf: usize, hash: u64) -> Result<usize, usize> {
        let entries = &self.leaves[leaf];
        let within = around(self.guess(leaf, hash), entries.len(), |at| entries[at].0 < hash);
        let begin = within.start;
        let found = entries[within].binary_search_by_key(&hash, |(hash, _)| *hash);
        found.map(|at| begin + at).map_err(|at| begin + at)
    }
}

/// The places from which on something is not less any more: some around a guess, more of them the worse the guess was.
fn around(guess: usize, length: usize, is_less: impl Fn(usize) -> bool) -> std::ops::Range<usize> {
    let mut width = 1;
    if guess < length && is_less(guess) {
        let mut begin = guess + 1;
        while begin + width < length && is_less(begin + width) {
            begin += width + 1;
            width *= 2;
        }
        return begin..(begin + width + 1).min(length);
    }
    let mut end = guess;
    while end > width && !is_less(end - width) {
        end -= width;
        width *= 2;
    }
    end.saturating_sub(width)..(end + 1).min(length)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::entry::DeadFrom;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64),
        Remove(u64),
        /// Some that follow each other.
        Run(u64, u16),
        RemoveRun(u64, u16),
    }

    /// Spread evenly, or close together at one end or the other.
    fn hash() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..200u64, (0..200u64).prop_map(|hash| u64::MAX - hash)]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => hash().prop_map(Op::Insert),
            2 => hash().prop_map(Op::Remove),
            1 => (hash(), 1..300u16).prop_map(|(first, count)| Op::Run(first, count)),
            1 => (hash(), 1..300u16).prop_map(|(first, count)| Op::RemoveRun(first, count)),
        ]
    }

    fn entry(number: u32) -> Entry {
        Entry::new(0, number, 1, 0, DeadFrom::NEVER)
    }

    fn check(hashes: &Hashes, model: &BTreeMap<u64, Entry>, asked: u64) {
        assert_eq!(hashes.get(asked), model.get(&asked).copied());
        let all: Vec<_> = hashes.range(0..=u64::MAX).collect();
        assert_eq!(all, model.iter().map(|(&hash, &entry)| (hash, entry)).collect::<Vec<_>>());
        let (one, other) = (asked / 2, asked);
        let some: Vec<_> = hashes.range(one..=other).collect();
        assert_eq!(some, model.range(one..=other).map(|(&hash, &entry)| (hash, entry)).collect::<Vec<_>>());
        assert!(hashes.leaves.iter().all(|leaf| leaf.len() <= LEAF_ENTRIES_MAX));
        assert!(hashes.leaves.len() * 4 <= model.len() + 16, "leaves are not nearly empty");
        assert!(hashes.leaves.len() <= 1 || hashes.leaves.iter().all(|leaf| !leaf.is_empty()));
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map(ops in prop::collection::vec(op(), 1..60), asked in prop::collection::vec(hash(), 60)) {
            let (mut hashes, mut model) = (Hashes::default(), BTreeMap::new());
            for (number, (op, asked)) in ops.into_iter().zip(asked).enumerate() {
                let entry = entry(number as u32);
                let run = |first: u64, count: u16| (0..u64::from(count)).map(move |more| first.saturating_add(more));
                match op {
                    Op::Insert(hash) => {
                        hashes.insert(hash, entry);
                        model.insert(hash, entry);
                    }
                    Op::Remove(hash) => assert_eq!(hashes.remove(hash), model.remove(&hash)),
                    Op::Run(first, count) => run(first, count).for_each(|hash| {
                        hashes.insert(hash, entry);
                        model.insert(hash, entry);
                    }),
                    Op::RemoveRun(first, count) => run(first, count).for_each(|hash| {
                        assert_eq!(hashes.remove(hash), model.remove(&hash));
                    }),
                }
                check(&hashes, &model, asked);
            }
            for (hash, entry) in hashes.iter_mut() {
                assert_eq!(model.remove(&hash), Some(*entry));
            }
            assert!(model.is_empty());
        }

        #[test]
        fn whatever_the_guess_the_place_is_found(length in 0..70usize, place in 0..70usize, guess in 0..70usize) {
            let (place, guess) = (place.min(length), guess.min(length));
            let places = around(guess, length, |at| at < place);
            prop_assert!(places.start <= place && places.end <= length, "{places:?}");
            prop_assert!(place < places.end || places.end == length, "{places:?}");
        }
    }
}
