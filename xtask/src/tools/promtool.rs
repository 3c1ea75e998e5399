//! promtool, out of Debian's `prometheus` package: unpacked, not installed, because installing starts a server.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::Shell;
use crate::tools::{cached, with_fresh_lists};

/// The program `promtool`.
pub(crate) fn program(shell: &Shell<'_>) -> Result<PathBuf> {
    let folder = cached(shell, "promtool", |folder| make(shell, folder))?;
    Ok(folder.join("usr/bin/promtool"))
}

fn make(shell: &Shell<'_>, folder: &Path) -> Result<()> {
    with_fresh_lists(shell, || {
        // The user that apt would fetch as cannot write to a folder of another.
        let mut command = shell.workspace.command("apt-get");
        command.args(["download", "--quiet", "-o", "APT::Sandbox::User=root", "prometheus"]);
        shell.run(command.current_dir(folder))
    })?;
    for file in std::fs::read_dir(folder)? {
        let package = file?.path();
        shell.run(shell.workspace.command("dpkg").arg("-x").arg(&package).arg(folder))?;
        std::fs::remove_file(&package).context("cannot remove the package that was unpacked")?;
    }
    Ok(())
}
