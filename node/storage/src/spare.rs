//! Segments made ready before they are needed: allocated and written over once, so that a sync of the log has only
//! data to write and no change of the file system's own records.
//!
//! Invariant: a spare is not part of the log, and at most one is kept, and only while one will be needed soon: an idle
//! log takes the space of one segment, not of two.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::disk::{Disk, File};
use crate::engine::Step;
use crate::segment::UNFINISHED_SUFFIX;
use crate::shared::Shared;
use crate::sync::lock;

/// How much is written over in a step. What a file system only promised takes a disk long to write, and what the log
/// reads or syncs meanwhile waits behind it.
const STEP_BYTES: u64 = 256 * 1024;
/// How long the pause after a step is, compared with the step.
const PAUSE: u32 = 1;
/// How long to wait before space is looked for again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A file that can become a segment.
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn File>,
    pub(crate) bytes: u64,
}

impl Spare {
    /// Makes a file of this size, every byte zero. On failure nothing is left of it.
    pub(crate) fn make(disk: &dyn Disk, names: &Names, bytes: u64) -> io::Result<Self> {
        let name = names.next();
        let file = disk.create(&name)?;
        file.allocate(bytes).inspect_err(|_| remove(disk, &name))?;
        Ok(Self { name, file, bytes })
    }

    /// Writes it over, from an offset on. Says where to go on.
    fn write_over(&self, at: u64) -> io::Result<u64> {
        let step = (self.bytes - at).min(STEP_BYTES);
        self.file.write_at(at, &vec![0; step as usize])?;
        self.file.sync()?;
        Ok(at + step)
    }
}

/// Removes a file that is not part of the log; should that fail, the next start does it.
pub(crate) fn remove(disk: &dyn Disk, name: &str) {
    if let Err(error) = disk.remove(name) {
        tracing::warn!(%name, %error, "an unfinished file of the log cannot be removed now");
    }
}

/// Makes names of unfinished files, each once in a process.
#[derive(Default)]
pub(crate) struct Names(AtomicU64);

impl Names {
    pub(crate) fn next(&self) -> String {
        format!("{}{UNFINISHED_SUFFIX}", self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where the spare is kept.
#[derive(Default)]
pub(crate) struct Spares {
    ready: Mutex<Option<Spare>>,
    wanted: AtomicBool,
}

impl Spares {
    /// The spare, if it has room for this much.
    pub(crate) fn take(&self, bytes: u64) -> Option<Spare> {
        self.wanted.store(false, Ordering::Relaxed);
        lock(&self.ready).take_if(|spare| spare.bytes >= bytes)
    }

    /// A spare will be needed. Says whether that is news.
    pub(crate) fn want(&self) -> bool {
        !self.wanted.swap(true, Ordering::Relaxed)
    }

    fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && lock(&self.ready).is_none()
    }
}

/// Keeps a spare ready, on a thread of its own, a step at a time.
pub(crate) struct Preparer {
    shared: Arc<Shared>,
    /// The next spare, and how far it is written over.
    making: Option<(Spare, u64)>,
}

impl Preparer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, making: None }
    }

    pub(crate) fn run(mut self) {
        let mut pokes = 0;
        let shared = self.shared.clone();
        loop {
            let closing = match self.step_if_wanted() {
                Ok(Step::Done { pause }) => shared.background.pause(pause),
                Ok(Step::Idle) => shared.background.wait(&mut pokes, RETRY_AFTER),
                Err(error) => {
                    tracing::debug!(%error, "no segment can be prepared now");
                    shared.background.wait(&mut pokes, RETRY_AFTER)
                }
            };
            if closing {
                break;
            }
        }
        self.abandon();
    }

    /// Lets go of the spare.
    pub(crate) fn abandon(&mut self) {
        let making = self.making.take().map(|(spare, _)| spare);
        for spare in making.into_iter().chain(self.shared.spares.take(0)) {
            remove(&*self.shared.disk, &spare.name);
        }
    }

    /// Goes on with a spare, or begins one if one will be needed soon and there is none.
    pub(crate) fn step_if_wanted(&mut self) -> io::Result<Step> {
        if self.making.is_none() && !self.shared.spares.are_wanted() {
            return Ok(Step::Idle);
        }
        self.step()
    }

    /// Goes on with a spare, or begins one if the disk has room for it. On failure nothing is left of it.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        let begin = self.shared.disk.now();
        let making = match self.making.take() {
            Some(making) => Some(making),
            None => self.begin()?.map(|spare| (spare, 0)),
        };
        let Some((spare, at)) = making else { return Ok(Step::Idle) };
        let at = spare.write_over(at).inspect_err(|_| remove(&*self.shared.disk, &spare.name))?;
        if at < spare.bytes {
            self.making = Some((spare, at));
        } else {
            self.finish(spare);
        }
        Ok(Step::Done { pause: self.shared.disk.now().saturating_sub(begin) * PAUSE })
    }

    fn begin(&self) -> io::Result<Option<Spare>> {
        let Shared { disk, options, names, .. } = &*self.shared;
        let bytes = u64::from(options.segment_bytes);
        if disk.free_bytes()? < bytes + options.free_space_reserve_bytes {
            return Ok(None);
        }
        Spare::make(&**disk, names, bytes).map(Some)
    }

    fn finish(&self, spare: Spare) {
        if let Some(older) = lock(&self.shared.spares.ready).replace(spare) {
            remove(&*self.shared.disk, &older.name);
        }
        self.shared.status.can_begin();
    }
}
