//! The built-in cluster: starting, finding again, hurting and removing it.
//!
//! Invariant: whatever a start has done up to any moment, [`down`] undoes from what is recorded in the folder.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache::Cache;
use crate::control_plane::{ControlPlane, Extent, is_ready};
use crate::debian;
use crate::error::{Doing, Error};
use crate::journal::Journal;
use crate::kubectl::{Access, Kubectl};
use crate::kubernetes;
use crate::layout::Layout;
use crate::network;
use crate::node::{NODES, Node};
use crate::process::{self, Lifetime, Place, Process};
use crate::progress::Progress;
use crate::run::wait_until;
use crate::tools::Tools;
use crate::volumes;

/// The port of the API server, on an address that is the cluster's alone.
const API_PORT: u16 = 6443;

/// How long the nodes may take until they call themselves ready.
const NODES_READY_SECONDS_MAX: Duration = Duration::from_secs(180);

/// The processes without which there is no cluster, in the order in which they are stopped.
const CONTROL_PLANE: &[&str] =
    &["reclaim", "scheduler", "controller-manager", "coredns", "apiserver", "etcd"];

/// A cluster that runs.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    tools: Tools,
    /// Where etcd serves the API server.
    etcd: u16,
}

/// What is written down when a start is complete.
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    tools: Tools,
    etcd: u16,
}

impl Cluster {
    /// The cluster of this user, started when it does not run. `harness` is the program of this crate: it
    /// stays behind as the one that reclaims volumes.
    ///
    /// # Errors
    /// When this machine cannot run one, or a part does not start.
    pub fn up(harness: &Path, progress: &Progress) -> Result<Self, Error> {
        require_machine()?;
        let layout = Layout::of_user()?;
        let _lock = lock()?;
        if let Some(cluster) = Self::found(&layout)? {
            cluster.start_missing_nodes()?;
            return Ok(cluster);
        }
        if layout.root().exists() {
            progress.step("clearing away a cluster that no longer runs");
            remove(&layout)?;
        }
        Self::create(layout, harness, progress)
    }

    /// The cluster of this user, when it runs.
    ///
    /// # Errors
    /// When its folder cannot be read.
    pub fn running() -> Result<Option<Self>, Error> {
        Self::found(&Layout::of_user()?)
    }

    /// kubectl with every right.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl { program: self.tools.kubectl(), access: Access::Kubeconfig(self.layout.kubeconfig()) }
    }

    /// The programs that it was made of.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Its folder.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Kills a node, as a power cut does. It stays dead until [`Cluster::start_node`].
    ///
    /// # Errors
    /// When there is no such node, or it outlives the kill.
    pub fn kill_node(&self, name: &str) -> Result<(), Error> {
        Node::named(name)?.kill(&self.layout)?;
        self.route_services()
    }

    /// Starts a node that was killed, with the disk that it had.
    ///
    /// # Errors
    /// When there is no such node, or it does not start.
    pub fn start_node(&self, name: &str) -> Result<(), Error> {
        let program = self.tools.kubernetes_program();
        Node::named(name)?.start(&self.layout, &self.tools.for_nodes(&program))?;
        self.route_services()
    }

    /// Starts a node whose Node object was deleted, and waits until it is ready. A kubelet that finds none waits minutes
    /// for what it makes itself; the second one finds it.
    ///
    /// # Errors
    /// When it does not start, or is not ready in time.
    pub fn start_node_anew(&self, name: &str) -> Result<(), Error> {
        self.start_node(name)?;
        let kubectl = self.kubectl();
        wait_until(&format!("{name} to register"), NODES_READY_SECONDS_MAX, "see its kubelet's log", || {
            Ok(kubectl.get(&["node", name]).is_ok())
        })?;
        self.kill_node(name)?;
        self.start_node(name)?;
        self.wait_for_nodes()
    }

    /// Throws away what is on a node's disks: it is no use to start it again for what was there.
    ///
    /// # Errors
    /// When a folder cannot be removed.
    pub fn wipe_volumes(&self, name: &str) -> Result<(), Error> {
        volumes::wipe_all(&self.layout, &Node::named(name)?)
    }

    /// Ends the API server. It stays away until [`Cluster::start_api_server`].
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_api_server(&self) -> Result<(), Error> {
        Process::recorded(&self.layout.pid("apiserver"))?.map_or(Ok(()), Process::stop)
    }

    /// Starts the API server that was ended, on what etcd holds.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start_api_server(&self) -> Result<(), Error> {
        let program = self.tools.kubernetes_program();
        control_plane(&program, &self.layout).start_api_server(self.etcd, || Ok(()))
    }

    /// Imports an image archive into every node that runs.
    ///
    /// # Errors
    /// When a node refuses it.
    pub fn import(&self, archive: &Path) -> Result<(), Error> {
        on_every(&self.living_nodes()?, |node| node.import(&self.layout, &self.tools.debian, archive))
    }

    fn found(layout: &Layout) -> Result<Option<Self>, Error> {
        let facts = layout.facts();
        if !facts.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&facts).doing(|| format!("reading {}", facts.display()))?;
        let facts: Facts = serde_json::from_str(&text).doing(|| format!("reading {}", facts.display()))?;
        let healthy =
            first_dead(layout).is_none() && is_ready(&facts.tools.kubernetes_program(), &layout.kubeconfig());
        Ok(healthy.then(|| Self { layout: layout.clone(), tools: facts.tools, etcd: facts.etcd }))
    }

    fn create(layout: Layout, harness: &Path, progress: &Progress) -> Result<Self, Error> {
        let tools = Tools::provide(&Cache::of_user()?, progress)?;
        fs::create_dir_all(layout.root()).doing(|| format!("making {}", layout.root().display()))?;
        progress.step(&format!("starting Kubernetes {}: network and control plane", kubernetes::version()));
        let mut cluster = Self { layout, tools, etcd: 0 };
        cluster.start_control_plane()?;
        progress.step("starting 3 nodes in 3 zones");
        cluster.start_missing_nodes()?;
        cluster.import(&cluster.tools.toolbox)?;
        cluster.start_reclaim(harness)?;
        cluster.wait_for_nodes()?;
        progress.step("all nodes are ready");
        cluster.write_facts()?;
        Ok(cluster)
    }

    fn start_control_plane(&mut self) -> Result<(), Error> {
        let journal = Journal::new(self.layout.journal());
        network::make_switch(&journal)?;
        NODES.iter().try_for_each(|node| network::make_node(&journal, node, &NODES))?;
        let program = self.tools.kubernetes_program();
        let control_plane = control_plane(&program, &self.layout);
        let authority = control_plane.make_certificates()?;
        let programs = self.tools.for_nodes(&program);
        NODES.iter().try_for_each(|node| node.prepare(&control_plane, &authority, &journal, &programs))?;
        self.etcd = control_plane.start_api()?;
        control_plane.start_controllers(network::HOST.into())?;
        self.kubectl().apply(&volumes::prepare(&self.layout)?.to_string()).map(drop)
    }

    fn start_missing_nodes(&self) -> Result<(), Error> {
        let program = self.tools.kubernetes_program();
        let programs = self.tools.for_nodes(&program);
        on_every(&NODES, |node| node.start(&self.layout, &programs))?;
        self.route_services()
    }

    fn start_reclaim(&self, harness: &Path) -> Result<(), Error> {
        let place = Place { pid_file: &self.layout.pid("reclaim"), log: &self.layout.log("reclaim") };
        let arguments = ["reclaim".to_owned(), self.layout.kubeconfig().display().to_string()];
        process::start(&place, Lifetime::Detached, harness, &arguments).map(drop)
    }

    fn wait_for_nodes(&self) -> Result<(), Error> {
        let kubectl = self.kubectl();
        let hint = format!("see the logs below {}", self.layout.root().join("nodes").display());
        wait_until("all nodes to be ready", NODES_READY_SECONDS_MAX, &hint, || {
            if let Some(name) = first_dead(&self.layout) {
                return Err(Error::Ended { name: name.to_owned(), log: self.layout.log(name) });
            }
            Ok(ready_nodes(&kubectl.get(&["nodes"])?) == NODES.len())
        })
    }

    fn write_facts(&self) -> Result<(), Error> {
        let doing = || format!("writing {}", self.layout.facts().display());
        let text =
            serde_json::to_string(&Facts { tools: self.tools.clone(), etcd: self.etcd }).doing(doing)?;
        fs::write(self.layout.facts(), text).doing(doing)
    }

    /// The machine has no kube-proxy of its own: its way to Services leads through any node that lives.
    fn route_services(&self) -> Result<(), Error> {
        self.living_nodes()?.first().map_or(Ok(()), network::reach_services_through)
    }

    fn living_nodes(&self) -> Result<Vec<Node>, Error> {
        let mut living = Vec::new();
        for node in NODES {
            if node.process(&self.layout)?.is_some_and(Process::is_alive) {
                living.push(node);
            }
        }
        Ok(living)
    }
}

/// Removes this user's cluster: processes, namespaces, links, control groups, volumes. Nothing is left, also
/// when it had started only in part. Says whether there was one.
///
/// # Errors
/// When something cannot be removed; what is left is still recorded.
pub fn down() -> Result<bool, Error> {
    let layout = Layout::of_user()?;
    if !layout.root().exists() {
        return Ok(false);
    }
    let _lock = lock()?;
    remove(&layout)?;
    Ok(true)
}

fn remove(layout: &Layout) -> Result<(), Error> {
    for node in NODES {
        node.process(layout)?.map_or(Ok(()), Process::kill)?;
    }
    for name in CONTROL_PLANE {
        Process::recorded(&layout.pid(name))?.map_or(Ok(()), Process::stop)?;
    }
    Journal::new(layout.journal()).undo()?;
    fs::remove_dir_all(layout.root()).doing(|| format!("removing {}", layout.root().display()))?;
    // The folder above is removed when nothing else is in it.
    let _shared = layout.root().parent().map(fs::remove_dir);
    Ok(())
}

fn control_plane<'a>(program: &'a Path, layout: &'a Layout) -> ControlPlane<'a> {
    ControlPlane {
        program,
        layout,
        api: SocketAddr::from((network::HOST, API_PORT)),
        extent: Extent::Cluster,
        lifetime: Lifetime::Detached,
    }
}

/// A process of the control plane that does not run.
fn first_dead(layout: &Layout) -> Option<&'static str> {
    let alive =
        |name: &str| matches!(Process::recorded(&layout.pid(name)), Ok(Some(process)) if process.is_alive());
    CONTROL_PLANE.iter().copied().find(|name| !alive(name))
}

/// One start or removal at a time. The lock is in the cache, as the cluster's own folder comes and goes.
fn lock() -> Result<File, Error> {
    Cache::of_user()?.lock("cluster")
}

fn require_machine() -> Result<(), Error> {
    let instead = "\n\nTo try Quorate without Kubernetes: cargo run --release -p quorate-node -- dev\n\
                   To use a cluster that you have: --context NAME";
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Unsupported(format!(
            "the built-in cluster makes namespaces and links, which needs root; this is not root.{instead}"
        )));
    }
    if !debian::is_debian() {
        return Err(Error::Unsupported(format!(
            "the built-in cluster is made of Debian's packages; this machine does not run Debian.{instead}"
        )));
    }
    Ok(())
}

/// Does the same on several nodes at once.
fn on_every(nodes: &[Node], act: impl Fn(&Node) -> Result<(), Error> + Sync) -> Result<(), Error> {
    thread::scope(|scope| {
        let running: Vec<_> = nodes.iter().map(|node| scope.spawn(|| act(node))).collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn ready_nodes(list: &Value) -> usize {
    let is_ready = |node: &&Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    list["items"].as_array().into_iter().flatten().filter(is_ready).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ready_nodes_count() {
        let node = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        let list = json!({"items": [node("True"), node("Unknown"), {"status": {}}]});
        assert_eq!(ready_nodes(&list), 1);
    }
}
