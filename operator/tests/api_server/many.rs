//! One operator, many clusters: the whole program, how much memory it takes, and that it comes to rest.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::api::ListParams;
use quorate_operator::crd::{KVCluster, KVClusterSpec, Phase};

use crate::world::World;

/// Clusters that one operator must be able to keep.
const CLUSTERS: usize = 200;
/// What it may take for them at its peak.
const MEMORY_KIB_MAX: u64 = 256 << 10;

/// Looks until all clusters must be where they should; a cluster at rest is looked at every half minute.
const LOOKS_MAX: usize = 600;
const PAUSE: Duration = Duration::from_secs(1);
/// Rounds in which every cluster was looked at, until one in which nothing was written.
const ROUNDS_MAX: usize = 20;

/// As `eventually`, for what many clusters take.
async fn patiently<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..LOOKS_MAX {
        if holds().await {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("waited in vain: {what}");
}

/// The operator as a process of its own; it ends with the test.
struct Running {
    process: Child,
    listen: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Running {
    /// Starts it for one namespace.
    fn start(namespace: &str, address: Ipv4Addr) -> Self {
        let listen = SocketAddr::from((address, 8080));
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-operator"));
        command.args(["run", "--pod-name=many", "--namespace", namespace, "--watch-namespace", namespace]);
        command.arg(format!("--listen={listen}"));
        command.env("KUBECONFIG", std::env::var_os("QUORATE_TEST_KUBECONFIG").unwrap());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { process, listen }
    }

    /// Its resident memory at the highest, from `/proc`.
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// A counter of its metrics, all labels added up.
    fn count(&self, metric: &str) -> u64 {
        let mut stream = TcpStream::connect(self.listen).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(&format!("{metric}{{")));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Waits until every cluster was looked at and nothing was written meanwhile.
    async fn rest(&self) {
        let passes = || self.count("quorate_operator_reconciles_total");
        for _ in 0..ROUNDS_MAX {
            let (seen, written) = (passes(), self.count("quorate_operator_api_writes_total"));
            // At rest each is looked at once in half a minute: so many looks are one at every cluster.
            patiently("a look at every cluster", || async { passes() >= seen + CLUSTERS as u64 }).await;
            if self.count("quorate_operator_api_writes_total") == written {
                return;
            }
        }
        panic!("it does not come to rest");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clusters_fit_into_a_quarter_of_a_gibibyte_and_come_to_rest() {
    let mut world = World::new().await;
    let address = world.address();
    let operator = Running::start(&world.namespace, address);
    let names: Vec<String> = (0..CLUSTERS).map(|number| format!("c{number}")).collect();
    for name in &names {
        world.create(name, small).await;
    }
    patiently("the first statuses", || are_all(&world, |_| true)).await;
    for name in &names {
        world.start_pods(name).await;
    }
    patiently("all are ready", || are_all(&world, |phase| phase == Phase::Ready)).await;
    operator.rest().await;
    let peak = operator.peak_kib();
    println!("{CLUSTERS} clusters: {} MiB at the peak", peak >> 10);
    assert!(peak < MEMORY_KIB_MAX, "{} MiB", peak >> 10);
}

/// Whether every cluster has a phase, and such a one.
async fn are_all(world: &World, is_so: fn(Phase) -> bool) -> bool {
    let clusters = world.api::<KVCluster>().list(&ListParams::default()).await.unwrap();
    let phase = |cluster: &KVCluster| cluster.status.as_ref()?.phase;
    clusters.iter().all(|cluster| phase(cluster).is_some_and(is_so))
}

/// One node: what it takes of the operator does not depend on how much data there is.
fn small(spec: &mut KVClusterSpec) {
    spec.nodes = 1;
    spec.ring.partitions = 8;
    let replication = &mut spec.replication;
    (replication.factor, replication.read_quorum, replication.write_quorum) = (1, 1, 1);
}
