//! Fuzz targets, each for a bounded time: libFuzzer on stable Rust, with the instrumentation that LLVM has.
//!
//! `fuzz/` is a workspace of its own, because its crates are compiled otherwise than everybody's. All targets are one
//! program, so that it is linked once; several run side by side. What a run learned stays in `target/fuzz/TARGET/corpus`
//! for the next one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{self, Shell};
use crate::step::Outcome;
use crate::tally::Tally;
use crate::tools::cplusplus;
use crate::workspace::Workspace;

/// How long each target runs in CI.
const CI_SECONDS: u64 = 10;
/// The longest input that is tried: longer ones find less a second.
const INPUT_BYTES_MAX: u32 = 4096;
/// A target that takes more memory has failed.
const MEMORY_MIB_MAX: u32 = 1024;
/// One input that takes longer has failed, on a machine that is busy otherwise too.
const INPUT_SECONDS_MAX: u32 = 30;
/// How much of a failed target's log is shown.
const SHOWN_LINES_MAX: usize = 30;

/// What makes the code tell libFuzzer where it goes: the flags of cargo-fuzz, but for those that need a nightly compiler.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    fuzz(shell, CI_SECONDS, &[])
}

/// `cargo xtask fuzz`: shows what it does; `false` when a target failed.
pub(crate) fn chore(workspace: &Workspace, names: &[String], seconds: u64) -> Result<bool> {
    let outcome = fuzz(&Shell::open(workspace, "fuzz", true)?, seconds, names);
    if let Some(error) = &outcome.error {
        eprintln!("{error:#}");
    }
    println!("{}", outcome.tally);
    Ok(outcome.error.is_none())
}

/// Runs these targets, or all, for so long each.
fn fuzz(shell: &Shell<'_>, seconds: u64, names: &[String]) -> Outcome {
    match prepare(shell, names) {
        Ok((fuzzer, targets)) => fuzz_all(&fuzzer, seconds, &targets),
        Err(error) => Err(error).into(),
    }
}

/// The program of all targets.
struct Fuzzer<'a> {
    shell: &'a Shell<'a>,
    program: PathBuf,
}

fn prepare<'a>(shell: &'a Shell<'a>, names: &[String]) -> Result<(Fuzzer<'a>, Vec<String>)> {
    cplusplus::install_missing(shell)?;
    shell.run(shell.workspace.cargo().args([
        "fmt",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--",
        "--check",
    ]))?;
    let fuzzer = Fuzzer { shell, program: build(shell)? };
    let printed = shell.capture(&mut shell.workspace.command(&fuzzer.program))?;
    let all: Vec<String> = printed.lines().map(str::to_owned).collect();
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("no fuzz target is called {unknown}; there are: {}", all.join(", "));
    }
    let targets = if names.is_empty() { all } else { names.to_vec() };
    ensure!(!targets.is_empty(), "there is no fuzz target");
    Ok((fuzzer, targets))
}

/// Only code of the target is instrumented, not what the compiler itself loads: so the target is named.
fn build(shell: &Shell<'_>) -> Result<PathBuf> {
    let host = shell.capture(shell.workspace.command("rustc").args(["--print", "host-tuple"]))?;
    let (host, folder) = (host.trim(), shell.workspace.target.join("fuzz/build"));
    let mut command = shell.workspace.cargo();
    command.args(["build", "--quiet", "--locked", "--release", "--manifest-path", "fuzz/Cargo.toml"]);
    command.args(["--target", host, "--target-dir"]).arg(&folder).env("RUSTFLAGS", RUSTFLAGS);
    shell.run(&mut command)?;
    Ok(folder.join(host).join("release/fuzz"))
}

/// As many targets side by side as the machine has cores.
fn fuzz_all(fuzzer: &Fuzzer<'_>, seconds: u64, targets: &[String]) -> Outcome {
    let waiting = Mutex::new(targets.iter());
    let next = || waiting.lock().ok()?.next();
    let worker = || std::iter::from_fn(next).map(|target| fuzzer.fuzz(target, seconds)).collect::<Vec<_>>();
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        let ended = |worker: thread::ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|_| vec![Err(anyhow::anyhow!("a thread of the step panicked"))])
        };
        workers.into_iter().flat_map(ended).collect()
    });
    let errors: Vec<String> =
        results.iter().filter_map(|result| result.as_ref().err()).map(|error| format!("{error:#}")).collect();
    let failed = errors.len() as u64;
    let tally = Tally { passed: results.len() as u64 - failed, failed, skipped: 0 };
    Outcome { tally, error: (failed > 0).then(|| anyhow::anyhow!(errors.join("\n"))) }
}

impl Fuzzer<'_> {
    fn fuzz(&self, target: &str, seconds: u64) -> Result<()> {
        let folder = self.shell.workspace.target.join("fuzz").join(target);
        let (corpus, seeds) = (folder.join("corpus"), self.seeds(target, &folder)?);
        fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        let log = folder.join("log");
        let mut findings = OsString::from("-artifact_prefix=");
        findings.push(folder.join(""));
        let mut command = self.command(target);
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(findings)
            .args([&corpus, &seeds]);
        let succeeded = quietly(&mut command, &log)?;
        let printed = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        if !succeeded {
            bail!("{}", self.failure(target, &printed, &log));
        }
        let coverage = printed.lines().rfind(|line| line.contains("DONE")).unwrap_or_default();
        self.shell.note(&format!("{target}: {}", coverage.trim()))
    }

    fn command(&self, target: &str) -> Command {
        let mut command = self.shell.workspace.command(&self.program);
        // The message of a panic says where; a backtrace would push it out of what is shown.
        command.env("QUORATE_FUZZ_TARGET", target).env("RUST_BACKTRACE", "0");
        command
    }

    /// The target's seeds, made anew.
    fn seeds(&self, target: &str, folder: &Path) -> Result<PathBuf> {
        let seeds = folder.join("seeds");
        if seeds.exists() {
            fs::remove_dir_all(&seeds).with_context(|| format!("cannot clear {}", seeds.display()))?;
        }
        fs::create_dir_all(&seeds).with_context(|| format!("cannot make {}", seeds.display()))?;
        self.shell.capture(self.command(target).env("QUORATE_FUZZ_SEEDS", &seeds))?;
        Ok(seeds)
    }

    /// What went wrong, and how to see it again.
    fn failure(&self, target: &str, printed: &str, log: &Path) -> String {
        let lines: Vec<&str> = printed.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..].join("\n| ");
        let input = finding(printed).unwrap_or("INPUT");
        let replay = shell::line(self.command(target).arg(input).env_remove("PATH"));
        format!("fuzz target {target} failed\n| {shown}\nlog:       {}\nagain:     {replay}", log.display())
    }
}

/// Runs a command with its output in a file of its own, since others run beside it; says whether it succeeded.
fn quietly(command: &mut Command, log: &Path) -> Result<bool> {
    let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let line = shell::line(command);
    let status = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).status();
    Ok(status.with_context(|| format!("cannot start: {line}"))?.success())
}

/// The file of the failing input.
fn finding(printed: &str) -> Option<&str> {
    printed.lines().find_map(|line| Some(line.split_once("Test unit written to ")?.1.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failing_input_is_named() {
        let printed = "thread panicked\nartifact_prefix='x/'; Test unit written to x/crash-1\nBase64: aGk=\n";
        assert_eq!(finding(printed), Some("x/crash-1"));
        assert_eq!(finding("nothing"), None);
    }
}
