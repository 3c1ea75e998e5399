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
use quorate_wire::frame::FrameError;
use quorate_wire::peer::{Frame, Request, Response};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use super::connection::{self, Owner};
use super::handshake::{self, Credentials, Established, HANDSHAKE_TIMEOUT, HandshakeError};
use crate::listen::give_up_on_silence;
use crate::room::{Room, Taken};

/// Messages that may wait for one peer; more are refused.
const QUEUE_FRAMES_MAX: usize = 4096;
/// Bytes of messages that may wait for one peer; more are refused.
const QUEUE_BYTES_MAX: usize = 64 << 20;
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
    Call { to: NodeId, request: Request, answer: Answer, _room: Taken },
    Tell(Frame),
}

struct Link {
    /// What waits in the queue.
    room: Room,
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
        let bytes = request.bytes();
        self.send(address, bytes, |room| Outgoing::Call { to, request, answer, _room: room })?;
        answered.await.unwrap_or(Err(CallError::Lost))
    }

    /// Sends a message that may be lost to whoever is at `address`.
    pub(crate) fn tell(&self, address: &str, message: Frame) {
        // Lost messages are the gossip protocol's business: it counts on some.
        let _ = self.send(address, 0, |_| Outgoing::Tell(message));
    }

    /// Breaks the connection to `address`, so that calls that wait for it learn at once that they are lost.
    pub(crate) fn reset(&self, address: &str) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(address) {
            link.reset.notify_waiters();
        }
    }

    fn send(
        &self,
        address: &str,
        bytes: usize,
        item: impl FnOnce(Taken) -> Outgoing,
    ) -> Result<(), CallError> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if !links.contains_key(address) {
            // Addresses come and go; what is kept is bounded by those that are talked to.
            links.retain(|_, link| !link.queue.is_closed());
        }
        let link = links.entry(address.to_owned()).or_insert_with(|| self.start(address.to_owned()));
        let room = link.room.take(bytes).ok_or(CallError::NotSent)?;
        match link.queue.try_send(item(room)) {
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
        Link { room: Room::new(QUEUE_BYTES_MAX), queue, reset }
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
        give_up_on_silence(&stream);
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
                // From here on the connection's buffer bounds it.
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

    fn too_long(&mut self, frame: Frame, error: FrameError) -> Option<Frame> {
        tracing::warn!(node = %self.node, %error, "a request was not sent");
        if let Frame::Request { id, .. } = frame
            && let Some(answer) = self.pending.remove(&id)
        {
            let _ = answer.send(Err(CallError::NotSent));
        }
        None
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

#[cfg(test)]
mod tests {
    use quorate_core::ClusterId;
    use quorate_core::causality::{Context, Policy};
    use quorate_wire::handshake::Secret;
    use quorate_wire::peer::ClientWrite;

    use super::*;

    /// Polls a call until it waits for its answer.
    async fn begin(peers: &Peers, address: &str, value_bytes: usize) -> Option<CallError> {
        let value = Some(vec![0; value_bytes].into());
        let write = ClientWrite { context: Context::default(), value, policy: Policy::Siblings };
        let request = Request::Write { epoch: 1, key: vec![0].into(), write, timeout_ms: 1 };
        let mut call = Box::pin(peers.call(NodeId::from_u128(2), address, request));
        let polled = futures::poll!(call.as_mut());
        std::mem::forget(call); // Still waiting, as a caller that has time would be.
        match polled {
            std::task::Poll::Ready(answer) => answer.err(),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn what_waits_for_a_silent_peer_is_bounded_in_bytes() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let us = Credentials {
            cluster: ClusterId::from_u128(1),
            node: NodeId::from_u128(1),
            secret: Secret::new(b"secret"),
        };
        let peers = Peers::new(us);
        let mut taken = 0;
        while begin(&peers, &address, 1 << 20).await.is_none() {
            taken += 1;
            assert!(taken <= QUEUE_BYTES_MAX >> 20, "more waits than there is room for");
        }
        assert!(taken > 0);
        assert_eq!(begin(&peers, &address, 1 << 20).await, Some(CallError::NotSent));
    }
}
