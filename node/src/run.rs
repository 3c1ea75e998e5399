//! A node's life: start, serve, stop.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use quorate_admin::types::Identity;
use quorate_storage::{Options as StoreOptions, Recovery, StdDisk, Store};
use quorate_wire::handshake::Secret;
use quorate_wire::peer::Request;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::admin::{self, Admin};
use crate::config::Config;
use crate::gossip::{self, HEARD_MAX, Liveness};
use crate::listen::{self, HttpServer};
use crate::metrics::Metrics;
use crate::node::{Node, REPLIES_BYTES_MAX};
use crate::peers::{Credentials, Peers};
use crate::ring::Ring;
use crate::room::Room;
use crate::{http, identity};

/// How long a stopping node waits for a peer to confirm that it heard.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// A node that serves.
pub(crate) struct Running {
    pub(crate) node: Arc<Node>,
    pub(crate) http: SocketAddr,
    config: Config,
    leave: oneshot::Sender<()>,
    stop_clients: watch::Sender<bool>,
    stop_peers: watch::Sender<bool>,
    clients: JoinHandle<()>,
    peers: JoinHandle<()>,
    gossip: JoinHandle<()>,
    _disk: identity::Disk,
}

/// Takes the disk, recovers the log, opens the listeners and looks for the others.
pub(crate) async fn start(config: Config) -> anyhow::Result<Running> {
    let disk = identity::take(&config.data_dir, config.cluster)?;
    let id = disk.actor.node;
    let ring = Ring::open(&config.data_dir, config.cluster)?;
    let metrics = Metrics::new();
    let store = open_store(&config, disk.actor, metrics.clone()).await?;

    let secret = Secret::new(config.secret.as_bytes());
    let us = Credentials { cluster: config.cluster, node: id, secret: secret.clone() };
    let (heard_in, heard) = mpsc::channel(HEARD_MAX);
    let node = Arc::new(Node {
        id,
        secret,
        conflicts: config.conflicts,
        request_timeout: config.request_timeout,
        ring,
        store,
        peers: Peers::new(us.clone()),
        liveness: Liveness::default(),
        metrics: metrics.clone(),
        stopping: AtomicBool::new(false),
        replies: Room::new(REPLIES_BYTES_MAX),
        clock: Mutex::default(),
        heard: heard_in,
    });

    let client_listener = bind(config.http_listen, "http-listen").await?;
    let peer_listener = bind(config.peer_listen, "peer-listen").await?;
    let http = client_listener.local_addr()?;
    let client_server = HttpServer::new(http::router(node.clone()), metrics.clone(), "http");
    let admin =
        Admin { node: node.clone(), identity: identity(&config, &disk), secret: config.secret.clone() };
    let admin_server = HttpServer::new(admin::router(admin), metrics, "admin");

    let (leave, leaving) = oneshot::channel();
    let (stop_clients, clients_stopped) = watch::channel(false);
    let (stop_peers, peers_stopped) = watch::channel(false);
    let drain = config.drain_timeout;
    let gossip = tokio::spawn(gossip::run(node.clone(), config.clone(), disk.actor.start, heard, leaving));
    let clients = tokio::spawn(listen::clients(client_listener, client_server, clients_stopped, drain));
    let peers = tokio::spawn(listen::peers_and_admin(
        peer_listener,
        node.clone(),
        us,
        admin_server,
        peers_stopped,
        drain,
    ));
    tracing::info!(
        node = %id, cluster = %config.cluster, start = disk.actor.start, epoch = node.ring.number(),
        http = %http, peers = config.advertise, "serving"
    );
    Ok(Running { node, http, config, leave, stop_clients, stop_peers, clients, peers, gossip, _disk: disk })
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{option}: cannot listen on {address}"))
}

fn identity(config: &Config, disk: &identity::Disk) -> Identity {
    Identity {
        node_id: disk.actor.node,
        cluster_id: config.cluster,
        name: config.name.clone(),
        address: config.advertise.clone(),
        zone: config.zone.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        start: disk.actor.start,
    }
}

/// Recovery reads the whole log, so it runs on a thread of its own.
async fn open_store(
    config: &Config,
    actor: quorate_core::causality::Actor,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Store> {
    let options = StoreOptions {
        durability: config.durability,
        free_space_reserve_bytes: config.free_space_reserve_bytes,
        segment_bytes: u32::try_from(config.segment_bytes).context("segment-size")?,
        observer: Some(metrics),
        ..StoreOptions::default()
    };
    let dir = config.data_dir.join("log");
    let open = move || -> anyhow::Result<(Store, Recovery)> {
        let disk = StdDisk::open(&dir).with_context(|| format!("cannot open {}", dir.display()))?;
        Store::open(Arc::new(disk), actor, options)
            .with_context(|| format!("cannot open the log in {}", dir.display()))
    };
    let (store, recovery) = tokio::task::spawn_blocking(open).await??;
    tracing::info!(
        keys = recovery.keys,
        segments = recovery.segments,
        bytes = recovery.bytes,
        torn_bytes = recovery.torn_bytes,
        "recovered the log"
    );
    for segment in &recovery.quarantined {
        tracing::error!(segment = segment.name, reason = %segment.reason, "a log segment is damaged and was set aside");
    }
    Ok(store)
}

impl Running {
    /// Stops without losing anything: says so, finishes what is in progress, syncs.
    ///
    /// The order matters. Peers and readiness hear of it first, while requests are still taken, because
    /// clients learn late; then the listeners close; the log closes last, when nobody writes any more.
    pub(crate) async fn stop(mut self) {
        tracing::info!("stopping: finishing what is in progress");
        self.node.stopping.store(true, Ordering::Relaxed);
        self.say_goodbye().await;
        sleep(self.config.drain_linger).await;
        let _ = self.stop_clients.send(true);
        let _ = self.clients.await; // Bounded by the drain timeout.
        let _ = self.stop_peers.send(true);
        let store = self.node.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
        self.peers.abort();
        tracing::info!("stopped");
    }

    /// Resolves when a part of the node ended that never should, and names it: half a node is worse than none.
    pub(crate) async fn ended(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.gossip => "the failure detector",
            _ = &mut self.clients => "the client listener",
            _ = &mut self.peers => "the peer listener",
        }
    }

    /// Tells the peers, and waits until those that are up have heard: the answer to a request comes after
    /// what was said before it on the same connection.
    async fn say_goodbye(&mut self) {
        let (unused, _) = oneshot::channel();
        let _ = std::mem::replace(&mut self.leave, unused).send(());
        let _ = (&mut self.gossip).await;
        let peers = self.node.liveness.up_peers(self.node.id);
        let calls = peers.iter().map(|(id, address)| self.node.peers.call(*id, address, Request::FetchEpoch));
        let _ = timeout(GOODBYE_TIMEOUT, futures::future::join_all(calls)).await;
    }
}
