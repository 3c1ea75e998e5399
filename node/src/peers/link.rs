//! Outgoing connections: requests to peers and their answers, gossip.
//!
//! A link belongs to an address. It connects when something is to be sent, and tells apart what was certainly
//! not sent from what may have arrived: that is the difference between *not written* and *indeterminate*.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_core::NodeId;
use quorate_wire::peer::{Frame, Request, Response};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use super::connection::{self, Owner};
use super::handshake::{self, Credentials, Established, HANDSHAKE_TIMEOUT, HandshakeError};

/// Messages that may wait for one peer; more are refused.
const QUEUE_FRAMES_MAX: usize = 4096;
/// Requests that may be unanswered on one connection; more are refused.
const PENDING_REQUESTS_MAX: usize = 8192;
/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// For how long after a failed attempt messages fail at once.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// A link that nothing was sent over for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Why a call has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The peer certainly never got it.
    #[error("not sent")]
    NotSent,
    /// The peer may have got it.
    #[error("sent, but the answer did not come")]
    Lost,
}

type Answer = oneshot::Sender<Result<Response, CallError>>;

enum Outgoing {
    Call { to: NodeId, request: Request, answer: Answer },
    Tell(Frame),
}

struct Link {
    queue: mpsc::Sender<Outgoing>,
    /// Breaks the connection.
    reset: Arc<Notify>,
}

/// The outgoing connections of this node, by address.
pub(crate) struct Peers {
    us: Credentials,
    links: Arc<Mutex<HashMap<String, Link>>>,
}

impl Peers {
    pub(crate) fn new(us: Credentials) -> Self {
        Self { us, links: Arc::default() }
    }

    /// Asks the node `to`, which is thought to be at `address`, and waits for its answer. The caller bounds the
    /// time; dropping the call abandons it.
    pub(crate) async fn call(
        &self,
        to: NodeId,
        address: &str,
        request: Request,
    ) -> Result<Response, CallError> {
        let (answer, answered) = oneshot::channel();
        self.send(address, Outgoing::Call { to, request, answer })?;
        answered.await.unwrap_or(Err(CallError::Lost))
    }

    /// Sends a message that may be lost to whoever is at `address`.
    pub(crate) fn tell(&self, address: &str, message: Frame) {
        // Lost messages are the gossip protocol's business: it counts on some.
        let _ = self.send(address, Outgoing::Tell(message));
    }

    /// Breaks the connection to `address`, so that calls that wait for it learn at once that they are lost.
    pub(crate) fn reset(&self, address: &str) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(address) {
            link.reset.notify_waiters();
        }
    }

    fn send(&self, address: &str, item: Outgoing) -> Result<(), CallError> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry(address.to_owned()).or_insert_with(|| self.start(address.to_owned()));
        match link.queue.try_send(item) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(CallError::NotSent),
            Err(mpsc::error::TrySendError::Closed(item)) => {
                // The link ended from idleness just now.
                let fresh = self.start(address.to_owned());
                let sent = fresh.queue.try_send(item);
                links.insert(address.to_owned(), fresh);
                sent.map_err(|_| CallError::NotSent)
            }
        }
    }

    fn start(&self, address: String) -> Link {
        let (queue, queued) = mpsc::channel(QUEUE_FRAMES_MAX);
        let reset = Arc::new(Notify::new());
        let driver = Driver { us: self.us.clone(), address, queued, reset: reset.clone(), failed: None };
        tokio::spawn(driver.run());
        Link { queue, reset }
    }
}

/// The task behind one link.
struct Driver {
    us: Credentials,
    address: String,
    queued: mpsc::Receiver<Outgoing>,
    reset: Arc<Notify>,
    failed: Option<Failed>,
}

/// The last attempt to connect, when it failed.
struct Failed {
    at: Instant,
    error: String,
}

impl Driver {
    async fn run(mut self) {
        while let Ok(Some(first)) = timeout(IDLE_MAX, self.queued.recv()).await {
            if self.failed.as_ref().is_some_and(|failed| failed.at.elapsed() < RETRY_AFTER) {
                not_sent(first);
                continue;
            }
            match self.connect().await {
                Ok(established) => self.drive(established, first).await,
                Err(error) => self.give_up(first, &error),
            }
        }
    }

    /// Connects to the first that opens. A seed's name may stand for many nodes, this one included: talking to
    /// ourselves leads nowhere.
    async fn connect(&self) -> Result<Established, HandshakeError> {
        let addresses = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(&self.address)).await??;
        let mut last = HandshakeError::from(io::Error::from(io::ErrorKind::NotFound));
        for address in addresses.take(ADDRESSES_MAX) {
            match self.connect_to(address).await {
                Ok(established) if established.node == self.us.node => last = HandshakeError::Ourselves,
                Ok(established) => return Ok(established),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<Established, HandshakeError> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
        timeout(HANDSHAKE_TIMEOUT, handshake::connect(stream, &self.us)).await?
    }

    fn give_up(&mut self, first: Outgoing, error: &HandshakeError) {
        // One line a cause, however often it is tried.
        let error = error.to_string();
        let known = self.failed.replace(Failed { at: Instant::now(), error: error.clone() });
        if known.is_none_or(|known| known.error != error) {
            tracing::info!(peer = self.address, error, "cannot reach a peer; trying on");
        }
        not_sent(first);
        while let Ok(item) = self.queued.try_recv() {
            not_sent(item);
        }
    }

    async fn drive(&mut self, established: Established, first: Outgoing) {
        let node = established.node;
        tracing::debug!(peer = self.address, %node, "connected");
        self.failed = None;
        let mut open = Open { node, next: 0, pending: HashMap::new() };
        let ended = tokio::select! {
            ended = connection::run(established, &mut self.queued, Some(first), &mut open) => ended,
            () = self.reset.notified() => Err(io::Error::other("the peer is called down")),
        };
        // Whatever is still open here may have arrived: dropping an answer's sender says "lost".
        if let Err(error) = ended {
            tracing::debug!(peer = self.address, %node, %error, "connection lost");
        }
    }
}

fn not_sent(item: Outgoing) {
    if let Outgoing::Call { answer, .. } = item {
        let _ = answer.send(Err(CallError::NotSent));
    }
}

/// The requests that are open on one connection.
struct Open {
    node: NodeId,
    next: u64,
    pending: HashMap<u64, Answer>,
}

impl Owner for Open {
    type Outgoing = Outgoing;

    fn outgoing(&mut self, item: Outgoing) -> Option<Frame> {
        match item {
            Outgoing::Tell(frame) => Some(frame),
            // The address belongs to another disk now: the one that is meant cannot be reached.
            Outgoing::Call { to, .. } if to != self.node => {
                not_sent(item);
                None
            }
            Outgoing::Call { ref answer, .. } if answer.is_closed() => None,
            Outgoing::Call { request, answer, .. } => {
                if self.pending.len() >= PENDING_REQUESTS_MAX {
                    self.pending.retain(|_, answer| !answer.is_closed());
                }
                if self.pending.len() >= PENDING_REQUESTS_MAX {
                    let _ = answer.send(Err(CallError::NotSent));
                    return None;
                }
                self.next += 1;
                self.pending.insert(self.next, answer);
                Some(Frame::Request { id: self.next, request })
            }
        }
    }

    fn incoming(&mut self, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::Response { id, response } => {
                if let Some(answer) = self.pending.remove(&id) {
                    let _ = answer.send(Ok(response)); // The caller may have given up.
                }
                Ok(())
            }
            Frame::Request { .. } | Frame::Gossip { .. } => {
                Err(io::Error::other("a peer sent a request over a connection that it accepted"))
            }
        }
    }

    fn open(&self) -> bool {
        true
    }
}
