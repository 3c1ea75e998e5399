//! The records of one group, on their way to the disk.
//!
//! Invariant: `records` says of every record in `bytes` whose it is and where.

use bytes::Bytes;
use quorate_core::ring::{Partition, key_hash};
use xxhash_rust::xxh3::xxh3_64;

use crate::format::{self, FLAG_SHARED_HASH, GROUP_HEADER_BYTES, Record};
use crate::index::{Entry, KeyOf};

/// One record of a batch.
pub(crate) struct Placed {
    partition: Partition,
    hash: u64,
    key: Bytes,
    /// Whether other keys have this hash.
    pub(crate) shared: bool,
    digest: u64,
    at: usize,
    length: usize,
}

impl Placed {
    pub(crate) fn key(&self) -> KeyOf<'_> {
        KeyOf { partition: self.partition, hash: self.hash, key: &self.key }
    }

    /// Where the record is, when its group begins at an offset of a file.
    pub(crate) fn entry(&self, segment: u32, group_at: u64) -> Entry {
        // A segment's length fits 32 bits: SEGMENT_BYTES_MAX.
        let offset = (group_at + self.at as u64) as u32;
        Entry { segment, offset, length: self.length as u32, digest: self.digest }
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
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What it takes in a segment.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Adds a record that is new.
    pub(crate) fn push(&mut self, partition: Partition, hash: u64, key: Bytes, flags: u8, set: &[u8]) {
        let at = self.bytes.len();
        format::push_record(&mut self.bytes, partition, flags, &key, set);
        let (digest, length) = (xxh3_64(set), self.bytes.len() - at);
        let shared = flags & FLAG_SHARED_HASH != 0;
        self.records.push(Placed { partition, hash, key, shared, digest, at, length });
    }

    /// Adds a copy of a record.
    pub(crate) fn copy(&mut self, record: &Record<'_>) {
        self.records.push(Placed {
            partition: record.partition,
            hash: key_hash(record.key),
            key: Bytes::copy_from_slice(record.key),
            shared: record.flags & FLAG_SHARED_HASH != 0,
            digest: xxh3_64(record.set),
            at: self.bytes.len(),
            length: record.bytes.len(),
        });
        self.bytes.extend_from_slice(record.bytes);
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
}
