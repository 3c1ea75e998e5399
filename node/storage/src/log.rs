//! The writing end of the log.
//!
//! Invariants:
//! - What was stored is in the index, and on the disk as durably as the options say.
//! - What was prepared is not forgotten while this process lives, because peers may have it (a start never forgets
//!   what it wrote): a batch that could not be written or synced is carried, and goes into a new segment before
//!   anything else is taken.
//! - A file that failed once is never written or synced again. It ends where it was last synced; the next segment's
//!   header says so, and what lies behind is never replayed once that header is durable.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_core::planted::{self, Bug};

use crate::batch::Batch;
use crate::error::WriteError;
use crate::format::{FORMAT, GROUP_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, group_at};
use crate::options::{Durability, SEGMENT_BYTES_MIN};
use crate::segment::{LOG_SUFFIX, Range, Segment};
use crate::shared::{Shared, is_full};
use crate::spare::{Spare, remove};

/// When nothing was written for this long, the log marks its end, so that from then on rot in its last group can be
/// told from a torn write.
const MARK_AFTER: Duration = Duration::from_secs(1);

/// The segment that is written.
struct Active {
    segment: Arc<Segment>,
    /// Where the next group goes.
    end: u64,
    /// Everything before is synced.
    synced: u64,
    capacity: u64,
    /// The last group's checksum.
    previous: u64,
    /// Whether the last group is a mark.
    marked: bool,
}

/// A batch that was written behind the last one, if it could be, and is none of the log's before it is committed.
pub(crate) struct Written {
    batch: Batch,
    group: io::Result<WrittenGroup>,
}

struct WrittenGroup {
    end: u64,
    checksum: u64,
}

pub(crate) struct Log {
    shared: Arc<Shared>,
    active: Option<Active>,
    /// Segments that are not written any more, until nothing in the index points behind their ends.
    ended: Vec<Arc<Segment>>,
    /// The number of the next segment.
    next: u64,
    /// Where the segment before it ends; 0 when that is not known.
    previous_end: u64,
    carried: Batch,
    /// When, on the disk's clock.
    last_sync: Duration,
}

impl Log {
    /// Goes on after the newest segment that recovery found.
    pub(crate) fn new(
        shared: Arc<Shared>,
        next: u64,
        previous_end: u64,
        newest: Option<Arc<Segment>>,
    ) -> Self {
        let (carried, ended) = (Batch::default(), newest.into_iter().collect());
        let last_sync = shared.disk.now();
        Self { shared, active: None, ended, next, previous_end, carried, last_sync }
    }

    /// Whether anything new may be prepared. Nothing is while a batch is carried.
    pub(crate) fn ready(&mut self) -> Result<(), WriteError> {
        if let Some(reason) = self.shared.status.broken() {
            return Err(WriteError::Failed { reason });
        }
        self.shared.find_space()?;
        self.settle()
    }

    /// Whether a batch of this size fits into the active segment, and a mark behind it.
    pub(crate) fn has_room(&self, batch_bytes: u64) -> bool {
        let bytes = batch_bytes + GROUP_HEADER_BYTES as u64;
        self.active.as_ref().is_some_and(|active| active.end + bytes <= active.capacity)
    }

    /// Begins a segment with room for a batch of this size.
    pub(crate) fn make_room(&mut self, batch_bytes: u64) -> Result<(), WriteError> {
        self.ready()?;
        self.sync_rest()?;
        if !self.has_room(batch_bytes) {
            self.end_segment();
            self.begin(batch_bytes)?;
            self.retire();
        }
        Ok(())
    }

    /// Seals the segment that is written, if it holds anything. Says the number of the newest that is sealed.
    pub(crate) fn roll(&mut self) -> Result<u64, WriteError> {
        self.ready()?;
        self.sync_rest()?;
        if self.active.as_ref().is_some_and(|active| active.end > SEGMENT_HEADER_BYTES as u64) {
            self.end_segment();
            self.begin(0)?;
            self.retire();
        }
        Ok(self.next - 1 - u64::from(self.active.is_some()))
    }

    /// Writes a batch for which there is room, and does not sync it.
    pub(crate) fn write(&self, mut batch: Batch) -> Written {
        let group = self.append(&mut batch);
        Written { batch, group }
    }

    /// Stores what was just written: as durably as the options say, and in the index.
    pub(crate) fn commit(&mut self, Written { batch, group }: Written) -> Result<(), WriteError> {
        let due = match self.shared.options.durability {
            Durability::Sync => true,
            Durability::Interval(interval) => self.since_sync() >= interval,
            Durability::Memory => false,
        };
        match group.and_then(|group| self.accept(group, batch.is_empty(), due)) {
            Ok(at) => {
                self.publish(&batch, at);
                Ok(())
            }
            Err(error) => {
                let unknown =
                    |error: WriteError| WriteError::Indeterminate { reason: error.to_string().into() };
                self.rescue(batch, &error).map_err(unknown)
            }
        }
    }

    fn since_sync(&self) -> Duration {
        self.shared.disk.now().saturating_sub(self.last_sync)
    }

    /// How long the committer may sleep before [`Log::tick`] has something to do.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let active = self.active.as_ref().filter(|active| !active.marked)?;
        match self.shared.options.durability {
            Durability::Interval(interval) if active.synced < active.end => {
                Some(interval.saturating_sub(self.since_sync()))
            }
            _ => Some(MARK_AFTER),
        }
    }

    /// Nothing was written for a while: syncs what is due, or marks the end.
    pub(crate) fn tick(&mut self) {
        let unsynced = self.active.as_ref().is_some_and(|active| active.synced < active.end);
        let interval = matches!(self.shared.options.durability, Durability::Interval(_));
        let result = if unsynced && interval { self.sync_rest() } else { self.mark() };
        if self.shared.spares.set_busy(false) {
            self.shared.background.poke();
        }
        if let Err(error) = result {
            tracing::error!(%error, "the log could not be synced");
        }
    }

    /// Syncs what is not synced, and marks the end.
    pub(crate) fn finish(&mut self) {
        let result = self.settle().and_then(|()| self.sync_rest()).and_then(|()| self.mark());
        if let Err(error) = result {
            tracing::error!(%error, "the log could not be closed in order; what was acknowledged is on the disk");
        }
    }

    /// Writes an empty group, which says how far the log was synced.
    fn mark(&mut self) -> Result<(), WriteError> {
        let has_room = |active: &Active| active.end + GROUP_HEADER_BYTES as u64 <= active.capacity;
        if !self.active.as_ref().is_some_and(|active| !active.marked && has_room(active)) {
            return Ok(());
        }
        let sync = self.shared.options.durability != Durability::Memory;
        let mut mark = Batch::default();
        match self.append(&mut mark).and_then(|group| self.accept(group, true, sync)) {
            Ok(_) => Ok(()),
            Err(error) => self.rescue(mark, &error),
        }
    }

    /// Writes a batch behind the last one, unsynced. After an error the file must be given up.
    fn append(&self, batch: &mut Batch) -> io::Result<WrittenGroup> {
        let no_segment = || io::Error::other("no segment of the log is open");
        let active = self.active.as_ref().ok_or_else(no_segment)?;
        let (_, checksum) = batch.seal(active.synced, active.previous, active.segment.salt);
        batch.write(&*active.segment.file, active.end, active.capacity)?;
        Ok(WrittenGroup { end: active.end + batch.len(), checksum })
    }

    /// Takes what was just written into the log. Says where its group begins. After an error the file must be given
    /// up.
    fn accept(&mut self, group: WrittenGroup, mark: bool, sync: bool) -> io::Result<u64> {
        let no_segment = || io::Error::other("no segment of the log is open");
        let active = self.active.as_mut().ok_or_else(no_segment)?;
        let Shared { disk, options, .. } = &*self.shared;
        if sync {
            let begin = disk.now();
            if !planted::is(Bug::AcknowledgeBeforeSync) {
                let synced = active.segment.file.sync();
                let retries = planted::is(Bug::RetrySync);
                synced.or_else(|error| if retries { active.segment.file.sync() } else { Err(error) })?;
            }
            self.last_sync = disk.now();
            if let Some(observer) = &options.observer {
                observer.synced(self.last_sync.saturating_sub(begin));
            }
            active.synced = group.end;
            self.shared.synced(&active.segment, active.synced);
        }
        let at = std::mem::replace(&mut active.end, group.end);
        active.previous = group.checksum;
        active.marked = mark;
        if !mark {
            self.shared.spares.set_busy(true);
        }
        active.segment.end.store(group.end, Ordering::Release);
        if group.end >= active.capacity / 2 && self.shared.spares.want() {
            self.shared.background.poke();
        }
        Ok(at)
    }

    /// Points the index to what was written to the active segment.
    fn publish(&self, batch: &Batch, group_at: u64) {
        let Some(active) = &self.active else { return };
        let Shared { index, segments, .. } = &*self.shared;
        for record in &batch.records {
            let (key, entry) = (record.key(), record.entry(active.segment.slot, group_at));
            if record.is_shared() {
                index.share(key.partition, key.hash);
            }
            index.publish(key, entry, |old, new| segments.count(old, Some(new)));
        }
    }

    /// Syncs what is written and not synced.
    fn sync_rest(&mut self) -> Result<(), WriteError> {
        let Some(active) = self.active.as_mut().filter(|active| active.synced < active.end) else {
            return Ok(());
        };
        let begin = self.shared.disk.now();
        match active.segment.file.sync() {
            Ok(()) => {
                active.synced = active.end;
                self.shared.synced(&active.segment, active.synced);
                self.last_sync = self.shared.disk.now();
                if let Some(observer) = &self.shared.options.observer {
                    observer.synced(self.last_sync.saturating_sub(begin));
                }
                Ok(())
            }
            Err(error) => self.rescue(Batch::default(), &error),
        }
    }

    /// Gives the active file up, and stores what was not synced, and this batch, in a new one.
    fn rescue(&mut self, batch: Batch, error: &io::Error) -> Result<(), WriteError> {
        if let Some(observer) = &self.shared.options.observer {
            observer.sync_failed();
        }
        tracing::warn!(%error, "a write to the log failed; its segment is given up and a new one begins");
        self.carried = self.unsynced().map_err(|error| self.give_up(&error))?;
        self.carried.append(batch);
        self.give_up_segment();
        self.settle()
    }

    /// The records that are written and not synced, as the operating system still has them.
    fn unsynced(&self) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let Some(Active { segment, end, synced, .. }) = &self.active else { return Ok(batch) };
        let mut bytes = vec![0; (end - synced) as usize];
        segment.file.read_at(*synced, &mut bytes)?;
        let mut at = 0;
        while at < bytes.len() {
            let lost = || io::Error::other("what was written and not yet synced cannot be read back");
            let group = group_at(&bytes, at, None, segment.salt).ok_or_else(lost)?;
            group.records().for_each(|(_, record)| batch.copy(&record, segment.format));
            at = group.end;
        }
        Ok(batch)
    }

    /// Stores what is carried, in a new segment. While there is no space it stays carried; any other failure is
    /// the second one in a row, and the last.
    fn settle(&mut self) -> Result<(), WriteError> {
        if self.carried.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.carried);
        let result = self.begin(batch.len()).and_then(|()| {
            self.append(&mut batch).and_then(|group| self.accept(group, false, true)).map_err(|error| {
                self.give_up_segment();
                if is_full(&error) { self.shared.full() } else { self.give_up(&error) }
            })
        });
        match result {
            Ok(at) => {
                self.publish(&batch, at);
                self.retire();
                Ok(())
            }
            Err(error) => {
                self.carried = batch;
                match error {
                    WriteError::Failed { reason } => {
                        self.shared.status.set_broken(reason.clone());
                        Err(WriteError::Failed { reason })
                    }
                    other => Err(other),
                }
            }
        }
    }

    /// Ends the active segment where it is synced.
    fn end_segment(&mut self) {
        if let Some(active) = self.active.take() {
            self.previous_end = active.synced;
            active.segment.end.store(active.synced, Ordering::Release);
            self.ended.push(active.segment);
        }
    }

    /// The same, of one that the disk could not write.
    fn give_up_segment(&mut self) {
        if let Some(active) = &self.active {
            active.segment.failed.store(true, Ordering::Relaxed);
        }
        self.end_segment();
    }

    /// Lets go of ended segments: a durable header says where they end, and nothing in the index points behind that.
    fn retire(&mut self) {
        debug_assert!(self.carried.is_empty(), "what is carried may still be read where it was");
        for segment in self.ended.drain(..) {
            segment.shorten();
            segment.sealed.store(true, Ordering::Release);
        }
        self.shared.background.poke();
    }

    /// Begins a segment with room for a batch of this size; there is no active one.
    fn begin(&mut self, batch_bytes: u64) -> Result<(), WriteError> {
        let needed = SEGMENT_HEADER_BYTES as u64 + batch_bytes + GROUP_HEADER_BYTES as u64;
        let begun = self
            .spare(needed)
            .and_then(|spare| self.begin_in(spare).map_err(|error| self.cannot_begin(&error)));
        if let Err(error) = &begun {
            self.shared.status.cannot_begin(matches!(error, WriteError::Full { .. }));
            self.shared.spares.want(); // Which also finds out when one can be had again.
        }
        self.active = Some(begun?);
        self.next += 1;
        self.shared.status.can_begin();
        Ok(())
    }

    fn cannot_begin(&self, error: &io::Error) -> WriteError {
        if is_full(error) {
            return self.shared.full();
        }
        tracing::error!(%error, "no new segment of the log can be begun");
        WriteError::Failed { reason: format!("no new segment can be begun: {error}").into() }
    }

    /// A prepared file, or one made now; smaller than usual where the disk has no room for more.
    fn spare(&self, needed: u64) -> Result<Spare, WriteError> {
        if let Some(spare) = self.shared.spares.take(needed) {
            return Ok(spare);
        }
        let usual = u64::from(self.shared.options.segment_bytes);
        let bytes = usual.max(needed).min(self.shared.find_space()?);
        if bytes < needed.max(usual.min(SEGMENT_BYTES_MIN)) {
            return Err(self.shared.full());
        }
        let spare = Spare::make(&*self.shared.disk, &self.shared.names, bytes);
        spare.map_err(|error| self.cannot_begin(&error))
    }

    /// Turns a file into the next segment of the log. Its header is durable before its name is one of the log, and
    /// its name before anything is stored in it.
    fn begin_in(&self, spare: Spare) -> io::Result<Active> {
        let Shared { disk, segments, .. } = &*self.shared;
        let range = Range { first: self.next, last: self.next };
        let header = SegmentHeader {
            format: FORMAT,
            node: self.shared.node,
            first: range.first,
            last: range.last,
            previous_end: self.previous_end,
            end: 0,
            salt: disk.random(),
        };
        let name = range.name(LOG_SUFFIX);
        let written = spare.file.write_at(0, &header.encode()).and_then(|()| spare.file.sync());
        written
            .and_then(|()| disk.rename(&spare.name, &name))
            .inspect_err(|_| remove(&**disk, &spare.name))?;
        // Should this fail, the name stays: an empty segment, which the next attempt of this number replaces.
        disk.sync_directory()?;
        let segment = segments.add(&header, name, spare.file, spare.bytes);
        let end = SEGMENT_HEADER_BYTES as u64;
        Ok(Active { segment, end, synced: end, capacity: spare.bytes, previous: header.salt, marked: true })
    }

    /// Stops writing for good.
    fn give_up(&self, error: &io::Error) -> WriteError {
        tracing::error!(%error, "the log cannot be written any more; writes are refused until the next start");
        let reason: Arc<str> = error.to_string().into();
        self.shared.status.set_broken(reason.clone());
        WriteError::Failed { reason }
    }
}
