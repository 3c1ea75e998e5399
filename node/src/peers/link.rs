//! Outgoing connections: requests to peers and their answers, gossip.
//!
//! A link belongs to an address. It connects when something is to be sent, and tells apart what was certainly
//! not sent from what may have arrived: that is the difference between *not written* and *indeterminate*.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quorate_core::NodeId;
use quorate_core::membership::Peer;
use quorate_replica::Sender;
use quorate_wire::frame::FrameError;
use quorate_wire::peer::{Frame, Request};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::connection::{self, Owner};
use super::handshake::{self, Credentials, Established, HANDSHAKE_TIMEOUT, HandshakeError};
use super::sessions::{self, Opened};
use crate::inbox::{Inbox, Input};
use crate::listen::give_up_on_silence;

/// Messages that may wait for one peer; more are refused.
const QUEUE_FRAMES_MAX: usize = 4096;
/// Bytes of messages that may wait for one peer; more are refused.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// For how long after a failed attempt messages fail at once.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// A link that nothing was sent over for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// The request whose answer says that all before it was heard. The replica's own count from 1.
const FAREWELL: u64 = u64::MAX;

struct Outgoing {
    to: Option<NodeId>,
    frame: Frame,
    /// What it takes in the queue.
    bytes: usize,
    /// Of the farewell: who waits for its answer.
    heard: Option<oneshot::Sender<()>>,
}

/// A message was certainly not sent.
#[derive(Debug)]
pub(crate) struct NotSent;

struct Link {
    queue: mpsc::Sender<Outgoing>,
    /// Bytes that wait in the queue.
    held: Arc<AtomicUsize>,
}

/// The outgoing connections of this node, by address.
pub(crate) struct Links {
    us: Credentials,
    inbox: Arc<Inbox>,
    links: HashMap<String, Link>,
}

impl Links {
    /// Links of this node, which tell `inbox` what they hear.
    pub(crate) fn new(us: Credentials, inbox: Arc<Inbox>) -> Self {
        Self { us, inbox, links: HashMap::new() }
    }

    /// Sends a message, without waiting. Requests that are taken end in an answer, [`Input::Unsent`] or
    /// [`Input::Disconnected`].
    pub(crate) fn send(&mut self, to: &Peer, frame: Frame) -> Result<(), NotSent> {
        if let Some(link) = self.links.get(&to.address).filter(|link| !link.queue.is_closed()) {
            return link.send(to.id, frame);
        }
        // Addresses come and go; what is kept is bounded by those that are talked to.
        self.links.retain(|_, link| !link.queue.is_closed());
        let link = self.start(to.address.clone());
        let sent = link.send(to.id, frame);
        self.links.insert(to.address.clone(), link);
        sent
    }

    /// Waits, for each connection that is open, until the other end has heard all that was sent before.
    pub(crate) fn farewell(&self) -> Vec<oneshot::Receiver<()>> {
        self.links.values().filter_map(Link::farewell).collect()
    }

    fn start(&self, address: String) -> Link {
        let (queue, queued) = mpsc::channel(QUEUE_FRAMES_MAX);
        let held = Arc::new(AtomicUsize::new(0));
        let (us, inbox) = (self.us.clone(), self.inbox.clone());
        let waiting = Waiting { inbox, held: held.clone() };
        tokio::spawn(Driver { us, address, queued, waiting, failed: None }.run());
        Link { queue, held }
    }
}

impl Link {
    fn send(&self, to: Option<NodeId>, frame: Frame) -> Result<(), NotSent> {
        let bytes = match &frame {
            Frame::Request { request, .. } => request.bytes(),
            Frame::Response { response, .. } => response.bytes(),
            Frame::Gossip { .. } => 0,
        };
        let permit = self.queue.try_reserve().map_err(|_| NotSent)?;
        // Nobody else adds to it.
        if bytes > 0 && self.held.load(Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX {
            return Err(NotSent);
        }
        self.held.fetch_add(bytes, Ordering::Relaxed);
        permit.send(Outgoing { to, frame, bytes, heard: None });
        Ok(())
    }

    fn farewell(&self) -> Option<oneshot::Receiver<()>> {
        let (said, heard) = oneshot::channel();
        let frame = Frame::Request { id: FAREWELL, request: Request::FetchRing };
        let item = Outgoing { to: None, frame, bytes: 0, heard: Some(said) };
        self.queue.try_send(item).ok().map(|()| heard)
    }
}

/// What waits in a link's queue, as its task sees it.
struct Waiting {
    inbox: Arc<Inbox>,
    held: Arc<AtomicUsize>,
}

impl Waiting {
    fn taken(&self, item: &Outgoing) {
        self.held.fetch_sub(item.bytes, Ordering::Relaxed);
    }

    fn not_sent(&self, item: &Outgoing) {
        self.taken(item);
        if let Outgoing { frame: Frame::Request { id, .. }, heard: None, .. } = item {
            self.inbox.push(Input::Unsent { request: *id });
        }
    }
}

/// The task behind one link.
struct Driver {
    us: Credentials,
    address: String,
    queued: mpsc::Receiver<Outgoing>,
    waiting: Waiting,
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
                self.waiting.not_sent(&first);
                continue;
            }
            match self.connect().await {
                Ok(established) => self.drive(established, first).await,
                Err(error) => self.give_up(first, &error),
            }
        }
        self.queued.close();
        self.empty();
    }

    fn empty(&mut self) {
        while let Ok(item) = self.queued.try_recv() {
            self.waiting.not_sent(&item);
        }
    }

    /// Connects to the first that opens. A seed's name may stand for many nodes, this one included: talking to
    /// ourselves leads nowhere.
    async fn connect(&self) -> Result<Established, HandshakeError> {
        let lookup = tokio::net::lookup_host(&self.address);
        let addresses =
            timeout(CONNECT_TIMEOUT, lookup).await.map_err(|_| unanswered("nobody resolved its name"))??;
        let mut last = HandshakeError::from(io::Error::from(io::ErrorKind::NotFound));
        for address in addresses.take(ADDRESSES_MAX) {
            match self.connect_to(address).await {
                Ok(established) if established.peer.node == self.us.us.node => {
                    last = HandshakeError::Ourselves;
                }
                Ok(established) => return Ok(established),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<Established, HandshakeError> {
        let stream = TcpStream::connect(address);
        let stream =
            timeout(CONNECT_TIMEOUT, stream).await.map_err(|_| unanswered("it did not answer"))??;
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
        self.waiting.not_sent(&first);
        self.empty();
    }

    async fn drive(&mut self, established: Established, first: Outgoing) {
        let peer = established.peer;
        tracing::debug!(peer = self.address, node = %peer.node, start = peer.start, "connected");
        self.failed = None;
        let cut = sessions::cut();
        let opened = Opened { peer, outgoing: true, cut: Arc::downgrade(&cut) };
        self.waiting.inbox.push(Input::Opened(opened));
        let mut open =
            Open { peer, waiting: &self.waiting, unanswered: 0, farewell: None, heard: Vec::new() };
        let ended = tokio::select! {
            ended = connection::run(established, &mut self.queued, Some(first), &mut open) => ended,
            () = cut.notified() => Err(io::Error::other("the peer is down, or in a later start")),
        };
        // Whatever is still open here may have arrived.
        if open.unanswered > 0 {
            self.waiting.inbox.push(Input::Disconnected { peer: peer.node });
        }
        if let Err(error) = ended {
            tracing::debug!(peer = self.address, node = %peer.node, %error, "connection lost");
        }
    }
}

/// A connection that was not made in time: the handshake has not begun.
fn unanswered(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {} s", CONNECT_TIMEOUT.as_secs()))
}

/// The requests that are open on one connection.
struct Open<'a> {
    peer: Sender,
    waiting: &'a Waiting,
    unanswered: usize,
    farewell: Option<oneshot::Sender<()>>,
    heard: Vec<Input>,
}

impl Owner for Open<'_> {
    type Outgoing = Outgoing;

    fn outgoing(&mut self, item: Outgoing) -> Option<Frame> {
        // The address belongs to another disk now: the one that is meant cannot be reached.
        if item.to.is_some_and(|to| to != self.peer.node) {
            self.waiting.not_sent(&item);
            return None;
        }
        // From here on the connection's buffer bounds it, and the other end, which stops reading.
        self.waiting.taken(&item);
        self.unanswered += usize::from(matches!(item.frame, Frame::Request { .. }));
        self.farewell = item.heard.or(self.farewell.take());
        Some(item.frame)
    }

    fn too_long(&mut self, frame: Frame, error: FrameError) -> Option<Frame> {
        tracing::warn!(node = %self.peer.node, %error, "a message was not sent");
        if let Frame::Request { id, .. } = frame {
            self.unanswered -= 1;
            self.waiting.inbox.push(Input::Unsent { request: id });
        }
        None
    }

    fn incoming(&mut self, frame: Frame) -> io::Result<()> {
        let Frame::Response { id, .. } = frame else {
            return Err(io::Error::other("a peer sent a request over a connection that it accepted"));
        };
        let Some(unanswered) = self.unanswered.checked_sub(1) else {
            return Err(io::Error::other("a peer answered what was never asked"));
        };
        self.unanswered = unanswered;
        match self.farewell.take_if(|_| id == FAREWELL) {
            Some(said) => drop(said.send(())),
            None => self.heard.push(Input::Said { from: self.peer, frame }),
        }
        Ok(())
    }

    fn flush(&mut self) {
        if !self.heard.is_empty() {
            self.waiting.inbox.push_all(self.heard.drain(..));
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
    use quorate_core::quorum::Consistency;
    use quorate_wire::handshake::Secret;
    use quorate_wire::peer::ClientWrite;

    use super::*;

    fn links() -> (Links, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::default());
        let us = Credentials {
            cluster: ClusterId::from_u128(1),
            us: Sender { node: NodeId::from_u128(1), start: 1 },
            secret: Secret::new(b"secret"),
        };
        (Links::new(us, inbox.clone()), inbox)
    }

    fn write(id: u64, value_bytes: usize) -> Frame {
        let write = ClientWrite {
            context: Context::default(),
            value: Some(vec![0; value_bytes].into()),
            expires: None,
            policy: Policy::Siblings,
            consistency: Consistency::Configured,
        };
        Frame::Request { id, request: Request::Write { epoch: 1, key: vec![0].into(), write, timeout_ms: 1 } }
    }

    fn peer(address: String) -> Peer {
        Peer { id: Some(NodeId::from_u128(2)), address }
    }

    #[tokio::test]
    async fn what_waits_for_a_silent_peer_is_bounded_in_bytes() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = peer(silent.local_addr().unwrap().to_string());
        let (mut links, _inbox) = links();
        let mut taken = 0;
        while links.send(&to, write(taken, 1 << 20)).is_ok() {
            taken += 1;
            assert!(taken <= QUEUE_BYTES_MAX as u64 >> 20, "more waits than there is room for");
        }
        assert!(taken > 0);
        assert!(links.send(&to, write(taken, 1 << 20)).is_err());
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_told_by_its_number() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = peer(closed.local_addr().unwrap().to_string());
        drop(closed);
        let (mut links, inbox) = links();
        assert!(links.send(&to, write(7, 1)).is_ok(), "it is taken, and tried");
        inbox.filled().await;
        let mut told = Vec::new();
        inbox.take(&mut told);
        assert!(matches!(told[..], [Input::Unsent { request: 7 }]));
    }
}
