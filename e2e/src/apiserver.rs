//! A real API server for tests that need objects stored and validated, and no nodes.
//!
//! Invariant: its two processes end with it: when it is dropped, when the command's standard input closes,
//! and (for the command) even when it is killed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::control_plane::{ControlPlane, Extent, free_port};
use crate::error::Error;
use crate::kubernetes;
use crate::layout::Layout;
use crate::process::{Lifetime, Process};
use crate::progress::Progress;

/// The processes of an API server, in the order in which they are ended.
const PROCESSES: &[&str] = &["apiserver", "etcd"];

/// Etcd and an API server on free ports of loopback.
#[derive(Debug)]
pub struct ApiServer {
    layout: Layout,
}

impl ApiServer {
    /// Starts both in `folder` and waits until they are ready. Builds Kubernetes first where it is not
    /// in the cache, which takes minutes.
    ///
    /// # Errors
    /// When Kubernetes cannot be built, or does not become ready.
    pub fn start(folder: &Path) -> Result<Self, Error> {
        Self::start_for(folder, Lifetime::Detached)
    }

    /// As [`ApiServer::start`], with a say in what happens when the calling thread ends.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub fn start_for(folder: &Path, lifetime: Lifetime) -> Result<Self, Error> {
        let program = kubernetes::program(&Cache::of_user()?, &Progress::start())?;
        // From here on, dropping it ends whatever was started.
        let server = Self { layout: Layout::new(folder) };
        let control_plane = ControlPlane {
            program: &program,
            layout: &server.layout,
            api: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            extent: Extent::ApiOnly,
            lifetime,
        };
        control_plane.make_certificates()?;
        control_plane.start_api()?;
        Ok(server)
    }

    /// A kubeconfig with every right.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for name in PROCESSES {
            // Nobody is left to be told of an error, and the next process must be ended all the same.
            if let Ok(Some(process)) = Process::recorded(&self.layout.pid(name)) {
                let _ended = process.kill();
            }
        }
    }
}
