//! Redis clients, over TCP: RESP2 and RESP3.
//!
//! The words are understood in `quorate_wire::resp`; here a [`connection`] moves bytes and answers what it can about
//! itself ([`session`]), and [`keys`] asks the replica. docs/redis.md says what each command is worth here.
//!
//! Nothing is spawned for a request: a connection polls what it has in progress, starts in the order in which it was
//! asked, answers in that order, and lets requests of one key wait for each other when one of them writes.
//!
//! Bounds (INV-BOUND): connections by the listener; requests in progress by [`PIPELINE_MAX`] a connection and
//! [`REQUESTS_MAX`] in all; bytes of requests and of replies by two rooms, beyond a little that each connection has.

mod clients;
mod cluster;
mod connection;
mod describe;
mod failure;
mod info;
mod keys;
mod lanes;
mod meters;
mod session;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::config::{ReadModifyWrite, RespConfig};
use crate::node::Node;
use crate::room::Room;
use clients::Clients;
pub(crate) use cluster::Doors;
use meters::Meters;

/// What a connection beyond the most is told, in the words of Redis.
pub(crate) const TOO_MANY_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";

/// Requests that one connection may have in progress; it is not read on before there are fewer.
const PIPELINE_MAX: usize = 128;
/// Keys that may be worked on for all connections; more requests are told to come back.
const REQUESTS_MAX: usize = 8192;
/// Bytes of requests that may be in memory, beyond what each connection has of its own.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// Bytes of replies that may be in memory until their clients have fetched them, beyond what each connection has.
const ANSWERS_BYTES_MAX: usize = 128 << 20;

/// What the connections share.
pub(crate) struct RespServer {
    node: Arc<Node>,
    listen: SocketAddr,
    read_modify_write: ReadModifyWrite,
    requests: Semaphore,
    bodies: Room,
    answers: Room,
    clients: Clients,
    doors: Arc<Doors>,
    meters: Meters,
    began: Instant,
    connections: AtomicU64,
    commands: AtomicU64,
}

impl RespServer {
    pub(crate) fn new(node: Arc<Node>, config: RespConfig, doors: Arc<Doors>) -> Self {
        Self {
            listen: config.listen,
            read_modify_write: config.read_modify_write,
            requests: Semaphore::new(REQUESTS_MAX),
            bodies: Room::new(BODIES_BYTES_MAX),
            answers: Room::new(ANSWERS_BYTES_MAX),
            clients: Clients::default(),
            doors,
            meters: Meters::new(node.metrics.clone()),
            began: Instant::now(),
            connections: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            node,
        }
    }

    /// Whether clients do better elsewhere: the node stops, or the ring goes on without it.
    fn goes(&self) -> bool {
        self.node.stopping.load(Ordering::Relaxed) || self.node.departs.load(Ordering::Relaxed)
    }

    /// Serves one connection until its client leaves, `stop` turns true, or what comes is not of this protocol.
    pub(crate) async fn serve(&self, mut stream: TcpStream, stop: watch::Receiver<bool>) {
        let id = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let client = self.clients.add(id, &stream);
        self.node.metrics.resp_connections.inc();
        connection::serve(self, &client, &mut stream, stop).await;
        self.node.metrics.resp_connections.dec();
        self.clients.remove(id);
    }
}
