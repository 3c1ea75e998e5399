//! Where everything of a cluster is kept: one folder, and nothing outside of it but what the journal names.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The folder of one cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// A cluster in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of this user's cluster.
    ///
    /// # Errors
    /// When neither `XDG_STATE_HOME` nor `HOME` is set.
    pub fn of_user() -> Result<Self, Error> {
        Ok(Self::new(home_folder("XDG_STATE_HOME", ".local/state")?.join("quorate/cluster")))
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// One log file a process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.root.join("logs").join(format!("{process}.log"))
    }

    /// Which process a recorded name is.
    pub fn pid(&self, process: &str) -> PathBuf {
        self.root.join("pids").join(process)
    }

    /// What was made outside of this folder.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The facts that a later command needs about a cluster that is complete.
    pub fn facts(&self) -> PathBuf {
        self.root.join("facts.json")
    }

    /// The data of etcd.
    pub fn etcd(&self) -> PathBuf {
        self.root.join("etcd")
    }

    /// A person's kubeconfig, with every right.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of("admin")
    }

    /// The kubeconfig of one user.
    pub fn kubeconfig_of(&self, user: &str) -> PathBuf {
        self.root.join(format!("{user}.kubeconfig"))
    }

    /// What belongs to one Kubernetes node.
    pub fn node(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node)
    }

    /// The folders behind one node's volumes.
    pub fn volumes(&self, node: &str) -> PathBuf {
        self.root.join("volumes").join(node)
    }
}

/// A folder of the XDG base directory specification.
pub(crate) fn home_folder(variable: &str, below_home: &str) -> Result<PathBuf, Error> {
    let given = env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(below_home));
    given
        .or_else(home)
        .ok_or_else(|| Error::Unsupported(format!("neither {variable} nor HOME is set: set one of them")))
}
