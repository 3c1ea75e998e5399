//! Where each key's newest record is.
//!
//! Invariant: an entry points to a record that is durable as the options say, in a file that is in use; entries
//! change only to newer records of the same key, or to a copy of the same record in another file.
//!
//! Keys themselves are not kept: a partition maps the 64-bit hash of a key to its record, about 48 bytes a key, and
//! the record says whose it is. Only keys that share their hash (anybody can make such keys) are kept whole.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, RwLock};

use bytes::Bytes;
use quorate_core::ring::Partition;

use crate::sync::{read, write};

/// Where a record is, and what is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// The slot of the file.
    pub(crate) segment: u32,
    /// Where in the file.
    pub(crate) offset: u32,
    /// The record's length.
    pub(crate) length: u32,
    /// The hash of the version set.
    pub(crate) digest: u64,
}

/// A key, by the names that the index and the log know it by.
#[derive(Clone, Copy)]
pub(crate) struct KeyOf<'a> {
    pub(crate) partition: Partition,
    pub(crate) hash: u64,
    pub(crate) key: &'a [u8],
}

#[derive(Default)]
struct Table {
    /// Hashes that one key has.
    single: BTreeMap<u64, Entry>,
    /// Hashes that several keys have, or had a chance to; never also in `single`.
    shared: BTreeMap<u64, BTreeMap<Bytes, Entry>>,
}

impl Table {
    fn entry(&mut self, key: KeyOf<'_>) -> Option<&mut Entry> {
        match self.shared.get_mut(&key.hash) {
            Some(keys) => keys.get_mut(key.key),
            None => self.single.get_mut(&key.hash),
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
}

impl Index {
    pub(crate) fn new() -> Self {
        let pages = (0..=usize::from(u16::MAX) / PAGE_TABLES).map(|_| OnceLock::new()).collect();
        Self { pages, keys: AtomicU64::new(0) }
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

    /// How many keys there are, deleted ones included.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// The entry under a key's hash, which may be another key's: the record tells. `then` runs while the entry
    /// cannot change, so the file that it points to is in use.
    pub(crate) fn find<T>(&self, key: KeyOf<'_>, then: impl FnOnce(Entry) -> T) -> Option<T> {
        let table = read(self.existing(key.partition)?);
        let entry = match table.shared.get(&key.hash) {
            Some(keys) => keys.get(key.key),
            None => table.single.get(&key.hash),
        };
        entry.copied().map(then)
    }

    /// Whether the hash of this key is known to be another one's too.
    pub(crate) fn is_shared(&self, partition: Partition, hash: u64) -> bool {
        self.existing(partition).is_some_and(|table| read(table).shared.contains_key(&hash))
    }

    /// Takes note that a hash will have several keys. No key has it alone: see [`Index::split`].
    pub(crate) fn share(&self, partition: Partition, hash: u64) {
        let mut table = write(self.table(partition));
        debug_assert!(!table.single.contains_key(&hash), "the owner of the hash is known only to its record");
        table.shared.entry(hash).or_default();
    }

    /// Takes note that a hash, which `owner` has had alone, will have several keys.
    pub(crate) fn split(&self, partition: Partition, hash: u64, owner: Bytes) {
        let mut table = write(self.table(partition));
        let single = table.single.remove(&hash);
        let keys = table.shared.entry(hash).or_default();
        if let Some(entry) = single {
            keys.insert(owner, entry);
        }
    }

    /// The entry of a hash that one key has alone, as far as is known.
    pub(crate) fn single(&self, partition: Partition, hash: u64) -> Option<Entry> {
        read(self.existing(partition)?).single.get(&hash).copied()
    }

    /// Points a key to its newest record. `moved` sees what it pointed to, while nobody else can.
    pub(crate) fn publish(&self, key: KeyOf<'_>, new: Entry, moved: impl FnOnce(Option<Entry>)) {
        let mut table = write(self.table(key.partition));
        let old = match table.shared.get_mut(&key.hash) {
            Some(keys) => keys.insert(Bytes::copy_from_slice(key.key), new),
            None => table.single.insert(key.hash, new),
        };
        if old.is_none() {
            self.keys.fetch_add(1, Ordering::Relaxed);
        }
        moved(old);
    }

    /// Whether a key's newest record is this one.
    pub(crate) fn is_at(&self, key: KeyOf<'_>, segment: u32, offset: u32) -> bool {
        let here = |entry: Entry| entry.segment == segment && entry.offset == offset;
        self.find(key, here).unwrap_or(false)
    }

    /// Points a key to a copy of its newest record, unless it has a newer one by now.
    pub(crate) fn relocate(
        &self,
        key: KeyOf<'_>,
        from: (u32, u32),
        to: (u32, u32),
        moved: impl FnOnce(Entry, Entry),
    ) {
        let mut table = write(self.table(key.partition));
        if let Some(entry) = table.entry(key).filter(|entry| (entry.segment, entry.offset) == from) {
            let old = *entry;
            (entry.segment, entry.offset) = to;
            moved(old, *entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &[u8]) -> KeyOf<'_> {
        KeyOf { partition: Partition(1), hash: 5, key }
    }

    fn entry(offset: u32) -> Entry {
        Entry { segment: 0, offset, length: 10, digest: 0 }
    }

    #[test]
    fn keys_that_share_a_hash_are_told_apart() {
        let index = Index::new();
        index.publish(key(b"a"), entry(1), |old| assert_eq!(old, None));
        index.split(Partition(1), 5, Bytes::from_static(b"a"));
        index.publish(key(b"b"), entry(2), |old| assert_eq!(old, None));
        index.publish(key(b"a"), entry(3), |old| assert_eq!(old, Some(entry(1))));
        assert_eq!(index.find(key(b"a"), |e| e), Some(entry(3)));
        assert_eq!(index.find(key(b"b"), |e| e), Some(entry(2)));
        assert_eq!(index.find(key(b"c"), |e| e), None);
        assert_eq!(index.keys(), 2);
    }

    #[test]
    fn a_copy_never_replaces_a_newer_record() {
        let index = Index::new();
        index.publish(key(b"a"), entry(1), |_| {});
        index.publish(key(b"a"), entry(2), |_| {});
        index.relocate(key(b"a"), (0, 1), (1, 9), |_, _| panic!("moved an old record"));
        assert_eq!(index.find(key(b"a"), |e| e), Some(entry(2)));
        index.relocate(key(b"a"), (0, 2), (1, 9), |_, _| {});
        assert!(index.is_at(key(b"a"), 1, 9));
    }
}
