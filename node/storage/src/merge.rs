//! Merging: rewrites neighbouring segments into one file, without what is dead in them.
//!
//! Invariants:
//! - A file is removed only after the one that replaces it is durable, was read back, and the index points to it.
//! - A merged file holds whole neighbouring segments, its records in their old order: replayed in its place in the
//!   log it gives what they gave. So a crash at any point leaves either the old files, or the new one with or without
//!   some old ones, which recovery removes.
//! - Rot is never merged away: a run with a segment that does not read clean stays as it is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use quorate_core::NodeId;
use quorate_core::ring::key_hash;

use crate::batch::Batch;
use crate::catalogue::{self, CATALOGUE_SUFFIX};
use crate::engine::Step;
use crate::entry::{Dropped, Entry, KeyOf};
use crate::format::{FORMAT, Record, SEGMENT_HEADER_BYTES, SegmentHeader, group_at};
use crate::gentle::gently;
use crate::segment::{Ending, LOG_SUFFIX, Scan, Segment, position, read_prefix};
use crate::shared::{Background, Shared};
use crate::spare::{Spare, remove};
use crate::sync::lock;

/// The most neighbours that one merge takes.
const RUN_MAX: usize = 16;
/// From this many small neighbours on they are merged to have fewer files, dead records or not.
const RUN_SMALL: usize = 8;
/// A run is worth merging when at least one in so many of its bytes is dead.
const DEAD_ONE_IN: u64 = 2;
/// The same while space is short.
const DEAD_ONE_IN_WHEN_SHORT: u64 = 8;
/// A merge writes a segment in at least so many steps, with a pause after each.
const STEPS: u64 = 32;
/// What a step writes at most: what the log reads or syncs meanwhile waits behind it.
const STEP_BYTES_MAX: u64 = 256 * 1024;
/// How long a pause is, compared with the step before it, while writes wait for the disk and while none do.
const PAUSE_WHEN_BUSY: u32 = 4;
/// See above.
const PAUSE_WHEN_QUIET: u32 = 1;
/// How long a close may go on writing catalogues.
const CATALOGUES_AT_CLOSE_MAX: Duration = Duration::from_secs(2);
/// How long to wait before segments are looked at again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Merges segments, a step at a time.
pub(crate) struct Merger {
    shared: Arc<Shared>,
    merge: Option<Merge>,
    /// Segments that were merged, whose files are still there.
    merged: Vec<Arc<Segment>>,
}

impl Merger {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, merge: None, merged: Vec::new() }
    }

    /// Merges what is worth it until the store closes.
    pub(crate) fn run(mut self) {
        let (mut pokes, mut failed) = (0, false);
        let shared = self.shared.clone();
        let background: &Background = &shared.background;
        loop {
            let result = self.step();
            if let Err(error) = &result
                && !failed
            {
                tracing::warn!(%error, "segments cannot be merged now; it is tried again and again");
            }
            failed = result.is_err();
            let closing = match result {
                Ok(Step::Done { pause }) => background.pause(pause),
                Ok(Step::Idle) | Err(_) => background.wait(&mut pokes, RETRY_AFTER),
            };
            if closing {
                return self.finish();
            }
        }
    }

    /// Lets go of a file that was merged, writes a catalogue, goes on with a merge, begins one if one is worth it, or checks
    /// a segment.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        let begin = self.shared.disk.now();
        let idle = self.merge.is_none();
        let step = self.let_go_of_one()
            || (idle && self.catalogue_one()?)
            || self.merge_some()?
            || self.check_one()?;
        if !step {
            return Ok(Step::Idle);
        }
        let factor = if self.shared.queue.is_busy() { PAUSE_WHEN_BUSY } else { PAUSE_WHEN_QUIET };
        Ok(Step::Done { pause: self.shared.disk.now().saturating_sub(begin) * factor })
    }

    /// Writes the catalogue of a segment that was sealed and has none. Says whether there was one.
    fn catalogue_one(&self) -> io::Result<bool> {
        let Shared { disk, names, segments, .. } = &*self.shared;
        let in_order = segments.in_order();
        let Some(segment) = in_order.iter().find(|segment| segment.wants_catalogue()) else {
            return Ok(false);
        };
        // Whatever becomes of it: a start can do without, and it is not tried over and over.
        segment.catalogued.store(true, Ordering::Relaxed);
        segment.checked.store(true, Ordering::Relaxed);
        if !catalogue::write(&**disk, names, segment)? {
            segment.give_up();
        }
        Ok(true)
    }

    /// Reads a segment that the start did not, to find rot before its keys are asked for. Says whether there was one.
    fn check_one(&self) -> io::Result<bool> {
        let in_order = self.shared.segments.in_order();
        let Some(segment) = in_order.iter().find(|segment| segment.wants_check()) else { return Ok(false) };
        segment.checked.store(true, Ordering::Relaxed);
        if Input::of(segment)?.is_none() {
            self.shared.lose_from(segment);
        }
        Ok(true)
    }

    /// Goes on with a merge, or begins one. Says whether there was anything to do.
    fn merge_some(&mut self) -> io::Result<bool> {
        let mut merge = match self.merge.take() {
            Some(merge) => merge,
            None => match self.begin()? {
                Some(merge) => merge,
                None => return Ok(false),
            },
        };
        match merge.fill(&self.shared).and_then(|filled| self.go_on(&mut merge, filled)) {
            Ok(true) => self.merge = Some(merge),
            Ok(false) => {}
            Err(error) => {
                remove(&*self.shared.disk, &merge.output.spare.name);
                return Err(error);
            }
        }
        Ok(true)
    }

    /// Says whether the merge needs another step.
    fn go_on(&mut self, merge: &mut Merge, filled: Filled) -> io::Result<bool> {
        match filled {
            Filled::Partly => {
                merge.output.write()?;
                return Ok(true);
            }
            Filled::Whole => {
                merge.output.write()?;
                let header = merge.output.finish(self.shared.node, &merge.run)?;
                self.replace(merge, &header)?;
                // One of the same name was replaced by the rename.
                self.merged = merge.run.drain(..).filter(|segment| segment.range != header.range()).collect();
            }
            Filled::Rotten => {
                remove(&*self.shared.disk, &merge.output.spare.name);
                merge.run.iter().filter(|segment| segment.is_rotten()).for_each(|s| self.shared.lose_from(s));
            }
        }
        Ok(false)
    }

    fn begin(&self) -> io::Result<Option<Merge>> {
        let run = self.choose();
        if run.is_empty() {
            return Ok(None);
        }
        let Shared { disk, names, spares, .. } = &*self.shared;
        let file = match spares.take_surplus() {
            Some(spare) => spare,
            None => Spare::empty(&**disk, names)?,
        };
        let output = Output::new(file, disk.random());
        let (dropped, forgotten) = Default::default();
        Ok(Some(Merge { run, at: 0, input: None, output, dropped, forgotten }))
    }

    /// Removes the file of a segment that was merged, or keeps it for another segment. Says whether there was one. Readers
    /// that found their record in it before it was merged had a pause to read it.
    fn let_go_of_one(&mut self) -> bool {
        let Some(segment) = self.merged.pop() else { return false };
        let Shared { disk, spares, .. } = &*self.shared;
        let _alone = lock(&self.shared.files);
        if segment.catalogued.load(Ordering::Relaxed) {
            // One that could not be written is not there.
            let _ = disk.remove(&segment.range.name(CATALOGUE_SUFFIX));
        }
        let name = segment.name.clone();
        let wanted = spares.want_old() && !self.shared.is_short();
        let spare = if wanted { Spare::of(&self.shared, segment) } else { Ok(None) };
        match spare {
            Ok(Some(spare)) => spares.keep(spare).into_iter().for_each(|spare| remove(&**disk, &spare.name)),
            Ok(None) | Err(_) => remove(&**disk, &name),
        }
        true
    }

    /// Lets go of an unfinished merge, and saves the next start the time to read what was sealed last.
    pub(crate) fn finish(&mut self) {
        let begin = self.shared.disk.now();
        while self.shared.disk.now().saturating_sub(begin) < CATALOGUES_AT_CLOSE_MAX
            && self.catalogue_one().unwrap_or(false)
        {}
        if let Some(merge) = self.merge.take() {
            remove(&*self.shared.disk, &merge.output.spare.name);
        }
        while self.let_go_of_one() {}
    }

    /// The run with the largest part of dead bytes, if that is large enough.
    fn choose(&self) -> Vec<Arc<Segment>> {
        let segments = self.shared.segments.in_order();
        let one_in = if self.shared.is_short() { DEAD_ONE_IN_WHEN_SHORT } else { DEAD_ONE_IN };
        let runs = (0..segments.len()).map(|at| self.run_from(&segments[at..]));
        let worth = runs.filter_map(|run| {
            let dead: u64 = run.iter().map(|segment| segment.dead_bytes()).sum();
            let all: u64 = run.iter().map(|segment| segment.end()).sum();
            let worth = run.len() >= RUN_SMALL || (dead > 0 && dead >= all / one_in);
            worth.then(|| (dead * 1000 / all.max(1), run))
        });
        worth.max_by_key(|(per_mille, _)| *per_mille).map(|(_, run)| run.to_vec()).unwrap_or_default()
    }

    /// As many neighbours, from the first on, as fit into one segment without what is dead in them.
    fn run_from<'a>(&self, segments: &'a [Arc<Segment>]) -> &'a [Arc<Segment>] {
        let (mut live, mut length) = (SEGMENT_HEADER_BYTES as u64, 0);
        let synced = self.shared.synced_position.load(Ordering::Acquire);
        for segment in segments.iter().take(RUN_MAX) {
            // The end of the log says how far it was synced: a shorter file there would look like an old copy of the disk.
            let passed = position(segment.range.last + 1, 0) < synced;
            let fit = passed && segment.sealed.load(Ordering::Acquire) && !segment.is_rotten();
            let neighbour = length == 0 || segments[length - 1].range.last + 1 == segment.range.first;
            live += segment.live_bytes();
            let large = length > 0 && live > u64::from(self.shared.options.segment_bytes);
            if !fit || !neighbour || large {
                break;
            }
            length += 1;
        }
        &segments[..length]
    }

    /// Puts a merged file in the place of its run.
    fn replace(&self, merge: &Merge, header: &SegmentHeader) -> io::Result<()> {
        let Shared { disk, segments, index, options, .. } = &*self.shared;
        let Merge { run, output, .. } = merge;
        let Spare { file, bytes: file_bytes, .. } = &output.spare;
        let bytes = read_prefix(&**file, header.end)?;
        let scan = Scan::of(&bytes, header.salt, Some(header.end));
        if scan.ending != Ending::Clean || scan.records().count() != output.origins.len() {
            return Err(io::Error::other("a merged segment cannot be read back as it was written"));
        }
        let name = header.range().name(LOG_SUFFIX);
        let _alone = lock(&self.shared.files);
        disk.rename(&merge.output.spare.name, &name)?;
        disk.sync_directory()?;
        let merged = segments.add(header, name, file.clone(), header.end.max(*file_bytes));
        if *file_bytes > header.end {
            merged.shorten();
        }
        merged.checked.store(true, Ordering::Relaxed);
        let moved = |old, new| segments.count(Some(old), Some(new));
        for (&origin, (at, record)) in gently(output.origins.iter().zip(scan.records())) {
            index.relocate(key_of(&record), origin, Entry::of(&record, &merged, at), moved);
        }
        for dropped in gently(merge.dropped.iter()) {
            index.dropped(dropped, moved);
        }
        for (dropped, place) in gently(merge.forgotten.iter()) {
            index.forget(dropped, *place, moved);
        }
        run.iter().for_each(|segment| segments.forget(segment.slot));
        if let Some(observer) = &options.observer {
            observer.merged(run.iter().map(|segment| segment.end()).sum(), header.end);
        }
        Ok(())
    }
}

/// A merge under way.
struct Merge {
    run: Vec<Arc<Segment>>,
    /// The segment of the run that is copied.
    at: usize,
    input: Option<Input>,
    output: Output,
    /// What is left out because a newer record of the key was written.
    dropped: Vec<Dropped>,
    /// What is left out because the key was removed and nothing older is left of it. Slot and offset.
    forgotten: Vec<(Dropped, (u32, u32))>,
}

/// What a step copied.
enum Filled {
    /// As much as a step may.
    Partly,
    /// All that was left.
    Whole,
    /// Nothing more: a segment of the run is rotten.
    Rotten,
}

/// The bytes of a segment that is copied, and how far that is.
struct Input {
    bytes: Vec<u8>,
    end: usize,
}

impl Merge {
    /// Copies what is live in the next groups of the run.
    fn fill(&mut self, shared: &Shared) -> io::Result<Filled> {
        let step_bytes = STEP_BYTES_MAX.min(u64::from(shared.options.segment_bytes) / STEPS);
        while let Some(segment) = self.run.get(self.at) {
            let input = match &mut self.input {
                Some(input) => input,
                empty => match Input::of(segment)? {
                    Some(input) => empty.insert(input),
                    None => return Ok(Filled::Rotten),
                },
            };
            // Every group was checked when the input was read.
            while let Some(group) = group_at(&input.bytes, input.end, None, segment.salt) {
                input.end = group.end;
                for (at, record) in group.records() {
                    let (key, place) = (key_of(&record), (segment.slot, at as u32));
                    let (entry, is_shared) = shared.index.look_up(key, |entry| entry);
                    match entry.filter(|entry| entry.place() == place) {
                        Some(entry) if entry.is_live() => {
                            self.output.batch.copy(&record, segment.format);
                            self.output.origins.push(place);
                        }
                        Some(_) => self.forgotten.push((Dropped::of(key, true), place)),
                        None => self.dropped.push(Dropped::of(key, is_shared)),
                    }
                }
                thread::yield_now(); // See [`gently`].
                if self.output.batch.len() >= step_bytes {
                    return Ok(Filled::Partly);
                }
            }
            self.input = None;
            self.at += 1;
        }
        Ok(Filled::Whole)
    }
}

impl Input {
    /// Reads and checks a segment; none when it is rotten.
    fn of(segment: &Segment) -> io::Result<Option<Self>> {
        let bytes = read_prefix(&*segment.file, segment.end())?;
        if Scan::of(&bytes, segment.salt, Some(segment.end())).ending != Ending::Clean {
            segment.give_up();
            return Ok(None);
        }
        Ok(Some(Self { bytes, end: SEGMENT_HEADER_BYTES }))
    }
}

/// A merged file that is being written.
struct Output {
    /// A new file, or one that is as long as it once had to be.
    spare: Spare,
    salt: u64,
    end: u64,
    previous: u64,
    batch: Batch,
    /// Where each record comes from: slot and offset.
    origins: Vec<(u32, u32)>,
}

impl Output {
    fn new(spare: Spare, salt: u64) -> Self {
        let end = SEGMENT_HEADER_BYTES as u64;
        Self { spare, salt, end, previous: salt, batch: Batch::default(), origins: Vec::new() }
    }

    /// Writes what was copied as a group.
    fn write(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        let (bytes, checksum) = batch.seal(self.end, self.previous, self.salt);
        self.spare.file.write_at(self.end, bytes)?;
        self.spare.file.sync()?;
        self.end += bytes.len() as u64;
        self.previous = checksum;
        Ok(())
    }

    /// Writes the header, last: until then the file is none of the log's.
    fn finish(&self, node: NodeId, run: &[Arc<Segment>]) -> io::Result<SegmentHeader> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Err(io::Error::other("a merge of no segment"));
        };
        let header = SegmentHeader {
            format: FORMAT,
            node,
            first: first.range.first,
            last: last.range.last,
            previous_end: first.previous_end,
            end: self.end,
            salt: self.salt,
        };
        self.spare.file.write_at(0, &header.encode())?;
        self.spare.file.sync()?;
        Ok(header)
    }
}

fn key_of<'a>(record: &Record<'a>) -> KeyOf<'a> {
    KeyOf { partition: record.partition, hash: key_hash(record.key), key: record.key }
}
