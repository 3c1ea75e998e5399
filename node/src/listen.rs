//! The two listeners: clients over HTTP, and peers and the admin API on one port, told apart by the first byte.
//!
//! Connections are bounded in number and in the time they may take to say what they want, so garbage and
//! silence cost nothing that lasts (INV-BOUND).

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use quorate_wire::handshake::MAGIC;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::metrics::Metrics;
use crate::node::Node;
use crate::peers::{self, Credentials};

/// Connections that one listener holds; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// How long a connection may take for its first byte, and an HTTP request for its head.
const FIRST_WORD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when the system has no more file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves HTTP connections until `stop` is true, then finishes what is in progress within `drain`.
pub(crate) struct HttpServer {
    builder: auto::Builder<TokioExecutor>,
    router: Router,
    metrics: Arc<Metrics>,
    listener: &'static str,
}

impl HttpServer {
    pub(crate) fn new(router: Router, metrics: Arc<Metrics>, listener: &'static str) -> Arc<Self> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(FIRST_WORD_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(256);
        Arc::new(Self { builder, router, metrics, listener })
    }

    async fn serve(&self, stream: TcpStream, watcher: hyper_util::server::graceful::Watcher) {
        let _ = stream.set_nodelay(true); // Only slower without.
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.builder.serve_connection(TokioIo::new(stream), service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            self.metrics.refused_connections.with_label_values(&[self.listener]).inc();
            tracing::info!(listener = self.listener, %error, "closed a connection");
        }
    }
}

/// Accepts connections until `stop` turns true, then waits at most `drain` for those that are left.
async fn accept_loop<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
    serve: impl Fn(TcpStream, hyper_util::server::graceful::Watcher) -> F,
    drain: Duration,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, permit)) => {
                let served = serve(stream, graceful.watcher());
                tokio::spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    let _ = timeout(drain, graceful.shutdown()).await; // What is still open after that is cut.
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, permit))
}

/// Runs the client listener.
pub(crate) async fn clients(
    listener: TcpListener,
    http: Arc<HttpServer>,
    stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let serve = move |stream, watcher| {
        let http = http.clone();
        async move { http.serve(stream, watcher).await }
    };
    accept_loop(listener, stop, serve, drain).await;
}

/// Runs the listener that peers and the admin API share.
pub(crate) async fn peers_and_admin(
    listener: TcpListener,
    node: Arc<Node>,
    us: Credentials,
    admin: Arc<HttpServer>,
    stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let serve = move |stream: TcpStream, watcher| {
        let (node, us, admin) = (node.clone(), us.clone(), admin.clone());
        async move {
            let mut first = [0];
            match timeout(FIRST_WORD_TIMEOUT, stream.peek(&mut first)).await {
                Ok(Ok(1)) if first[0] == MAGIC[0] => peer(stream, node, &us).await,
                Ok(Ok(1)) => admin.serve(stream, watcher).await,
                _ => {} // Closed or silent: a port check.
            }
        }
    };
    accept_loop(listener, stop, serve, drain).await;
}

async fn peer(mut stream: TcpStream, node: Arc<Node>, us: &Credentials) {
    let address = stream.peer_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
    let mut magic = [0; MAGIC.len()];
    let served = match timeout(FIRST_WORD_TIMEOUT, stream.read_exact(&mut magic)).await {
        Ok(Ok(_)) if magic == *MAGIC => {
            peers::serve(stream, us, node.clone()).await.map_err(|e| e.to_string())
        }
        _ => Err("it does not begin like the peer protocol of this version".to_owned()),
    };
    if let Err(error) = served {
        node.metrics.refused_connections.with_label_values(&["peer"]).inc();
        tracing::info!(%address, %error, "closed a peer connection");
    }
}
