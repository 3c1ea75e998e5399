//! The segments of the log: files that tile it.
//!
//! Invariant: the files' ranges of segment numbers (`first..=last`) cover 1 to the newest without gap or overlap.
//! Records are replayed in that order and the last of a key counts, so merging a run of neighbours into one file
//! changes nothing but the space they take.

use std::collections::BTreeMap;
use std::io;
use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;

use crate::disk::File;
use crate::entry::Entry;
use crate::error::ReadError;
use crate::format::{self, Group, Record, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::gentle::gently;
use crate::sync::{read, write};

/// A segment in use.
pub(crate) const LOG_SUFFIX: &str = ".log";
/// A segment in which rot was found, set aside.
pub(crate) const QUARANTINED_SUFFIX: &str = ".quarantined";
/// A file that is not part of the log yet, and never will be when a crash intervenes.
pub(crate) const UNFINISHED_SUFFIX: &str = ".unfinished";

/// The segment numbers that a file holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// A place in a log, as one number: later is greater.
pub(crate) fn position(segment: u64, end: u64) -> u64 {
    segment << 32 | end
}

impl Range {
    pub(crate) fn name(self, suffix: &str) -> String {
        format!("{:016x}-{:016x}{suffix}", self.first, self.last)
    }

    /// The range of a file with this suffix; none for other files.
    pub(crate) fn parse(name: &str, suffix: &str) -> Option<Self> {
        let (first, last) = name.strip_suffix(suffix)?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let range = Self { first: number(first)?, last: number(last)? };
        (range.first >= 1 && range.first <= range.last && range.name(suffix) == name).then_some(range)
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// One file of the log.
pub(crate) struct Segment {
    /// Names the file within this process; a merged file gets another one than what it was merged from.
    pub(crate) slot: u32,
    pub(crate) range: Range,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn File>,
    /// See [`SegmentHeader::previous_end`].
    pub(crate) previous_end: u64,
    pub(crate) salt: u64,
    /// How its records are to be read.
    pub(crate) format: u32,
    /// Where its groups end. Grows while the segment is written.
    pub(crate) end: AtomicU64,
    /// What the file takes on the disk.
    pub(crate) file_bytes: AtomicU64,
    /// The bytes of records that the index points to.
    pub(crate) live_bytes: AtomicU64,
    /// Nothing is appended any more.
    pub(crate) sealed: AtomicBool,
    /// Its catalogue is beside it.
    pub(crate) catalogued: AtomicBool,
    /// It was read whole since the start.
    pub(crate) checked: AtomicBool,
    /// The disk changed it.
    pub(crate) rotten: AtomicBool,
    /// The disk could not write or sync it once.
    pub(crate) failed: AtomicBool,
}

impl Segment {
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn dead_bytes(&self) -> u64 {
        self.end().saturating_sub(SEGMENT_HEADER_BYTES as u64 + self.live_bytes())
    }

    pub(crate) fn wants_catalogue(&self) -> bool {
        self.sealed.load(Ordering::Acquire) && !self.catalogued.load(Ordering::Relaxed) && !self.is_rotten()
    }

    pub(crate) fn wants_check(&self) -> bool {
        self.sealed.load(Ordering::Acquire) && !self.checked.load(Ordering::Relaxed) && !self.is_rotten()
    }

    pub(crate) fn is_rotten(&self) -> bool {
        self.rotten.load(Ordering::Relaxed)
    }

    /// The disk changed it.
    pub(crate) fn give_up(&self) {
        if !self.rotten.swap(true, Ordering::Relaxed) {
            tracing::error!(name = %self.name, "the disk changed this segment; it is not merged any more");
        }
    }

    /// Whether the disk did well with it: new data may be trusted to it.
    pub(crate) fn is_sound(&self) -> bool {
        !self.is_rotten() && !self.failed.load(Ordering::Relaxed)
    }

    /// Gives back what the file has behind its end.
    pub(crate) fn shorten(&self) {
        match self.file.truncate(self.end()) {
            Ok(()) => self.file_bytes.store(self.end(), Ordering::Relaxed),
            Err(error) => tracing::debug!(name = %self.name, %error, "an ended segment keeps its space"),
        }
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    /// A record's bytes; check them with [`format::record_at`].
    pub(crate) fn read(&self, entry: Entry) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        self.read_into(entry, &mut bytes)?;
        Ok(bytes)
    }

    /// The same, in a buffer, of which nothing else is left.
    pub(crate) fn read_into(&self, entry: Entry, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
        buffer.resize(entry.length() as usize, 0);
        let result = self.file.read_at(u64::from(entry.offset), buffer);
        result.map_err(|error| ReadError::Io { reason: format!("{}: {error}", self.name) })
    }

    /// The same, unless the disk would have to be waited for.
    pub(crate) fn try_read(&self, entry: Entry) -> Option<Result<Vec<u8>, ReadError>> {
        let mut bytes = vec![0; entry.length() as usize];
        match self.file.try_read_at(u64::from(entry.offset), &mut bytes) {
            Ok(()) => Some(Ok(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(ReadError::Io { reason: format!("{}: {error}", self.name) })),
        }
    }
}

/// How much is read at once; then the processor is offered, as in [`gently`].
const READ_BYTES: usize = 256 * 1024;

/// The first bytes of a file, up to an offset or its end.
pub(crate) fn read_prefix(file: &dyn File, bytes: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes.min(file.length()?) as usize];
    for (number, part) in buffer.chunks_mut(READ_BYTES).enumerate() {
        file.read_at((number * READ_BYTES) as u64, part)?;
        thread::yield_now();
    }
    Ok(buffer)
}

/// Where the groups of a segment's bytes stop being sound, and why that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// They end where they should, or nothing shows that more was written.
    Clean,
    /// A write that was never acknowledged was cut short: so many bytes, as far as they are there.
    Torn(usize),
    /// Something that was synced is not there any more.
    Rotten,
}

/// The sound groups of a segment.
pub(crate) struct Scan<'a> {
    pub(crate) groups: Vec<Group<'a>>,
    pub(crate) end: usize,
    pub(crate) ending: Ending,
}

impl<'a> Scan<'a> {
    /// Reads a segment's bytes. `expected_end` is where its groups end, where a later header says it.
    pub(crate) fn of(bytes: &'a [u8], salt: u64, expected_end: Option<u64>) -> Self {
        let bound = expected_end.map_or(bytes.len(), |end| bytes.len().min(end as usize));
        let sound = &bytes[..bound];
        let (mut groups, mut end, mut previous) = (Vec::new(), SEGMENT_HEADER_BYTES, salt);
        let next = || {
            let group = format::group_at(sound, end, Some(previous), salt)?;
            (end, previous) = (group.end, group.checksum);
            Some(group)
        };
        groups.extend(gently(iter::from_fn(next)));
        let ending = match expected_end {
            Some(expected) if expected == end as u64 => Ending::Clean,
            Some(_) => Ending::Rotten,
            None => Self::ending(bytes, end, salt),
        };
        Self { groups, end, ending }
    }

    /// Without a header that says where the groups end, a later group tells rot from a tear: it says how far the
    /// segment had been synced when it was written. Rot in the very last synced group cannot be told from a tear;
    /// the mark that the log writes when it falls idle or is closed keeps that group from being the last for long.
    /// What is no group of this segment says nothing: the file may have been another one's before.
    fn ending(bytes: &[u8], end: usize, salt: u64) -> Ending {
        let rest = bytes.get(end..).unwrap_or_default();
        if rest.iter().all(|&byte| byte == 0) {
            return Ending::Clean;
        }
        let later = (end..bytes.len()).filter_map(|at| format::group_at(bytes, at, None, salt));
        if later.into_iter().any(|group| group.synced_to > end as u64) {
            return Ending::Rotten;
        }
        let begun = format::group_bytes(rest, salt);
        begun.map_or(Ending::Clean, |bytes| Ending::Torn(bytes.min(rest.len())))
    }

    /// The records in order, each with its offset in the segment.
    pub(crate) fn records(&self) -> impl Iterator<Item = (usize, Record<'a>)> {
        self.groups.iter().flat_map(Group::records)
    }
}

/// The files in use, by slot.
#[derive(Default)]
pub(crate) struct Segments {
    by_slot: RwLock<BTreeMap<u32, Arc<Segment>>>,
    /// A slot is never used twice, so that what points to it cannot come to mean another file.
    slots: AtomicU32,
}

impl Segments {
    pub(crate) fn get(&self, slot: u32) -> Option<Arc<Segment>> {
        read(&self.by_slot).get(&slot).cloned()
    }

    /// Every file, in the order of the log.
    pub(crate) fn in_order(&self) -> Vec<Arc<Segment>> {
        let mut all: Vec<_> = read(&self.by_slot).values().cloned().collect();
        all.sort_by_key(|segment| segment.range);
        all
    }

    /// Takes a file into use.
    pub(crate) fn add(
        &self,
        header: &SegmentHeader,
        name: String,
        file: Arc<dyn File>,
        file_bytes: u64,
    ) -> Arc<Segment> {
        let slot = self.slots.fetch_add(1, Ordering::Relaxed);
        let segment = Arc::new(Segment {
            slot,
            range: header.range(),
            name,
            file,
            previous_end: header.previous_end,
            salt: header.salt,
            format: header.format,
            end: AtomicU64::new(header.end.max(SEGMENT_HEADER_BYTES as u64)),
            file_bytes: AtomicU64::new(file_bytes),
            live_bytes: AtomicU64::new(0),
            sealed: AtomicBool::new(header.end != 0),
            catalogued: AtomicBool::new(false),
            checked: AtomicBool::new(false),
            rotten: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        });
        write(&self.by_slot).insert(slot, segment.clone());
        segment
    }

    pub(crate) fn forget(&self, slot: u32) {
        write(&self.by_slot).remove(&slot);
    }

    /// Counts what the index points to instead of what it pointed to.
    pub(crate) fn count(&self, old: Option<Entry>, new: Option<Entry>) {
        let by_slot = read(&self.by_slot);
        let needed = |entry: Option<Entry>| {
            let entry = entry.filter(|entry| entry.is_live())?;
            Some((by_slot.get(&entry.segment)?, u64::from(entry.length())))
        };
        if let Some((segment, bytes)) = needed(new) {
            segment.live_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        if let Some((segment, bytes)) = needed(old) {
            segment.live_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}
