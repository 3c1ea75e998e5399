//! The catalogue of a sealed segment: which keys have a record in it, and where the newest one is. With it a start
//! need not read the segment.
//!
//! ```text
//! catalogue = magic "quorcat\0" | format u32 | entries u32 | salt of the segment u64 | end of the segment u64
//!           | entry* | checksum of all before u64                                                  (40 + 32 each)
//! entry     = hash of the key u64 | digest of the set u64 | offset u32 | length u32 | dead from u32
//!           | partition u16 | flags u8 | other records of the key in the segment u8
//! ```
//!
//! Invariants:
//! - It is a copy: one that is missing, damaged or of another segment costs a start the time to read the segment, and
//!   nothing else.
//! - Entries are ordered by partition and hash, and replayed before the catalogues of later segments they give what the
//!   segment's records give.

use std::collections::BTreeMap;
use std::io;

use quorate_core::ring::{Partition, key_hash};
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::Disk;
use crate::entry::Entry;
use crate::format::{FLAG_SHARED_HASH, Record, u32_at, u64_at};
use crate::gentle::gently;
use crate::segment::{Ending, Range, Scan, Segment, read_prefix};
use crate::spare::{Names, remove};

/// A catalogue beside a segment.
pub(crate) const CATALOGUE_SUFFIX: &str = ".catalogue";

const MAGIC: &[u8; 8] = b"quorcat\0";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 8;

/// A key in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Item {
    pub(crate) partition: Partition,
    pub(crate) hash: u64,
    /// The flags of the record, and [`FLAG_SHARED_HASH`] where the segment has records of other keys of the hash.
    pub(crate) flags: u8,
    /// The newest record of the key, in a segment of the slot that the reader names, and how many others there are.
    pub(crate) entry: Entry,
}

/// Every key of a segment's records.
pub(crate) fn items<'a>(records: impl Iterator<Item = (usize, Record<'a>)>, segment: &Segment) -> Vec<Item> {
    /// Keys of one hash.
    type Keys<'a> = Vec<(&'a [u8], Item)>;
    let mut hashes: BTreeMap<(Partition, u64), Keys<'a>> = BTreeMap::new();
    for (at, record) in records {
        let (partition, hash) = (record.partition, key_hash(record.key));
        let entry = Entry::of(&record, segment, at);
        let keys = hashes.entry((partition, hash)).or_default();
        match keys.iter_mut().find(|(key, _)| *key == record.key) {
            Some((_, item)) => {
                item.entry = entry.after(item.entry);
                item.flags = record.flags;
            }
            None => keys.push((record.key, Item { partition, hash, flags: record.flags, entry })),
        }
    }
    let mut items = Vec::with_capacity(hashes.len());
    for keys in gently(hashes.into_values()) {
        let shared = if keys.len() > 1 { FLAG_SHARED_HASH } else { 0 };
        items.extend(keys.into_iter().map(|(_, item)| Item { flags: item.flags | shared, ..item }));
    }
    items
}

/// The catalogue's bytes.
fn encode(items: &[Item], salt: u64, end: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + items.len() * ENTRY_BYTES + CHECKSUM_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&(items.len() as u32).to_le_bytes()); // Fewer than the segment has bytes.
    bytes.extend_from_slice(&salt.to_le_bytes());
    bytes.extend_from_slice(&end.to_le_bytes());
    for Item { partition, hash, flags, entry } in items {
        bytes.extend_from_slice(&hash.to_le_bytes());
        bytes.extend_from_slice(&entry.digest.to_le_bytes());
        for word in [entry.offset, entry.length(), entry.dead_from_word()] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&partition.0.to_le_bytes());
        bytes.extend_from_slice(&[*flags, entry.older() as u8]);
    }
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    bytes
}

/// A catalogue that was read back, sound and of the right segment.
pub(crate) struct Catalogue(Vec<u8>);

impl Catalogue {
    /// Checks what a file holds against what the segment says of itself.
    pub(crate) fn decode(bytes: Vec<u8>, salt: u64, end: u64) -> Option<Self> {
        let entries = bytes.len().checked_sub(HEADER_BYTES + CHECKSUM_BYTES)?;
        let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        let sound = content.starts_with(MAGIC)
            && u32_at(content, 8) == FORMAT
            && entries.is_multiple_of(ENTRY_BYTES)
            && entries / ENTRY_BYTES == u32_at(content, 12) as usize
            && (u64_at(content, 16), u64_at(content, 24)) == (salt, end)
            && u64_at(checksum, 0) == xxh3_64(content);
        sound.then_some(Self(bytes))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys, for the segment that got this slot.
    pub(crate) fn items(&self, slot: u32) -> impl Iterator<Item = Item> + '_ {
        let entries = &self.0[HEADER_BYTES..self.0.len() - CHECKSUM_BYTES];
        entries.chunks_exact(ENTRY_BYTES).map(move |bytes| {
            let (digest, offset, length) = (u64_at(bytes, 8), u32_at(bytes, 16), u32_at(bytes, 20));
            let entry = Entry::from_words(slot, offset, length, digest, u32_at(bytes, 24));
            let entry = entry.with_flags(bytes[30]);
            Item {
                partition: Partition(u16::from_le_bytes([bytes[28], bytes[29]])),
                hash: u64_at(bytes, 0),
                flags: bytes[30],
                entry: entry.with_older(u32::from(bytes[31])),
            }
        })
    }
}

/// Reads the catalogue of a segment, if a sound one is there.
pub(crate) fn read(disk: &dyn Disk, range: Range, salt: u64, end: u64) -> Option<Catalogue> {
    let file = disk.open(&range.name(CATALOGUE_SUFFIX)).ok()?;
    let bytes = read_prefix(&*file, file.length().ok()?).ok()?;
    Catalogue::decode(bytes, salt, end)
}

/// Reads a sealed segment and writes its catalogue. Says whether the segment is sound; else there is none.
pub(crate) fn write(disk: &dyn Disk, names: &Names, segment: &Segment) -> io::Result<bool> {
    let end = segment.end();
    let bytes = read_prefix(&*segment.file, end)?;
    let scan = Scan::of(&bytes, segment.salt, Some(end));
    if scan.ending != Ending::Clean {
        return Ok(false);
    }
    let catalogue = encode(&items(gently(scan.records()), segment), segment.salt, end);
    let name = names.next();
    let written = disk.create(&name).and_then(|file| {
        file.write_at(0, &catalogue)?;
        disk.rename(&name, &segment.range.name(CATALOGUE_SUFFIX))
    });
    // Neither the bytes nor the name need be durable: without them the segment is read.
    written.inspect_err(|_| remove(disk, &name)).map(|()| true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::DeadFrom;

    fn item() -> impl Strategy<Value = Item> {
        (any::<(u16, u64, u8, u64, u32)>(), 0..1u32 << 26, any::<Option<u64>>(), 0..9u32).prop_map(
            |((partition, hash, flags, digest, offset), length, dead_from, older)| Item {
                partition: Partition(partition),
                hash,
                flags,
                entry: Entry::new(7, offset, length, digest, DeadFrom::at_ms(dead_from))
                    .with_older(older)
                    .with_flags(flags),
            },
        )
    }

    proptest! {
        #[test]
        fn it_round_trips_and_no_byte_of_it_can_change(
            items in prop::collection::vec(item(), 0..8), at: prop::sample::Index, bit in 0..8u8,
        ) {
            let bytes = encode(&items, 5, 6);
            let read = Catalogue::decode(bytes.clone(), 5, 6).unwrap();
            prop_assert_eq!(read.items(7).collect::<Vec<_>>(), items);
            prop_assert!(Catalogue::decode(bytes.clone(), 4, 6).is_none(), "of another segment");
            prop_assert!(Catalogue::decode(bytes.clone(), 5, 7).is_none(), "of another length");
            let cut = at.index(bytes.len());
            prop_assert!(Catalogue::decode(bytes[..cut].to_vec(), 5, 6).is_none());
            let mut changed = bytes;
            changed[cut] ^= 1 << bit;
            prop_assert!(Catalogue::decode(changed, 5, 6).is_none());
        }

        #[test]
        fn no_bytes_crash_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Catalogue::decode(bytes, 0, 0).is_none());
        }
    }
}
