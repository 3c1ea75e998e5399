//! Quorate's log, as a node has it: on its threads, with its defaults.

use std::path::Path;
use std::sync::{Arc, mpsc};

use anyhow::{Context, Result};
use quorate_storage::{Change, Committed, Durability, Options, StdDisk, Store, Write, WriteError};

use crate::measure::Engine;
use crate::work::{event, key, new_actor, partitions};

pub(crate) struct LogEngine {
    store: Store,
    writes: u64,
    sender: mpsc::Sender<Result<Committed, WriteError>>,
    answers: mpsc::Receiver<Result<Committed, WriteError>>,
}

/// How many writes wait while a log is filled.
const FILL_WINDOW: usize = 4096;

impl LogEngine {
    pub(crate) fn open(directory: &Path, durability: Durability) -> Result<Self> {
        let disk = Arc::new(StdDisk::open(directory)?);
        let options = Options { durability, partitions: Some(partitions()), ..Options::default() };
        let (store, _) = Store::open(disk, new_actor(), options)?;
        let (sender, answers) = mpsc::channel();
        Ok(Self { store, writes: 0, sender, answers })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn submit(&mut self, number: u64) {
        let (partition, key) = key(number);
        self.writes += 1;
        let sender = self.sender.clone();
        self.store.submit(Write {
            partition,
            key,
            change: Change::Event(event(self.writes)),
            prepared: None,
            done: Box::new(move |result| sender.send(result).unwrap_or_default()),
        });
    }

    fn wait(&self) -> Result<()> {
        self.answers.recv().context("the store is gone")??;
        Ok(())
    }
}

impl Engine for LogEngine {
    fn name(&self) -> &'static str {
        "log"
    }

    fn fill(&mut self, from: u64, to: u64) -> Result<()> {
        let mut waiting = 0;
        for number in from..to {
            self.submit(number);
            waiting += 1;
            if waiting == FILL_WINDOW {
                self.wait()?;
                waiting -= 1;
            }
        }
        (0..waiting).try_for_each(|_| self.wait())
    }

    fn write(&mut self, numbers: &[u64]) -> Result<()> {
        numbers.iter().for_each(|&number| self.submit(number));
        numbers.iter().try_for_each(|_| self.wait())
    }

    fn read(&self, number: u64) -> Result<()> {
        let (partition, key) = key(number);
        self.store.get(partition, &key)?.context("a key is missing")?;
        Ok(())
    }

    fn notes(&self) -> String {
        let usage = self.store.usage();
        let (log, dead) = (usage.log_bytes >> 20, usage.dead_bytes >> 20);
        format!("{log} MiB in {} segments, {dead} MiB dead", usage.segments)
    }
}
