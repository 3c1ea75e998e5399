//! Tools that a step needs and that a fresh machine lacks: fetched once through the ordinary package managers, at a
//! fixed version, into a cache outside of the checkout.
//!
//! Invariant: a tool's folder is there whole or not at all; it is made beside its place and moved there.

pub(crate) mod cplusplus;
pub(crate) mod helm;
pub(crate) mod node;
pub(crate) mod promtool;
pub(crate) mod python;
pub(crate) mod redis;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::Shell;
use crate::workspace::tools_cache;

/// The folder called `name` of the cache, filled by `make` when it is not there. Who comes second waits.
fn cached(shell: &Shell<'_>, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = tools_cache()?;
    let (folder, draft) = (cache.join(name), cache.join(format!("{name}.draft")));
    if folder.exists() {
        return Ok(folder);
    }
    // The kernel lets go of the lock when the file is closed, however its holder ends.
    let lock = File::create(cache.join(format!("{name}.lock"))).context("cannot lock the cache of tools")?;
    lock.lock().context("cannot lock the cache of tools")?;
    if folder.exists() {
        return Ok(folder);
    }
    shell.note(&format!("installing {name} into {}", cache.display()))?;
    if draft.exists() {
        std::fs::remove_dir_all(&draft).with_context(|| format!("cannot clear {}", draft.display()))?;
    }
    std::fs::create_dir(&draft).with_context(|| format!("cannot make {}", draft.display()))?;
    make(&draft).with_context(|| format!("cannot install {name}"))?;
    std::fs::rename(&draft, &folder).with_context(|| format!("cannot move {name} to its place"))?;
    Ok(folder)
}

/// Whether a program is on the PATH.
fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Runs something that asks Debian for a package; refreshes the lists and tries again when that fails, because a
/// fresh machine has none and old ones name files that are gone.
fn with_fresh_lists(shell: &Shell<'_>, ask: impl Fn() -> Result<()>) -> Result<()> {
    if !is_on_path("apt-get") {
        bail!("this machine is no Debian: the tools of this step are installed with apt-get");
    }
    ask().or_else(|_| {
        shell.run(shell.workspace.command("apt-get").args(["update", "--quiet"]))?;
        ask()
    })
}
