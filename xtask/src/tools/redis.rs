//! redis-cli and redis-benchmark, from the system. Debian's package of them has no server.

use anyhow::Result;

use crate::shell::Shell;
use crate::tools::{is_on_path, with_fresh_lists};

/// Makes sure that they are there.
pub(crate) fn install_missing(shell: &Shell<'_>) -> Result<()> {
    if is_on_path("redis-cli") && is_on_path("redis-benchmark") {
        return Ok(());
    }
    let packages = ["install", "--yes", "--quiet", "--no-install-recommends", "redis-tools"];
    with_fresh_lists(shell, || shell.run(shell.workspace.command("apt-get").args(packages)))
}
