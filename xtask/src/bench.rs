//! `cargo xtask bench`: builds and installs who takes part, and measures what clients get from each.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::Shell;
use crate::tools::redis;
use crate::workspace::Workspace;

/// The page of the book that is written.
const REPORT: &str = "docs/benchmarks.md";

/// Runs the benchmark with these arguments; it writes the page, unless they say otherwise.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<bool> {
    let shell = Shell::open(workspace, "bench", true)?;
    redis::install_missing_server(&shell)?;
    let build = ["build", "--release", "--package", "quorate-node", "--package", "quorate-bench"];
    shell.run(workspace.cargo().args(build))?;
    let release = workspace.target.join("release");
    let mut bench = workspace.command(release.join("quorate-bench"));
    bench.args(["clients", "--etcd"]).arg(kubernetes(&shell)?);
    bench.arg("--report").arg(workspace.path(REPORT)).args(arguments);
    Ok(bench.status()?.success())
}

/// The Kubernetes of the end-to-end tests is one program, and etcd is a part of it.
fn kubernetes(shell: &Shell<'_>) -> Result<PathBuf> {
    let mut program = shell.workspace.cargo();
    program.args(["run", "--quiet", "--package=quorate-e2e", "--", "kubernetes"]);
    Ok(shell.capture(&mut program)?.trim().into())
}
