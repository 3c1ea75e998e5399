//! kubectl, bound to one cluster.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::error::{Doing, Error};
use crate::run::{run, run_with_input};

/// Which cluster a command talks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// The cluster of a kubeconfig of its own.
    Kubeconfig(PathBuf),
    /// A context of the person's kubeconfig.
    Context(String),
}

/// kubectl for one cluster.
#[derive(Debug, Clone)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    /// The cluster.
    pub access: Access,
}

impl Kubectl {
    /// A command with some arguments, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        match &self.access {
            Access::Kubeconfig(path) => command.arg("--kubeconfig").arg(path),
            Access::Context(name) => command.args(["--context", name]),
        };
        command.args(arguments);
        command
    }

    /// Runs it and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        run(&mut self.command(arguments))
    }

    /// Applies objects on the server's side, given as JSON or YAML.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply(&self, objects: &str) -> Result<String, Error> {
        let arguments =
            ["apply", "--server-side", "--force-conflicts", "--field-manager=quorate-e2e", "-f", "-"];
        run_with_input(&mut self.command(&arguments), objects)
    }

    /// Reads objects.
    ///
    /// # Errors
    /// When there is none of that name, or the answer is no JSON.
    pub fn get(&self, arguments: &[&str]) -> Result<Value, Error> {
        let all: Vec<&str> = ["get", "-o", "json"].iter().chain(arguments).copied().collect();
        serde_json::from_str(&self.run(&all)?)
            .doing(|| format!("reading what kubectl get {arguments:?} said"))
    }
}
