//! The engine: a store that is driven a step at a time, by threads of its own ([`crate::Store`]) or by a simulator.
//!
//! Invariant: nothing here reads a clock, throws dice or sleeps but through the [`Disk`], and what threads do at the
//! start does not depend on their order, so the same calls on the same simulated disk do the same, to the byte.

use std::io;
use std::ops::Deref;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_core::causality::{Actor, DotMaker};

use crate::access::Access;
use crate::commit::Committer;
use crate::disk::{DirectoryLock, Disk};
use crate::error::OpenError;
use crate::helper::Helper;
use crate::lifted::Lifted;
use crate::log::Log;
use crate::merge::Merger;
use crate::options::{Options, SEGMENT_BYTES_MAX};
use crate::queue::Queue;
use crate::recovery::{Recovered, Recovery, recover};
use crate::shared::{Background, Shared, Status};
use crate::snapshot::{self, Snapshot, SnapshotError};
use crate::spare::{Names, Preparer, Spares};

/// The smallest segment that makes sense.
const SEGMENT_BYTES_LEAST: u32 = 4096;

/// What a step of background work did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing: there is nothing to do now.
    Idle,
    /// Something; the next step should wait this long, so that the foreground has the disk meanwhile.
    Done {
        /// How long.
        pause: Duration,
    },
}

/// A log-structured store of version sets that does nothing by itself. Writes are handed in by
/// [`Access::submit`] and stored by [`Engine::prepare`] and [`Engine::commit`].
pub struct Engine {
    pub(crate) access: Access,
    pub(crate) committer: Committer,
    pub(crate) merger: Merger,
    pub(crate) preparer: Preparer,
    pub(crate) lock: DirectoryLock,
}

impl Engine {
    /// Opens a log, or begins one. `actor` makes the dots of this start: its number must be on the disk already, and
    /// no other store may ever have had it.
    pub fn open(
        disk: Arc<dyn Disk>,
        actor: Actor,
        mut options: Options,
    ) -> Result<(Self, Recovery), OpenError> {
        options.segment_bytes = options.segment_bytes.clamp(SEGMENT_BYTES_LEAST, SEGMENT_BYTES_MAX as u32);
        let lock = disk.lock().map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked,
            _ => OpenError::Io { action: "locking the directory".into(), source },
        })?;
        let lifted = Lifted::load(&*disk);
        let Recovered { index, segments, report, lost_through, next, previous_end, newest, position } =
            recover(&*disk, actor.node, &lifted)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(options.queue_writes_max, options.queue_bytes_max),
            disk,
            options,
            node: actor.node,
            index,
            segments,
            names: Names::default(),
            spares: Spares::default(),
            status: Status::default(),
            background: Background::default(),
            helper: Helper::default(),
            lost_through,
            synced_position: AtomicU64::new(position),
            lifted,
            files: Mutex::default(),
        });
        if let Some(partitions) = shared.options.partitions {
            shared.index.set_partitions(partitions);
        }
        let log = Log::new(shared.clone(), next, previous_end, newest);
        let engine = Self {
            committer: Committer::new(shared.clone(), DotMaker::new(actor), log),
            merger: Merger::new(shared.clone()),
            preparer: Preparer::new(shared.clone()),
            access: Access(shared),
            lock,
        };
        Ok((engine, report))
    }

    /// A handle for whoever reads and hands in writes, beside whoever takes the steps.
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Takes a group of the writes that wait: reads, merges, makes dots, tells `prepared`, and writes the group's
    /// bytes, unsynced. Says whether there is a group now; until [`Engine::commit`] it is neither durable nor read.
    pub fn prepare(&mut self) -> bool {
        self.committer.prepare()
    }

    /// Syncs the group that was prepared, points the index to it, and tells `done`. Does nothing when there is none.
    pub fn commit(&mut self) {
        self.committer.commit();
    }

    /// Goes on with a merge, or begins one if one is worth it. A merge that fails is begun anew later.
    pub fn merge_step(&mut self) -> Step {
        self.merger.step().unwrap_or_else(|error| {
            tracing::debug!(%error, "segments cannot be merged now");
            Step::Idle
        })
    }

    /// Goes on with the next segment that is prepared ahead, or begins one if one will be needed soon.
    pub fn spare_step(&mut self) -> Step {
        self.preparer.step_if_wanted().unwrap_or_else(|error| {
            tracing::debug!(%error, "no segment can be prepared now");
            Step::Idle
        })
    }

    /// How long after the last group [`Engine::tick`] wants to be called; none while it has nothing to do.
    pub fn patience(&self) -> Option<Duration> {
        self.committer.patience()
    }

    /// Nothing was written for a while: syncs what is due, and marks the end of the log.
    pub fn tick(&mut self) {
        self.committer.tick();
    }

    /// Makes a snapshot of everything that was committed, in the folder `snapshots/name` of the log's directory: hard
    /// links, so it takes no time and no space at first.
    pub fn snapshot(&mut self, name: &str) -> Result<Snapshot, SnapshotError> {
        snapshot::check_name(name)?;
        self.commit();
        let through = self.committer.roll()?;
        snapshot::take(&self.access.0, name, through)
    }

    /// Ends in order: takes no more writes, stores those that wait, syncs. A drop without this is as a crash of the
    /// process.
    pub fn close(mut self) {
        self.access.0.queue.close();
        while self.prepare() {
            self.commit();
        }
        self.committer.finish();
        self.merger.finish();
        self.preparer.abandon();
    }
}

impl Deref for Engine {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}
