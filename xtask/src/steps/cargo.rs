//! What cargo itself checks.
//!
//! Every build here is of the whole workspace with the dev profile: cargo then compiles each dependency once with one
//! set of features, and the programs that later steps start are the ones that the tests ran against.

use std::process::Command;

use crate::shell::Shell;
use crate::step::Outcome;

pub(super) fn format(shell: &Shell<'_>) -> Outcome {
    shell.run(shell.workspace.cargo().args(["fmt", "--all", "--check"])).into()
}

pub(super) fn clippy(shell: &Shell<'_>) -> Outcome {
    let arguments =
        ["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    shell.run(shell.workspace.cargo().args(arguments)).into()
}

pub(super) fn docs(shell: &Shell<'_>) -> Outcome {
    let mut command = shell.workspace.cargo();
    command.args(["doc", "--quiet", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    shell.run(&mut command).into()
}

pub(super) fn tests(shell: &Shell<'_>) -> Outcome {
    let result = shell.run(shell.workspace.cargo().args(["test", "--workspace", "--no-fail-fast"]));
    Outcome::of_tests(result, &shell.text().unwrap_or_default())
}

/// Builds the programs of the workspace: next to nothing after `tests`.
pub(super) fn build_programs(shell: &Shell<'_>) -> anyhow::Result<()> {
    shell.run(&mut shell.workspace.build_programs())
}

/// A program of the workspace, built.
pub(super) fn program(shell: &Shell<'_>, name: &str) -> anyhow::Result<Command> {
    build_programs(shell)?;
    Ok(shell.workspace.command(shell.workspace.binary(name)))
}
