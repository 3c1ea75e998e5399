//! The bytes of a segment, format 2. All integers are little-endian, all checksums are xxh3-64.
//!
//! ```text
//! segment = header, group*, zeros or leftovers: of a write that was never acknowledged, of a segment that had the file
//! header  = magic "quorlog\0" | format u32 | 0 u32 | node [16] | first u64 | last u64
//!         | previous_end u64 | end u64 | salt u64 | 0 [8] | checksum of all before u64              (96 bytes)
//! group   = checksum of the rest, seeded with the salt u64 | magic "grp1" | records u32
//!         | length of the records u32 | check of these fields u32 | synced_to u64
//!         | previous group's checksum u64 | record*                                               (40 + length)
//! record  = checksum of the rest u64 | length of all u32 | length of the key u16 | partition u16
//!         | dead from u56, flags u8 | key | encoded version set                                    (24 + …)
//! ```
//!
//! A record is dead from that Unix millisecond on: then no value of its set is left to show; 0 is never, and a flag
//! says always. In format 1 nothing was said of that and keys were never removed; all else was the same. A segment
//! of format 1 is read as it is, and rewritten in the newest format when it is merged.
//!
//! Invariant: a group that was torn, moved, left over from another segment or changed by the disk is no group.
//! The salt differs between segments and nobody knows it, so that nothing a client stores can pass for a group,
//! nor for the header of one: the search for a group behind a broken one stays linear.
//!
//! The header's place and that of its format and checksum stay in every later format.

use quorate_core::NodeId;
use quorate_core::causality::VersionSet;
use quorate_core::ring::Partition;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::segment::Range;

/// The format that this program writes.
pub(crate) const FORMAT: u32 = 2;
/// The oldest format that it reads.
const FORMAT_OLDEST: u32 = 1;
/// The first format whose records say from when on they are dead.
const FORMAT_DEAD_FROM: u32 = 2;
pub(crate) const SEGMENT_HEADER_BYTES: usize = 96;
pub(crate) const GROUP_HEADER_BYTES: usize = 40;
pub(crate) const RECORD_HEADER_BYTES: usize = 24;

const SEGMENT_MAGIC: &[u8; 8] = b"quorlog\0";
const GROUP_MAGIC: &[u8; 4] = b"grp1";

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    /// How the records are to be read.
    pub(crate) format: u32,
    /// Whose log this is.
    pub(crate) node: NodeId,
    /// The segments of the log that this one holds: itself, or, merged, a run of them.
    pub(crate) first: u64,
    /// See `first`.
    pub(crate) last: u64,
    /// Where the groups of the segment before `first` ended, when this one was begun; 0 when that is not known.
    /// What that segment holds beyond was never acknowledged.
    pub(crate) previous_end: u64,
    /// Where the groups of this one end; 0 while it is written, then the next segment knows.
    pub(crate) end: u64,
    /// The seed of the groups' checksums.
    pub(crate) salt: u64,
}

/// Bytes that are no header of this format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderError {
    /// A sound header of another format.
    Format(u32),
    /// Not a header.
    Damaged,
}

impl SegmentHeader {
    /// The segments of the log that it holds.
    pub(crate) fn range(&self) -> Range {
        Range { first: self.first, last: self.last }
    }

    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend_from_slice(SEGMENT_MAGIC);
        bytes.extend_from_slice(&self.format.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(self.node.as_bytes());
        for number in [self.first, self.last, self.previous_end, self.end, self.salt, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.resize(SEGMENT_HEADER_BYTES - 8, 0);
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes.try_into().expect("the fields fill the header exactly")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(HeaderError::Damaged)?;
        let (fields, checksum) = bytes.split_at(SEGMENT_HEADER_BYTES - 8);
        if !fields.starts_with(SEGMENT_MAGIC) || u64_at(checksum, 0) != xxh3_64(fields) {
            return Err(HeaderError::Damaged);
        }
        let format = u32_at(fields, 8);
        if !(FORMAT_OLDEST..=FORMAT).contains(&format) {
            return Err(HeaderError::Format(format));
        }
        let node = fields[16..32].try_into().expect("16 bytes");
        Ok(Self {
            format,
            node: NodeId::from_u128(u128::from_be_bytes(node)),
            first: u64_at(fields, 32),
            last: u64_at(fields, 40),
            previous_end: u64_at(fields, 48),
            end: u64_at(fields, 56),
            salt: u64_at(fields, 64),
        })
    }
}

/// One group in the bytes of a segment.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    /// Where its records begin in the segment.
    pub(crate) records_at: usize,
    /// Where it ends in the segment.
    pub(crate) end: usize,
    /// The segment was known to be synced up to here when the group was written.
    pub(crate) synced_to: u64,
    /// Its checksum, which the next group names.
    pub(crate) checksum: u64,
    records: &'a [u8],
}

/// Makes a group of records, in place: the buffer is a gap of [`GROUP_HEADER_BYTES`], then the records. Returns
/// the group's checksum.
pub(crate) fn seal_group(buffer: &mut [u8], records: u32, synced_to: u64, previous: u64, salt: u64) -> u64 {
    let length = (buffer.len() - GROUP_HEADER_BYTES) as u32; // A segment's length fits 32 bits.
    buffer[8..12].copy_from_slice(GROUP_MAGIC);
    buffer[12..16].copy_from_slice(&records.to_le_bytes());
    buffer[16..20].copy_from_slice(&length.to_le_bytes());
    buffer[24..32].copy_from_slice(&synced_to.to_le_bytes());
    buffer[32..40].copy_from_slice(&previous.to_le_bytes());
    let check = group_check(buffer, salt);
    buffer[20..24].copy_from_slice(&check.to_le_bytes());
    let checksum = xxh3_64_with_seed(&buffer[8..], salt);
    buffer[..8].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// The check of a group's header alone.
fn group_check(group: &[u8], salt: u64) -> u32 {
    let mut fields = [0; 28];
    fields[..12].copy_from_slice(&group[8..20]);
    fields[12..].copy_from_slice(&group[24..40]);
    xxh3_64_with_seed(&fields, salt) as u32 // The low half is as good as any.
}

/// How many bytes the group has that these begin with, if they begin with a group's header; the rest may be missing.
pub(crate) fn group_bytes(bytes: &[u8], salt: u64) -> Option<usize> {
    if bytes.len() < GROUP_HEADER_BYTES || &bytes[8..12] != GROUP_MAGIC {
        return None;
    }
    let whole = group_check(bytes, salt) == u32_at(bytes, 20);
    GROUP_HEADER_BYTES.checked_add(u32_at(bytes, 16) as usize).filter(|_| whole)
}

/// The group that begins at an offset of a segment, if a whole one does. `previous` is the checksum of the group
/// before, where that is known.
pub(crate) fn group_at(segment: &[u8], at: usize, previous: Option<u64>, salt: u64) -> Option<Group<'_>> {
    let bytes = segment.get(at..)?;
    let bytes = bytes.get(..group_bytes(bytes, salt)?)?;
    let checksum = u64_at(bytes, 0);
    let follows = previous.is_none_or(|previous| previous == u64_at(bytes, 32));
    if !follows || xxh3_64_with_seed(&bytes[8..], salt) != checksum {
        return None;
    }
    let group = Group {
        records_at: at + GROUP_HEADER_BYTES,
        end: at + bytes.len(),
        synced_to: u64_at(bytes, 24),
        checksum,
        records: &bytes[GROUP_HEADER_BYTES..],
    };
    (group.records().count() == u32_at(bytes, 12) as usize).then_some(group)
}

impl<'a> Group<'a> {
    /// The records, each with its offset in the segment.
    pub(crate) fn records(&self) -> impl Iterator<Item = (usize, Record<'a>)> + use<'a> {
        let (records, begin) = (self.records, self.records_at);
        let mut at = 0;
        std::iter::from_fn(move || {
            let record = record_at(&records[at..])?;
            at += record.bytes.len();
            Some((begin + at - record.bytes.len(), record))
        })
    }
}

/// Flag: another key of the partition has the same hash.
pub(crate) const FLAG_SHARED_HASH: u8 = 1;
/// Flag: the set may lack versions that this disk held once and lost.
pub(crate) const FLAG_INCOMPLETE: u8 = 2;
/// Flag: the key was removed; there is no set.
pub(crate) const FLAG_REMOVED: u8 = 4;
/// Flag: the set has no value to show.
const FLAG_DEAD: u8 = 8;

/// One record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) partition: Partition,
    pub(crate) flags: u8,
    /// See [`VersionSet::dead_from`].
    dead_from: Option<u64>,
    pub(crate) key: &'a [u8],
    /// The encoded version set.
    pub(crate) set: &'a [u8],
    /// All of the record.
    pub(crate) bytes: &'a [u8],
}

impl Record<'_> {
    pub(crate) fn is_removal(&self) -> bool {
        self.flags & FLAG_REMOVED != 0
    }

    /// From when on no value of the set is left to show, as a segment of this format says it.
    pub(crate) fn dead_from(&self, format: u32) -> Option<u64> {
        if format >= FORMAT_DEAD_FROM || self.is_removal() {
            return self.dead_from;
        }
        VersionSet::decode(self.set).ok()?.dead_from()
    }

    /// Whether the bytes say all that a record of the newest format does.
    pub(crate) fn is_newest(&self, format: u32) -> bool {
        format >= FORMAT_DEAD_FROM
    }
}

/// What a new record says.
#[derive(Clone, Copy)]
pub(crate) struct NewRecord<'a> {
    pub(crate) partition: Partition,
    /// But the one that follows from `dead_from`.
    pub(crate) flags: u8,
    pub(crate) dead_from: Option<u64>,
    pub(crate) key: &'a [u8],
    pub(crate) set: &'a [u8],
}

/// Appends a record. The key's length fits 16 bits.
pub(crate) fn push_record(buffer: &mut Vec<u8>, record: NewRecord<'_>) {
    let NewRecord { partition, mut flags, dead_from, key, set } = record;
    let begin = buffer.len();
    let length = RECORD_HEADER_BYTES + key.len() + set.len();
    if dead_from == Some(0) {
        flags |= FLAG_DEAD;
    }
    // Never is 0, and so is a moment that 56 bits cannot say: then it is dead later than it could be.
    let moment = dead_from.filter(|&ms| ms < 1 << 56).unwrap_or(0);
    buffer.extend_from_slice(&[0; 8]);
    buffer.extend_from_slice(&(length as u32).to_le_bytes());
    buffer.extend_from_slice(&(key.len() as u16).to_le_bytes());
    buffer.extend_from_slice(&partition.0.to_le_bytes());
    buffer.extend_from_slice(&(moment | u64::from(flags) << 56).to_le_bytes());
    buffer.extend_from_slice(key);
    buffer.extend_from_slice(set);
    let checksum = xxh3_64(&buffer[begin + 8..]);
    buffer[begin..begin + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// The record that the bytes begin with, if they begin with a sound one.
pub(crate) fn record_at(bytes: &[u8]) -> Option<Record<'_>> {
    let length = u32_at(bytes.get(..RECORD_HEADER_BYTES)?, 8) as usize;
    let bytes = bytes.get(..length)?;
    let body = bytes.get(RECORD_HEADER_BYTES..)?;
    let key_length = usize::from(u16_at(bytes, 12));
    if key_length > body.len() || u64_at(bytes, 0) != xxh3_64(&bytes[8..]) {
        return None;
    }
    let (key, set) = body.split_at(key_length);
    let (flags, moment) = (bytes[23], u64_at(bytes, 16) << 8 >> 8);
    let dead_from = if flags & FLAG_DEAD != 0 { Some(0) } else { Some(moment).filter(|&moment| moment != 0) };
    Some(Record { partition: Partition(u16_at(bytes, 14)), flags, dead_from, key, set, bytes })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SALT: u64 = 7;

    fn header() -> SegmentHeader {
        SegmentHeader {
            format: FORMAT,
            node: NodeId::from_u128(9),
            first: 3,
            last: 5,
            previous_end: 1000,
            end: 2000,
            salt: SALT,
        }
    }

    fn new_record<'a>(
        partition: u16,
        flags: u8,
        dead_from: Option<u64>,
        key: &'a [u8],
        set: &'a [u8],
    ) -> NewRecord<'a> {
        NewRecord { partition: Partition(partition), flags, dead_from, key, set }
    }

    fn group(previous: u64) -> Vec<u8> {
        let mut buffer = vec![0; GROUP_HEADER_BYTES];
        push_record(&mut buffer, new_record(1, 0, Some(1 << 40), b"key", b"set"));
        push_record(&mut buffer, new_record(300, FLAG_INCOMPLETE, None, b"", b""));
        seal_group(&mut buffer, 2, 96, previous, SALT);
        buffer
    }

    #[test]
    fn a_header_round_trips_and_no_byte_of_it_can_change() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 4;
            assert_eq!(SegmentHeader::decode(&changed), Err(HeaderError::Damaged), "byte {at}");
        }
        assert_eq!(SegmentHeader::decode(&bytes[..95]), Err(HeaderError::Damaged));
    }

    #[test]
    fn a_later_format_is_named() {
        let mut bytes = header().encode();
        bytes[8] = FORMAT as u8 + 1;
        let checksum = xxh3_64(&bytes[..88]);
        bytes[88..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Format(FORMAT + 1)));
    }

    #[test]
    fn a_group_round_trips_and_no_byte_of_it_can_change() {
        let bytes = group(11);
        let read = group_at(&bytes, 0, Some(11), SALT).unwrap();
        assert_eq!((read.records_at, read.end, read.synced_to), (GROUP_HEADER_BYTES, bytes.len(), 96));
        let records: Vec<_> =
            read.records().map(|(at, r)| (at, r.partition.0, r.flags, r.key, r.set)).collect();
        assert_eq!(records[0], (40, 1, 0, b"key".as_slice(), b"set".as_slice()));
        assert_eq!(
            read.records().map(|(_, r)| r.dead_from(FORMAT)).collect::<Vec<_>>(),
            [Some(1 << 40), None]
        );
        assert_eq!(records[1], (70, 300, FLAG_INCOMPLETE, b"".as_slice(), b"".as_slice()));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            assert!(group_at(&changed, 0, None, SALT).is_none(), "byte {at}");
        }
    }

    #[test]
    fn a_record_says_from_when_on_it_is_dead() {
        let said = |dead_from| {
            let mut buffer = Vec::new();
            push_record(&mut buffer, new_record(1, FLAG_REMOVED, dead_from, b"key", b""));
            let record = record_at(&buffer).unwrap();
            assert!(record.is_removal() && record.flags & !FLAG_DEAD == FLAG_REMOVED);
            record.dead_from(FORMAT)
        };
        for dead_from in [None, Some(0), Some(1), Some((1 << 56) - 1)] {
            assert_eq!(said(dead_from), dead_from);
        }
        assert_eq!(said(Some(1 << 56)), None);
    }

    #[test]
    fn a_group_of_another_segment_or_another_place_is_none() {
        let bytes = group(11);
        assert!(group_at(&bytes, 0, Some(12), SALT).is_none(), "another group went before");
        assert!(group_at(&bytes, 0, Some(11), SALT + 1).is_none(), "another segment's salt");
        for cut in 0..bytes.len() {
            assert!(group_at(&bytes[..cut], 0, Some(11), SALT).is_none(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_crash_the_readers(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = SegmentHeader::decode(&bytes);
            let _ = group_at(&bytes, 0, None, SALT);
            prop_assert!(record_at(&bytes).is_none());
        }
    }
}
