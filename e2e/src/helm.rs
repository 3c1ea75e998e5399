//! Helm, bound to one cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::{Doing, Error};
use crate::kubectl::Access;
use crate::run::run;

/// How long an installation may take until its pods are ready.
const INSTALL_TIMEOUT: &str = "5m";

/// Helm for one cluster.
#[derive(Debug, Clone)]
pub struct Helm {
    /// The program.
    pub program: PathBuf,
    /// The cluster.
    pub access: Access,
}

/// A chart that is to be installed under a name.
#[derive(Debug)]
pub struct Release<'a> {
    /// The release's name.
    pub name: &'a str,
    /// The namespace, which exists.
    pub namespace: &'a str,
    /// The chart's folder.
    pub chart: &'a Path,
    /// Values, as `key=value`.
    pub values: &'a [String],
    /// A name for all of this: it stays the same when chart and values do.
    pub fingerprint: &'a str,
}

impl Helm {
    /// Installs or upgrades, and waits until it is ready.
    ///
    /// # Errors
    /// When the chart is refused or does not become ready.
    pub fn install(&self, release: &Release<'_>) -> Result<(), Error> {
        let mut command = self.command(&["upgrade", "--install", release.name]);
        command.arg(release.chart).args([
            "--namespace",
            release.namespace,
            "--description",
            release.fingerprint,
        ]);
        command.args(["--wait", "--timeout", INSTALL_TIMEOUT]);
        for value in release.values {
            command.args(["--set", value]);
        }
        run(&mut command).map(drop)
    }

    /// Whether exactly this is installed already.
    pub fn has(&self, release: &Release<'_>) -> bool {
        self.status(release.name, release.namespace).is_ok_and(|status| {
            let info = &status["info"];
            info["status"] == "deployed" && info["description"] == release.fingerprint
        })
    }

    /// Whether anything is installed under this name.
    pub fn has_any(&self, release: &Release<'_>) -> bool {
        self.status(release.name, release.namespace)
            .is_ok_and(|status| status["info"]["status"] == "deployed")
    }

    /// Removes a release, and waits until what it made is gone.
    ///
    /// # Errors
    /// When there is none, or something does not go.
    pub fn uninstall(&self, name: &str, namespace: &str) -> Result<(), Error> {
        let arguments = ["uninstall", name, "--namespace", namespace, "--wait", "--timeout", INSTALL_TIMEOUT];
        run(&mut self.command(&arguments)).map(drop)
    }

    /// Runs the chart's own tests.
    ///
    /// # Errors
    /// When one fails.
    pub fn test(&self, name: &str, namespace: &str) -> Result<(), Error> {
        run(&mut self.command(&["test", name, "--namespace", namespace, "--timeout", INSTALL_TIMEOUT]))
            .map(drop)
    }

    fn status(&self, name: &str, namespace: &str) -> Result<Value, Error> {
        let status = run(&mut self.command(&["status", name, "--namespace", namespace, "--output", "json"]))?;
        serde_json::from_str(&status).doing(|| "reading what helm status said".to_owned())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        match &self.access {
            Access::Kubeconfig(path) => command.arg("--kubeconfig").arg(path),
            Access::Context(name) => command.args(["--kube-context", name]),
        };
        command.args(arguments);
        command
    }
}
