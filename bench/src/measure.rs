//! What is measured of an engine: time, processor time, and how long single groups took.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::work::Dice;

/// An engine under measurement.
pub(crate) trait Engine: Sync {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Makes the keys from one number to another, as fast as it can.
    fn fill(&self, from: u64, to: u64) -> Result<()>;

    /// Reads, merges and writes each of these keys, which nobody else writes; durable when it returns.
    fn write(&self, numbers: &[u64]) -> Result<()>;

    /// Reads a key.
    fn read(&self, number: u64) -> Result<()>;

    /// What it has to say of itself at the end.
    fn notes(&self) -> String;
}

/// What an engine has to do.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    /// In the store before anything is measured.
    pub(crate) keys: u64,
    /// How long is written.
    pub(crate) seconds: u64,
    /// How many writes wait together.
    pub(crate) group: usize,
    /// How many such groups wait side by side.
    pub(crate) writers: u64,
}

/// What came out.
#[derive(Clone)]
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) writes_per_second: f64,
    pub(crate) cpu_us_per_write: f64,
    pub(crate) median: Duration,
    pub(crate) per_mille: Duration,
    pub(crate) slowest: Duration,
    pub(crate) us_per_read: f64,
    /// Of the process, after filling less before.
    pub(crate) memory_bytes_per_key: f64,
    pub(crate) notes: String,
}

const FILL_STEP: u64 = 100_000;
const READS: u64 = 200_000;

/// Fills an engine, and measures writes of random keys in groups for a while.
pub(crate) fn measure(engine: &dyn Engine, task: Task) -> Result<Figures> {
    let Task { keys, group, .. } = task;
    let memory = resident_bytes();
    let begin = Instant::now();
    for from in (0..keys).step_by(FILL_STEP as usize) {
        engine.fill(from, (from + FILL_STEP).min(keys))?;
    }
    eprintln!("{}: {keys} keys in {:.1} s", engine.name(), begin.elapsed().as_secs_f64());
    let memory_bytes_per_key = (resident_bytes() - memory) / keys as f64;

    let (begin, cpu) = (Instant::now(), cpu_time());
    let mut took = write_all(engine, task)?;
    let (elapsed, cpu) = (begin.elapsed().as_secs_f64(), cpu_time().saturating_sub(cpu));
    let writes = (took.len() * group) as f64;

    let (mut dice, begin) = (Dice::seeded(0), Instant::now());
    for _ in 0..READS {
        engine.read(dice.below(keys))?;
    }
    let us_per_read = begin.elapsed().as_secs_f64() * 1e6 / READS as f64;
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    Ok(Figures {
        name: engine.name(),
        writes_per_second: writes / elapsed,
        cpu_us_per_write: cpu.as_secs_f64() * 1e6 / writes,
        median: at(0.5),
        per_mille: at(0.999),
        slowest: at(1.0),
        us_per_read,
        memory_bytes_per_key,
        notes: engine.notes(),
    })
}

/// Writes on a thread a writer. Says how long each group took.
fn write_all(engine: &dyn Engine, task: Task) -> Result<Vec<Duration>> {
    thread::scope(|scope| {
        let writers: Vec<_> =
            (0..task.writers).map(|writer| scope.spawn(move || write_some(engine, task, writer))).collect();
        let mut took = Vec::new();
        for writer in writers {
            took.append(&mut writer.join().map_err(|_| anyhow!("a writer panicked"))??);
        }
        Ok(took)
    })
}

/// One writer's groups. A key is one writer's alone: then an engine without locks of its own needs none.
fn write_some(engine: &dyn Engine, task: Task, writer: u64) -> Result<Vec<Duration>> {
    let Task { keys, seconds, group, writers } = task;
    let (mut dice, mut took, begin) = (Dice::seeded(writer), Vec::new(), Instant::now());
    while begin.elapsed() < Duration::from_secs(seconds) {
        let numbers: Vec<u64> = (0..group).map(|_| dice.below(keys / writers) * writers + writer).collect();
        let begin = Instant::now();
        engine.write(&numbers)?;
        took.push(begin.elapsed());
    }
    Ok(took)
}

/// The processor time of this process, all threads, in the system too.
pub(crate) fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// What of this process is in memory, without pages of files; 0 where the system does not say.
pub(crate) fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = anonymous.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}
