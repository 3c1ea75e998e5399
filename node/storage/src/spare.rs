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

/// How much is written over between two syncs: small, so that the log's own syncs hardly wait for it.
const STEP_BYTES: u64 = 2 * 1024 * 1024;
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

    /// Writes it over once.
    fn write_over(&self) -> io::Result<()> {
        let zeros = vec![0; STEP_BYTES.min(self.bytes) as usize];
        let mut at = 0;
        while at < self.bytes {
            let step = (self.bytes - at).min(STEP_BYTES);
            self.file.write_at(at, &zeros[..step as usize])?;
            self.file.sync()?;
            at += step;
        }
        Ok(())
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

/// Keeps a spare ready, on a thread of its own.
pub(crate) struct Preparer(pub(crate) Arc<Shared>);

impl Preparer {
    pub(crate) fn run(self) {
        let mut pokes = 0;
        loop {
            if let Err(error) = self.step_if_wanted() {
                tracing::debug!(%error, "no segment can be prepared now");
            }
            if self.0.background.wait(&mut pokes, RETRY_AFTER) {
                break;
            }
        }
        self.abandon();
    }

    /// Lets go of the spare.
    pub(crate) fn abandon(&self) {
        if let Some(spare) = self.0.spares.take(0) {
            remove(&*self.0.disk, &spare.name);
        }
    }

    /// Prepares a segment if one will be needed soon and there is none.
    pub(crate) fn step_if_wanted(&self) -> io::Result<Step> {
        if !self.0.spares.are_wanted() {
            return Ok(Step::Idle);
        }
        self.step().map(|()| Step::Done { pause: Duration::ZERO })
    }

    /// Prepares a segment if the disk has room for it.
    pub(crate) fn step(&self) -> io::Result<()> {
        let shared = &self.0;
        let bytes = u64::from(shared.options.segment_bytes);
        if shared.disk.free_bytes()? < bytes + shared.options.free_space_reserve_bytes {
            return Ok(());
        }
        let spare = Spare::make(&*shared.disk, &shared.names, bytes)?;
        spare.write_over().inspect_err(|_| remove(&*shared.disk, &spare.name))?;
        if let Some(older) = lock(&shared.spares.ready).replace(spare) {
            remove(&*shared.disk, &older.name);
        }
        shared.status.can_begin();
        Ok(())
    }
}
