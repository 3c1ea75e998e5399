//! The store: what callers hold, and the threads behind it.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

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
use crate::sync::lock;
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

/// A log-structured store of version sets. A clone is another handle of the same store; the last one closes it.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

/// Everything of a store but its threads.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) committer: Committer,
    pub(crate) merger: Merger,
    pub(crate) preparer: Preparer,
    pub(crate) lock: DirectoryLock,
    pub(crate) quarantined: usize,
}

impl Parts {
    /// Takes the directory and reads the log.
    pub(crate) fn open(
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
        let parts = Self {
            committer: Committer::new(shared.clone(), DotMaker::new(actor), log),
            merger: Merger(shared.clone()),
            preparer: Preparer(shared.clone()),
            shared,
            lock,
            quarantined: report.quarantined.len(),
        };
        Ok((parts, report))
    }
}

impl Store {
    /// Opens a log, or begins one, and starts the threads that serve it. `actor` makes the dots of this start: its
    /// number must be on the disk already, and no other store may ever have had it.
    pub fn open(disk: Arc<dyn Disk>, actor: Actor, options: Options) -> Result<(Self, Recovery), OpenError> {
        let (parts, report) = Parts::open(disk, actor, options)?;
        let Parts { shared, committer, merger, preparer, lock, quarantined } = parts;
        let handle = Handle { shared, threads: Mutex::default(), lock: Mutex::new(Some(lock)), quarantined };
        handle.start("log-commit", move || committer.run())?;
        handle.start("log-merge", move || merger.run())?;
        handle.start("log-prepare", move || preparer.run())?;
        Ok((Self(Arc::new(handle)), report))
    }

    /// What a key holds. Reads the disk; `None` means that this disk never held anything for the key.
    pub fn get(&self, partition: Partition, key: &[u8]) -> Result<Option<VersionSet>, ReadError> {
        self.0.shared.get(partition, key)
    }

    /// Hands a write to the committer. Never waits: a write that cannot be queued is answered at once.
    pub fn submit(&self, write: Write) {
        if let Err((write, error)) = self.0.shared.queue.push(write) {
            (write.done)(Err(error));
        }
    }

    /// Room and state.
    pub fn usage(&self) -> Usage {
        self.0.shared.usage(self.0.quarantined)
    }

    /// Takes no more writes, stores those that wait, syncs, and ends the threads. Reads go on. Again: does nothing.
    pub fn close(&self) {
        self.0.close();
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
}

struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held until the threads have ended.
    lock: Mutex<Option<DirectoryLock>>,
    quarantined: usize,
}

impl Handle {
    fn start(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = thread::Builder::new().name(name.into()).spawn(run);
        let thread = thread
            .map_err(|source| OpenError::Io { action: format!("starting the thread {name}"), source })?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    fn close(&self) {
        self.shared.queue.close();
        self.shared.background.close();
        let mut threads = lock(&self.threads);
        let this = thread::current().id();
        for thread in threads.drain(..) {
            // The last handle may be dropped by a closure on one of these very threads, which then ends by itself.
            if thread.thread().id() != this && thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
        lock(&self.lock).take();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}
