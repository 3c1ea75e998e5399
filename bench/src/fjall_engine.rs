//! fjall, a log-structured merge tree in Rust, doing the same work: read the set, merge, write it back, one durable
//! batch a group.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use quorate_core::causality::{Dot, DotMaker, VersionSet};

use crate::measure::Engine;
use crate::work::{event, key, new_actor};

pub(crate) struct FjallEngine {
    database: Database,
    sets: Keyspace,
    made: Mutex<Made>,
}

struct Made {
    dots: DotMaker,
    writes: u64,
}

impl FjallEngine {
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        // With its defaults. A cache as large as the log's index was tried: reads were faster, and groups slower.
        let database = Database::builder(directory).open()?;
        let sets = database.keyspace("sets", KeyspaceCreateOptions::default)?;
        let made = Mutex::new(Made { dots: DotMaker::new(new_actor()), writes: 0 });
        Ok(Self { database, sets, made })
    }

    fn write_with(&self, numbers: impl Iterator<Item = u64>, durable: Option<PersistMode>) -> Result<()> {
        let mut batch = self.database.batch().durability(durable);
        for number in numbers {
            let (_, key) = key(number);
            let mut set = match self.sets.get(&key)? {
                Some(bytes) => VersionSet::decode(&bytes)?,
                None => VersionSet::default(),
            };
            let (count, dot) = self.made.lock().unwrap_or_else(PoisonError::into_inner).next();
            set.write(event(count), dot)?;
            batch.insert(&self.sets, key.as_ref(), set.encode());
        }
        Ok(batch.commit()?)
    }
}

impl Made {
    fn next(&mut self) -> (u64, Dot) {
        self.writes += 1;
        (self.writes, self.dots.make())
    }
}

impl Engine for FjallEngine {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn fill(&self, from: u64, to: u64) -> Result<()> {
        for first in (from..to).step_by(1000) {
            self.write_with(first..(first + 1000).min(to), None)?;
        }
        Ok(())
    }

    fn write(&self, numbers: &[u64]) -> Result<()> {
        self.write_with(numbers.iter().copied(), Some(PersistMode::SyncData))
    }

    fn read(&self, number: u64) -> Result<()> {
        let (_, key) = key(number);
        let bytes = self.sets.get(&key)?.context("a key is missing")?;
        VersionSet::decode(&bytes)?;
        Ok(())
    }

    fn notes(&self) -> String {
        format!("{} MiB", self.database.disk_space().unwrap_or(0) >> 20)
    }
}
