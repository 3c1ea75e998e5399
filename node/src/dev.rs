//! `quorate-node dev`: a three-node ring in one process, for the curious.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use quorate_core::ClusterId;
use quorate_core::causality::Policy;
use quorate_core::quorum::QuorumKind;
use quorate_core::ring::{Epoch, Member, MemberState, Replication, planner};
use quorate_replica::AdoptError;
use quorate_storage::Durability;
use tokio::time::sleep;
use uuid::Uuid;

use crate::config::{Config, ReadModifyWrite, RespConfig};
use crate::identity::write_durably;
use crate::node::sentence;
use crate::run::{self, Running};

const NODES: u16 = 3;
const PARTITIONS: u32 = 64;
/// How long the three may take to find each other.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Options of `dev`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Keep the data here; by default it is thrown away at the end.
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// HTTP ports from this one on, one a node.
    #[arg(long, default_value_t = 7001, value_parser = clap::value_parser!(u16).range(1..=65000))]
    http_port: u16,
    /// Ports of Redis clients from this one on, one a node.
    #[arg(long, default_value_t = 7011, value_parser = clap::value_parser!(u16).range(1..=65000))]
    resp_port: u16,
    /// What becomes of commands of Redis that read and then write, such as INCR.
    #[arg(long, value_enum, default_value_t)]
    resp_read_modify_write: ReadModifyWrite,
    /// Peer and admin ports from this one on, one a node.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u16).range(1..=65000))]
    peer_port: u16,
}

/// Runs until Ctrl-C.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut stop = Box::pin(crate::stop_signal()?);
    let scratch = Scratch::new(arguments.data_dir.clone())?;
    let (cluster, secret) = cluster(scratch.path())?;
    let nodes = tokio::select! {
        nodes = bring_up(&arguments, scratch.path(), cluster, &secret) => nodes?,
        () = &mut stop => return Ok(()),
    };
    greet(&nodes, scratch.path(), arguments.data_dir.is_some());
    stop.await;
    println!("\nStopping.");
    futures::future::join_all(nodes.into_iter().map(Running::stop)).await;
    Ok(())
}

async fn bring_up(
    arguments: &Arguments,
    dir: &Path,
    cluster: ClusterId,
    secret: &str,
) -> anyhow::Result<Vec<Running>> {
    let mut nodes = Vec::new();
    for index in 0..NODES {
        nodes.push(run::start(config(arguments, dir, cluster, secret, index)).await?);
    }
    make_ring(arguments, cluster, &nodes).await?;
    wait_until_ready(&nodes).await?;
    Ok(nodes)
}

/// Where the data is. Thrown away when dropped, unless the person chose the place.
struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    fn new(chosen: Option<PathBuf>) -> anyhow::Result<Self> {
        let keep = chosen.is_some();
        let path =
            chosen.unwrap_or_else(|| std::env::temp_dir().join(format!("quorate-dev-{}", Uuid::new_v4())));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, keep })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("quorate-node: cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The cluster's identity and secret: kept with the data, so that a second run is the same ring.
fn cluster(dir: &Path) -> anyhow::Result<(ClusterId, String)> {
    let path = dir.join("cluster");
    if !path.exists() {
        let fresh = format!("{}\n{}\n", Uuid::new_v4(), Uuid::new_v4().simple());
        write_durably(dir, "cluster", fresh.as_bytes())?;
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = text.lines();
    match (lines.next().and_then(|line| line.parse().ok()), lines.next()) {
        (Some(cluster), Some(secret)) => Ok((cluster, secret.to_owned())),
        _ => bail!("{} is damaged: give another --data-dir", path.display()),
    }
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn config(arguments: &Arguments, dir: &Path, cluster: ClusterId, secret: &str, index: u16) -> Config {
    let name = format!("dev-{index}");
    Config {
        data_dir: dir.join(&name),
        cluster,
        name,
        zone: Some(format!("zone-{index}")),
        advertise: local(arguments.peer_port + index).to_string(),
        peer_listen: local(arguments.peer_port + index),
        http_listen: local(arguments.http_port + index),
        resp: Some(RespConfig {
            listen: local(arguments.resp_port + index),
            read_modify_write: arguments.resp_read_modify_write,
        }),
        seeds: vec![local(arguments.peer_port).to_string()],
        secret: secret.to_owned(),
        users: None,
        durability: Durability::Sync,
        conflicts: Policy::Siblings,
        quorum: QuorumKind::Strict,
        anti_entropy_interval: Duration::from_secs(60),
        transfer_bytes_per_second: 64 << 20,
        hint_bytes_max: 64 << 20,
        request_timeout: Duration::from_secs(5),
        drain_timeout: Duration::from_secs(5),
        drain_linger: Duration::ZERO,
        detect_after: Duration::from_secs(5),
        free_space_reserve_bytes: 64 << 20,
        segment_bytes: 4 << 20,
    }
}

/// Commits the first epoch, unless an earlier run did.
async fn make_ring(arguments: &Arguments, cluster: ClusterId, nodes: &[Running]) -> anyhow::Result<()> {
    let mut known = None;
    for running in nodes {
        known = known.or(running.node.status().await.ok().and_then(|status| status.epoch));
    }
    let epoch: Epoch = match known {
        Some(epoch) => (*epoch).clone(),
        None => {
            let member = |(running, index): (&Running, u16)| Member {
                id: running.node.identity.actor.node,
                name: format!("dev-{index}"),
                address: local(arguments.peer_port + index).to_string(),
                zone: Some(format!("zone-{index}")),
                weight: 1,
                state: MemberState::Active,
            };
            let replication = Replication { factor: 3, read_quorum: 2, write_quorum: 2 };
            let members = nodes.iter().zip(0..).map(member).collect();
            planner::first_epoch(cluster, PARTITIONS, replication, members)?
        }
    };
    for running in nodes {
        match running.node.adopt(epoch.clone()).await {
            Ok(Ok(_) | Err(AdoptError::Busy)) => {} // Busy with what a peer told it: the same.
            Ok(Err(error)) => bail!("the ring cannot be made: {}", sentence(&error)),
            Err(_) => bail!("a node ended while the ring was made; the log above says why"),
        }
    }
    Ok(())
}

async fn wait_until_ready(nodes: &[Running]) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    for running in nodes {
        loop {
            let health = running.node.status().await.map(|status| running.node.health(&status));
            if health.is_ok_and(|health| health.ready && health.partitions_in_full == health.partitions) {
                break;
            }
            if Instant::now() > deadline {
                bail!(
                    "the nodes did not find each other within {} s; the log above says why",
                    READY_WITHIN.as_secs()
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

fn greet(nodes: &[Running], dir: &Path, kept: bool) {
    let url = |index: usize| format!("http://{}", nodes[index].http);
    let redis: Vec<String> = nodes.iter().filter_map(|node| Some(node.resp?.port().to_string())).collect();
    println!(
        "\nA ring of {} nodes is up: N=3, R=2, W=2. Any node answers for any key.\n\n  \
         write    curl -i -X PUT --data 'hello' {}/v1/kv/greeting\n  \
         read     curl -i {}/v1/kv/greeting\n  \
         delete   curl -i -X DELETE {}/v1/kv/greeting\n  \
         redis    redis-cli -p {} GET greeting    (any of the ports {})\n\n\
         Data is in {} ({}). Ctrl-C stops it.",
        nodes.len(),
        url(0),
        url(1),
        url(2),
        redis.first().map_or("?", String::as_str),
        redis.join(", "),
        dir.display(),
        if kept { "kept" } else { "thrown away at the end" },
    );
}
