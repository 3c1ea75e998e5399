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
use std::time::{Duration, Instant};

use quorate_core::ring::key_hash;

use crate::batch::Batch;
use crate::disk::File;
use crate::format::{Record, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::index::KeyOf;
use crate::segment::{Ending, LOG_SUFFIX, Range, Scan, Segment, read_prefix};
use crate::shared::{Background, Shared};
use crate::spare::remove;

/// The most neighbours that one merge takes.
const RUN_MAX: usize = 16;
/// From this many small neighbours on they are merged to have fewer files, dead records or not.
const RUN_SMALL: usize = 8;
/// A run is worth merging when at least one in so many of its bytes is dead.
const DEAD_ONE_IN: u64 = 2;
/// The same while space is short.
const DEAD_ONE_IN_WHEN_SHORT: u64 = 8;
/// How much is written between two pauses.
const STEP_BYTES: u64 = 1024 * 1024;
/// How long a pause is, compared with the step before it, while writes wait for the disk and while none do.
const PAUSE_WHEN_BUSY: u32 = 4;
/// See above.
const PAUSE_WHEN_QUIET: u32 = 1;
/// How long to wait before segments are looked at again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Merges segments, on a thread of its own.
pub(crate) struct Merger(pub(crate) Arc<Shared>);

impl Merger {
    pub(crate) fn run(self) {
        let (mut pokes, mut failed) = (0, false);
        loop {
            let result = self.step();
            if let Err(error) = &result
                && !failed
            {
                tracing::warn!(%error, "segments cannot be merged now; it is tried again and again");
            }
            failed = result.is_err();
            let merged = result.unwrap_or(false);
            let background: &Background = &self.0.background;
            if background.is_closing() || (!merged && background.wait(&mut pokes, RETRY_AFTER)) {
                return;
            }
        }
    }

    /// Merges one run, if one is worth it. Says whether it did.
    pub(crate) fn step(&self) -> io::Result<bool> {
        let run = self.choose();
        if run.is_empty() {
            return Ok(false);
        }
        let name = self.0.names.next();
        let file = self.0.disk.create(&name)?;
        let mut output = Output::new(&self.0, file);
        let written =
            output.fill(&run).and_then(|whole| if whole { output.finish(&run).map(Some) } else { Ok(None) });
        match written {
            Ok(Some(header)) => self.replace(&run, &header, &name, output).map(|()| true),
            other => {
                remove(&*self.0.disk, &name);
                other.map(|_| false)
            }
        }
    }

    /// The run with the largest part of dead bytes, if that is large enough.
    fn choose(&self) -> Vec<Arc<Segment>> {
        let segments = self.0.segments.in_order();
        let space = 2 * u64::from(self.0.options.segment_bytes);
        let short = self.0.spendable_bytes().is_ok_and(|bytes| bytes >= space);
        let one_in = if short { DEAD_ONE_IN } else { DEAD_ONE_IN_WHEN_SHORT };
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
        for segment in segments.iter().take(RUN_MAX) {
            let fit = segment.sealed.load(Ordering::Acquire) && !segment.rotten.load(Ordering::Relaxed);
            let neighbour = length == 0 || segments[length - 1].range.last + 1 == segment.range.first;
            live += segment.live_bytes();
            let large = length > 0 && live > u64::from(self.0.options.segment_bytes);
            if !fit || !neighbour || large {
                break;
            }
            length += 1;
        }
        &segments[..length]
    }

    /// Puts a merged file in the place of its run.
    fn replace(
        &self,
        run: &[Arc<Segment>],
        header: &SegmentHeader,
        unfinished: &str,
        output: Output<'_>,
    ) -> io::Result<()> {
        let Shared { disk, segments, index, options, .. } = &*self.0;
        let bytes = read_prefix(&*output.file, header.end)?;
        let scan = Scan::of(&bytes, header.salt, Some(header.end));
        if scan.ending != Ending::Clean || scan.records().count() != output.origins.len() {
            remove(&**disk, unfinished);
            return Err(io::Error::other("a merged segment cannot be read back as it was written"));
        }
        let name = Range { first: header.first, last: header.last }.name(LOG_SUFFIX);
        disk.rename(unfinished, &name)?;
        disk.sync_directory()?;
        let merged = segments.add(header, name.clone(), output.file, header.end);
        for (origin, (at, record)) in output.origins.into_iter().zip(scan.records()) {
            let moved = |old, new| segments.count(Some(new), Some(old));
            index.relocate(key_of(&record), origin, (merged.slot, at as u32), moved);
        }
        for segment in run {
            segments.forget(segment.slot);
            if segment.name != name {
                remove(&**disk, &segment.name);
            }
        }
        if let Some(observer) = &options.observer {
            observer.merged(run.iter().map(|segment| segment.end()).sum(), header.end);
        }
        Ok(())
    }
}

/// A merged file that is being written.
struct Output<'a> {
    shared: &'a Shared,
    file: Arc<dyn File>,
    salt: u64,
    end: u64,
    previous: u64,
    batch: Batch,
    /// Where each record comes from: slot and offset.
    origins: Vec<(u32, u32)>,
}

impl<'a> Output<'a> {
    fn new(shared: &'a Shared, file: Arc<dyn File>) -> Self {
        let salt = shared.disk.random();
        let end = SEGMENT_HEADER_BYTES as u64;
        Self { shared, file, salt, end, previous: salt, batch: Batch::default(), origins: Vec::new() }
    }

    /// Copies what is live in a run. Says whether all of it could be read and it is still wanted.
    fn fill(&mut self, run: &[Arc<Segment>]) -> io::Result<bool> {
        for segment in run {
            let bytes = read_prefix(&*segment.file, segment.end())?;
            let scan = Scan::of(&bytes, segment.salt, Some(segment.end()));
            if scan.ending != Ending::Clean {
                tracing::error!(name = %segment.name, "the disk changed this segment; it is not merged, and set aside at the next start");
                segment.rotten.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            for (at, record) in scan.records() {
                if self.shared.index.is_at(key_of(&record), segment.slot, at as u32) {
                    self.batch.copy(&record);
                    self.origins.push((segment.slot, at as u32));
                    if self.batch.len() >= STEP_BYTES && !self.write()? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(self.batch.is_empty() || self.write()?)
    }

    /// Writes a group, and then lets others have the disk. Says whether the merge is still wanted.
    fn write(&mut self) -> io::Result<bool> {
        let begin = Instant::now();
        let mut batch = std::mem::take(&mut self.batch);
        let (bytes, checksum) = batch.seal(self.end, self.previous, self.salt);
        self.file.write_at(self.end, bytes)?;
        self.file.sync()?;
        self.end += bytes.len() as u64;
        self.previous = checksum;
        let pause = if self.shared.queue.is_busy() { PAUSE_WHEN_BUSY } else { PAUSE_WHEN_QUIET };
        Ok(!self.shared.background.pause(begin.elapsed() * pause))
    }

    /// Writes the header, last: until then the file is none of the log's.
    fn finish(&mut self, run: &[Arc<Segment>]) -> io::Result<SegmentHeader> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Err(io::Error::other("a merge of no segment"));
        };
        let header = SegmentHeader {
            node: self.shared.node,
            first: first.range.first,
            last: last.range.last,
            previous_end: first.previous_end,
            end: self.end,
            salt: self.salt,
        };
        self.file.write_at(0, &header.encode())?;
        self.file.sync()?;
        Ok(header)
    }
}

fn key_of<'a>(record: &Record<'a>) -> KeyOf<'a> {
    KeyOf { partition: record.partition, hash: key_hash(record.key), key: record.key }
}
