//! The same work on each engine, one after the other, and the figures side by side.

use std::path::Path;

use anyhow::{Result, bail};
use quorate_storage::Durability;

use crate::fjall_engine::FjallEngine;
use crate::log_engine::LogEngine;
use crate::measure::{Engine, Figures, measure};

/// What is measured.
pub(crate) struct Contest {
    pub(crate) keys: u64,
    pub(crate) seconds: u64,
    pub(crate) group: usize,
    pub(crate) only: Option<String>,
}

pub(crate) fn run(directory: &Path, contest: &Contest) -> Result<()> {
    let names: Vec<&str> = match contest.only.as_deref() {
        None => vec!["log", "fjall"],
        Some(only) => vec![only],
    };
    let figures: Vec<_> = names.iter().map(|name| one(directory, name, contest)).collect::<Result<_>>()?;
    print(contest, &figures);
    Ok(())
}

fn one(directory: &Path, name: &str, contest: &Contest) -> Result<Figures> {
    let directory = directory.join(name);
    if directory.exists() {
        bail!("{} is there already: remove it, or name another directory", directory.display());
    }
    std::fs::create_dir_all(&directory)?;
    let measured = engine(&directory, name)
        .and_then(|mut engine| measure(&mut *engine, contest.keys, contest.seconds, contest.group));
    std::fs::remove_dir_all(&directory)?;
    measured
}

fn engine(directory: &Path, name: &str) -> Result<Box<dyn Engine>> {
    match name {
        "log" => Ok(Box::new(LogEngine::open(directory, Durability::Sync)?)),
        "fjall" => Ok(Box::new(FjallEngine::open(directory)?)),
        other => bail!("no engine is called {other}: log or fjall"),
    }
}

fn print(contest: &Contest, figures: &[Figures]) {
    println!(
        "\n{} keys, durable read-merge-writes of about 200 bytes in groups of {}, {} s each",
        contest.keys, contest.group, contest.seconds
    );
    println!(
        "{:<8}{:>12}{:>12}{:>12}{:>12}{:>12}{:>10}{:>12}  ",
        "", "writes/s", "CPU us each", "median", "99.9 %", "slowest", "us a read", "B a key"
    );
    for figure in figures {
        let ms = |took: std::time::Duration| format!("{:.2} ms", took.as_secs_f64() * 1e3);
        println!(
            "{:<8}{:>12.0}{:>12.2}{:>12}{:>12}{:>12}{:>10.2}{:>12.0}  {}",
            figure.name,
            figure.writes_per_second,
            figure.cpu_us_per_write,
            ms(figure.median),
            ms(figure.per_mille),
            ms(figure.slowest),
            figure.us_per_read,
            figure.memory_bytes_per_key,
            figure.notes
        );
    }
    if let [log, other] = figures {
        println!(
            "{} / {}: {:.1}x the writes, {:.2}x the CPU each, {:.2}x the slowest group",
            log.name,
            other.name,
            log.writes_per_second / other.writes_per_second,
            log.cpu_us_per_write / other.cpu_us_per_write,
            log.slowest.as_secs_f64() / other.slowest.as_secs_f64()
        );
    }
}
