//! The store as the replica asks for it: what is in memory at once, and what waits for the disk on threads of its own,
//! so that one cold key does not hold up all others.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Context as _;
use quorate_replica::{SlowRead, Storage};
use quorate_storage::{Access, Store};

/// Threads that wait for the disk. More would not make a disk faster, and fewer leave its queue empty.
const READERS: usize = 4;

/// A store, and the threads that read what is not in memory. They end when this is dropped.
pub(crate) struct Library {
    store: Store,
    desk: Arc<Desk>,
}

/// Reads that wait for a thread. Each belongs to an operation or to a peer's request: those are bounded.
#[derive(Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    reads: VecDeque<SlowRead>,
    closed: bool,
}

impl Library {
    pub(crate) fn open(store: Store) -> anyhow::Result<Self> {
        let library = Self { store, desk: Arc::default() };
        for number in 0..READERS {
            let (store, desk) = (library.store.clone(), library.desk.clone());
            let run = move || {
                while let Some(read) = desk.next() {
                    read(&store);
                }
            };
            let thread = thread::Builder::new().name(format!("log-read-{number}"));
            thread.spawn(run).context("cannot start a thread")?;
        }
        Ok(library)
    }
}

impl Storage for Library {
    fn access(&self) -> &Access {
        &self.store
    }

    fn read_later(&self, read: SlowRead) {
        self.desk.lock().reads.push_back(read);
        self.desk.changed.notify_one();
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.desk.lock().closed = true;
        self.desk.changed.notify_all();
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a read; none when the library is closed and all were taken.
    fn next(&self) -> Option<SlowRead> {
        let nothing = |waiting: &mut Waiting| waiting.reads.is_empty() && !waiting.closed;
        let waited = self.changed.wait_while(self.lock(), nothing);
        waited.unwrap_or_else(PoisonError::into_inner).reads.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use quorate_core::NodeId;
    use quorate_core::causality::Actor;
    use quorate_storage::{Options, StdDisk};

    use super::*;

    #[test]
    fn reads_run_elsewhere_and_none_is_forgotten_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(StdDisk::open(dir.path().join("log")).unwrap());
        let actor = Actor { node: NodeId::from_u128(1), start: 1 };
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        let (store, _) = Store::open(disk, actor, options).unwrap();
        let library = Library::open(store).unwrap();
        let (done, all_done) = mpsc::channel();
        for _ in 0..10 * READERS {
            let done = done.clone();
            library.read_later(Box::new(move |_| done.send(thread::current().id()).unwrap()));
        }
        drop((library, done));
        let threads: Vec<_> = all_done.iter().collect();
        assert_eq!(threads.len(), 10 * READERS);
        assert!(!threads.contains(&thread::current().id()));
    }
}
