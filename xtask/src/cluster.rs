//! `up`, `down` and `e2e`: handed over to the program of the crate `quorate-e2e`, which owns the cluster.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::shell::line;
use crate::workspace::Workspace;

/// What images are made of is built with the program that makes them.
const PROGRAMS: [&str; 3] = ["--package=quorate-e2e", "--package=quorate-node", "--package=quorate-operator"];

/// Brings the cluster up, with Quorate on it unless `bare`.
pub(crate) fn up(workspace: &Workspace, context: Option<&str>, bare: bool) -> Result<bool> {
    let mut command = program(workspace, "up")?;
    command.args(context.iter().flat_map(|name| ["--context", name]));
    command.args(bare.then_some("--bare"));
    hand_over(command)
}

/// Takes it down.
pub(crate) fn down(workspace: &Workspace) -> Result<bool> {
    hand_over(program(workspace, "down")?)
}

/// Runs end-to-end tests.
pub(crate) fn test(workspace: &Workspace, names: &[String], context: Option<&str>) -> Result<bool> {
    let mut command = program(workspace, "test")?;
    command.args(context.iter().flat_map(|name| ["--context", name]));
    command.args(names);
    hand_over(command)
}

/// The first build takes minutes: cargo shows how it goes to whoever waits.
fn program(workspace: &Workspace, verb: &str) -> Result<Command> {
    let path = workspace.binary("quorate-e2e");
    let mut build = workspace.cargo();
    build.arg("build").args(path.exists().then_some("--quiet")).args(PROGRAMS);
    ensure!(hand_over(build)?, "Quorate does not build: see above");
    let mut command = workspace.command(path);
    command.arg(verb);
    Ok(command)
}

/// Runs it with the terminal as its own; its exit code is the answer.
fn hand_over(mut command: Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("cannot start: {}", line(&command)))?;
    Ok(status.success())
}
