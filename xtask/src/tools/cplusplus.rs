//! A C++ compiler, from the system: libFuzzer is written in C++.

use anyhow::Result;

use crate::shell::Shell;
use crate::tools::{is_on_path, with_fresh_lists};

/// Makes sure that there is one.
pub(crate) fn install_missing(shell: &Shell<'_>) -> Result<()> {
    if is_on_path("c++") {
        return Ok(());
    }
    let packages = ["install", "--yes", "--quiet", "--no-install-recommends", "g++"];
    with_fresh_lists(shell, || shell.run(shell.workspace.command("apt-get").args(packages)))
}
