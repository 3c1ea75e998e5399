//! What is measured of an engine: time, processor time, and how long single groups took.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::work::Dice;

/// An engine under measurement.
pub(crate) trait Engine {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Makes the keys from one number to another, as fast as it can.
    fn fill(&mut self, from: u64, to: u64) -> Result<()>;

    /// Reads, merges and writes each of these keys; durable when it returns.
    fn write(&mut self, numbers: &[u64]) -> Result<()>;

    /// Reads a key.
    fn read(&self, number: u64) -> Result<()>;

    /// What it has to say of itself at the end.
    fn notes(&self) -> String;
}

/// What came out.
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
pub(crate) fn measure(engine: &mut dyn Engine, keys: u64, seconds: u64, group: usize) -> Result<Figures> {
    let memory = resident_bytes();
    let begin = Instant::now();
    for from in (0..keys).step_by(FILL_STEP as usize) {
        engine.fill(from, (from + FILL_STEP).min(keys))?;
    }
    eprintln!("{}: {keys} keys in {:.1} s", engine.name(), begin.elapsed().as_secs_f64());
    let memory_bytes_per_key = (resident_bytes() - memory) / keys as f64;

    let (mut dice, mut took) = (Dice::new(), Vec::new());
    let (begin, cpu) = (Instant::now(), cpu_time());
    while begin.elapsed() < Duration::from_secs(seconds) {
        let numbers: Vec<u64> = (0..group).map(|_| dice.below(keys)).collect();
        let begin = Instant::now();
        engine.write(&numbers)?;
        took.push(begin.elapsed());
    }
    let (elapsed, cpu) = (begin.elapsed().as_secs_f64(), cpu_time().saturating_sub(cpu));
    let writes = (took.len() * group) as f64;

    let begin = Instant::now();
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
