//! The records of one group, on their way to the disk.
//!
//! Invariant: `records` says of every record in `bytes` whose it is and where.

use std::io;

use bytes::Bytes;
use quorate_core::causality::VersionSet;
use quorate_core::ring::{Partition, key_hash};

use crate::disk::File;
use crate::entry::{DeadFrom, Entry, KeyOf};
use crate::format::{self, FLAG_REMOVED, FLAG_SHARED_HASH, GROUP_HEADER_BYTES, NewRecord, Record};

/// What an operating system reads and writes at once.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// One record of a batch.
pub(crate) struct Placed {
    partition: Partition,
    hash: u64,
    key: Bytes,
    flags: u8,
    dead_from: Option<u64>,
    digest: u64,
    at: usize,
    length: usize,
}

impl Placed {
    pub(crate) fn key(&self) -> KeyOf<'_> {
        KeyOf { partition: self.partition, hash: self.hash, key: &self.key }
    }

    /// Whether other keys have this hash.
    pub(crate) fn is_shared(&self) -> bool {
        self.flags & FLAG_SHARED_HASH != 0
    }

    /// Where the record is, when its group begins at an offset of a file.
    pub(crate) fn entry(&self, segment: u32, group_at: u64) -> Entry {
        // A segment's length fits 32 bits: SEGMENT_BYTES_MAX.
        let (offset, length) = ((group_at + self.at as u64) as u32, self.length as u32);
        if self.flags & FLAG_REMOVED != 0 {
            return Entry::removal(segment, offset, length);
        }
        let dead_from = DeadFrom::at_ms(self.dead_from);
        Entry::new(segment, offset, length, self.digest, dead_from).with_flags(self.flags)
    }
}

/// Records that become one group.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    pub(crate) records: Vec<Placed>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { bytes: vec![0; GROUP_HEADER_BYTES], records: Vec::new() }
    }
}

impl Batch {
    /// An empty one, for so many records of so many bytes.
    pub(crate) fn of(records: usize, bytes: usize) -> Self {
        let mut batch = Self::default();
        batch.bytes.reserve(bytes);
        batch.records.reserve(records);
        batch
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What it takes in a segment.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Adds a record of a set, or, without one, of the key's removal.
    pub(crate) fn push(
        &mut self,
        partition: Partition,
        hash: u64,
        key: Bytes,
        flags: u8,
        set: Option<&VersionSet>,
    ) {
        let at = self.bytes.len();
        let flags = if set.is_none() { flags | FLAG_REMOVED } else { flags };
        let (dead_from, encoded) = set.map_or((None, Vec::new()), |set| (set.dead_from(), set.encode()));
        let record = NewRecord { partition, flags, dead_from, key: &key, set: &encoded };
        format::push_record(&mut self.bytes, record);
        let (digest, length) = (VersionSet::digest_of(&encoded), self.bytes.len() - at);
        self.records.push(Placed { partition, hash, key, flags, dead_from, digest, at, length });
    }

    /// Adds a copy of a record from a segment of this format.
    pub(crate) fn copy(&mut self, record: &Record<'_>, format: u32) {
        let Record { partition, flags, key, set, .. } = *record;
        let (at, dead_from) = (self.bytes.len(), record.dead_from(format));
        if record.is_newest(format) {
            self.bytes.extend_from_slice(record.bytes);
        } else {
            format::push_record(&mut self.bytes, NewRecord { partition, flags, dead_from, key, set });
        }
        let (hash, digest) = (key_hash(key), VersionSet::digest_of(set));
        let (key, length) = (Bytes::copy_from_slice(key), self.bytes.len() - at);
        self.records.push(Placed { partition, hash, key, flags, dead_from, digest, at, length });
    }

    /// Adds the records of another batch behind these.
    pub(crate) fn append(&mut self, mut other: Self) {
        let moved = self.bytes.len() - GROUP_HEADER_BYTES;
        self.bytes.extend_from_slice(&other.bytes[GROUP_HEADER_BYTES..]);
        for record in &mut other.records {
            record.at += moved;
        }
        self.records.append(&mut other.records);
    }

    /// The bytes of the group, and its checksum.
    pub(crate) fn seal(&mut self, synced_to: u64, previous: u64, salt: u64) -> (&[u8], u64) {
        let count = self.records.len() as u32; // Each has bytes, and those fit 32 bits.
        let checksum = format::seal_group(&mut self.bytes, count, synced_to, previous, salt);
        (&self.bytes, checksum)
    }

    /// Writes the group, sealed, to a place of a file that reaches as far as `capacity`. Zeros fill the last page: so pages
    /// are written whole, and none of a file that was another segment's before must be read for that.
    pub(crate) fn write(&mut self, file: &dyn File, at: u64, capacity: u64) -> io::Result<()> {
        let length = self.bytes.len();
        let page_end = (at + self.len()).next_multiple_of(PAGE_BYTES).min(capacity);
        self.bytes.resize(length.max(page_end.saturating_sub(at) as usize), 0);
        let written = file.write_at(at, &self.bytes);
        self.bytes.truncate(length);
        written
    }
}
