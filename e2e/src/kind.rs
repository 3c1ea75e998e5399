//! A machine that has `kind` and Docker gets its cluster from them instead.

use std::path::Path;
use std::process::Command;

use crate::debian::is_on_path;
use crate::error::Error;
use crate::progress::Progress;
use crate::run::{call, show_with_input, succeeds};

/// The name of our cluster.
const NAME: &str = "quorate";

/// kind calls a cluster's context like this.
const CONTEXT_PREFIX: &str = "kind-";

/// Three nodes in three zones, as the built-in cluster has them.
const CONFIGURATION: &str = "kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
- role: worker
  labels: {topology.kubernetes.io/zone: zone-a, topology.kubernetes.io/region: r1}
- role: worker
  labels: {topology.kubernetes.io/zone: zone-b, topology.kubernetes.io/region: r1}
- role: worker
  labels: {topology.kubernetes.io/zone: zone-c, topology.kubernetes.io/region: r1}
";

/// Whether it is installed, kubectl too, and the Docker that it needs answers.
pub fn is_usable() -> bool {
    is_on_path("kind") && is_on_path("kubectl") && succeeds(Command::new("docker").arg("info"))
}

/// Makes our cluster when there is none, and says its context.
///
/// # Errors
/// When kind fails.
pub fn up(progress: &Progress) -> Result<String, Error> {
    if !exists()? {
        progress.step("making a cluster with kind");
        let mut command = Command::new("kind");
        command.args(["create", "cluster", "--name", NAME, "--wait", "5m", "--config", "-"]);
        // The first time kind fetches an image of hundreds of megabytes. And where it fails, it says why first and ends
        // with pages of logs, whose tail alone explains nothing.
        if !show_with_input(&mut command, CONFIGURATION)? {
            return Err(Error::Unsupported("kind made no cluster: see above".to_owned()));
        }
    }
    Ok(format!("{CONTEXT_PREFIX}{NAME}"))
}

/// The context of our cluster, when there is one.
///
/// # Errors
/// When kind fails.
pub fn running() -> Result<Option<String>, Error> {
    let found = is_usable() && exists()?;
    Ok(found.then(|| format!("{CONTEXT_PREFIX}{NAME}")))
}

/// Removes our cluster, and says whether there was one.
///
/// # Errors
/// When kind fails.
pub fn down(progress: &Progress) -> Result<bool, Error> {
    let found = running()?.is_some();
    if found {
        progress.step("removing the cluster of kind");
        call("kind", &["delete", "cluster", "--name", NAME])?;
    }
    Ok(found)
}

/// The name of kind's cluster behind a context, if it is kind's.
pub fn cluster_of(context: &str) -> Option<&str> {
    context.strip_prefix(CONTEXT_PREFIX)
}

/// Whether a context is that of the cluster that [`up`] makes and [`down`] removes.
pub fn is_ours(context: &str) -> bool {
    cluster_of(context) == Some(NAME)
}

/// Gives an image archive to every node of a cluster.
///
/// # Errors
/// When kind fails.
pub fn import(cluster: &str, archive: &Path) -> Result<(), Error> {
    let archive = archive.display().to_string();
    call("kind", &["load", "image-archive", &archive, "--name", cluster]).map(drop)
}

fn exists() -> Result<bool, Error> {
    Ok(call("kind", &["get", "clusters"])?.lines().any(|name| name == NAME))
}
