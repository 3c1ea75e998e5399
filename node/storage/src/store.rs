//! The store: what callers hold, and the threads that drive the engine behind it.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use quorate_core::causality::{Actor, VersionSet};
use quorate_core::ring::Partition;

use crate::disk::{DirectoryLock, Disk};
use crate::engine::{Engine, Usage};
use crate::error::{OpenError, ReadError};
use crate::options::Options;
use crate::recovery::Recovery;
use crate::shared::Shared;
use crate::sync::lock;
use crate::write::Write;

/// A log-structured store of version sets. A clone is another handle of the same store; the last one closes it.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

impl Store {
    /// Opens a log, or begins one, and starts the threads that serve it. `actor` makes the dots of this start: its
    /// number must be on the disk already, and no other store may ever have had it.
    pub fn open(disk: Arc<dyn Disk>, actor: Actor, options: Options) -> Result<(Self, Recovery), OpenError> {
        let (engine, report) = Engine::open(disk, actor, options)?;
        let Engine { shared, committer, merger, preparer, lock, quarantined } = engine;
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
        self.0.shared.submit(write);
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
