//! Real node processes on loopback addresses of their own, and a load that remembers what was acknowledged.

pub(crate) mod load;
pub(crate) mod redis;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use quorate_admin::Client;
use quorate_admin::types::NodeStatus;
use quorate_core::ClusterId;
use quorate_core::ring::{Epoch, Member, MemberState, Replication, planner};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) const SECRET: &str = "a-secret-of-the-test-cluster";
pub(crate) const CLUSTER: ClusterId = ClusterId::from_u128(0xc1);
/// For whatever must happen sooner or later. Generous: it is a bound, not a measurement.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until something holds, or panics with what was waited for.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One node: its disk, its addresses and, while it runs, its process.
pub(crate) struct TestNode {
    pub(crate) index: usize,
    pub(crate) host: String,
    pub(crate) dir: PathBuf,
    options: Vec<String>,
    process: Option<Child>,
    logs: PathBuf,
    /// Runs in a mount namespace whose data directory is a file system of so many MiB.
    disk_mib: Option<u32>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl TestNode {
    pub(crate) fn peer(&self) -> String {
        format!("{}:5000", self.host)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}:7001{path}", self.host)
    }

    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}:5000{path}", self.host)
    }

    pub(crate) fn kv(&self, key: &str) -> String {
        self.url(&format!("/v1/kv/{key}"))
    }

    /// Changes one of the flags that every node is given.
    pub(crate) fn set_flag(&mut self, flag: &str, value: &str) {
        let at = self.arguments.iter().position(|argument| argument == flag).expect("a flag that is given");
        self.arguments[at + 1] = value.to_owned();
    }

    /// Replaces all flags that the node is given, and adds environment variables.
    pub(crate) fn configure(&mut self, arguments: &[&str], environment: &[(&str, &str)]) {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.environment =
            environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    }

    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "node {} runs already", self.index);
        let binary = env!("CARGO_BIN_EXE_quorate-node");
        let mut command = match self.disk_mib {
            None => Command::new(binary),
            Some(mib) => {
                let mut command = Command::new("unshare");
                let mount = format!("mount -t tmpfs -o size={mib}m tmpfs \"$0\" && exec \"$@\"");
                command
                    .args(["--mount", "--propagation", "private", "sh", "-c", &mount])
                    .arg(&self.dir)
                    .arg(binary);
                command
            }
        };
        let log = File::options().create(true).append(true).open(&self.logs).unwrap();
        let child = command
            .args(&self.arguments)
            .args(&self.options)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the node's binary starts");
        self.process = Some(child);
    }

    /// `kill -9`: everything that is not on the disk is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("the node runs"))
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("the node runs");
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "node {} does not stop: {}", self.index, self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// The data directory as the process sees it.
    pub(crate) fn inside(&self) -> PathBuf {
        let below_root = self.dir.strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.pid().as_raw_nonzero())).join(below_root)
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid().as_raw_nonzero())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.logs).unwrap_or_default()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("--- the end of node {}'s log", self.index);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// What a test cluster is made of.
#[derive(Default, Clone)]
pub(crate) struct Setup {
    pub(crate) options: Vec<String>,
    pub(crate) disk_mib: Option<u32>,
}

/// A ring of node processes; ended and removed when dropped.
pub(crate) struct TestCluster {
    pub(crate) nodes: Vec<TestNode>,
    pub(crate) http: reqwest::Client,
    pub(crate) admin: Client,
    pub(crate) dir: tempfile::TempDir,
}

/// The address of the network, and one for each node.
const ADDRESSES_A_CLUSTER: u8 = 1 + 5;
/// So many networks differ in their last part alone.
const CLUSTERS_A_NETWORK: u8 = u8::MAX / ADDRESSES_A_CLUSTER;
/// What a test program has.
const NETWORKS: u8 = 2;

/// A loopback network for one cluster: all of 127/8 is this machine, and the process id keeps test programs that
/// run at the same time apart.
fn network() -> String {
    static CLUSTERS: AtomicU8 = AtomicU8::new(0);
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let (network, at) = (cluster / CLUSTERS_A_NETWORK, cluster % CLUSTERS_A_NETWORK);
    assert!(network < NETWORKS, "at most {} clusters in one program", NETWORKS * CLUSTERS_A_NETWORK);
    let [.., high, low] = (std::process::id() * u32::from(NETWORKS)).to_be_bytes();
    format!("127.{}.{}.{}", high | 0x80, low + network, at * ADDRESSES_A_CLUSTER)
}

impl TestCluster {
    /// Processes that run and know each other's addresses, without a ring.
    pub(crate) fn without_ring(count: usize, setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), SECRET).unwrap();
        let network = network();
        let (prefix, base) = network.rsplit_once('.').unwrap();
        let base: usize = base.parse().unwrap();
        let nodes = (0..count).map(|index| {
            let host = format!("{prefix}.{}", base + index + 1);
            node(dir.path(), index, &host, &format!("{prefix}.{}", base + 1), setup.clone())
        });
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let admin = Client::new(SECRET, Duration::from_secs(5)).unwrap();
        let mut cluster = Self { nodes: nodes.collect(), http, admin, dir };
        cluster.nodes.iter_mut().for_each(TestNode::start);
        cluster
    }

    /// A ring that serves: N = 3, R = W = 2, a zone a node.
    pub(crate) async fn start(setup: Setup) -> Self {
        let cluster = Self::without_ring(3, setup);
        cluster.make_ring().await;
        cluster.whole().await;
        cluster
    }

    pub(crate) async fn status(&self, index: usize) -> Option<NodeStatus> {
        self.admin.status(&self.nodes[index].peer()).await.ok()
    }

    /// Plans the first epoch and pushes it to every node, as an operator does.
    pub(crate) async fn make_ring(&self) -> Epoch {
        self.make_ring_of(Replication { factor: 3, read_quorum: 2, write_quorum: 2 }).await
    }

    pub(crate) async fn make_ring_of(&self, replication: Replication) -> Epoch {
        let members = self.members(0..self.nodes.len()).await;
        let epoch = planner::first_epoch(CLUSTER, 64, replication, members).unwrap();
        self.push(0..self.nodes.len(), &epoch).await;
        epoch
    }

    /// These nodes as active members.
    pub(crate) async fn members(&self, nodes: Range<usize>) -> Vec<Member> {
        let mut members = Vec::new();
        for index in nodes {
            eventually("the node answers", || async { self.status(index).await.is_some() }).await;
            let identity = self.status(index).await.unwrap().identity;
            members.push(Member {
                id: identity.node_id,
                name: identity.name,
                address: identity.address,
                zone: identity.zone,
                weight: 1,
                state: MemberState::Active,
            });
        }
        members
    }

    /// Brings an epoch to nodes, one after the other.
    pub(crate) async fn push(&self, nodes: Range<usize>, epoch: &Epoch) {
        for node in &self.nodes[nodes] {
            assert_eq!(self.admin.push_epoch(&node.peer(), epoch).await.unwrap(), epoch.mark());
        }
    }

    /// Waits until these nodes are through with an epoch.
    pub(crate) async fn settled(&self, nodes: Range<usize>, epoch: &Epoch) {
        for index in nodes {
            eventually("the node is through with the epoch", || async {
                self.status(index).await.is_some_and(|status| {
                    status.epoch == Some(epoch.mark()) && status.transition.is_settled()
                })
            })
            .await;
        }
    }

    /// Waits until every node sees every partition in full.
    pub(crate) async fn whole(&self) {
        for index in 0..self.nodes.len() {
            eventually("the ring is whole", || async {
                self.status(index).await.is_some_and(|status| {
                    status.health.ready && status.health.partitions_in_full == status.health.partitions
                })
            })
            .await;
        }
    }

    pub(crate) async fn put(
        &self,
        index: usize,
        key: &str,
        value: impl Into<reqwest::Body>,
    ) -> reqwest::Response {
        self.http.put(self.nodes[index].kv(key)).body(value).send().await.unwrap()
    }

    pub(crate) async fn get(&self, index: usize, key: &str) -> reqwest::Response {
        self.http.get(self.nodes[index].kv(key)).send().await.unwrap()
    }

    /// What a node tells Prometheus.
    pub(crate) async fn metrics(&self, index: usize) -> String {
        let url = self.nodes[index].admin_url("/metrics");
        self.http.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// The value of one series, summed over the label sets that contain `labels`.
    pub(crate) async fn metric(&self, index: usize, name: &str, labels: &str) -> f64 {
        let text = self.metrics(index).await;
        let matches = |line: &&str| line.split([' ', '{']).next() == Some(name) && line.contains(labels);
        text.lines().filter(matches).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

fn node(dir: &Path, index: usize, host: &str, seed: &str, setup: Setup) -> TestNode {
    let data = dir.join(format!("node-{index}"));
    std::fs::create_dir(&data).unwrap();
    let flags = [
        ("--data-dir", data.display().to_string()),
        ("--cluster-id", CLUSTER.to_string()),
        ("--name", format!("node-{index}")),
        ("--zone", format!("zone-{index}")),
        ("--advertise", format!("{host}:5000")),
        ("--peer-listen", format!("{host}:5000")),
        ("--http-listen", format!("{host}:7001")),
        ("--resp-listen", format!("{host}:7002")),
        ("--seeds", format!("{seed}:5000")),
        ("--secret-file", dir.join("secret").display().to_string()),
        ("--segment-size", "1Mi".to_owned()),
        ("--free-space-reserve", "4Mi".to_owned()),
        ("--drain-linger", "0s".to_owned()),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    TestNode {
        index,
        host: host.to_owned(),
        logs: dir.join(format!("node-{index}.log")),
        arguments: std::iter::once("run".to_owned()).chain(flags).collect(),
        dir: data,
        options: setup.options,
        process: None,
        environment: Vec::new(),
        disk_mib: setup.disk_mib,
    }
}
