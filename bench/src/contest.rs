//! The same work on each engine, one after the other, round by round, and the figures side by side.

use std::path::Path;

use anyhow::{Result, bail};
use quorate_storage::Durability;

use crate::disk_engine::DiskEngine;
use crate::fjall_engine::FjallEngine;
use crate::log_engine::LogEngine;
use crate::measure::{Engine, Figures, Task, measure};

const NAMES: [&str; 3] = ["log", "fjall", "disk"];

/// What is measured.
pub(crate) struct Contest {
    pub(crate) task: Task,
    /// How often; the figures are medians, but for the slowest group, which is that of all rounds.
    pub(crate) rounds: usize,
    pub(crate) only: Option<String>,
}

pub(crate) fn run(directory: &Path, contest: &Contest) -> Result<()> {
    let Contest { task, rounds, only } = contest;
    if task.keys < task.writers || task.writers == 0 || *rounds == 0 {
        bail!("there must be a round, a writer, and a key for each writer");
    }
    let names: Vec<&str> = only.as_deref().map_or(NAMES.to_vec(), |only| vec![only]);
    let mut figures = vec![Vec::new(); names.len()];
    for round in 1..=*rounds {
        for (name, figures) in names.iter().zip(&mut figures) {
            let measured = one(directory, name, *task)?;
            eprintln!("round {round}: {name} {:.0} writes/s", measured.writes_per_second);
            figures.push(measured);
        }
    }
    print(contest, &figures.into_iter().map(summed_up).collect::<Vec<_>>());
    Ok(())
}

fn one(directory: &Path, name: &str, task: Task) -> Result<Figures> {
    let directory = directory.join(name);
    if directory.exists() {
        bail!("{} is there already: remove it, or name another directory", directory.display());
    }
    std::fs::create_dir_all(&directory)?;
    let measured = engine(&directory, name).and_then(|engine| measure(&*engine, task));
    std::fs::remove_dir_all(&directory)?;
    measured
}

fn engine(directory: &Path, name: &str) -> Result<Box<dyn Engine>> {
    match name {
        "log" => Ok(Box::new(LogEngine::open(directory, Durability::Sync)?)),
        "fjall" => Ok(Box::new(FjallEngine::open(directory)?)),
        "disk" => Ok(Box::new(DiskEngine::open(directory)?)),
        other => bail!("no engine is called {other}: {}", NAMES.join(", ")),
    }
}

/// The round with the median of the writes, and the slowest group of all.
fn summed_up(mut rounds: Vec<Figures>) -> Figures {
    rounds.sort_by(|one, other| one.writes_per_second.total_cmp(&other.writes_per_second));
    let slowest = rounds.iter().map(|round| round.slowest).max().unwrap_or_default();
    Figures { slowest, ..rounds.swap_remove(rounds.len() / 2) }
}

fn print(contest: &Contest, figures: &[Figures]) {
    let Task { keys, seconds, group, writers } = contest.task;
    println!(
        "\n{keys} keys, durable read-merge-writes of about 200 bytes in groups of {group}, {writers} at once, \
         {} rounds of {seconds} s each",
        contest.rounds
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
    if let [log, others @ ..] = figures {
        for other in others {
            println!(
                "{} / {}: {:.2}x the writes, {:.2}x the CPU each, {:.2}x the slowest group",
                log.name,
                other.name,
                log.writes_per_second / other.writes_per_second,
                log.cpu_us_per_write / other.cpu_us_per_write,
                log.slowest.as_secs_f64() / other.slowest.as_secs_f64()
            );
        }
    }
}
