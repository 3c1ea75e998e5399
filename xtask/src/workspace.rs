//! Where things are: the checkout, its build folder, and the cache of tools outside of both.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Where Debian keeps the programs of root. A shell of `su` has not got them in its PATH, and dpkg refuses without.
const SYSTEM_FOLDERS: &[&str] = &["/usr/sbin", "/sbin"];

/// The checkout, as `cargo metadata` describes it.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    /// The answer of `cargo metadata --no-deps`: the workspace's crates and what each names as a dependency.
    pub(crate) metadata: Value,
}

impl Workspace {
    /// Asks cargo where the workspace is.
    pub(crate) fn find() -> Result<Self> {
        let output = Command::new(cargo())
            .args(["metadata", "--format-version=1", "--no-deps"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .context("cannot start cargo")?;
        ensure!(
            output.status.success(),
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let metadata: Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
        let path = |key: &str| {
            metadata[key].as_str().map(PathBuf::from).with_context(|| format!("cargo metadata has no {key}"))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")?, metadata })
    }

    /// A path of the checkout.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// A binary of the workspace, as `cargo build` and `cargo test` leave it.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// `cargo`, to be run in the checkout.
    pub(crate) fn cargo(&self) -> Command {
        self.command(cargo())
    }

    /// The command that builds the programs of the workspace. With the tests, because their dependencies ask for
    /// features of others, and programs built without would be built twice.
    pub(crate) fn build_programs(&self) -> Command {
        let mut command = self.cargo();
        command.args(["build", "--quiet", "--workspace", "--bins", "--tests"]);
        command
    }

    /// A program, to be run in the checkout.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("PATH", path());
        command
    }
}

/// The PATH, with the system's folders at the end where they are missing.
fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for folder in SYSTEM_FOLDERS.iter().map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    // Joining fails for a folder with a colon in its name alone, and none of these has come through a split with one.
    std::env::join_paths(folders).unwrap_or(path)
}

/// The cargo that runs this, or the one of the PATH.
fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Where downloaded tools are kept from run to run and from checkout to checkout.
pub(crate) fn tools_cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = match (set("XDG_CACHE_HOME"), set("HOME")) {
        (Some(cache), _) => cache,
        (None, Some(home)) => home.join(".cache"),
        (None, None) => bail!("neither XDG_CACHE_HOME nor HOME is set: nowhere to keep tools"),
    };
    let tools = cache.join("quorate").join("tools");
    std::fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
    Ok(tools)
}
