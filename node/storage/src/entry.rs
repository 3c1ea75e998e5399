//! What the index knows of one key.
//!
//! Invariant: 24 bytes, whatever a key has been through.

use bytes::Bytes;
use quorate_core::causality::VersionSet;
use quorate_core::planted::{self, Bug};
use quorate_core::ring::Partition;

use crate::format::{FLAG_INCOMPLETE, Record};
use crate::segment::Segment;
use crate::write::Leftover;

/// A key, by the names that the index and the log know it by.
#[derive(Clone, Copy)]
pub(crate) struct KeyOf<'a> {
    pub(crate) partition: Partition,
    pub(crate) hash: u64,
    pub(crate) key: &'a [u8],
}

/// A record that a merge leaves out.
pub(crate) struct Dropped {
    pub(crate) partition: Partition,
    pub(crate) hash: u64,
    /// Where others have the hash too, or may come to.
    pub(crate) key: Option<Bytes>,
}

impl Dropped {
    pub(crate) fn of(key: KeyOf<'_>, with_key: bool) -> Self {
        let owned = with_key.then(|| Bytes::copy_from_slice(key.key));
        Self { partition: key.partition, hash: key.hash, key: owned }
    }

    pub(crate) fn key(&self) -> KeyOf<'_> {
        let key = self.key.as_deref().unwrap_or_default();
        KeyOf { partition: self.partition, hash: self.hash, key }
    }
}

/// From when on a key has no value to show, in Unix seconds, rounded up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DeadFrom(u32);

impl DeadFrom {
    pub(crate) const NEVER: Self = Self(u32::MAX);
    /// Not a moment: the key was removed, and is not there at all.
    const REMOVED: Self = Self(u32::MAX - 1);
    /// Not a moment either: the record cannot be read any more.
    const LOST: Self = Self(u32::MAX - 2);
    /// Nor this: the record cannot be read or may be outdated, and it was settled that nobody has anything newer.
    const GONE: Self = Self(u32::MAX - 3);
    const LAST: u64 = u32::MAX as u64 - 4;

    /// From what [`quorate_core::causality::VersionSet::dead_from`] says.
    pub(crate) fn at_ms(unix_ms: Option<u64>) -> Self {
        let seconds = unix_ms.map(|ms| ms.div_ceil(1000)).filter(|&seconds| seconds <= Self::LAST);
        seconds.map_or(Self::NEVER, |seconds| Self(seconds as u32))
    }

    pub(crate) fn unix_ms(self) -> Option<u64> {
        (u64::from(self.0) <= Self::LAST).then_some(u64::from(self.0) * 1000)
    }
}

/// The length has the lower bits of a word, then come two flags, and the count of older records has the upper ones.
const LENGTH_BITS: u32 = 26;
const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;
const INCOMPLETE: u32 = 1 << LENGTH_BITS;
const STALE: u32 = 1 << (LENGTH_BITS + 1);
const OLDER_SHIFT: u32 = LENGTH_BITS + 2;
/// As many older records or more: then it is not known how many, until the next start counts them again.
const OLDER_MAX: u32 = u32::MAX >> OLDER_SHIFT;

const _: () = assert!(crate::options::RECORD_BYTES_MAX <= LENGTH_MASK as u64);

/// Where a key's newest record is, and what is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// The digest of the version set.
    pub(crate) digest: u64,
    /// The slot of the file.
    pub(crate) segment: u32,
    /// Where in the file.
    pub(crate) offset: u32,
    packed: u32,
    dead_from: DeadFrom,
}

impl Entry {
    pub(crate) fn new(segment: u32, offset: u32, length: u32, digest: u64, dead_from: DeadFrom) -> Self {
        debug_assert!(length <= LENGTH_MASK);
        Self { digest, segment, offset, packed: length, dead_from }
    }

    /// The entry of a record in a segment.
    pub(crate) fn of(record: &Record<'_>, segment: &Segment, at: usize) -> Self {
        let (offset, length) = (at as u32, record.bytes.len() as u32);
        if record.is_removal() {
            return Self::removal(segment.slot, offset, length);
        }
        let dead_from = DeadFrom::at_ms(record.dead_from(segment.format));
        let entry = Self::new(segment.slot, offset, length, VersionSet::digest_of(record.set), dead_from);
        entry.with_flags(record.flags)
    }

    /// From what a catalogue says.
    pub(crate) fn from_words(segment: u32, offset: u32, length: u32, digest: u64, dead_from: u32) -> Self {
        Self::new(segment, offset, length & LENGTH_MASK, digest, DeadFrom(dead_from))
    }

    /// With what the flags of its record say.
    pub(crate) fn with_flags(self, flags: u8) -> Self {
        let incomplete = if flags & FLAG_INCOMPLETE != 0 { INCOMPLETE } else { 0 };
        Self { packed: self.packed & !INCOMPLETE | incomplete, ..self }
    }

    /// For a catalogue.
    pub(crate) fn dead_from_word(self) -> u32 {
        self.dead_from.0
    }

    /// The entry of a key that was removed.
    pub(crate) fn removal(segment: u32, offset: u32, length: u32) -> Self {
        Self::new(segment, offset, length, 0, DeadFrom::REMOVED)
    }

    pub(crate) fn is_removal(self) -> bool {
        matches!(self.dead_from, DeadFrom::REMOVED | DeadFrom::GONE)
    }

    /// Whether the disk has lost the record.
    pub(crate) fn is_lost(self) -> bool {
        self.dead_from == DeadFrom::LOST
    }

    /// Whether the record is lost or outdated, and nobody had anything instead.
    pub(crate) fn is_gone(self) -> bool {
        self.dead_from == DeadFrom::GONE
    }

    /// The same, after the disk has lost the record.
    pub(crate) fn lost(self) -> Self {
        Self { dead_from: DeadFrom::LOST, ..self.unmarked() }
    }

    /// The same, after the disk has lost what may have been a newer record of the key.
    pub(crate) fn stale(self) -> Self {
        Self { packed: self.packed | STALE, ..self }
    }

    /// Whether the record may be outdated: what it holds may have been deleted, and the deletion forgotten by all. So it
    /// is shown to nobody, and what a peer has takes its place.
    pub(crate) fn is_stale(self) -> bool {
        self.packed & STALE != 0
    }

    /// The same, after it was settled that the key is not there.
    pub(crate) fn gone(self) -> Self {
        Self { dead_from: DeadFrom::GONE, ..self.unmarked() }
    }

    fn unmarked(self) -> Self {
        Self { packed: self.packed & !(INCOMPLETE | STALE), ..self }
    }

    /// Whether the disk may have lost a part of the set.
    pub(crate) fn is_incomplete(self) -> bool {
        self.packed & INCOMPLETE != 0
    }

    /// Whether what the key holds is not known for certain.
    pub(crate) fn is_unsure(self) -> bool {
        self.is_lost() || self.is_incomplete() || self.is_stale()
    }

    /// The same, after it was settled that what is here is all.
    pub(crate) fn settled(self, leftover: Leftover) -> Self {
        match self.is_lost() || self.is_stale() && leftover == Leftover::Drop {
            true => self.gone(),
            false => self.unmarked(),
        }
    }

    /// Whether the key is there, as far as the index knows.
    pub(crate) fn is_present(self) -> bool {
        !self.is_removal() && !self.is_lost() && (!self.is_stale() || planted::is(Bug::UnsureKeysLeave))
    }

    /// Whether its record is needed: that of a removal is while an older record could come back.
    pub(crate) fn is_live(self) -> bool {
        match self.dead_from {
            DeadFrom::REMOVED | DeadFrom::GONE => self.older() > 0,
            DeadFrom::LOST => false,
            _ => true,
        }
    }

    /// From when on there is no value to show, in Unix milliseconds.
    pub(crate) fn dead_from_unix_ms(self) -> Option<u64> {
        self.dead_from.unix_ms()
    }

    /// The record's length.
    pub(crate) fn length(self) -> u32 {
        self.packed & LENGTH_MASK
    }

    pub(crate) fn place(self) -> (u32, u32) {
        (self.segment, self.offset)
    }

    /// How many other records of the key are on the disk; at least so many, when it is the largest number.
    pub(crate) fn older(self) -> u32 {
        self.packed >> OLDER_SHIFT
    }

    pub(crate) fn with_older(self, older: u32) -> Self {
        let rest = self.packed & (LENGTH_MASK | INCOMPLETE | STALE);
        Self { packed: rest | older.min(OLDER_MAX) << OLDER_SHIFT, ..self }
    }

    /// The same, when its record was copied to another place.
    pub(crate) fn moved_to(self, copy: Self) -> Self {
        let packed = self.packed & !LENGTH_MASK | copy.length();
        Self { segment: copy.segment, offset: copy.offset, packed, ..self }
    }

    /// This one, written after another one of the same key.
    pub(crate) fn after(self, old: Self) -> Self {
        self.with_older(self.older() + old.older() + 1)
    }

    /// One of the older records is gone.
    pub(crate) fn with_one_older_less(self) -> Self {
        match self.older() {
            OLDER_MAX => self,
            older => self.with_older(older.saturating_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_small() {
        assert_eq!(size_of::<Entry>(), 24);
    }

    #[test]
    fn older_records_are_counted_until_they_are_too_many() {
        let entry = Entry::new(1, 2, LENGTH_MASK, 3, DeadFrom::NEVER).with_flags(FLAG_INCOMPLETE);
        let mut counted = entry;
        for older in 1..OLDER_MAX {
            counted = entry.after(counted);
            assert_eq!((counted.older(), counted.length()), (older, LENGTH_MASK));
            assert!(counted.is_incomplete() && !counted.settled(Leftover::Keep).is_incomplete());
        }
        assert_eq!(counted.with_one_older_less().older(), OLDER_MAX - 2);
        let many = entry.after(entry.after(counted));
        assert_eq!(many.with_one_older_less().older(), OLDER_MAX);
    }

    #[test]
    fn a_moment_is_rounded_up_and_never_stays_never() {
        let at = |ms| DeadFrom::at_ms(ms).unix_ms();
        assert_eq!([at(Some(0)), at(Some(1)), at(Some(5000))], [Some(0), Some(1000), Some(5000)]);
        assert_eq!([at(None), at(Some(u64::MAX)), at(Some(u64::from(u32::MAX) * 1000))], [None; 3]);
        let no_moments = [DeadFrom::REMOVED, DeadFrom::LOST, DeadFrom::GONE];
        assert_eq!(no_moments.map(DeadFrom::unix_ms), [None; 3]);
    }
}
