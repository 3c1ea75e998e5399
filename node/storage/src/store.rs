//! The store: what callers hold, and the threads that drive the engine behind it.

use std::ops::Deref;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use quorate_core::causality::Actor;

use crate::access::Access;
use crate::disk::{DirectoryLock, Disk};
use crate::engine::Engine;
use crate::error::{OpenError, WriteError};
use crate::options::Options;
use crate::recovery::Recovery;
use crate::snapshot::{self, Snapshot, SnapshotError};
use crate::sync::lock;

/// A log-structured store of version sets. A clone is another handle of the same store; the last one closes it.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

impl Store {
    /// Opens a log, or begins one, and starts the threads that serve it. `actor` makes the dots of this start: its
    /// number must be on the disk already, and no other store may ever have had it.
    pub fn open(disk: Arc<dyn Disk>, actor: Actor, options: Options) -> Result<(Self, Recovery), OpenError> {
        let (engine, report) = Engine::open(disk, actor, options)?;
        let Engine { access, committer, merger, preparer, lock } = engine;
        let handle = Handle { access, threads: Mutex::default(), lock: Mutex::new(Some(lock)) };
        let helped = handle.access.0.clone();
        handle.start("log-read", move || helped.helper.run())?;
        handle.start("log-commit", move || committer.run())?;
        handle.start("log-merge", move || merger.run())?;
        handle.start("log-prepare", move || preparer.run())?;
        Ok((Self(Arc::new(handle)), report))
    }

    /// Makes a snapshot of everything that was answered until now, in the folder `snapshots/name` of the log's directory:
    /// hard links, so it takes no space at first. Waits for the disk.
    pub fn snapshot(&self, name: &str) -> Result<Snapshot, SnapshotError> {
        snapshot::check_name(name)?;
        let (sender, sealed) = mpsc::channel();
        let shared = &self.0.access.0;
        shared.queue.roll(Box::new(move |through| sender.send(through).unwrap_or_default()));
        let through = sealed.recv().unwrap_or(Err(WriteError::Closed))?;
        snapshot::take(shared, name, through)
    }

    /// Takes no more writes, stores those that wait, syncs, and ends the threads. Reads go on. Again: does nothing.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Deref for Store {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.0.access
    }
}

struct Handle {
    access: Access,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held until the threads have ended.
    lock: Mutex<Option<DirectoryLock>>,
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
        self.access.0.queue.close();
        self.access.0.background.close();
        self.access.0.helper.close();
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
