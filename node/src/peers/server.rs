//! Incoming connections: requests of peers, answered in whatever order they are done.

use std::io;
use std::sync::Arc;

use quorate_core::NodeId;
use quorate_core::membership;
use quorate_wire::peer::{Frame, Request, Response};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::{self, Owner};
use super::handshake::{self, Credentials, HANDSHAKE_TIMEOUT, HandshakeError};

/// Requests of one peer that may be in progress; reading stops at more.
const IN_PROGRESS_REQUESTS_MAX: usize = 2048;
/// Bytes of values in requests of one peer that may be in progress; reading stops at more.
const IN_PROGRESS_BYTES_MAX: usize = 64 << 20;

/// What this node does with what peers say.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers a request of `from`, now or later.
    fn request(self: &Arc<Self>, from: NodeId, request: Request, reply: Reply);

    /// Takes note of gossip; `epoch` is the sender's.
    fn gossip(&self, from: NodeId, epoch: u64, message: membership::Message);
}

/// The place for one answer. Dropping it answers nothing; the asker's time runs out.
pub(crate) struct Reply {
    id: u64,
    bytes: usize,
    /// `None` is sent on drop, so that a request always stops counting as in progress.
    queue: Option<mpsc::Sender<Done>>,
}

struct Done {
    bytes: usize,
    frame: Option<Frame>,
}

impl Reply {
    /// Sends the answer. Never blocks, so that any thread may do it: the queue has room for every request
    /// that is in progress.
    pub(crate) fn send(mut self, response: Response) {
        let frame = Some(Frame::Response { id: self.id, response });
        if let Some(queue) = self.queue.take() {
            let _ = queue.try_send(Done { bytes: self.bytes, frame }); // The connection may be gone.
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            let _ = queue.try_send(Done { bytes: self.bytes, frame: None });
        }
    }
}

/// Serves one connection on which [`quorate_wire::handshake::MAGIC`] was seen, until it ends.
pub(crate) async fn serve<H: Handler>(
    stream: TcpStream,
    us: &Credentials,
    handler: Arc<H>,
) -> Result<(), HandshakeError> {
    let established = timeout(HANDSHAKE_TIMEOUT, handshake::accept(stream, us)).await??;
    let (queue, mut queued) = mpsc::channel(IN_PROGRESS_REQUESTS_MAX);
    let mut serving = Serving { from: established.node, handler, queue, requests: 0, bytes: 0 };
    connection::run(established, &mut queued, None, &mut serving).await.map_err(Into::into)
}

struct Serving<H> {
    from: NodeId,
    handler: Arc<H>,
    queue: mpsc::Sender<Done>,
    requests: usize,
    bytes: usize,
}

impl<H: Handler> Owner for Serving<H> {
    type Outgoing = Done;

    fn outgoing(&mut self, done: Done) -> Option<Frame> {
        self.requests -= 1;
        self.bytes -= done.bytes;
        done.frame
    }

    fn incoming(&mut self, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::Request { id, request } => {
                let bytes = request_bytes(&request);
                self.requests += 1;
                self.bytes += bytes;
                self.handler.request(
                    self.from,
                    request,
                    Reply { id, bytes, queue: Some(self.queue.clone()) },
                );
                Ok(())
            }
            Frame::Gossip { epoch, message } => {
                self.handler.gossip(self.from, epoch, message);
                Ok(())
            }
            Frame::Response { .. } => Err(io::Error::other("a peer answered what was never asked")),
        }
    }

    fn open(&self) -> bool {
        self.requests < IN_PROGRESS_REQUESTS_MAX && self.bytes < IN_PROGRESS_BYTES_MAX
    }
}

fn request_bytes(request: &Request) -> usize {
    match request {
        Request::Replicate { key, set, .. } => {
            key.len() + set.values().map(|(_, value)| value.len()).sum::<usize>()
        }
        Request::Write { key, write, .. } => key.len() + write.value.as_ref().map_or(0, |value| value.len()),
        Request::Read { key, .. } => key.len(),
        Request::FetchEpoch => 0,
    }
}
