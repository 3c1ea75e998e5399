//! `quorate-sim`: runs seeds, replays one, and proves that planted bugs are caught.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;
use quorate_core::planted::Bug;
use quorate_simulation::{Report, Scenario, run_guarded, shrink};

/// Lines of the trace that are shown of a failure.
const LINES_SHOWN: usize = 60;
/// Failures that are shown whole; of the rest only the seeds.
const FAILURES_SHOWN: usize = 3;
/// Seeds within which every planted bug must be caught.
const BUG_SEEDS: u64 = 200;

/// Runs nodes of Quorate over simulated time, network, disks and dice, and checks what they promise.
#[derive(Parser)]
#[command(name = "quorate-sim", version)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many to run at the same time; as many as there are processors without this
    #[arg(long)]
    jobs: Option<usize>,
    /// Replay one seed, and print what happened
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// With --seed: print every line of the trace
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Plant a bug, by its name, or `all` of them in turn: each must be caught
    #[arg(long)]
    bug: Option<String>,
    /// Runs in which nothing goes wrong but that the ring changes: no request may fail
    #[arg(long)]
    calm: bool,
    /// Do not shrink failing schedules
    #[arg(long)]
    no_shrink: bool,
}

/// What a seed stands for.
type Draw = fn(u64) -> Scenario;

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it should be.
fn start(arguments: &Arguments) -> Result<bool> {
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let draw: Draw = if arguments.calm { Scenario::draw_calm } else { Scenario::draw };
    match (&arguments.bug, arguments.seed) {
        (Some(name), None) if name == "all" => catch_all(jobs),
        (bug, Some(seed)) => {
            let bug = bug.as_deref().map(bug_named).transpose()?;
            Ok(replay(&draw(seed), seed, bug, arguments.trace))
        }
        (Some(name), None) => Ok(catch(bug_named(name)?, draw, arguments.first, arguments.seeds, jobs)),
        (None, None) => Ok(run_all(arguments, draw, jobs)),
    }
}

fn bug_named(name: &str) -> Result<Bug> {
    if !cfg!(feature = "planted-bugs") {
        bail!("no bugs are planted in this program: build it with `--features planted-bugs`");
    }
    let all = || Bug::ALL.into_iter().chain(Bug::CALM).chain([Bug::SkipBarrier]);
    let known: Vec<String> = all().map(|bug| format!("{bug:?}")).collect();
    let found = all().find(|bug| format!("{bug:?}") == name);
    found.ok_or_else(|| anyhow::anyhow!("no bug is called {name}; there are: {}", known.join(", ")))
}

/// Plants a bug on this thread.
fn plant(bug: Option<Bug>) {
    #[cfg(feature = "planted-bugs")]
    quorate_core::planted::plant(bug);
    let _ = bug;
}

/// What many runs were like together.
#[derive(Default)]
struct Sum {
    seeds: u64,
    lasted: Duration,
    operations: u64,
    succeeded: u64,
    messages: u64,
    faults: BTreeMap<&'static str, u64>,
    failed: Vec<(u64, &'static str)>,
}

impl Sum {
    fn add(&mut self, seed: u64, report: &Report) {
        self.seeds += 1;
        self.lasted += report.lasted;
        self.operations += report.operations;
        self.succeeded += report.succeeded;
        self.messages += report.messages;
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        if let Some(violation) = &report.violation {
            self.failed.push((seed, violation.invariant));
        }
    }

    fn line(&self) -> String {
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        format!(
            "{} seeds, {:.2} simulated hours, {} operations ({} succeeded), {} messages, faults: {}; {} violations",
            self.seeds,
            self.lasted.as_secs_f64() / 3600.0,
            self.operations,
            self.succeeded,
            self.messages,
            faults.join(", "),
            self.failed.len()
        )
    }
}

/// Runs seeds on threads, and hands each report over as it comes, until nobody wants more.
fn each(
    bug: Option<Bug>,
    draw: Draw,
    first: u64,
    seeds: u64,
    jobs: usize,
    mut take: impl FnMut(u64, Report) -> bool,
) {
    let (next, enough) = (AtomicU64::new(first), AtomicBool::new(false));
    let (send, receive) = mpsc::sync_channel(jobs);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (send, next, enough) = (send.clone(), &next, &enough);
            scope.spawn(move || {
                plant(bug);
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || send.send((seed, run_guarded(&draw(seed), false))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        for (seed, report) in receive {
            if !take(seed, report) {
                enough.store(true, Ordering::Relaxed);
            }
        }
    });
}

fn run_all(arguments: &Arguments, draw: Draw, jobs: usize) -> bool {
    let (begun, mut sum) = (Instant::now(), Sum::default());
    each(None, draw, arguments.first, arguments.seeds, jobs, |seed, report| {
        sum.add(seed, &report);
        if report.violation.is_some() {
            clear_line();
            if sum.failed.len() <= FAILURES_SHOWN {
                explain(&draw(seed), seed, !arguments.no_shrink);
            } else if let Some(violation) = &report.violation {
                println!("seed {seed}: {}: {}", violation.invariant, violation.what);
            }
        }
        progress(sum.seeds, arguments.seeds, sum.failed.len(), begun);
        true
    });
    clear_line();
    println!("{} (in {:.0} s)", sum.line(), begun.elapsed().as_secs_f64());
    let calm = if arguments.calm { " --calm" } else { "" };
    for (seed, invariant) in &sum.failed {
        println!("  {invariant} breaks with seed {seed}: cargo xtask sim --seed {seed}{calm}");
    }
    sum.failed.is_empty()
}

fn progress(done: u64, of: u64, failed: usize, begun: Instant) {
    const WIDTH: u64 = 30;
    if !std::io::stderr().is_terminal() {
        return;
    }
    let full = (done * WIDTH / of.max(1)) as usize;
    let bar = format!("{}{}", "#".repeat(full), ".".repeat(WIDTH as usize - full));
    let left = begun.elapsed().as_secs_f64() / done as f64 * (of - done) as f64;
    eprint!("\r[{bar}] {done}/{of} seeds, {failed} violations, {left:.0} s left ");
    let _ = std::io::stderr().flush();
}

fn clear_line() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

/// Shows a failure: what broke, what led to it, and the least that does.
fn explain(scenario: &Scenario, seed: u64, shrinks: bool) {
    let report = run_guarded(scenario, true);
    let Some(violation) = &report.violation else {
        println!("seed {seed} failed once and not again: the simulator is not deterministic");
        return;
    };
    println!("seed {seed} breaks {}: {}", violation.invariant, violation.what);
    let smaller = if shrinks {
        let (smaller, runs) = shrink(scenario, violation.invariant);
        println!("shrunk in {runs} runs to:\n{smaller}");
        run_guarded(&smaller, true)
    } else {
        println!("{scenario}");
        report
    };
    let from = smaller.lines.len().saturating_sub(LINES_SHOWN);
    smaller.lines[from..].iter().for_each(|line| println!("  {line}"));
}

fn replay(scenario: &Scenario, seed: u64, bug: Option<Bug>, all_lines: bool) -> bool {
    plant(bug);
    let report = run_guarded(scenario, true);
    println!("{scenario}");
    let shown = if all_lines { usize::MAX } else { LINES_SHOWN };
    let from = report.lines.len().saturating_sub(shown);
    report.lines[from..].iter().for_each(|line| println!("  {line}"));
    let mut sum = Sum::default();
    sum.add(seed, &report);
    println!("{}", sum.line());
    println!("seed {seed}: trace hash {}", report.hash);
    match &report.violation {
        None => true,
        Some(violation) => {
            println!("seed {seed} breaks {}: {}", violation.invariant, violation.what);
            false
        }
    }
}

/// Plants a bug and runs seeds until one finds it.
fn catch(bug: Bug, draw: Draw, first: u64, seeds: u64, jobs: usize) -> bool {
    let begun = Instant::now();
    let (mut tried, mut caught) = (0, None::<(u64, Report)>);
    each(Some(bug), draw, first, seeds, jobs, |seed, report| {
        tried += 1;
        if report.violation.is_some() && caught.as_ref().is_none_or(|(before, _)| seed < *before) {
            caught = Some((seed, report));
        }
        caught.is_none()
    });
    let took = begun.elapsed().as_secs_f64();
    match caught.and_then(|(seed, report)| Some((seed, report.violation?))) {
        Some((seed, violation)) => {
            println!("{bug:?}: caught by seed {seed} as {} ({took:.0} s)", violation.invariant);
            true
        }
        None => {
            println!("{bug:?}: NOT caught by {tried} seeds ({took:.0} s)");
            false
        }
    }
}

fn catch_all(jobs: usize) -> Result<bool> {
    bug_named(&format!("{:?}", Bug::ALL[0]))?;
    let draw: [(&[Bug], Draw); 2] = [(&Bug::ALL, Scenario::draw), (&Bug::CALM, Scenario::draw_calm)];
    let bugs = || draw.iter().flat_map(|(bugs, draw)| bugs.iter().map(|bug| (*bug, *draw)));
    let caught = bugs().filter(|(bug, draw)| catch(*bug, *draw, 1, BUG_SEEDS, jobs)).count();
    println!("{caught} of {} planted bugs caught", bugs().count());
    Ok(caught == bugs().count())
}
