//! The hash tree of one partition, kept up by deltas.
//!
//! Invariant: a cell is the wrapping sum of [`mix`] over the entries below it. So it depends on the entries alone:
//! not on the order in which they came, nor on how deep the tree is. Replicas whose trees have different depths
//! compare them all the same, and replacing an entry is two additions.
//!
//! Only the leaves are kept; cells above are summed when somebody asks.

use super::prefix::{DEPTH_MAX, FANOUT, Prefix, cells};

/// A tree with more entries a leaf than this, on average, should be a level deeper: another level costs its
/// reader 16 cells of 8 bytes, a leaf 16 bytes an entry.
const LEAF_ENTRIES_MAX: usize = 16;
/// A tree with fewer leaves than this for each entry should be flat enough; beyond, it wastes memory. Far from
/// the other bound, so that a key more or less never makes a tree change back and forth.
const ENTRY_LEAVES_MAX: usize = 8;

/// The hash tree of one partition.
#[derive(Clone, Debug)]
pub struct Tree {
    partition_bits: u32,
    depth: u8,
    entries: usize,
    root: u64,
    /// `16^depth` of them, in the order of the hashes below.
    leaves: Box<[u64]>,
}

impl Tree {
    /// The tree of a partition without entries. `partition_bits` is log2 of how many partitions the ring has.
    pub fn new(partition_bits: u32) -> Self {
        Self { partition_bits, depth: 0, entries: 0, root: 0, leaves: Box::new([0]) }
    }

    /// An entry came (`old` is none), changed, or went (`new` is none). `old` must be what the tree was told
    /// before; for keys that share their hash, each tells of its own digest.
    pub fn replace(&mut self, key_hash: u64, old: Option<u64>, new: Option<u64>) {
        let term = |digest: Option<u64>| digest.map_or(0, |digest| mix(key_hash, digest));
        let delta = term(new).wrapping_sub(term(old));
        let leaf = &mut self.leaves[Prefix::of(key_hash, self.depth, self.partition_bits).path as usize];
        *leaf = leaf.wrapping_add(delta);
        self.root = self.root.wrapping_add(delta);
        self.entries = self.entries.saturating_add(usize::from(new.is_some()));
        self.entries = self.entries.saturating_sub(usize::from(old.is_some()));
    }

    /// The depth that this tree should have by now, when it is not the one it has: whoever owns the entries then
    /// calls [`Tree::rebuild`]. Until it does, everything stays right and comparisons cost more.
    pub fn wants_depth(&self) -> Option<u8> {
        let too_flat = |depth| self.entries > cells(depth) * LEAF_ENTRIES_MAX && depth < DEPTH_MAX;
        let too_deep = |depth| cells(depth) > self.entries.max(1) * ENTRY_LEAVES_MAX;
        let wanted = if too_flat(self.depth) {
            (self.depth..=DEPTH_MAX).find(|&depth| !too_flat(depth))
        } else if too_deep(self.depth) {
            (0..self.depth).rev().find(|&depth| !too_deep(depth))
        } else {
            None
        };
        wanted.filter(|&depth| depth != self.depth)
    }

    /// Makes the leaves anew at another depth (at most [`DEPTH_MAX`]), from all entries: key hash and digest,
    /// in any order. About ten nanoseconds each.
    pub fn rebuild(&mut self, depth: u8, entries: impl Iterator<Item = (u64, u64)>) {
        let depth = depth.min(DEPTH_MAX);
        let leaves = vec![0; cells(depth)].into_boxed_slice();
        *self = Self { depth, entries: 0, root: 0, leaves, ..*self };
        for (key_hash, digest) in entries {
            self.replace(key_hash, None, Some(digest));
        }
    }

    /// What all entries add up to: equal on replicas that hold the same.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The depth of the leaves.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// The cells below a place. None where the tree keeps no finer ones: ask for the entries.
    pub fn children(&self, prefix: Prefix) -> Option<[u64; FANOUT]> {
        if prefix.depth >= self.depth || !prefix.is_valid() {
            return None;
        }
        let below = &self.leaves[prefix.below(self.depth)];
        let mut children = [0; FANOUT];
        for (cell, leaves) in children.iter_mut().zip(below.chunks_exact(below.len() / FANOUT)) {
            *cell = leaves.iter().copied().fold(0, u64::wrapping_add);
        }
        Some(children)
    }
}

/// What one entry adds to the cells above it: no bit of a hash or a digest shows, so that no two small changes
/// undo each other in a sum (the finaliser of MurmurHash3, over both halves).
fn mix(key_hash: u64, digest: u64) -> u64 {
    let finish = |x: u64| {
        let x = (x ^ x >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let x = (x ^ x >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        x ^ x >> 33
    };
    finish(finish(key_hash ^ 0x9e37_79b9_7f4a_7c15) ^ digest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A tree as its owner keeps it: rebuilt whenever it wants another depth.
    #[derive(Clone)]
    struct Owner {
        entries: BTreeMap<u64, u64>,
        tree: Tree,
    }

    impl Owner {
        fn new(partition_bits: u32) -> Self {
            Self { entries: BTreeMap::new(), tree: Tree::new(partition_bits) }
        }

        fn set(&mut self, hash: u64, digest: Option<u64>) {
            let old = match digest {
                Some(digest) => self.entries.insert(hash, digest),
                None => self.entries.remove(&hash),
            };
            self.tree.replace(hash, old, digest);
            if let Some(depth) = self.tree.wants_depth() {
                self.rebuild(depth);
            }
        }

        fn rebuild(&mut self, depth: u8) {
            self.tree.rebuild(depth, self.entries.iter().map(|(&hash, &digest)| (hash, digest)));
        }
    }

    /// Every cell that a tree can be asked for, by level, down to a depth.
    fn cells_to(tree: &Tree, depth: u8) -> Vec<u64> {
        let mut found = vec![tree.root()];
        for level in 0..depth {
            let prefixes = (0..cells(level) as u64).map(|path| Prefix { depth: level, path });
            found.extend(prefixes.flat_map(|prefix| tree.children(prefix).unwrap()));
        }
        found
    }

    fn change() -> impl Strategy<Value = (u64, Option<u64>)> {
        // Few hashes, so that entries change and go too; the high bits differ, where trees branch.
        (
            (0..600u64).prop_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            proptest::option::weighted(0.8, 0..4u64),
        )
    }

    proptest! {
        #[test]
        fn deltas_equal_a_rebuild(changes in vec(change(), 0..1200), bits in 0..=12u32, depth in 0..=3u8) {
            let mut owner = Owner::new(bits);
            for (hash, digest) in changes {
                owner.set(hash, digest);
            }
            prop_assert_eq!(owner.tree.len(), owner.entries.len());
            let mut rebuilt = owner.clone();
            rebuilt.rebuild(depth);
            let common = depth.min(owner.tree.depth());
            prop_assert_eq!(cells_to(&owner.tree, common), cells_to(&rebuilt.tree, common));
            // And deltas go on from a rebuild at any depth.
            rebuilt.tree.replace(7, None, Some(1));
            owner.tree.replace(7, None, Some(1));
            prop_assert_eq!(cells_to(&owner.tree, common), cells_to(&rebuilt.tree, common));
        }

        #[test]
        fn equal_entries_have_equal_roots_whatever_came_before(
            entries in proptest::collection::btree_map(any::<u64>(), any::<u64>(), 0..300),
            passing in vec((any::<u64>(), any::<u64>()), 0..600),
            seed: u64,
        ) {
            let mut straight = Owner::new(8);
            entries.iter().for_each(|(&hash, &digest)| straight.set(hash, Some(digest)));
            let mut winding = Owner::new(8);
            let mut order: Vec<_> = entries.iter().collect();
            order.sort_by_key(|(hash, _)| mix(**hash, seed));
            passing.iter().for_each(|&(hash, digest)| winding.set(hash, Some(digest)));
            order.iter().for_each(|&(&hash, _)| winding.set(hash, Some(seed)));
            order.iter().for_each(|&(&hash, &digest)| winding.set(hash, Some(digest)));
            for (hash, _) in &passing {
                winding.set(*hash, entries.get(hash).copied());
            }
            prop_assert_eq!(straight.tree.root(), winding.tree.root());
        }

        #[test]
        fn one_difference_shows_on_its_path_and_nowhere_else(
            n in 1..3000u64, at: prop::sample::Index, digest: u64, bits in 0..=12u32,
        ) {
            let mut left = Owner::new(bits);
            (0..n).for_each(|i| left.set(mix(i, 0), Some(i)));
            let mut right = left.clone();
            let hash = mix(at.index(n as usize) as u64, 0);
            prop_assume!(left.entries[&hash] != digest);
            right.set(hash, Some(digest));
            prop_assert_ne!(left.tree.root(), right.tree.root());
            for level in 0..left.tree.depth() {
                for path in 0..cells(level) as u64 {
                    let prefix = Prefix { depth: level, path };
                    let (a, b) = (left.tree.children(prefix).unwrap(), right.tree.children(prefix).unwrap());
                    for index in 0..FANOUT {
                        let on_path = prefix.child(index).covers(hash, bits);
                        prop_assert_eq!(a[index] != b[index], on_path);
                    }
                }
            }
        }
    }

    #[test]
    fn a_tree_is_as_deep_as_its_entries_ask_for() {
        let mut owner = Owner::new(8);
        let (mut depths, mut rebuilds) = (Vec::new(), 0);
        for i in 0..20_000 {
            let before = owner.tree.depth();
            owner.set(mix(i, 0), Some(i));
            rebuilds += usize::from(owner.tree.depth() != before);
            if i.is_power_of_two() {
                depths.push((i, owner.tree.depth()));
            }
        }
        assert_eq!(rebuilds, 3, "one for each level: {depths:?}");
        assert_eq!(owner.tree.depth(), 3);
        assert_eq!(owner.tree.wants_depth(), None);
        for i in 0..20_000 {
            owner.set(mix(i, 0), None);
        }
        assert_eq!((owner.tree.depth(), owner.tree.root(), owner.tree.is_empty()), (0, 0, true));
    }

    #[test]
    fn a_tree_that_was_filled_at_once_asks_for_its_depth_at_once() {
        let mut tree = Tree::new(8);
        (0..20_000).for_each(|i| tree.replace(mix(i, 0), None, Some(i)));
        let depth = tree.wants_depth().unwrap();
        tree.rebuild(depth, (0..20_000).map(|i| (mix(i, 0), i)));
        assert_eq!((depth, tree.wants_depth()), (3, None));
    }

    #[test]
    fn keys_that_share_a_hash_all_count() {
        let mut tree = Tree::new(0);
        tree.replace(5, None, Some(1));
        let one = tree.root();
        tree.replace(5, None, Some(1));
        assert_ne!(tree.root(), one);
        tree.replace(5, Some(1), None);
        assert_eq!((tree.root(), tree.len()), (one, 1));
    }

    #[test]
    fn an_impossible_place_has_no_children() {
        let mut owner = Owner::new(0);
        (0..1000).for_each(|i| owner.set(mix(i, 0), Some(i)));
        assert_eq!(owner.tree.children(Prefix { depth: 1, path: 99 }), None);
    }
}
