//! Redis, from the system: its tools and its server are different packages of Debian.

use anyhow::Result;

use crate::shell::Shell;
use crate::tools::{is_on_path, with_fresh_lists};

/// Makes sure that they are there.
pub(crate) fn install_missing(shell: &Shell<'_>) -> Result<()> {
    install(shell, &["redis-cli", "redis-benchmark"], "redis-tools")
}

/// Makes sure that the server is there.
pub(crate) fn install_missing_server(shell: &Shell<'_>) -> Result<()> {
    install(shell, &["redis-server"], "redis-server")
}

fn install(shell: &Shell<'_>, programs: &[&str], package: &str) -> Result<()> {
    if programs.iter().all(|program| is_on_path(program)) {
        return Ok(());
    }
    let packages = ["install", "--yes", "--quiet", "--no-install-recommends", package];
    with_fresh_lists(shell, || shell.run(shell.workspace.command("apt-get").args(packages)))
}
