//! How long a log of many keys takes to open, after it was closed in order.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use quorate_storage::{Durability, Options, StdDisk, Store};

use crate::log_engine::LogEngine;
use crate::measure::{Engine, cpu_time, resident_bytes};
use crate::work::{new_actor, partitions};

pub(crate) fn run(directory: &Path, keys: u64) -> Result<()> {
    let directory = directory.join("reopen");
    if directory.exists() {
        bail!("{} is there already: remove it, or name another directory", directory.display());
    }
    std::fs::create_dir_all(&directory)?;
    let measured = measure(&directory, keys);
    std::fs::remove_dir_all(&directory)?;
    measured
}

fn measure(directory: &Path, keys: u64) -> Result<()> {
    {
        let begin = Instant::now();
        let log = LogEngine::open(directory, Durability::Memory)?;
        log.fill(0, keys)?;
        log.store().close();
        println!("{keys} keys written in {:.1} s, {}", begin.elapsed().as_secs_f64(), log.notes());
    }
    for round in 1..=2 {
        let (begin, cpu, memory) = (Instant::now(), cpu_time(), resident_bytes());
        let disk = Arc::new(StdDisk::open(directory)?);
        let options = Options { partitions: Some(partitions()), ..Options::default() };
        let (store, recovery) = Store::open(disk, new_actor(), options)?;
        let elapsed = begin.elapsed().as_secs_f64();
        println!(
            "start {round}: {} keys in {elapsed:.2} s ({:.2} s of CPU, {} MiB read, {:.0} bytes of memory a key)",
            recovery.keys,
            cpu_time().saturating_sub(cpu).as_secs_f64(),
            recovery.bytes >> 20,
            (resident_bytes() - memory) / keys as f64,
        );
        store.close();
    }
    Ok(())
}
