//! The listeners: clients over HTTP, Redis clients, and peers and the admin API on one port, told apart by the first
//! byte.
//!
//! Connections are bounded in number and in the time they may take to say what they want, so garbage and
//! silence cost nothing that lasts (INV-BOUND).

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use quorate_wire::handshake::MAGIC;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle, set_tcp_user_timeout};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::peers::{self, Credentials};
use crate::resp::{RespServer, TOO_MANY_CLIENTS};
use crate::seldom::Seldom;

/// Connections that one listener holds; more wait in the kernel's queue, or are told so where the protocol has words
/// for that.
pub(crate) const CONNECTIONS_MAX: usize = 4096;
/// Requests that one HTTP/2 connection may have in progress.
const STREAMS_MAX: u32 = 256;
/// Bytes that a client may send ahead of what is read, over one HTTP/2 connection.
const HTTP2_WINDOW_BYTES: u32 = 256 * 1024;
/// How long a connection may take for its first byte, its first request, and an HTTP request for its head.
const FIRST_WORD_TIMEOUT: Duration = Duration::from_secs(10);
/// For how long what was sent may find nobody who takes it.
const SILENCE_MAX: Duration = Duration::from_secs(30);
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
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(SILENCE_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(HTTP2_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_WINDOW_BYTES);
        Arc::new(Self { builder, router, metrics, listener })
    }

    async fn serve(&self, stream: TcpStream, watcher: Watcher) {
        let spoke = Arc::new(AtomicBool::new(false));
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn({
            let spoke = spoke.clone();
            move |request| {
                spoke.store(true, Ordering::Relaxed);
                router.call(request)
            }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let mut connection = Box::pin(watcher.watch(connection));
        let ended = match timeout(FIRST_WORD_TIMEOUT, &mut connection).await {
            Ok(ended) => ended,
            Err(_) if spoke.load(Ordering::Relaxed) => connection.await,
            Err(_) => return, // No request yet: a port check, or somebody who wants to use the connections up.
        };
        let Err(error) = ended else { return };
        if !is_garbage(&*error) {
            return tracing::debug!(listener = self.listener, %error, "a client left");
        }
        static LOG: Seldom = Seldom::new();
        self.metrics.refused_connections.with_label_values(&[self.listener]).inc();
        if LOG.due() {
            tracing::info!(listener = self.listener, %error, "closed a connection");
        }
    }
}

/// Whether a connection ended because of what came over it, and not because the client left or fell silent.
fn is_garbage(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(|error| {
        let broken = std::error::Error::source(error).is_some_and(|source| source.is::<io::Error>());
        !(broken
            || error.is_incomplete_message()
            || error.is_timeout()
            || error.is_canceled()
            || error.is_closed())
    })
}

/// Makes the system break a connection whose other end is gone, or does not read what it asked for.
pub(crate) fn give_up_on_silence(stream: &TcpStream) {
    // Without these only the system's own limits apply, which are many minutes.
    let _ = set_tcp_user_timeout(stream, SILENCE_MAX.as_millis() as u32);
    let _ = set_tcp_keepidle(stream, SILENCE_MAX);
    let _ = set_socket_keepalive(stream, true);
}

/// What becomes of connections beyond [`CONNECTIONS_MAX`].
#[derive(Clone, Copy)]
enum Crowd {
    /// They wait.
    Waits,
    /// They are told this, and closed.
    IsTold(&'static [u8]),
}

/// Accepts connections until `stop` turns true, then waits at most `drain` for those that are left.
async fn accept_loop<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    crowd: Crowd,
    mut stop: watch::Receiver<bool>,
    serve: impl Fn(TcpStream, Watcher) -> F,
    drain: Duration,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, crowd, &room) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, permit)) => {
                failing = false;
                let _ = stream.set_nodelay(true); // Only slower without.
                give_up_on_silence(&stream);
                let served = serve(stream, graceful.watcher());
                tokio::spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections; trying on");
                }
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    let _ = timeout(drain, graceful.shutdown()).await; // What is still open after that is cut.
}

async fn accept(
    listener: &TcpListener,
    crowd: Crowd,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    match crowd {
        Crowd::Waits => {
            let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok((listener.accept().await?.0, permit))
        }
        Crowd::IsTold(words) => loop {
            let (stream, _) = listener.accept().await?;
            match room.clone().try_acquire_owned() {
                Ok(permit) => return Ok((stream, permit)),
                Err(_) => drop(stream.try_write(words)), // Who does not hear it is closed all the same.
            }
        },
    }
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
    accept_loop(listener, Crowd::Waits, stop, serve, drain).await;
}

/// Runs the listener of Redis clients.
pub(crate) async fn redis(
    listener: TcpListener,
    server: Arc<RespServer>,
    stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let stopping = stop.clone();
    let serve = move |stream, watcher: Watcher| {
        let (server, stopping) = (server.clone(), stopping.clone());
        async move {
            server.serve(stream, stopping).await;
            drop(watcher); // The drain waits for it.
        }
    };
    accept_loop(listener, Crowd::IsTold(TOO_MANY_CLIENTS), stop, serve, drain).await;
}

/// Runs the listener that peers and the admin API share.
pub(crate) async fn peers_and_admin(
    listener: TcpListener,
    us: Credentials,
    inbox: Arc<Inbox>,
    admin: Arc<HttpServer>,
    stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let serve = move |stream: TcpStream, watcher| {
        let (us, inbox, admin) = (us.clone(), inbox.clone(), admin.clone());
        async move {
            let mut first = [0];
            match timeout(FIRST_WORD_TIMEOUT, stream.peek(&mut first)).await {
                Ok(Ok(1)) if first[0] == MAGIC[0] => peer(stream, &us, inbox, &admin.metrics).await,
                Ok(Ok(1)) => admin.serve(stream, watcher).await,
                _ => {} // Closed or silent: a port check.
            }
        }
    };
    accept_loop(listener, Crowd::Waits, stop, serve, drain).await;
}

async fn peer(mut stream: TcpStream, us: &Credentials, inbox: Arc<Inbox>, metrics: &Metrics) {
    let address = stream.peer_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
    let mut magic = [0; MAGIC.len()];
    let served = match timeout(FIRST_WORD_TIMEOUT, stream.read_exact(&mut magic)).await {
        Ok(Ok(_)) if magic == *MAGIC => match peers::serve(stream, us, inbox).await {
            Err(error) if error.is_departure() => {
                return tracing::debug!(%address, %error, "a peer left");
            }
            served => served.map_err(|error| error.to_string()),
        },
        _ => Err("it does not begin like the peer protocol of this version".to_owned()),
    };
    if let Err(error) = served {
        static LOG: Seldom = Seldom::new();
        metrics.refused_connections.with_label_values(&["peer"]).inc();
        if LOG.due() {
            tracing::info!(%address, %error, "closed a peer connection");
        }
    }
}
