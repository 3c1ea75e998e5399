//! A ring of node processes on loopback addresses of their own, which changes as an operator would change it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quorate_admin::Client;
use quorate_admin::types::NodeStatus;
use quorate_core::ClusterId;
use quorate_core::ring::{Epoch, Member, MemberState, Replication, planner};
use tokio::runtime::Runtime;

const CLUSTER: ClusterId = ClusterId::from_u128(0xbe);
const PARTITIONS: u32 = 256;
const REPLICATION: Replication = Replication { factor: 3, read_quorum: 2, write_quorum: 2 };
const SECRET: &str = "a-secret-of-a-benchmark";
/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Ended, and its data removed, when it is dropped.
pub(crate) struct Ring {
    directory: PathBuf,
    nodes: Vec<Child>,
    admin: Client,
    epoch: Epoch,
}

impl Ring {
    /// Starts so many nodes; the first ones are members of a ring that serves.
    pub(crate) fn start(
        runtime: &Runtime,
        program: &Path,
        directory: &Path,
        nodes: usize,
        members: usize,
    ) -> Result<Self> {
        ensure!(
            !directory.exists(),
            "{} is there already: remove it, or name another one",
            directory.display()
        );
        std::fs::create_dir_all(directory)?;
        std::fs::write(directory.join("secret"), SECRET)?;
        let admin = Client::new(SECRET, Duration::from_secs(5))?;
        let mut started = Started { directory: directory.to_owned(), nodes: Vec::new() };
        for index in 0..nodes {
            started.nodes.push(node(program, directory, index)?);
        }
        let found = (0..members).map(|index| member(runtime, &admin, index)).collect::<Result<_>>()?;
        let epoch = planner::first_epoch(CLUSTER, PARTITIONS, REPLICATION, found)?;
        let (directory, nodes) = started.keep();
        let mut ring = Self { directory, nodes, admin, epoch };
        ring.push(runtime)?;
        ring.settle(runtime)?;
        Ok(ring)
    }

    /// Where clients reach the members.
    pub(crate) fn urls(&self) -> Vec<String> {
        let active = |member: &&Member| member.state == MemberState::Active;
        let host = |member: &Member| member.address.split(':').next().unwrap_or_default().to_owned();
        self.epoch
            .members()
            .iter()
            .filter(active)
            .map(|member| format!("http://{}:7001", host(member)))
            .collect()
    }

    /// The addresses of all nodes.
    pub(crate) fn hosts(&self) -> Vec<String> {
        (0..self.nodes.len()).map(host).collect()
    }

    /// Their processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.nodes.iter().map(Child::id).collect()
    }

    /// Makes the first so many nodes the members, and lets the others leave.
    pub(crate) fn resize(&mut self, runtime: &Runtime, count: usize) -> Result<()> {
        let mut members = self.epoch.members().to_vec();
        for index in 0..self.nodes.len() {
            let state = if index < count { MemberState::Active } else { MemberState::Leaving };
            match members.iter_mut().find(|member| member.name == name(index)) {
                Some(member) => member.state = state,
                None if index < count => members.push(member(runtime, &self.admin, index)?),
                None => {}
            }
        }
        self.epoch = planner::next(&self.epoch, members, REPLICATION)?;
        self.push(runtime)
    }

    /// Whether nothing is left to do for anybody; and how much of it was moved.
    pub(crate) fn is_settled(&self, runtime: &Runtime) -> Option<u64> {
        let mut moved_bytes = 0;
        for member in self.epoch.members() {
            let status = status(runtime, &self.admin, &member.address)?;
            // Who has left is not ready any more.
            let serves = member.state != MemberState::Active || is_whole(&status);
            let holds = status.epoch == Some(self.epoch.mark());
            if !(serves && holds && status.transition.is_settled()) {
                return None;
            }
            moved_bytes += status.transition.moved_bytes;
        }
        Some(moved_bytes)
    }

    /// Waits for that.
    pub(crate) fn settle(&mut self, runtime: &Runtime) -> Result<()> {
        wait_for("the ring to be whole", || self.is_settled(runtime)).map(drop)
    }

    fn push(&mut self, runtime: &Runtime) -> Result<()> {
        for member in self.epoch.members() {
            wait_for("a node to take the epoch", || {
                runtime.block_on(self.admin.push_epoch(&member.address, &self.epoch)).ok()
            })?;
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        end(&mut self.nodes, &self.directory);
    }
}

/// Processes that are no ring yet: ended as well, should they never become one.
struct Started {
    directory: PathBuf,
    nodes: Vec<Child>,
}

impl Started {
    fn keep(mut self) -> (PathBuf, Vec<Child>) {
        (self.directory.clone(), std::mem::take(&mut self.nodes))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.nodes.is_empty() {
            end(&mut self.nodes, &self.directory);
        }
    }
}

fn end(nodes: &mut [Child], directory: &Path) {
    for node in nodes {
        let ended = node.kill().and_then(|()| node.wait());
        ended.map_or_else(|error| eprintln!("a node cannot be ended: {error}"), drop);
    }
    let removed = std::fs::remove_dir_all(directory);
    removed.unwrap_or_else(|error| eprintln!("{} cannot be removed: {error}", directory.display()));
}

fn is_whole(status: &NodeStatus) -> bool {
    status.health.ready && status.health.partitions_in_full == status.health.partitions
}

/// All of 127/8 is this machine.
fn host(index: usize) -> String {
    format!("127.0.110.{}", index + 1)
}

fn name(index: usize) -> String {
    format!("bench-{index}")
}

fn node(program: &Path, directory: &Path, index: usize) -> Result<Child> {
    let (host, data) = (host(index), directory.join(name(index)));
    let log = File::create(directory.join(format!("{}.log", name(index))))?;
    let flags = [
        ("--data-dir", data.display().to_string()),
        ("--cluster-id", CLUSTER.to_string()),
        ("--name", name(index)),
        ("--zone", format!("zone-{}", index % 3)),
        ("--advertise", format!("{host}:5000")),
        ("--peer-listen", format!("{host}:5000")),
        ("--http-listen", format!("{host}:7001")),
        ("--resp-listen", format!("{host}:7002")),
        ("--seeds", format!("{}:5000", self::host(0))),
        ("--secret-file", directory.join("secret").display().to_string()),
        // So that keys that are written again and again hold one value.
        ("--conflicts", "last-write-wins".to_owned()),
    ];
    let mut command = Command::new(program);
    command.arg("run").args(flags.iter().flat_map(|(flag, value)| [*flag, value]));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let spawned = command.spawn();
    spawned.with_context(|| {
        format!("{} does not start: cargo build --release --package quorate-node", program.display())
    })
}

fn status(runtime: &Runtime, admin: &Client, address: &str) -> Option<NodeStatus> {
    runtime.block_on(admin.status(address)).ok()
}

/// What a node says of itself, as soon as it does.
fn member(runtime: &Runtime, admin: &Client, index: usize) -> Result<Member> {
    let address = format!("{}:5000", host(index));
    let identity = wait_for("a node to answer", || status(runtime, admin, &address))?.identity;
    Ok(Member {
        id: identity.node_id,
        name: identity.name,
        address: identity.address,
        zone: identity.zone,
        weight: 100,
        state: MemberState::Active,
    })
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = look() {
            return Ok(found);
        }
        thread::sleep(LOOK);
    }
    bail!("waited {} s for {what}", PATIENCE.as_secs())
}
