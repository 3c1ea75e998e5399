//! Who takes part: each with its data on this disk, synced before it answers a write, on loopback addresses of its own.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::etcd::Etcd;
use super::process::{Process, cpu_time, resident_bytes};
use super::resp::Resp;
use crate::ring::Ring;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    /// Three nodes, N=3, R=W=2, every write synced at two of them.
    Quorate,
    /// One Redis.
    Redis,
    /// One Redis with two replicas, every write synced at each, and waited for at one (`WAIT 1`).
    RedisReplicated,
    /// Three members.
    Etcd,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Quorate => "Quorate, 3 nodes",
            Self::Redis => "Redis",
            Self::RedisReplicated => "Redis, 2 replicas",
            Self::Etcd => "etcd, 3 members",
        })
    }
}

/// Replicas of a Redis that has some.
const REPLICAS: u8 = 2;
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Its processes end with it.
pub(crate) struct Contestant {
    pub(crate) name: Name,
    /// Where clients connect.
    pub(crate) endpoints: Vec<SocketAddr>,
    processes: Processes,
}

enum Processes {
    Ring(Box<Ring>),
    Own(Vec<Process>),
}

impl Contestant {
    pub(crate) fn quorate(runtime: &Runtime, program: &Path, folder: &Path) -> Result<Self> {
        let ring = Ring::start(runtime, program, folder, 3, 3)?;
        let endpoints = ring.hosts().iter().map(|host| address(host, 7002)).collect::<Result<_>>()?;
        Ok(Self { name: Name::Quorate, endpoints, processes: Processes::Ring(Box::new(ring)) })
    }

    pub(crate) fn redis(runtime: &Runtime, program: &Path, folder: &Path, name: Name) -> Result<Self> {
        let (replicas, hosts) = match name {
            Name::RedisReplicated => (REPLICAS, "127.0.112"),
            _ => (0, "127.0.111"),
        };
        let host = |index: u8| format!("{hosts}.{}", index + 1);
        let mut processes = Vec::new();
        for index in 0..=replicas {
            let folder = folder.join(index.to_string());
            std::fs::create_dir_all(&folder)?;
            let mut command = Command::new(program);
            command.args(["--bind", &host(index), "--port", "6379", "--save", "", "--dir"]).arg(&folder);
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
            if index > 0 {
                command.args(["--replicaof", &host(0), "6379"]);
            }
            processes.push(Process::start(command, &folder.join("log"))?);
        }
        let endpoint = address(&host(0), 6379)?;
        let what = format!("{name} to serve");
        runtime.block_on(eventually(&what, async || {
            Resp::connect(endpoint, false).await.ok()?.has_replicas(replicas).await.ok()?.then_some(())
        }))?;
        Ok(Self { name, endpoints: vec![endpoint], processes: Processes::Own(processes) })
    }

    pub(crate) fn etcd(runtime: &Runtime, program: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let host = |index: u8| format!("127.0.113.{}", index + 1);
        let url = |index: u8, port: u16| format!("http://{}:{port}", host(index));
        let all: Vec<String> = (0..3).map(|index| format!("etcd-{index}={}", url(index, 2380))).collect();
        let mut processes = Vec::new();
        for index in 0..3 {
            let mut command = Command::new(program);
            command.args(["etcd", "--log-level", "error", "--name", &format!("etcd-{index}"), "--data-dir"]);
            command.arg(folder.join(index.to_string())).args(["--initial-cluster", &all.join(",")]);
            for (flag, port) in [
                ("--listen-client-urls", 2379),
                ("--advertise-client-urls", 2379),
                ("--listen-peer-urls", 2380),
                ("--initial-advertise-peer-urls", 2380),
            ] {
                command.args([flag, &url(index, port)]);
            }
            processes.push(Process::start(command, &folder.join(format!("log-{index}")))?);
        }
        let endpoints: Vec<SocketAddr> =
            (0..3).map(|index| address(&host(index), 2379)).collect::<Result<_>>()?;
        for endpoint in &endpoints {
            runtime.block_on(eventually("etcd to serve", async || {
                Etcd::connect(*endpoint).await.ok()?.put(b"ready", b"yes").await.ok()
            }))?;
        }
        Ok(Self { name: Name::Etcd, endpoints, processes: Processes::Own(processes) })
    }

    fn ids(&self) -> Vec<u32> {
        match &self.processes {
            Processes::Ring(ring) => ring.processes(),
            Processes::Own(processes) => processes.iter().map(Process::id).collect(),
        }
    }

    /// The processor time that all its processes have taken so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        self.ids().into_iter().map(cpu_time).sum()
    }

    /// The memory that all of them have.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.ids().into_iter().map(resident_bytes).sum()
    }
}

fn address(host: &str, port: u16) -> Result<SocketAddr> {
    format!("{host}:{port}").parse().with_context(|| format!("{host} is no address"))
}

async fn eventually(what: &str, mut look: impl AsyncFnMut() -> Option<()>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if look().await.is_some() {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    bail!("waited {} s for {what}", PATIENCE.as_secs())
}
