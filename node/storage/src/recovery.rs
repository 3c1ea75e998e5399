//! Opening: reads the log in its order and builds the index.
//!
//! Invariants:
//! - Whatever was acknowledged as durable is in the index, or what may have held it is reported as lost.
//! - What is left of a write that was never acknowledged is dropped, and only that.
//! - Nothing that an earlier start may have stored is removed: a segment with rot is set aside, under another name.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::ring::{Partition, key_hash};

use crate::catalogue::{self, CATALOGUE_SUFFIX, Catalogue, Item};
use crate::disk::{Disk, File};
use crate::entry::{Entry, KeyOf};
use crate::error::OpenError;
use crate::format::{
    self, FLAG_SHARED_HASH, FORMAT, HeaderError, Record, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use crate::index::Index;
use crate::lifted::Lifted;
use crate::segment::{
    Ending, LOG_SUFFIX, QUARANTINED_SUFFIX, Range, Scan, Segment, Segments, UNFINISHED_SUFFIX, position,
    read_prefix,
};
use crate::spare::remove;

/// From this size on a catalogue is replayed by two threads: those of a simulator are smaller.
const TWO_THREADS_FROM_BYTES: usize = 1024 * 1024;

/// What was found on the disk.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Recovery {
    /// Keys, deleted ones included.
    pub keys: u64,
    /// Files that are in use.
    pub segments: usize,
    /// Groups of writes that were read.
    pub groups: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Bytes of a write that was never acknowledged, cut short by a crash, and dropped; as far as what is left of it tells.
    pub torn_bytes: u64,
    /// Segments that were lost to rot, now or at an earlier start.
    pub quarantined: Vec<QuarantinedSegment>,
}

/// A segment that was lost to rot. It may have held keys of every partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantinedSegment {
    /// The file, kept for people to look at.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What the log goes on from.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) report: Recovery,
    /// The newest segment number that was lost; 0 for none.
    pub(crate) lost_through: u64,
    /// The number of the next segment.
    pub(crate) next: u64,
    /// Where the newest segment ends; 0 when that is not known.
    pub(crate) previous_end: u64,
    /// How far the log reaches; see [`crate::Access::synced_position`].
    pub(crate) position: u64,
    /// The newest segment.
    pub(crate) newest: Option<Arc<Segment>>,
}

/// Reads the log of a node.
pub(crate) fn recover(disk: &dyn Disk, node: NodeId, lifted: &Lifted) -> Result<Recovered, OpenError> {
    let names = disk.list().map_err(failed("listing the directory"))?;
    for name in names.iter().filter(|name| name.ends_with(UNFINISHED_SUFFIX)) {
        remove(disk, name);
    }
    let mut recovery = Recoverer {
        disk,
        node,
        recovered: Recovered {
            index: Index::new(),
            segments: Segments::default(),
            report: Recovery::default(),
            lost_through: 0,
            next: 1,
            previous_end: 0,
            position: 0,
            newest: None,
        },
    };
    recovery.read_all(&names)?;
    let mut recovered = recovery.recovered;
    recovered.set_aside_outdated(lifted);
    if recovered.newest.as_ref().is_none_or(|newest| newest.range.last + 1 != recovered.next) {
        (recovered.newest, recovered.previous_end) = (None, 0); // What comes before the next segment is lost.
    }
    let end = match &recovered.newest {
        Some(newest) if newest.range.first == newest.range.last => recovered.previous_end,
        // Merged or lost to rot: how far it reached is not known, and must not look like less than it was.
        _ => u64::from(u32::MAX),
    };
    recovered.position = position(recovered.next - 1, end);
    recovered.report.keys = recovered.index.keys();
    recovered.report.segments = recovered.segments.in_order().len();
    Ok(recovered)
}

impl Recovered {
    /// What a lost segment may have outdated is not shown until its partition is lifted. What was dropped when it was, is
    /// not there; a removal stays one, whatever was lost.
    fn set_aside_outdated(&self, lifted: &Lifted) {
        let first: BTreeMap<u32, u64> =
            self.segments.in_order().iter().map(|segment| (segment.slot, segment.range.first)).collect();
        for partition in (0..=u16::MAX).map(Partition) {
            let dropped = lifted.dropped_through(partition);
            let lost = lifted.not_lifted(partition, self.lost_through);
            let judge = |_, entry: Entry| match first.get(&entry.segment) {
                Some(first) if *first <= dropped && !entry.is_removal() => entry.gone(),
                Some(first) if *first <= lost && !entry.is_removal() => entry.stale(),
                _ => entry,
            };
            if dropped > 0 || lost > 0 {
                self.index.alter(partition, judge, |old, new| self.segments.count(Some(old), Some(new)));
            }
        }
    }
}

fn failed(action: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let action = action.into();
    move |source| OpenError::Io { action, source }
}

/// A file of the log and its header, if that is sound.
struct Found {
    range: Range,
    name: String,
    file: Arc<dyn File>,
    header: Option<SegmentHeader>,
}

struct Recoverer<'a> {
    disk: &'a dyn Disk,
    node: NodeId,
    recovered: Recovered,
}

impl Recoverer<'_> {
    fn read_all(&mut self, names: &[String]) -> Result<(), OpenError> {
        for range in ranges(names, QUARANTINED_SUFFIX) {
            self.lose(range, range.name(QUARANTINED_SUFFIX), "set aside at an earlier start");
        }
        let (files, leftovers) = self.open_files(names)?;
        let is_file = |range: &Range| files.iter().any(|found| found.range == *range);
        for orphan in ranges(names, CATALOGUE_SUFFIX).into_iter().filter(|range| !is_file(range)) {
            remove(self.disk, &orphan.name(CATALOGUE_SUFFIX));
        }
        self.find_gaps(names);
        for (position, found) in files.iter().enumerate() {
            let next = files.get(position + 1).filter(|next| next.range.first == found.range.last + 1);
            let sound = self.read_segment(found, next.and_then(|next| next.header.as_ref()))?;
            let replaced = leftovers.iter().filter(|leftover| found.range.contains(**leftover));
            for leftover in replaced {
                if sound {
                    remove(self.disk, &leftover.name(LOG_SUFFIX));
                } else {
                    self.set_aside(*leftover)?;
                }
            }
        }
        Ok(())
    }

    /// The files of the log in its order, and those that a crash kept from being removed after a merge.
    fn open_files(&mut self, names: &[String]) -> Result<(Vec<Found>, Vec<Range>), OpenError> {
        let (mut files, mut leftovers) = (Vec::<Found>::new(), Vec::new());
        for range in ranges(names, LOG_SUFFIX) {
            if files.last().is_some_and(|before| before.range.contains(range)) {
                leftovers.push(range);
                continue;
            }
            let name = range.name(LOG_SUFFIX);
            let file = self.disk.open(&name).map_err(failed(format!("opening {name}")))?;
            let header = self.read_header(range, &name, &*file)?;
            files.push(Found { range, name, file, header });
        }
        Ok((files, leftovers))
    }

    fn read_header(
        &self,
        range: Range,
        name: &str,
        file: &dyn File,
    ) -> Result<Option<SegmentHeader>, OpenError> {
        let bytes =
            read_prefix(file, SEGMENT_HEADER_BYTES as u64).map_err(failed(format!("reading {name}")))?;
        match SegmentHeader::decode(&bytes) {
            Err(HeaderError::Damaged) => Ok(None),
            Err(HeaderError::Format(found)) => {
                Err(OpenError::Format { name: name.into(), found, known: FORMAT })
            }
            Ok(header) if header.node != self.node => {
                Err(OpenError::Foreign { name: name.into(), found: header.node, expected: self.node })
            }
            Ok(header) => Ok(Some(header).filter(|h| h.first == range.first && h.last == range.last)),
        }
    }

    /// Looks for segment numbers that no file holds.
    fn find_gaps(&mut self, names: &[String]) {
        let mut all = ranges(names, LOG_SUFFIX);
        all.extend(ranges(names, QUARANTINED_SUFFIX));
        all.sort();
        for range in all {
            if range.first > self.recovered.next {
                let gap = Range { first: self.recovered.next, last: range.first - 1 };
                self.lose(gap, gap.name(LOG_SUFFIX), "the file is missing");
            }
            self.recovered.next = self.recovered.next.max(range.last + 1);
        }
    }

    /// Reads one file into the index, all of it or nothing. Says whether it is sound.
    fn read_segment(&mut self, found: &Found, next: Option<&SegmentHeader>) -> Result<bool, OpenError> {
        self.recovered.previous_end = 0;
        self.recovered.newest = None;
        let Some(header) = &found.header else {
            return self.quarantine(found, "its header is damaged").map(|()| false);
        };
        let expected =
            [header.end, next.map_or(0, |next| next.previous_end)].into_iter().find(|&end| end != 0);
        if let Some(end) = expected
            && let Some(catalogue) = catalogue::read(self.disk, found.range, header.salt, end)
            && self.replay_catalogue(found, header, end, &catalogue)?
        {
            return Ok(true);
        }
        let length = found.file.length().map_err(failed(format!("reading {}", found.name)))?;
        let bytes = read_prefix(&*found.file, length).map_err(failed(format!("reading {}", found.name)))?;
        let scan = Scan::of(&bytes, header.salt, expected);
        if scan.ending == Ending::Rotten {
            let reason = format!("what was written at byte {} was changed by the disk", scan.end);
            return self.quarantine(found, &reason).map(|()| false);
        }
        if expected.is_none() {
            // What an earlier process wrote last may be readable and not on the disk: not synced yet, or its sync
            // failed and the operating system forgot. Writing the same bytes again settles both.
            let proven = scan.groups.iter().map(|group| group.synced_to as usize).max();
            let unproven = proven.unwrap_or(SEGMENT_HEADER_BYTES).min(scan.end)..scan.end;
            let written = found.file.write_at(unproven.start as u64, &bytes[unproven]);
            written
                .and_then(|()| found.file.sync())
                .map_err(failed(format!("writing {} again", found.name)))?;
        }
        if let Ending::Torn(bytes) = scan.ending {
            self.recovered.report.torn_bytes += bytes as u64;
        }
        self.recovered.report.groups += scan.groups.len() as u64;
        self.recovered.report.bytes += scan.end as u64;
        let end = scan.end as u64;
        // A crash may have kept the log from giving back the space behind the end.
        let shortened = expected.is_some() && length > end && found.file.truncate(end).is_ok();
        let header = SegmentHeader { end, ..*header };
        let file_bytes = if shortened { end } else { length };
        let segment =
            self.recovered.segments.add(&header, found.name.clone(), found.file.clone(), file_bytes);
        segment.checked.store(true, Ordering::Relaxed);
        for (at, record) in scan.records() {
            self.replay(&segment, at, &record);
        }
        self.recovered.previous_end = scan.end as u64;
        self.recovered.newest = Some(segment);
        Ok(true)
    }

    /// Takes a segment into use by its catalogue alone. Says whether that could be done: the file must be long enough,
    /// and the keys of which the hash does not say enough must be there to be read.
    fn replay_catalogue(
        &mut self,
        found: &Found,
        header: &SegmentHeader,
        end: u64,
        catalogue: &Catalogue,
    ) -> Result<bool, OpenError> {
        let length = found.file.length().map_err(failed(format!("reading {}", found.name)))?;
        let Some(keys) = self.keys_of_shared_hashes(found, catalogue).filter(|_| length >= end) else {
            return Ok(false);
        };
        let shortened = length > end && found.file.truncate(end).is_ok();
        let header = SegmentHeader { end, ..*header };
        let file_bytes = if shortened { end } else { length };
        let (name, file) = (found.name.clone(), found.file.clone());
        let segment = self.recovered.segments.add(&header, name, file, file_bytes);
        segment.catalogued.store(true, Ordering::Relaxed);
        for item in catalogue.items(segment.slot).filter(|item| item.flags & FLAG_SHARED_HASH != 0) {
            self.share(item.partition, item.hash);
        }
        self.publish_all(&segment, catalogue, &keys);
        self.recovered.report.bytes += catalogue.len() as u64;
        self.recovered.previous_end = end;
        self.recovered.newest = Some(segment);
        Ok(true)
    }

    /// By the offset of their records: the keys of which others have the hash. None when one cannot be read.
    fn keys_of_shared_hashes(&self, found: &Found, catalogue: &Catalogue) -> Option<BTreeMap<u32, Bytes>> {
        let is_shared = |item: &Item| {
            item.flags & FLAG_SHARED_HASH != 0 || self.recovered.index.is_shared(item.partition, item.hash)
        };
        let key = |item: Item| {
            let mut bytes = vec![0; item.entry.length() as usize];
            found.file.read_at(u64::from(item.entry.offset), &mut bytes).ok()?;
            let record = format::record_at(&bytes)?;
            Some((item.entry.offset, Bytes::copy_from_slice(record.key)))
        };
        catalogue.items(0).filter(is_shared).map(key).collect()
    }

    /// Partitions have nothing to do with each other, so that two threads need not wait for each other.
    fn publish_all(&self, segment: &Segment, catalogue: &Catalogue, keys: &BTreeMap<u32, Bytes>) {
        let publish = |of_mine: fn(Partition) -> bool| {
            for item in catalogue.items(segment.slot).filter(|item| of_mine(item.partition)) {
                let key = keys.get(&item.entry.offset).map(Bytes::as_ref).unwrap_or_default();
                let key = KeyOf { partition: item.partition, hash: item.hash, key };
                self.publish(key, item.entry);
            }
        };
        if catalogue.len() < TWO_THREADS_FROM_BYTES {
            return publish(|_| true);
        }
        thread::scope(|scope| {
            scope.spawn(|| publish(|partition| partition.0 % 2 == 0));
            publish(|partition| partition.0 % 2 == 1);
        });
    }

    fn publish(&self, key: KeyOf<'_>, entry: Entry) {
        let Recovered { index, segments, .. } = &self.recovered;
        index.publish(key, entry, |old, new| segments.count(old, Some(new)));
    }

    /// Takes note that a hash has several keys.
    fn share(&mut self, partition: Partition, hash: u64) {
        let Recovered { index, segments, .. } = &self.recovered;
        let Some(entry) = index.single(partition, hash) else { return index.share(partition, hash) };
        match owner(segments, entry) {
            Ok(owner) => index.split(partition, hash, owner),
            Err(error) => {
                // Nobody knows any more whose that record is: it may be anybody's.
                index.split(partition, hash, Bytes::new());
                if let Some(segment) = segments.get(entry.segment) {
                    self.lose(segment.range, segment.name.clone(), &error);
                }
            }
        }
    }

    fn replay(&mut self, segment: &Segment, at: usize, record: &Record<'_>) {
        let key = KeyOf { partition: record.partition, hash: key_hash(record.key), key: record.key };
        if record.flags & FLAG_SHARED_HASH != 0 {
            self.share(key.partition, key.hash);
        }
        self.publish(key, Entry::of(record, segment, at));
    }

    fn quarantine(&mut self, found: &Found, reason: &str) -> Result<(), OpenError> {
        tracing::error!(name = %found.name, %reason, "a segment of the log is set aside: keys that it may have held are not served until they are resynchronised");
        self.set_aside(found.range)?;
        self.lose(found.range, found.range.name(QUARANTINED_SUFFIX), reason);
        Ok(())
    }

    fn set_aside(&self, range: Range) -> Result<(), OpenError> {
        let name = range.name(LOG_SUFFIX);
        let renamed = self.disk.rename(&name, &range.name(QUARANTINED_SUFFIX));
        renamed.and_then(|()| self.disk.sync_directory()).map_err(failed(format!("setting {name} aside")))
    }

    fn lose(&mut self, range: Range, name: String, reason: &str) {
        self.recovered.lost_through = self.recovered.lost_through.max(range.last);
        self.recovered.report.quarantined.push(QuarantinedSegment { name, reason: reason.into() });
    }
}

/// The ranges of the files with a suffix: in the order of the log, and the widest of those that begin together first.
fn ranges(names: &[String], suffix: &str) -> Vec<Range> {
    let ranges = names.iter().filter_map(|name| Range::parse(name, suffix));
    let sorted: BTreeMap<_, _> = ranges.map(|range| ((range.first, u64::MAX - range.last), range)).collect();
    sorted.into_values().collect()
}

/// The key of a record that was read before, or why nobody knows it any more.
fn owner(segments: &Segments, entry: Entry) -> Result<Bytes, String> {
    let segment = segments.get(entry.segment).ok_or("the record's file is not open")?;
    let bytes = segment.read(entry).map_err(|error| error.to_string())?;
    let record = format::record_at(&bytes).ok_or("a record in it was changed by the disk")?;
    Ok(Bytes::copy_from_slice(record.key))
}
