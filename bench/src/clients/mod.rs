//! What clients get from Quorate, from Redis and from etcd, side by side on this machine: the same load generator, the same
//! values, in turns. Every figure is the median of the rounds; what counts are the ratios, because the machine cancels out.

mod client;
mod contestant;
mod etcd;
mod keys;
mod load;
mod process;
mod report;
mod resp;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::runtime::{Builder, Runtime};

use contestant::{Contestant, Name};
use keys::Keys;
use load::{Figures, Op, Pace, Work};

/// What is run.
pub(crate) struct Task {
    pub(crate) directory: PathBuf,
    /// The programs of the contestants.
    pub(crate) node: PathBuf,
    pub(crate) redis: PathBuf,
    /// A program whose first argument is `etcd`, or none to leave etcd out.
    pub(crate) etcd: Option<PathBuf>,
    /// How long each figure is measured.
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
    pub(crate) keys: u64,
    /// Where the report goes.
    pub(crate) report: Option<PathBuf>,
}

/// A line of the report: what is done, by whom, and against whom.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) work: Work,
    pub(crate) against: Name,
    pub(crate) target: Option<Target>,
}

/// What is to be reached against the other one.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) least: f64,
    pub(crate) aim: f64,
}

const SMALL: usize = 100;
const LARGE: usize = 4096;

const fn work(op: Op, clients: usize, pipeline: usize) -> Work {
    Work { op, clients, pipeline, value_bytes: SMALL, keys: Keys::Uniform, pace: Pace::Closed }
}

const fn target(least: f64, aim: f64) -> Option<Target> {
    Some(Target { least, aim })
}

/// The contest. Targets are of throughput, but with one client: of the median time.
fn rows() -> Vec<Row> {
    use Name::{Etcd, Redis, RedisReplicated};
    use Op::{Read, Write};
    let row = |what, work, against, target| Row { what, work, against, target };
    let large = |op| Work { value_bytes: LARGE, ..work(op, 50, 1) };
    let skewed = |op| Work { keys: Keys::Zipfian, ..work(op, 50, 1) };
    let steady = |op| Work { pace: Pace::Open { per_second: 2_000 }, ..work(op, 50, 1) };
    vec![
        row("writes, C=50", work(Write, 50, 1), RedisReplicated, target(1.0, 2.0)),
        row("writes, C=50, pipeline 16", work(Write, 50, 16), RedisReplicated, target(2.0, 3.3)),
        row("writes, C=50", work(Write, 50, 1), Etcd, target(4.0, 8.0)),
        row("reads, C=50", work(Read, 50, 1), Redis, target(0.35, 0.5)),
        row("reads, C=50, pipeline 16", work(Read, 50, 16), Redis, target(0.15, 0.3)),
        row("reads, C=50", work(Read, 50, 1), Etcd, target(7.0, 12.0)),
        row("one lone write, p50", work(Write, 1, 1), RedisReplicated, target(0.9, 0.6)),
        row("one lone read, p50", work(Read, 1, 1), Redis, target(3.0, 2.2)),
        row("writes of 4 KiB, C=50", large(Write), RedisReplicated, None),
        row("reads of 4 KiB, C=50", large(Read), Redis, None),
        row("writes, C=50, zipfian", skewed(Write), RedisReplicated, None),
        row("reads, C=50, zipfian", skewed(Read), Redis, None),
        row("2,000 writes a second", steady(Write), RedisReplicated, None),
        row("2,000 reads a second", steady(Read), Redis, None),
    ]
}

/// What came of one piece of work of one contestant, in all rounds.
pub(crate) struct Measured {
    pub(crate) name: Name,
    pub(crate) work: Work,
    pub(crate) rounds: Vec<Figures>,
}

pub(crate) fn run(task: &Task) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let _folder = Folder::make(&task.directory)?;
    let contestants = start(&runtime, task)?;
    let rows: Vec<Row> =
        rows().into_iter().filter(|row| contestants.iter().any(|one| one.name == row.against)).collect();
    let mut results = wanted(&rows);
    for round in 1..=task.rounds {
        for result in &mut results {
            let contestant = find(&contestants, result.name)?;
            let figures = measure(&runtime, contestant, result.work, task)?;
            eprintln!("round {round}: {:<24} {:?} {figures}", result.name.to_string(), result.work);
            result.rounds.push(figures);
        }
    }
    let text = report::report(&rows, &results, &contestants, task)?;
    print!("{text}");
    if let Some(path) = &task.report {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn start(runtime: &Runtime, task: &Task) -> Result<Vec<Contestant>> {
    let folder = |name: &str| task.directory.join(name);
    let mut contestants = vec![
        Contestant::quorate(runtime, &task.node, &folder("quorate"))?,
        Contestant::redis(runtime, &task.redis, &folder("redis"), Name::Redis)?,
        Contestant::redis(runtime, &task.redis, &folder("redis-replicated"), Name::RedisReplicated)?,
    ];
    if let Some(etcd) = &task.etcd {
        contestants.push(Contestant::etcd(runtime, etcd, &folder("etcd"))?);
    }
    for contestant in &contestants {
        for value_bytes in [SMALL, LARGE] {
            eprintln!("{}: {} keys of {value_bytes} bytes", contestant.name, task.keys);
            runtime.block_on(load::fill(contestant, task.keys, value_bytes))?;
        }
    }
    Ok(contestants)
}

/// The data of all, removed when it is dropped.
struct Folder<'a>(&'a Path);

impl<'a> Folder<'a> {
    fn make(path: &'a Path) -> Result<Self> {
        ensure!(!path.exists(), "{} is there already: remove it, or name another one", path.display());
        std::fs::create_dir_all(path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        let removed = std::fs::remove_dir_all(self.0);
        removed.unwrap_or_else(|error| eprintln!("{} cannot be removed: {error}", self.0.display()));
    }
}

/// Every piece of work once for everybody who is in a row with it.
fn wanted(rows: &[Row]) -> Vec<Measured> {
    let mut results: Vec<Measured> = Vec::new();
    for row in rows {
        for name in [Name::Quorate, row.against] {
            if !results.iter().any(|result| result.name == name && result.work == row.work) {
                results.push(Measured { name, work: row.work, rounds: Vec::new() });
            }
        }
    }
    results
}

fn find(contestants: &[Contestant], name: Name) -> Result<&Contestant> {
    contestants.iter().find(|one| one.name == name).with_context(|| format!("{name} does not take part"))
}

fn measure(runtime: &Runtime, contestant: &Contestant, work: Work, task: &Task) -> Result<Figures> {
    let warm = Duration::from_secs(1);
    let measured = Duration::from_secs(task.seconds);
    runtime.block_on(load::run(contestant, work, task.keys, warm, measured))
}
