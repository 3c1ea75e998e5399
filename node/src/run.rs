//! A node's life: start, serve, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use quorate_core::causality::Actor;
use quorate_core::membership::{self, NodeInfo};
use quorate_replica::{self as replica, Now, Replica, Sender};
use quorate_storage::{Options as StoreOptions, Recovery, StdDisk, Store};
use quorate_wire::handshake::Secret;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::admin::{self, Admin};
use crate::config::Config;
use crate::documents::{self, Keeper};
use crate::engine::{End, Engine, unix_ms};
use crate::inbox::{Inbox, Input};
use crate::listen::{self, HttpServer};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::peers::{Credentials, Links};
use crate::readers::Library;
use crate::resp::{Doors, RespServer};
use crate::users::{self, Access};
use crate::{http, identity};

/// A node that serves.
pub(crate) struct Running {
    pub(crate) node: Arc<Node>,
    pub(crate) http: SocketAddr,
    /// Where Redis clients are served, if they are.
    pub(crate) resp: Option<SocketAddr>,
    config: Config,
    stop_clients: watch::Sender<bool>,
    stop_peers: watch::Sender<bool>,
    clients: JoinHandle<()>,
    redis: JoinHandle<()>,
    peers: JoinHandle<()>,
    engine: JoinHandle<End>,
    /// Follows the file of users.
    users: Option<JoinHandle<()>>,
    disk: identity::Disk,
}

/// What ended that never should while a node serves.
pub(crate) enum Ended {
    /// A part of the node: half a node is worse than none.
    Part(&'static str),
    /// The disk went back in time: a peer knows this start of it.
    Amnesia { known_start: u64 },
}

/// Takes the disk, recovers the log, opens the listeners and looks for the others.
pub(crate) async fn start(config: Config) -> anyhow::Result<Running> {
    let disk = identity::take(&config.data_dir, config.cluster)?;
    let remembered = documents::read(&config.data_dir)?;
    let metrics = Metrics::new();
    let store = open_store(&config, disk.actor, metrics.clone()).await?;
    let client_listener = bind(config.http_listen, "http-listen").await?;
    let redis_listener = match config.resp {
        Some(resp) => Some((bind(resp.listen, "resp-listen").await?, resp)),
        None => None,
    };
    let peer_listener = bind(config.peer_listen, "peer-listen").await?;
    let http = client_listener.local_addr()?;
    let resp = redis_listener.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?;

    let secret = Secret::new(config.secret.as_bytes());
    let us = Sender { node: disk.actor.node, start: disk.actor.start };
    let us = Credentials { cluster: config.cluster, us, secret: secret.clone() };
    let identity = identity(&config, disk.actor);
    let inbox = Arc::new(Inbox::default());
    let keeper = Keeper::start(config.data_dir.clone(), inbox.clone())?;
    let links = Links::new(us.clone(), inbox.clone());
    let began = Instant::now();
    let replica = Replica::new(
        identity.clone(),
        behaviour(&config),
        Library::open(store.clone())?,
        completions(inbox.clone()),
        Box::new(rand::random::<u64>),
        remembered,
        Now { mono: began.elapsed(), unix_ms: unix_ms() },
    )
    .context("this node cannot introduce itself")?;
    let epoch = replica.epoch().map_or(0, |epoch| epoch.number());
    let engine = tokio::spawn(Engine::new(inbox.clone(), replica, links, keeper, began).run());

    let access = Arc::new(Access::new(config.users.as_ref().map(|(_, users)| users.clone())));
    let users = config
        .users
        .as_ref()
        .map(|(path, _)| tokio::spawn(users::follow(path.clone(), access.clone(), metrics.clone())));
    let node = Arc::new(Node {
        identity,
        redis_address: resp.map(|resp| redis_address(&config.advertise, resp.port())),
        secret,
        access,
        conflicts: config.conflicts,
        durability: config.durability,
        request_timeout: config.request_timeout,
        store,
        metrics: metrics.clone(),
        stopping: AtomicBool::new(false),
        departs: AtomicBool::new(false),
        inbox: inbox.clone(),
    });
    let client_server = HttpServer::new(http::router(node.clone()), metrics.clone(), "http");
    let admin = Admin { node: node.clone(), secret: config.secret.clone() };
    let admin_server = HttpServer::new(admin::router(admin), metrics, "admin");
    let (stop_clients, clients_stopped) = watch::channel(false);
    let (stop_peers, peers_stopped) = watch::channel(false);
    let drain = config.drain_timeout;
    let doors = Arc::new(Doors::new(&config.secret)?);
    let redis_listener =
        redis_listener.map(|(listener, resp)| (listener, RespServer::new(node.clone(), resp, doors)));
    let redis = tokio::spawn(serve_redis(redis_listener, clients_stopped.clone(), drain));
    let clients = tokio::spawn(listen::clients(client_listener, client_server, clients_stopped, drain));
    let peers =
        tokio::spawn(listen::peers_and_admin(peer_listener, us, inbox, admin_server, peers_stopped, drain));
    tracing::info!(
        node = %disk.actor.node, cluster = %config.cluster, start = disk.actor.start, epoch,
        http = %http, resp = resp.map(tracing::field::display), peers = config.advertise, "serving"
    );
    Ok(Running {
        node,
        http,
        resp,
        config,
        stop_clients,
        stop_peers,
        clients,
        redis,
        peers,
        engine,
        users,
        disk,
    })
}

/// Serves Redis clients, if that is wanted, until `stop`.
async fn serve_redis(
    listener: Option<(TcpListener, RespServer)>,
    mut stop: watch::Receiver<bool>,
    drain: Duration,
) {
    match listener {
        Some((listener, server)) => {
            let server = Arc::new(server);
            tokio::select! {
                () = listen::redis(listener, server.clone(), stop, drain) => {}
                () = server.follow_doors() => {}
            }
        }
        None => drop(stop.wait_for(|stop| *stop).await),
    }
}

/// Where the storage's threads say what is done. They must not be held up: see [`Inbox`].
fn completions(inbox: Arc<Inbox>) -> replica::Inbox {
    Arc::new(move |completion| inbox.push(Input::Completed(completion)))
}

fn identity(config: &Config, actor: Actor) -> replica::Identity {
    let node = NodeInfo {
        id: actor.node,
        name: config.name.clone(),
        address: config.advertise.clone(),
        zone: config.zone.clone(),
    };
    replica::Identity { cluster: config.cluster, actor, nonce: rand::random(), node }
}

/// Redis clients reach a node at the host where its peers do.
fn redis_address(advertised: &str, port: u16) -> String {
    let host = advertised.rsplit_once(':').map_or(advertised, |(host, _)| host);
    format!("{host}:{port}")
}

fn behaviour(config: &Config) -> replica::Config {
    replica::Config {
        request_timeout: config.request_timeout,
        kind: config.quorum,
        failure: membership::Config::new(config.detect_after),
        anti_entropy_interval: config.anti_entropy_interval,
        transfer_bytes_per_second: config.transfer_bytes_per_second,
        hint_bytes_max: config.hint_bytes_max,
        ..replica::Config::new(config.seeds.clone())
    }
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{option}: cannot listen on {address}"))
}

/// Recovery reads the whole log, so it runs on a thread of its own.
async fn open_store(config: &Config, actor: Actor, metrics: Arc<Metrics>) -> anyhow::Result<Store> {
    let options = StoreOptions {
        durability: config.durability,
        free_space_reserve_bytes: config.free_space_reserve_bytes,
        segment_bytes: u32::try_from(config.segment_bytes).context("segment-size")?,
        observer: Some(metrics),
        ..StoreOptions::default()
    };
    let dir = config.data_dir.join(identity::LOG);
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
    pub(crate) async fn stop(self) {
        tracing::info!("stopping: finishing what is in progress");
        self.node.stopping.store(true, Ordering::Relaxed);
        self.node.leave().await;
        sleep(self.config.drain_linger).await;
        let _ = self.stop_clients.send(true);
        let _ = tokio::join!(self.clients, self.redis); // Bounded by the drain timeout.
        let _ = self.stop_peers.send(true);
        self.node.inbox.push(Input::Stop);
        let _ = self.engine.await;
        close(self.node.store.clone()).await;
        self.peers.abort();
        self.users.iter().for_each(JoinHandle::abort);
        tracing::info!("stopped");
    }

    /// Resolves when something ended that never should.
    pub(crate) async fn ended(&mut self) -> Ended {
        tokio::select! {
            end = &mut self.engine => match end {
                Ok(End::Amnesia { known_start }) => Ended::Amnesia { known_start },
                Ok(End::Stopped) | Err(_) => Ended::Part("the engine"),
            },
            _ = &mut self.clients => Ended::Part("the client listener"),
            _ = &mut self.redis => Ended::Part("the listener of Redis clients"),
            _ = &mut self.peers => Ended::Part("the peer listener"),
        }
    }

    /// Sets aside what is on a disk that went back in time: the next start is a new node's (INV-AMNESIA).
    pub(crate) async fn give_up(self, known_start: u64) -> anyhow::Error {
        let (node, start) = (self.disk.actor.node, self.disk.actor.start);
        self.clients.abort();
        self.redis.abort();
        self.peers.abort();
        close(self.node.store.clone()).await;
        match self.disk.give_up() {
            Ok(aside) => anyhow::anyhow!(
                "this disk went back in time: peers know start {known_start} of node {node}, or data of it that this \
                 disk (at start {start}) does not have. Its content was set aside in {}; started again it joins as a \
                 new node, and the ring must replace {node} by it",
                aside.display()
            ),
            Err(error) => error.context(format!(
                "this disk went back in time: peers know start {known_start} of node {node}, and what is on it could \
                 not be set aside: give an empty directory"
            )),
        }
    }
}

async fn close(store: Store) {
    let _ = tokio::task::spawn_blocking(move || store.close()).await;
}
