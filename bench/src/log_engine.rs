//! Quorate's log, as a node has it: on its threads, with its defaults.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use quorate_storage::{Change, Durability, Observer, Options, StdDisk, Store, Write, WriteError};

use crate::measure::Engine;
use crate::work::{event, key, new_actor, partitions};

pub(crate) struct LogEngine {
    store: Store,
    writes: AtomicU64,
    syncs: Arc<Syncs>,
}

/// Counts what the log syncs, and for how long.
#[derive(Default)]
struct Syncs {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Observer for Syncs {
    fn synced(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// Counts the answers to writes that were handed in together.
struct Answers {
    state: Mutex<Waiting>,
    all: Condvar,
}

struct Waiting {
    writes: usize,
    error: Option<WriteError>,
}

impl Answers {
    fn to(writes: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(Waiting { writes, error: None }), all: Condvar::new() })
    }

    fn answer(&self, error: Option<WriteError>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.writes -= 1;
        state.error = error.or(state.error.take());
        if state.writes == 0 {
            self.all.notify_one();
        }
    }

    fn wait(&self) -> Result<(), WriteError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = self.all.wait_while(state, |state| state.writes > 0);
        answered.unwrap_or_else(PoisonError::into_inner).error.take().map_or(Ok(()), Err)
    }
}

/// What a node takes if it is not told otherwise.
const SEGMENT_BYTES: u32 = 16 << 20;
/// How many writes wait together while a log is filled.
const FILL_GROUP: u64 = 1000;

impl LogEngine {
    pub(crate) fn open(directory: &Path, durability: Durability) -> Result<Self> {
        let disk = Arc::new(StdDisk::open(directory)?);
        let syncs = Arc::<Syncs>::default();
        let observer: Option<Arc<dyn Observer>> = Some(syncs.clone());
        let partitions = Some(partitions());
        let options =
            Options { durability, observer, partitions, segment_bytes: SEGMENT_BYTES, ..Options::default() };
        let (store, _) = Store::open(disk, new_actor(), options)?;
        Ok(Self { store, writes: AtomicU64::new(0), syncs })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn write_all(&self, numbers: impl ExactSizeIterator<Item = u64>) -> Result<()> {
        let all = Answers::to(numbers.len());
        self.store.submit_all(numbers.map(|number| {
            let ((partition, key), answers) = (key(number), all.clone());
            let change = Change::Event(event(self.writes.fetch_add(1, Ordering::Relaxed)));
            let done = Box::new(move |result: Result<_, _>| answers.answer(result.err()));
            Write { partition, key, change, prepared: None, done }
        }));
        Ok(all.wait()?)
    }
}

impl Engine for LogEngine {
    fn name(&self) -> &'static str {
        "log"
    }

    fn fill(&self, from: u64, to: u64) -> Result<()> {
        for first in (from..to).step_by(FILL_GROUP as usize) {
            let group: Vec<u64> = (first..(first + FILL_GROUP).min(to)).collect();
            self.write_all(group.into_iter())?;
        }
        Ok(())
    }

    fn write(&self, numbers: &[u64]) -> Result<()> {
        self.write_all(numbers.iter().copied())
    }

    fn read(&self, number: u64) -> Result<()> {
        let (partition, key) = key(number);
        self.store.get(partition, &key)?.context("a key is missing")?;
        Ok(())
    }

    fn notes(&self) -> String {
        let usage = self.store.usage();
        let (log, dead) = (usage.log_bytes >> 20, usage.dead_bytes >> 20);
        let syncs = self.syncs.count.load(Ordering::Relaxed).max(1);
        let us = self.syncs.ns.load(Ordering::Relaxed) / syncs / 1000;
        format!("{log} MiB in {} segments, {dead} MiB dead, {syncs} syncs of {us} us", usage.segments)
    }
}
