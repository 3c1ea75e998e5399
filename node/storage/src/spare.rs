//! Segments made ready before they are needed: allocated and written over once, so that a sync of the log has only
//! data to write and no change of the file system's own records. Best of all are files of segments that were merged
//! away: they were written over long ago.
//!
//! Invariants:
//! - A spare is not part of the log. At most one is ready, and only while one will be needed soon; a few old files are
//!   kept beside it, and only while the log is written and the disk has space. So an idle log takes the space of one
//!   segment, and a full disk holds nothing back.
//! - An old file becomes a spare only when nobody can read it any more: no reader of this process has it, and it has no
//!   other name, as a snapshot would give it.
//!
//! What an old file holds is none of the new segment's: its groups' checksums have another salt.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::disk::{Disk, File};
use crate::engine::Step;
use crate::segment::{Segment, UNFINISHED_SUFFIX};
use crate::shared::Shared;
use crate::sync::lock;

/// How many old files are kept: a merge can give several at once, and the log takes one at a time.
const OLD_MAX: usize = 4;

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

    /// Makes an empty file.
    pub(crate) fn empty(disk: &dyn Disk, names: &Names) -> io::Result<Self> {
        let name = names.next();
        Ok(Self { file: disk.create(&name)?, name, bytes: 0 })
    }

    /// Makes one of the file of a segment that was merged away. None when somebody may still read it, or when it is not
    /// about as large as a segment is now.
    pub(crate) fn of(shared: &Shared, segment: Arc<Segment>) -> io::Result<Option<Self>> {
        let usual = u64::from(shared.options.segment_bytes);
        let fits = (usual / 2..=usual).contains(&segment.file_bytes()) && segment.is_sound();
        let Ok(Segment { file, name: old, .. }) = Arc::try_unwrap(segment) else { return Ok(None) };
        if !fits || Arc::strong_count(&file) != 1 || file.links()? != 1 {
            return Ok(None);
        }
        let (name, bytes) = (shared.names.next(), file.length()?);
        shared.disk.rename(&old, &name)?;
        Ok(Some(Self { name, file, bytes }))
    }

    /// Makes it this long, at least.
    fn lengthen(&mut self, bytes: u64) -> io::Result<()> {
        if self.bytes < bytes {
            self.file.allocate(bytes)?;
            self.bytes = bytes;
        }
        Ok(())
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

/// Where spares are kept.
#[derive(Default)]
pub(crate) struct Spares(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Can become a segment at once.
    ready: Option<Spare>,
    /// Whether one will be needed soon.
    wanted: bool,
    /// Files of segments that were merged away, as they were left.
    old: Vec<Spare>,
    /// Whether the log is written, so that old files will be needed.
    busy: bool,
}

impl Spares {
    /// The spare, or else an old file, if one has room for this much.
    pub(crate) fn take(&self, bytes: u64) -> Option<Spare> {
        let kept = &mut *lock(&self.0);
        kept.wanted = false;
        let ready = kept.ready.take_if(|spare| spare.bytes >= bytes);
        ready.or_else(|| {
            let fits = kept.old.iter().position(|spare| spare.bytes >= bytes)?;
            Some(kept.old.swap_remove(fits))
        })
    }

    /// A spare will be needed. Says whether that is news.
    pub(crate) fn want(&self) -> bool {
        !std::mem::replace(&mut lock(&self.0).wanted, true)
    }

    fn are_wanted(&self) -> bool {
        let kept = lock(&self.0);
        kept.wanted && kept.ready.is_none()
    }

    /// The log is written, or it is not any more. Says whether there are old files that nobody needs then.
    pub(crate) fn set_busy(&self, busy: bool) -> bool {
        let mut kept = lock(&self.0);
        kept.busy = busy;
        !busy && !kept.old.is_empty()
    }

    /// Whether there is a use for another old file.
    pub(crate) fn want_old(&self) -> bool {
        let kept = lock(&self.0);
        kept.busy && kept.old.len() < OLD_MAX
    }

    /// Keeps an old file, or gives it back when there is no use for it.
    pub(crate) fn keep(&self, spare: Spare) -> Option<Spare> {
        let mut kept = lock(&self.0);
        if !kept.busy || kept.old.len() >= OLD_MAX {
            return Some(spare);
        }
        kept.old.push(spare);
        None
    }

    /// An old file.
    pub(crate) fn take_old(&self) -> Option<Spare> {
        lock(&self.0).old.pop()
    }

    /// An old file that the log will not need soon.
    pub(crate) fn take_surplus(&self) -> Option<Spare> {
        let mut kept = lock(&self.0);
        let for_log = usize::from(kept.ready.is_none());
        if kept.old.len() > for_log { kept.old.pop() } else { None }
    }

    pub(crate) fn have_old(&self) -> bool {
        !lock(&self.0).old.is_empty()
    }

    fn is_busy(&self) -> bool {
        lock(&self.0).busy
    }

    /// Removes the old files: their space is needed.
    pub(crate) fn let_go(&self, disk: &dyn Disk) {
        while let Some(spare) = self.take_old() {
            remove(disk, &spare.name);
        }
    }

    fn take_all(&self) -> impl Iterator<Item = Spare> + use<> {
        let Kept { ready, old, .. } = std::mem::take(&mut *lock(&self.0));
        ready.into_iter().chain(old)
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

    /// Lets go of all spares.
    pub(crate) fn abandon(&mut self) {
        let making = self.making.take().map(|(spare, _)| spare);
        for spare in making.into_iter().chain(self.shared.spares.take_all()) {
            remove(&*self.shared.disk, &spare.name);
        }
    }

    /// Lets go of an old file that nobody needs, goes on with a spare, or begins one if one will be needed soon and there
    /// is none.
    pub(crate) fn step_if_wanted(&mut self) -> io::Result<Step> {
        if let Some(step) = self.let_go_of_one() {
            return Ok(step);
        }
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
            None => self.begin()?,
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

    /// Removes an old file if the log is idle, or space is short.
    fn let_go_of_one(&self) -> Option<Step> {
        let Shared { spares, disk, .. } = &*self.shared;
        if !spares.have_old() || spares.is_busy() && !self.shared.is_short() {
            return None;
        }
        let begin = disk.now();
        remove(&**disk, &spares.take_old()?.name);
        Some(Step::Done { pause: disk.now().saturating_sub(begin) * PAUSE })
    }

    /// A file to make a spare of, and from where on it must be written over.
    fn begin(&self) -> io::Result<Option<(Spare, u64)>> {
        let Shared { disk, options, names, spares, .. } = &*self.shared;
        let bytes = u64::from(options.segment_bytes);
        if let Some(mut spare) = spares.take_old() {
            let written = spare.bytes;
            spare.lengthen(bytes).inspect_err(|_| remove(&**disk, &spare.name))?;
            return Ok(Some((spare, written)));
        }
        if disk.free_bytes()? < bytes + options.free_space_reserve_bytes {
            return Ok(None);
        }
        Ok(Some((Spare::make(&**disk, names, bytes)?, 0)))
    }

    fn finish(&self, spare: Spare) {
        if let Some(older) = lock(&self.shared.spares.0).ready.replace(spare) {
            remove(&*self.shared.disk, &older.name);
        }
        self.shared.status.can_begin();
    }
}
