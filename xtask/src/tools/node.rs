//! Packages for Node.js, of `xtask/tools/node/package-lock.json`, pinned by hash; Node.js itself from the system.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::Shell;
use crate::tools::{cached, is_on_path, with_fresh_lists};

/// Where it says what is installed.
const PACKAGES: &str = "xtask/tools/node";
/// Goes up when the packages change, so that an old folder is not taken for the new one.
const FOLDER: &str = "node-1";

/// The folder in which the packages are found.
pub(crate) fn packages(shell: &Shell<'_>) -> Result<PathBuf> {
    if !(is_on_path("node") && is_on_path("npm")) {
        let packages = ["install", "--yes", "--quiet", "--no-install-recommends", "nodejs", "npm"];
        with_fresh_lists(shell, || shell.run(shell.workspace.command("apt-get").args(packages)))?;
    }
    cached(shell, FOLDER, |folder| make(shell, folder))
}

fn make(shell: &Shell<'_>, folder: &Path) -> Result<()> {
    for file in ["package.json", "package-lock.json"] {
        let from = shell.workspace.path(PACKAGES).join(file);
        std::fs::copy(&from, folder.join(file)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let mut npm = shell.workspace.command("npm");
    shell.run(npm.current_dir(folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))
}
