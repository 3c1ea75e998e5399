//! `up`, `down` and `e2e`: handed over to the program of the crate `quorate-e2e`, which owns the cluster.

use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::line;
use crate::workspace::Workspace;

/// Brings the cluster up, with Quorate on it unless `bare`.
pub(crate) fn up(workspace: &Workspace, context: Option<&str>, bare: bool) -> Result<bool> {
    let mut command = program(workspace, "up");
    command.args(context.iter().flat_map(|name| ["--context", name]));
    command.args(bare.then_some("--bare"));
    hand_over(command)
}

/// Takes it down.
pub(crate) fn down(workspace: &Workspace) -> Result<bool> {
    hand_over(program(workspace, "down"))
}

/// Runs end-to-end tests.
pub(crate) fn test(workspace: &Workspace, names: &[String], context: Option<&str>) -> Result<bool> {
    let mut command = program(workspace, "test");
    command.args(context.iter().flat_map(|name| ["--context", name]));
    command.args(names);
    hand_over(command)
}

/// The first build takes minutes: cargo shows how it goes to whoever waits.
fn program(workspace: &Workspace, verb: &str) -> Command {
    let is_built = workspace.binary("quorate-e2e").exists();
    let mut command = workspace.cargo();
    command.arg("run").args(is_built.then_some("--quiet")).args(["--package=quorate-e2e", "--", verb]);
    command
}

/// Runs it with the terminal as its own; its exit code is the answer.
fn hand_over(mut command: Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("cannot start: {}", line(&command)))?;
    Ok(status.success())
}
