//! The engine: a store that is driven a step at a time, by threads of its own ([`crate::Store`]) or by a simulator.
//!
//! Invariant: nothing here reads a clock, throws dice, sleeps or starts a thread but through the [`Disk`], so the same
//! calls on the same simulated disk do the same, to the byte.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::causality::{Actor, DotMaker, VersionSet};
use quorate_core::ring::{Partition, key_hash};

use crate::commit::Committer;
use crate::disk::{DirectoryLock, Disk};
use crate::error::{OpenError, ReadError};
use crate::index::KeyOf;
use crate::log::Log;
use crate::merge::Merger;
use crate::options::{Options, SEGMENT_BYTES_MAX};
use crate::queue::Queue;
use crate::recovery::{Recovered, Recovery, recover};
use crate::shared::{Background, Found, Shared, State, Status};
use crate::spare::{Names, Preparer, Spares};
use crate::write::Write;

/// The smallest segment that makes sense.
const SEGMENT_BYTES_LEAST: u32 = 4096;

/// Room and state, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Keys, deleted ones included.
    pub keys: u64,
    /// What the log takes on the disk.
    pub log_bytes: u64,
    /// What of it merging could give back.
    pub dead_bytes: u64,
    /// What is free on the disk.
    pub free_bytes: u64,
    /// Files of the log.
    pub segments: usize,
    /// Whether writes are taken.
    pub state: State,
    /// What was lost to rot.
    pub quarantined: Quarantined,
}

/// What was lost to rot on this disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quarantined {
    /// Nothing.
    None,
    /// Segments that may have held keys of every partition: what is older than they is not served.
    AllPartitions {
        /// How many.
        segments: usize,
    },
}

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
/// [`Engine::submit`] and stored by [`Engine::prepare`] and [`Engine::commit`].
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) committer: Committer,
    pub(crate) merger: Merger,
    pub(crate) preparer: Preparer,
    pub(crate) lock: DirectoryLock,
    pub(crate) quarantined: usize,
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
        let Recovered { index, segments, report, lost_through, next, previous_end, newest } =
            recover(&*disk, actor.node)?;
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
            lost_through,
        });
        let log = Log::new(shared.clone(), next, previous_end, newest);
        let engine = Self {
            committer: Committer::new(shared.clone(), DotMaker::new(actor), log),
            merger: Merger::new(shared.clone()),
            preparer: Preparer(shared.clone()),
            shared,
            lock,
            quarantined: report.quarantined.len(),
        };
        Ok((engine, report))
    }

    /// See [`crate::Store::get`].
    pub fn get(&self, partition: Partition, key: &[u8]) -> Result<Option<VersionSet>, ReadError> {
        self.shared.get(partition, key)
    }

    /// Hands in a write, which waits until it is prepared. One that cannot wait is answered at once.
    pub fn submit(&self, write: Write) {
        self.shared.submit(write);
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

    /// Prepares the next segment ahead, if one will be needed soon.
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

    /// Room and state.
    pub fn usage(&self) -> Usage {
        self.shared.usage(self.quarantined)
    }

    /// Ends in order: takes no more writes, stores those that wait, syncs. A drop without this is as a crash of the
    /// process.
    pub fn close(mut self) {
        self.shared.queue.close();
        while self.prepare() {
            self.commit();
        }
        self.committer.finish();
        self.merger.abandon();
        self.preparer.abandon();
    }
}

impl Shared {
    /// See [`Store::get`].
    pub(crate) fn get(&self, partition: Partition, key: &[u8]) -> Result<Option<VersionSet>, ReadError> {
        match self.read(KeyOf { partition, hash: key_hash(key), key })? {
            Found::Set { set, sure: true } => Ok(Some(set)),
            Found::Nothing | Found::Other(_) if !self.lost_something() => Ok(None),
            _ => Err(ReadError::Quarantined { partition }),
        }
    }

    /// See [`Store::usage`]; `quarantined` counts the segments that were lost.
    pub(crate) fn usage(&self, quarantined: usize) -> Usage {
        let segments = self.segments.in_order();
        let full = self.spendable_bytes().is_err();
        let state = match self.status.state() {
            State::Writable if full => State::Full,
            state => state,
        };
        Usage {
            keys: self.index.keys(),
            log_bytes: segments.iter().map(|segment| segment.file_bytes()).sum(),
            dead_bytes: segments.iter().map(|segment| segment.dead_bytes()).sum(),
            free_bytes: self.free_bytes(),
            segments: segments.len(),
            state,
            quarantined: match quarantined {
                0 => Quarantined::None,
                segments => Quarantined::AllPartitions { segments },
            },
        }
    }

    /// See [`crate::Store::submit`].
    pub(crate) fn submit(&self, write: Write) {
        if let Err((write, error)) = self.queue.push(write) {
            (write.done)(Err(error));
        }
    }
}
