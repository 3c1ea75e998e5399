//! Where each key's newest record is.
//!
//! Invariants:
//! - An entry points to a record that is durable as the options say, in a file that is in use; entries change only to
//!   newer records of the same key, or to a copy of the same record in another file.
//! - An entry counts the other records of its key that files in use still hold ([`Entry::older`]): never too few. So
//!   the record that removes a key is known to be needed while an older one could come back.
//! - A partition's tree, if it has one, is told of every change under the lock under which the change is made.
//!
//! Keys themselves are not kept: a partition maps the 64-bit hash of a key to its record, about 40 bytes a key, and
//! the record says whose it is. Only keys that share their hash (anybody can make such keys) are kept whole.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, RwLock};

use bytes::Bytes;
use quorate_core::antientropy::{self, FANOUT, Prefix, Tree, combined};
use quorate_core::ring::{Partition, PartitionCount};

use crate::entry::{Dropped, Entry, KeyOf};
use crate::hashes::Hashes;
use crate::sync::{read, write};
use crate::write::Leftover;

#[derive(Default)]
struct Table {
    /// Hashes that one key has.
    single: Hashes,
    /// Hashes that several keys have, or had a chance to; never also in `single`.
    shared: BTreeMap<u64, BTreeMap<Bytes, Entry>>,
    books: Books,
}

/// What a table's entries add up to.
#[derive(Default)]
struct Books {
    usage: PartitionUsage,
    /// Entries whose keys are not known for certain.
    unsure: u64,
    /// Made when somebody first asks.
    tree: Option<Tree>,
}

/// What a partition takes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PartitionUsage {
    /// Keys, deleted ones included.
    pub keys: u64,
    /// The bytes of their newest records.
    pub bytes: u64,
}

impl Table {
    fn get(&self, key: KeyOf<'_>) -> Option<Entry> {
        self.look_up(key).0
    }

    /// The entry of a key, and whether its hash is several keys'.
    fn look_up(&self, key: KeyOf<'_>) -> (Option<Entry>, bool) {
        match self.shared.get(&key.hash) {
            Some(keys) => (keys.get(key.key).copied(), true),
            None => (self.single.get(key.hash), false),
        }
    }

    /// Points a key to a new record. Says what it pointed to, and points to now.
    fn put(&mut self, key: KeyOf<'_>, new: Entry) -> (Option<Entry>, Entry) {
        if let Some(entry) = self.get_mut(key) {
            let old = *entry;
            *entry = new.after(old);
            return (Some(old), *entry);
        }
        self.insert(key, new);
        (None, new)
    }

    fn get_mut(&mut self, key: KeyOf<'_>) -> Option<&mut Entry> {
        match self.shared.get_mut(&key.hash) {
            Some(keys) => keys.get_mut(key.key),
            None => self.single.get_mut(key.hash),
        }
    }

    fn insert(&mut self, key: KeyOf<'_>, new: Entry) {
        match self.shared.get_mut(&key.hash) {
            Some(keys) => drop(keys.insert(Bytes::copy_from_slice(key.key), new)),
            None => self.single.insert(key.hash, new),
        }
    }

    fn remove(&mut self, key: KeyOf<'_>) {
        match self.shared.get_mut(&key.hash) {
            Some(keys) => keys.remove(key.key),
            None => self.single.remove(key.hash),
        };
    }

    /// Every key that is there, by hash from one on; keys that share theirs one after the other.
    fn present(&self, hashes: RangeInclusive<u64>) -> impl Iterator<Item = (u64, Entry)> + '_ {
        let mut single = self.single.range(hashes.clone()).peekable();
        let shared = self.shared.range(hashes);
        let mut shared =
            shared.flat_map(|(&hash, keys)| keys.values().map(move |&entry| (hash, entry))).peekable();
        let merged = std::iter::from_fn(move || match (single.peek(), shared.peek()) {
            (Some((one, _)), Some((other, _))) if one > other => shared.next(),
            (None, _) => shared.next(),
            _ => single.next(),
        });
        merged.filter(|(_, entry)| entry.is_present())
    }

    /// Makes a tree of the depth that it should have.
    fn plant(&mut self, partitions: PartitionCount) {
        let mut tree = self.books.tree.take().unwrap_or_else(|| {
            let mut tree = Tree::new(partitions.get().trailing_zeros());
            self.present(0..=u64::MAX).for_each(|(hash, entry)| tree.replace(hash, None, Some(entry.digest)));
            tree
        });
        if let Some(depth) = tree.wants_depth() {
            tree.rebuild(depth, self.present(0..=u64::MAX).map(|(hash, entry)| (hash, entry.digest)));
        }
        self.books.tree = Some(tree);
    }
}

impl Books {
    /// Tells the tree and the counts what became of a key.
    fn account(&mut self, hash: u64, old: Option<Entry>, new: Option<Entry>) {
        let unsure = |entry: Option<Entry>| u64::from(entry.is_some_and(Entry::is_unsure));
        self.unsure = self.unsure + unsure(new) - unsure(old);
        let present = |entry: Option<Entry>| entry.filter(|entry| entry.is_present());
        let (old, new) = (present(old), present(new));
        self.usage.keys += u64::from(new.is_some());
        self.usage.keys -= u64::from(old.is_some());
        self.usage.bytes += new.map_or(0, |entry| u64::from(entry.length()));
        self.usage.bytes -= old.map_or(0, |entry| u64::from(entry.length()));
        if let Some(tree) = &mut self.tree {
            tree.replace(hash, old.map(|entry| entry.digest), new.map(|entry| entry.digest));
        }
    }
}

/// How many partitions share one allocation of the index.
const PAGE_TABLES: usize = 256;

type Page = Box<[OnceLock<RwLock<Table>>]>;

/// The index of all partitions, of which a node owns some: their tables are made when they are needed.
pub(crate) struct Index {
    pages: Box<[OnceLock<Page>]>,
    keys: AtomicU64,
    partitions: OnceLock<PartitionCount>,
}

impl Index {
    pub(crate) fn new() -> Self {
        let pages = (0..=usize::from(u16::MAX) / PAGE_TABLES).map(|_| OnceLock::new()).collect();
        Self { pages, keys: AtomicU64::new(0), partitions: OnceLock::new() }
    }

    fn table(&self, partition: Partition) -> &RwLock<Table> {
        let new_page = || (0..PAGE_TABLES).map(|_| OnceLock::new()).collect();
        let page = self.pages[partition.index() / PAGE_TABLES].get_or_init(new_page);
        page[partition.index() % PAGE_TABLES].get_or_init(RwLock::default)
    }

    /// The table of a partition that has keys.
    fn existing(&self, partition: Partition) -> Option<&RwLock<Table>> {
        let page = self.pages[partition.index() / PAGE_TABLES].get()?;
        page[partition.index() % PAGE_TABLES].get()
    }

    /// Changes a table, and counts the keys that come and go with it.
    fn change<T>(&self, partition: Partition, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = write(self.table(partition));
        let before = table.books.usage.keys;
        let result = change(&mut table);
        let after = table.books.usage.keys;
        let (came, went) = (after.saturating_sub(before), before.saturating_sub(after));
        if came > 0 {
            self.keys.fetch_add(came, Ordering::Relaxed);
        }
        if went > 0 {
            self.keys.fetch_sub(went, Ordering::Relaxed);
        }
        result
    }

    /// How many keys there are, deleted ones included.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// What a partition takes.
    pub(crate) fn usage(&self, partition: Partition) -> PartitionUsage {
        self.existing(partition).map(|table| read(table).books.usage).unwrap_or_default()
    }

    /// The entry under a key's hash, which may be another key's: the record tells. `then` runs while the entry
    /// cannot change, so the file that it points to is in use. Says too whether the hash is known to be several keys'.
    pub(crate) fn look_up<T>(&self, key: KeyOf<'_>, then: impl FnOnce(Entry) -> T) -> (Option<T>, bool) {
        let Some(table) = self.existing(key.partition) else { return (None, false) };
        let table = read(table);
        let (entry, shared) = table.look_up(key);
        (entry.map(then), shared)
    }

    /// The same of several keys. Most of a look-up is waiting for memory: here for that of all keys at once.
    pub(crate) fn look_up_all<T>(
        &self,
        keys: &[KeyOf<'_>],
        mut then: impl FnMut(Entry) -> T,
    ) -> Vec<(Option<T>, bool)> {
        let mut partitions: Vec<_> = keys.iter().map(|key| key.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let read = |partition| Some((partition, read(self.existing(partition)?)));
        let tables: Vec<_> = partitions.into_iter().filter_map(read).collect();
        let table = |key: &KeyOf<'_>| {
            let at = tables.binary_search_by_key(&key.partition, |(partition, _)| *partition);
            at.ok().map(|at| &*tables[at].1)
        };
        let leaf = |key: &KeyOf<'_>| {
            let hashes = &table(key)?.single;
            Some((hashes, hashes.leaf_of(key.hash)?, key.hash))
        };
        let leaves: Vec<_> = keys.iter().filter_map(leaf).collect();
        // Nothing here depends on what the one before found.
        let glances = leaves.iter().map(|(hashes, leaf, hash)| hashes.glance(*leaf, *hash));
        std::hint::black_box(glances.fold(0, u64::wrapping_add));
        let look_up = |key| {
            let (entry, shared) = table(key).map_or((None, false), |table| table.look_up(*key));
            (entry.map(&mut then), shared)
        };
        keys.iter().map(look_up).collect()
    }

    /// The entries under a hash, but those of removed keys. `then` as in [`Index::look_up`].
    pub(crate) fn of_hash<T>(&self, partition: Partition, hash: u64, then: impl FnMut(Entry) -> T) -> Vec<T> {
        let Some(table) = self.existing(partition) else { return Vec::new() };
        let table = read(table);
        table.present(hash..=hash).map(|(_, entry)| entry).map(then).collect()
    }

    /// The keys from one hash on, at least `limit` of them if there are so many, and all of each hash.
    pub(crate) fn scan(
        &self,
        partition: Partition,
        hashes: RangeInclusive<u64>,
        limit: usize,
    ) -> Vec<(u64, Entry)> {
        let Some(table) = self.existing(partition) else { return Vec::new() };
        let table = read(table);
        let mut found = Vec::new();
        for (hash, entry) in table.present(hashes) {
            if found.len() >= limit && found.last().is_some_and(|(last, _)| *last != hash) {
                break;
            }
            found.push((hash, entry));
        }
        found
    }

    /// Whether the hash of this key is known to be another one's too.
    pub(crate) fn is_shared(&self, partition: Partition, hash: u64) -> bool {
        self.existing(partition).is_some_and(|table| read(table).shared.contains_key(&hash))
    }

    /// Takes note that a hash will have several keys. No key that is there has it alone: see [`Index::split`].
    pub(crate) fn share(&self, partition: Partition, hash: u64) {
        let mut table = write(self.table(partition));
        let single = table.single.remove(hash);
        debug_assert!(
            single.is_none_or(|entry| !entry.is_present()),
            "only its record says whose the hash was"
        );
        let keys = table.shared.entry(hash).or_default();
        if let Some(entry) = single {
            keys.insert(Bytes::new(), entry); // Of a key that is not shown, whichever.
        }
    }

    /// Takes note that a hash, which `owner` has had alone, will have several keys.
    pub(crate) fn split(&self, partition: Partition, hash: u64, owner: Bytes) {
        let mut table = write(self.table(partition));
        let single = table.single.remove(hash);
        let keys = table.shared.entry(hash).or_default();
        if let Some(entry) = single {
            keys.insert(owner, entry);
        }
    }

    /// The entry of a hash that one key has alone, as far as is known.
    pub(crate) fn single(&self, partition: Partition, hash: u64) -> Option<Entry> {
        read(self.existing(partition)?).single.get(hash)
    }

    /// Points a key to its newest record. `moved` sees what it pointed to and points to, while nobody else can.
    pub(crate) fn publish(&self, key: KeyOf<'_>, new: Entry, moved: impl FnOnce(Option<Entry>, Entry)) {
        self.change(key.partition, |table| {
            let (old, new) = table.put(key, new);
            table.books.account(key.hash, old, Some(new));
            moved(old, new);
        });
    }

    /// Points a key to a copy of its newest record, unless it has a newer one by now.
    pub(crate) fn relocate(
        &self,
        key: KeyOf<'_>,
        from: (u32, u32),
        to: Entry,
        moved: impl FnOnce(Entry, Entry),
    ) {
        self.change(key.partition, |table| {
            let Some(entry) = table.get_mut(key).filter(|entry| entry.place() == from) else { return };
            let (old, new) = (*entry, entry.moved_to(to));
            *entry = new;
            table.books.account(key.hash, Some(old), Some(new));
            moved(old, new);
        });
    }

    /// A record that was not its key's newest one is on no disk any more. `changed` as in [`Index::relocate`].
    pub(crate) fn dropped(&self, dropped: &Dropped, changed: impl FnOnce(Entry, Entry)) {
        self.change(dropped.partition, |table| {
            // Without the key, of keys that share a hash, it is not known whose it was: the count stays too high.
            let Some(entry) = table.get_mut(dropped.key()) else { return };
            let old = *entry;
            *entry = old.with_one_older_less();
            changed(old, *entry);
        });
    }

    /// The record that removed a key is on no disk any more, nor is an older one. `removed` sees what the key
    /// pointed to; a key that is there again by now only has one older record less.
    pub(crate) fn forget(&self, dropped: &Dropped, from: (u32, u32), changed: impl FnOnce(Entry, Entry)) {
        let key = dropped.key();
        let gone = self.change(key.partition, |table| {
            let gone = table.get(key).is_some_and(|entry| entry.place() == from);
            if gone {
                table.remove(key);
            }
            gone
        });
        if !gone {
            self.dropped(dropped, changed);
        }
    }

    /// The record of a key cannot be read any more. It is not there then, for trees and scans, until it is written
    /// again. `changed` as in [`Index::relocate`].
    pub(crate) fn lose(&self, key: KeyOf<'_>, from: (u32, u32), changed: impl FnOnce(Entry, Entry)) {
        self.change(key.partition, |table| {
            let there = |entry: &&mut Entry| entry.place() == from && !entry.is_lost() && !entry.is_gone();
            let Some(entry) = table.get_mut(key).filter(there) else { return };
            let (old, new) = (*entry, entry.lost());
            *entry = new;
            table.books.account(key.hash, Some(old), Some(new));
            changed(old, new);
        });
    }

    /// Whether the partition has keys of which not all is known for certain.
    pub(crate) fn is_unsure(&self, partition: Partition) -> bool {
        self.existing(partition).is_some_and(|table| read(table).books.unsure > 0)
    }

    /// Changes the entries of a partition. `changed` sees those that did, as in [`Index::relocate`].
    pub(crate) fn alter(
        &self,
        partition: Partition,
        mut alter: impl FnMut(u64, Entry) -> Entry,
        mut changed: impl FnMut(Entry, Entry),
    ) {
        if self.existing(partition).is_none() {
            return;
        }
        self.change(partition, |Table { single, shared, books }| {
            let shared =
                shared.iter_mut().flat_map(|(&hash, keys)| keys.values_mut().map(move |entry| (hash, entry)));
            for (hash, entry) in single.iter_mut().chain(shared) {
                let (old, new) = (*entry, alter(hash, *entry));
                if new != old {
                    *entry = new;
                    books.account(hash, Some(old), Some(new));
                    changed(old, new);
                }
            }
        });
    }

    /// Settles that what is here of the partition's keys is all. Says the hashes of those whose records say otherwise.
    /// `changed` as in [`Index::relocate`].
    pub(crate) fn settle(
        &self,
        partition: Partition,
        leftover: Leftover,
        changed: impl FnMut(Entry, Entry),
    ) -> Vec<u64> {
        let mut marked = Vec::new();
        let settle = |hash, entry: Entry| {
            let settled = if entry.is_unsure() { entry.settled(leftover) } else { entry };
            if entry.is_incomplete() && settled.is_present() {
                marked.push(hash);
            }
            settled
        };
        self.alter(partition, settle, changed);
        marked
    }

    /// Says how many partitions the ring has, which trees depend on. The first answer counts.
    pub(crate) fn set_partitions(&self, partitions: PartitionCount) {
        let _ = self.partitions.set(partitions);
    }

    /// How many partitions the ring has, if that was said.
    pub(crate) fn partitions(&self) -> Option<PartitionCount> {
        self.partitions.get().copied()
    }

    /// What somebody wants to know of a partition's tree, if it has keys and the ring is known.
    fn tree<T>(&self, partition: Partition, then: impl FnOnce(&Tree) -> T) -> Option<T> {
        let (table, &partitions) = (self.existing(partition)?, self.partitions.get()?);
        {
            let table = read(table);
            if let Some(tree) = table.books.tree.as_ref().filter(|tree| tree.wants_depth().is_none()) {
                return Some(then(tree));
            }
        }
        let mut table = write(table);
        table.plant(partitions);
        table.books.tree.as_ref().map(then)
    }
}

impl antientropy::View for Index {
    fn root(&self, partition: Partition) -> u64 {
        self.tree(partition, Tree::root).unwrap_or(0)
    }

    fn children(&self, partition: Partition, prefix: Prefix) -> Option<[u64; FANOUT]> {
        self.tree(partition, |tree| tree.children(prefix))?
    }

    fn entries(
        &self,
        partition: Partition,
        hashes: RangeInclusive<u64>,
        limit: usize,
    ) -> Vec<antientropy::Entry> {
        let found = self.scan(partition, hashes, limit);
        let of_one_hash = found.chunk_by(|(one, _), (other, _)| one == other).take(limit);
        let entry = |keys: &[(u64, Entry)]| {
            let digest = combined(keys.iter().map(|(_, entry)| entry.digest));
            keys.first().map(|&(key_hash, _)| antientropy::Entry { key_hash, digest })
        };
        of_one_hash.filter_map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::antientropy::View;

    use super::*;
    use crate::entry::DeadFrom;

    fn key(key: &[u8]) -> KeyOf<'_> {
        KeyOf { partition: Partition(1), hash: 5, key }
    }

    fn find<T>(index: &Index, key: KeyOf<'_>, then: impl FnOnce(Entry) -> T) -> Option<T> {
        index.look_up(key, then).0
    }

    fn entry(offset: u32) -> Entry {
        Entry::new(0, offset, 10, 0, DeadFrom::NEVER)
    }

    #[test]
    fn keys_that_share_a_hash_are_told_apart() {
        let index = Index::new();
        index.publish(key(b"a"), entry(1), |old, _| assert_eq!(old, None));
        index.split(Partition(1), 5, Bytes::from_static(b"a"));
        index.publish(key(b"b"), entry(2), |old, _| assert_eq!(old, None));
        index.publish(key(b"a"), entry(3), |old, _| assert_eq!(old, Some(entry(1))));
        assert_eq!(find(&index, key(b"a"), Entry::place), Some((0, 3)));
        assert_eq!(find(&index, key(b"b"), Entry::place), Some((0, 2)));
        assert_eq!(find(&index, key(b"c"), Entry::place), None);
        assert_eq!(index.keys(), 2);
    }

    #[test]
    fn a_copy_never_replaces_a_newer_record() {
        let index = Index::new();
        index.publish(key(b"a"), entry(1), |_, _| {});
        index.publish(key(b"a"), entry(2), |_, _| {});
        let copy = Entry::new(1, 9, 10, 0, DeadFrom::NEVER);
        index.relocate(key(b"a"), (0, 1), copy, |_, _| panic!("moved an old record"));
        assert_eq!(find(&index, key(b"a"), Entry::place), Some((0, 2)));
        index.relocate(key(b"a"), (0, 2), copy, |_, _| {});
        assert_eq!(find(&index, key(b"a"), Entry::place), Some((1, 9)));
        assert_eq!(find(&index, key(b"a"), Entry::older), Some(1), "the first record is still on the disk");
    }

    #[test]
    fn a_removed_key_is_not_there_and_its_removal_goes_with_the_last_older_record() {
        let index = Index::new();
        index.publish(key(b"a"), entry(1), |_, _| {});
        index.publish(key(b"a"), Entry::removal(0, 2, 10), |_, _| {});
        assert_eq!((index.keys(), index.usage(Partition(1))), (0, PartitionUsage::default()));
        assert!(index.scan(Partition(1), 0..=u64::MAX, 9).is_empty());
        let dropped = Dropped { partition: Partition(1), hash: 5, key: None };
        let mut live = None;
        index.dropped(&dropped, |old, new| live = Some((old.is_live(), new.is_live())));
        assert_eq!(live, Some((true, false)), "its removal can go too");
        index.forget(&dropped, (0, 2), |_, _| panic!("nothing is left"));
        assert_eq!(find(&index, key(b"a"), Entry::place), None);
    }

    #[test]
    fn trees_know_what_is_there_whenever_they_are_first_asked() {
        let partitions = PartitionCount::try_from(1).unwrap();
        let of = |asked_at: usize| {
            let index = Index::new();
            index.set_partitions(partitions);
            for number in 0..1000u64 {
                let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let key = KeyOf { partition: Partition(0), hash, key: b"" };
                for offset in 0..2 {
                    let entry = Entry::new(0, offset, 10, number + u64::from(offset), DeadFrom::NEVER);
                    index.publish(key, entry, |_, _| {});
                }
                if number % 5 == 0 {
                    index.publish(key, Entry::removal(0, 3, 10), |_, _| {});
                }
                if number as usize == asked_at {
                    index.root(Partition(0));
                }
            }
            assert_eq!(index.entries(Partition(0), 0..=u64::MAX, 2000).len(), 800);
            (index.root(Partition(0)), index.children(Partition(0), Prefix::ROOT))
        };
        let late = of(2000);
        assert_eq!(of(10), late);
        assert!(late.0 != 0 && late.1.is_some());
    }
}
