//! What is asked of a store: reads, writes that are handed in, and what its index knows.
//!
//! Invariants: nothing here waits, but for the disk where it says so. And nothing here shows a record that a lost segment
//! may have outdated: not to clients, not to peers, not as evidence (INV-NOZOMBIE).

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quorate_core::antientropy::{self, FANOUT, Prefix};
use quorate_core::causality::VersionSet;
use quorate_core::limits::PARTITIONS_MAX;
use quorate_core::ring::{Partition, PartitionCount, key_hash};

use crate::entry::{Entry, KeyOf};
use crate::error::ReadError;
use crate::index::PartitionUsage;
use crate::shared::{Found, Shared, State};
use crate::write::{Change, HINTS, Leftover, Write};

/// Room and state, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Keys, deleted ones included, hints too.
    pub keys: u64,
    /// What the log takes on the disk.
    pub log_bytes: u64,
    /// What of it merging could give back.
    pub dead_bytes: u64,
    /// What is free on the disk.
    pub free_bytes: u64,
    /// Files of the log.
    pub segments: usize,
    /// Whether writes are taken.
    pub state: State,
    /// How many partitions lost something to rot, and were not resynchronised yet; see [`Access::quarantined`].
    pub quarantined: usize,
    /// What of it are hints.
    pub hints: PartitionUsage,
}

/// A key as the index knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// The key's hash. Several keys may have it.
    pub key_hash: u64,
    /// [`VersionSet::digest`] of its set.
    pub digest: u64,
    /// From when on it has no value to show, in Unix milliseconds, rounded up to a second: 0 when all is deleted, none
    /// when a value never expires. A key to collect is one for which this moment has passed.
    pub dead_from_unix_ms: Option<u64>,
}

/// Some keys of a partition and what they hold.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Page {
    /// The keys, ordered by their hashes.
    pub keys: Vec<(Bytes, VersionSet)>,
    /// How many hashes could not be read.
    pub unreadable: usize,
    /// Where the next page begins; none after the last one.
    pub next: Option<u64>,
}

/// A handle of a store or an engine. A clone is another handle of the same; it keeps neither open.
#[derive(Clone)]
pub struct Access(pub(crate) Arc<Shared>);

impl Access {
    /// Hands in a write. Never waits: one that cannot be queued is answered at once.
    pub fn submit(&self, write: Write) {
        self.submit_all([write]);
    }

    /// Hands in writes that came together: they wait together, so that one sync can serve them. Never waits.
    pub fn submit_all(&self, writes: impl IntoIterator<Item = Write>) {
        for (write, error) in self.0.queue.push(writes) {
            (write.done)(Err(error));
        }
    }

    /// What a key holds. Reads the disk; `None` means that this disk never held anything for the key, or has removed it.
    pub fn get(&self, partition: Partition, key: &[u8]) -> Result<Option<VersionSet>, ReadError> {
        let key = KeyOf { partition, hash: key_hash(key), key };
        self.answer(partition, self.0.read(key)?)
    }

    /// What a key holds, if that is in memory; none when the disk would have to be waited for.
    pub fn try_get(&self, partition: Partition, key: &[u8]) -> Option<Result<Option<VersionSet>, ReadError>> {
        let key = KeyOf { partition, hash: key_hash(key), key };
        let found = self.0.try_read(key)?;
        Some(found.and_then(|found| self.answer(partition, found)))
    }

    fn answer(&self, partition: Partition, found: Found) -> Result<Option<VersionSet>, ReadError> {
        match found {
            Found::Set { set, sure: true, .. } => Ok(Some(set)),
            Found::Removed { sure: true } => Ok(None),
            Found::Nothing | Found::Other(_) if self.0.knows_all(partition) => Ok(None),
            _ => Err(ReadError::Quarantined { partition }),
        }
    }

    /// Every key under a hash, with what it holds. Reads the disk.
    pub fn load_hash(
        &self,
        partition: Partition,
        key_hash: u64,
    ) -> Result<Vec<(Bytes, VersionSet)>, ReadError> {
        self.0.read_hash(partition, key_hash)
    }

    /// The keys of a partition by their hashes, after one: `limit` of them, and the rest of the last hash. From
    /// memory. Fewer than `limit` are the last.
    pub fn scan(&self, partition: Partition, after: Option<u64>, limit: usize) -> Vec<Scanned> {
        let Some(hashes) = behind(after) else { return Vec::new() };
        let scanned = |(key_hash, entry): (u64, Entry)| Scanned {
            key_hash,
            digest: entry.digest,
            dead_from_unix_ms: entry.dead_from_unix_ms(),
        };
        self.0.index.scan(partition, hashes, limit).into_iter().map(scanned).collect()
    }

    /// As [`Access::scan`], with the keys themselves and what they hold. Reads the disk.
    pub fn page(&self, partition: Partition, after: Option<u64>, limit: usize) -> Page {
        let mut hashes: Vec<_> =
            self.scan(partition, after, limit).iter().map(|scanned| scanned.key_hash).collect();
        hashes.dedup();
        let mut page = Page { next: hashes.last().copied(), ..Page::default() };
        for hash in hashes {
            match self.load_hash(partition, hash) {
                Ok(keys) => page.keys.extend(keys),
                Err(_) => page.unreadable += 1,
            }
        }
        page
    }

    /// The partitions that lost something to rot on this disk, and were not resynchronised yet. Keys that may be
    /// concerned are not served and take no events; they take merges, which is how they heal.
    pub fn quarantined(&self) -> Vec<Partition> {
        let ring = self.0.index.partitions().map_or(PARTITIONS_MAX, PartitionCount::get) as u16;
        let all = (0..ring).map(Partition).chain([HINTS]);
        all.filter(|&partition| !self.is_whole(partition)).collect()
    }

    /// Whether nothing of the partition was lost, or all was resynchronised since.
    fn is_whole(&self, partition: Partition) -> bool {
        self.0.knows_all(partition) && !self.0.index.is_unsure(partition)
    }

    /// Serves a partition again: what is here by now is all that its peers had. Of what a lost segment may have outdated
    /// and no peer gave, `leftover` says what becomes. That is durable when this returns.
    pub fn lift(&self, partition: Partition, leftover: Leftover) -> io::Result<()> {
        let Shared { disk, names, lifted, index, segments, .. } = &*self.0;
        if !self.0.knows_all(partition) {
            lifted.lift(&**disk, names, partition, self.0.lost_through, leftover)?;
        }
        // Records that say that a part may be lost are written again. Should that not happen, the next start finds the
        // partition quarantined once more.
        let moved = |old, new| segments.count(Some(old), Some(new));
        for hash in index.settle(partition, leftover, moved) {
            let keys = self.load_hash(partition, hash).unwrap_or_default();
            self.submit_all(keys.into_iter().map(|(key, _)| Write {
                partition,
                key,
                change: Change::Merge(VersionSet::default()),
                prepared: None,
                done: Box::new(|_| {}),
            }));
        }
        Ok(())
    }

    /// Says how many partitions the ring has, which the trees depend on. The first answer counts.
    pub fn set_partitions(&self, partitions: PartitionCount) {
        self.0.index.set_partitions(partitions);
    }

    /// How far the log is synced: grows over the disk's whole life, and what lies before it survives every crash. A disk
    /// whose log reaches less far than it once did went back in time.
    pub fn synced_position(&self) -> u64 {
        self.0.synced_position.load(Ordering::Acquire)
    }

    /// What a partition takes.
    pub fn partition_usage(&self, partition: Partition) -> PartitionUsage {
        self.0.index.usage(partition)
    }

    /// Room and state.
    pub fn usage(&self) -> Usage {
        let Shared { segments, index, status, .. } = &*self.0;
        let segments = segments.in_order();
        let full = self.0.spendable_bytes().is_err();
        let state = match status.state() {
            State::Writable if full => State::Full,
            state => state,
        };
        Usage {
            keys: index.keys(),
            log_bytes: segments.iter().map(|segment| segment.file_bytes()).sum(),
            dead_bytes: segments.iter().map(|segment| segment.dead_bytes()).sum(),
            free_bytes: self.0.free_bytes(),
            segments: segments.len(),
            state,
            quarantined: self.quarantined().len(),
            hints: index.usage(HINTS),
        }
    }
}

/// The hashes after one.
fn behind(after: Option<u64>) -> Option<RangeInclusive<u64>> {
    match after {
        None => Some(0..=u64::MAX),
        Some(u64::MAX) => None,
        Some(after) => Some(after + 1..=u64::MAX),
    }
}

/// The trees of the partitions; that of one without keys, or of a ring whose size was not said, is empty.
impl antientropy::View for Access {
    fn is_whole(&self, partition: Partition) -> bool {
        self.is_whole(partition)
    }

    fn root(&self, partition: Partition) -> u64 {
        self.0.index.root(partition)
    }

    fn children(&self, partition: Partition, prefix: Prefix) -> Option<[u64; FANOUT]> {
        self.0.index.children(partition, prefix)
    }

    fn entries(
        &self,
        partition: Partition,
        hashes: RangeInclusive<u64>,
        limit: usize,
    ) -> Vec<antientropy::Entry> {
        self.0.index.entries(partition, hashes, limit)
    }
}
