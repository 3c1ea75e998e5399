//! `cargo xtask sim`: builds the simulator and runs it.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// Fast, and every assertion counts.
const PROFILE: &str = "sim";

/// Runs the simulator with these arguments; `false` when it found something.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<bool> {
    let built = build(workspace).status().context("cannot start cargo")?;
    ensure!(built.success(), "the simulator does not build");
    let status = program(workspace).args(arguments).status().context("cannot start the simulator")?;
    Ok(status.success())
}

/// The command that builds it, planted bugs included: one is planted only where `--bug` says so.
pub(crate) fn build(workspace: &Workspace) -> Command {
    with_bugs(workspace, "build")
}

/// The command that runs the tests which plant bugs, and those beside them.
pub(crate) fn tests(workspace: &Workspace) -> Command {
    let mut command = with_bugs(workspace, "test");
    command.args(["--package", "quorate-replica", "--tests"]);
    command
}

fn with_bugs(workspace: &Workspace, what: &str) -> Command {
    let mut command = workspace.cargo();
    command.args([what, "--quiet", "--profile", PROFILE, "--package", "quorate-simulation"]);
    command.args(["--features", "quorate-simulation/planted-bugs"]);
    command
}

/// The built program.
pub(crate) fn program(workspace: &Workspace) -> Command {
    workspace.command(workspace.target.join(PROFILE).join("quorate-sim"))
}
