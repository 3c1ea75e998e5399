//! A Python environment of our own, with the packages of `xtask/tools/python.txt`, pinned by hash.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::shell::Shell;
use crate::tools::{cached, with_fresh_lists};

/// What is installed into the environment.
const PACKAGES: &str = "xtask/tools/python.txt";
/// Goes up when `PACKAGES` changes, so that an old environment is not taken for the new one.
const ENVIRONMENT: &str = "python-3";

/// The interpreter of the environment.
pub(crate) fn interpreter(shell: &Shell<'_>) -> Result<PathBuf> {
    let folder = cached(shell, ENVIRONMENT, |folder| make(shell, folder))?;
    Ok(folder.join("bin/python"))
}

/// An environment is moved after it is made, so that only its interpreter is used, never its scripts.
fn make(shell: &Shell<'_>, folder: &Path) -> Result<()> {
    let create = || shell.run(shell.workspace.command("python3").args(["-m", "venv"]).arg(folder));
    if create().is_err() {
        let packages = ["install", "--yes", "--quiet", "python3", "python3-venv"];
        with_fresh_lists(shell, || shell.run(shell.workspace.command("apt-get").args(packages)))?;
        create()?;
    }
    pip(shell, &folder.join("bin/python"), &["install", "--requirement", PACKAGES])
}

/// Runs pip; every package that it takes must have the hash that our files give.
pub(super) fn pip(shell: &Shell<'_>, python: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = shell.workspace.command(python);
    command.args(["-m", "pip", "--disable-pip-version-check", "--quiet"]);
    shell.run(command.args(arguments).args(["--require-hashes", "--no-deps"]))
}
