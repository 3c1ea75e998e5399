//! Incoming connections: requests of peers, answered in whatever order they are done.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_replica::Sender;
use quorate_wire::frame::FrameError;
use quorate_wire::peer::{Frame, Refusal, Response};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::{self, Owner};
use super::handshake::{self, Credentials, HANDSHAKE_TIMEOUT, HandshakeError};
use super::sessions::{self, Opened};
use crate::inbox::{Inbox, Input};

/// Requests of one peer that may be in progress; reading stops at more.
const IN_PROGRESS_REQUESTS_MAX: usize = 2048;
/// Bytes of one peer's requests in progress, and of answers that it has not read; reading stops at more.
const IN_PROGRESS_BYTES_MAX: usize = 64 << 20;

/// The place for one answer. Dropping it answers nothing; the asker's time runs out.
pub(crate) struct Reply {
    id: u64,
    /// What the request takes.
    bytes: usize,
    /// What all of the connection's requests and answers take.
    held: Arc<AtomicUsize>,
    /// `None` is sent on drop, so that a request always stops counting as in progress.
    queue: Option<mpsc::Sender<Done>>,
}

struct Done {
    bytes: usize,
    frame: Option<Frame>,
}

impl Reply {
    /// The request's.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Sends the answer. Never blocks, so that any thread may do it: the queue has room for every request
    /// that is in progress.
    pub(crate) fn send(mut self, response: Response) {
        let answer = response.bytes();
        self.held.fetch_add(answer, Ordering::Relaxed);
        let frame = Some(Frame::Response { id: self.id, response });
        if let Some(queue) = self.queue.take() {
            let _ = queue.try_send(Done { bytes: self.bytes + answer, frame }); // The connection may be gone.
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
pub(crate) async fn serve(
    stream: TcpStream,
    us: &Credentials,
    inbox: Arc<Inbox>,
) -> Result<(), HandshakeError> {
    let established = timeout(HANDSHAKE_TIMEOUT, handshake::accept(stream, us)).await??;
    let (from, cut) = (established.peer, sessions::cut());
    inbox.push(Input::Opened(Opened { peer: from, outgoing: false, cut: Arc::downgrade(&cut) }));
    let (queue, mut queued) = mpsc::channel(IN_PROGRESS_REQUESTS_MAX);
    let mut serving = Serving { from, inbox, queue, requests: 0, held: Arc::default(), heard: Vec::new() };
    tokio::select! {
        ended = connection::run(established, &mut queued, None, &mut serving) => ended.map_err(Into::into),
        () = cut.notified() => Ok(()),
    }
}

struct Serving {
    from: Sender,
    inbox: Arc<Inbox>,
    queue: mpsc::Sender<Done>,
    requests: usize,
    /// Bytes of requests in progress, and of answers that wait to be sent.
    held: Arc<AtomicUsize>,
    heard: Vec<Input>,
}

impl Owner for Serving {
    type Outgoing = Done;

    fn outgoing(&mut self, done: Done) -> Option<Frame> {
        self.requests -= 1;
        self.held.fetch_sub(done.bytes, Ordering::Relaxed);
        done.frame
    }

    /// The asker would close the connection, and lose every other answer with it.
    fn too_long(&mut self, frame: Frame, error: FrameError) -> Option<Frame> {
        let Frame::Response { id, .. } = frame else { return None };
        let reason = format!("the answer cannot be sent: {error}");
        Some(Frame::Response { id, response: Response::Refused(Refusal::StorageFailed { reason }) })
    }

    fn incoming(&mut self, frame: Frame) -> io::Result<()> {
        let from = self.from;
        match frame {
            Frame::Request { id, request } => {
                let bytes = request.bytes();
                self.requests += 1;
                self.held.fetch_add(bytes, Ordering::Relaxed);
                let reply = Reply { id, bytes, held: self.held.clone(), queue: Some(self.queue.clone()) };
                self.heard.push(Input::Asked { from, request, reply });
                Ok(())
            }
            Frame::Gossip { .. } => {
                self.heard.push(Input::Said { from, frame });
                Ok(())
            }
            Frame::Response { .. } => Err(io::Error::other("a peer answered what was never asked")),
        }
    }

    fn flush(&mut self) {
        if !self.heard.is_empty() {
            self.inbox.push_all(self.heard.drain(..));
        }
    }

    fn open(&self) -> bool {
        self.requests < IN_PROGRESS_REQUESTS_MAX && self.held.load(Ordering::Relaxed) < IN_PROGRESS_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::NodeId;
    use quorate_core::causality::{Actor, Context, Dot, Event, Policy, Stamp, VersionSet};
    use quorate_wire::peer::Request;

    use super::*;

    #[test]
    fn answers_that_a_peer_does_not_read_are_bounded_in_bytes() {
        let (node, value) = (NodeId::from_u128(1), Some(vec![0; 1 << 20].into()));
        let mut set = VersionSet::default();
        let event = Event {
            context: Context::default(),
            stamp: Stamp::at_ms(1),
            value,
            policy: Policy::Siblings,
            expires: None,
        };
        set.write(event, Dot { actor: Actor { node, start: 1 }, counter: 1 }).unwrap();
        let (queue, mut queued) = mpsc::channel(IN_PROGRESS_REQUESTS_MAX);
        let (inbox, from) = (Arc::new(Inbox::default()), Sender { node, start: 1 });
        let mut serving =
            Serving { from, inbox: inbox.clone(), queue, requests: 0, held: Arc::default(), heard: vec![] };
        let (mut taken, mut inputs) = (0, Vec::new());
        while serving.open() {
            let request = Request::Read { epoch: 1, key: vec![0].into(), whole: true };
            serving.incoming(Frame::Request { id: taken, request }).unwrap();
            serving.flush();
            taken += 1;
            inbox.take(&mut inputs);
            for input in inputs.drain(..) {
                let Input::Asked { reply, .. } = input else { panic!("only requests were made") };
                reply.send(Response::Stored(set.clone()));
            }
        }
        assert_eq!(taken, IN_PROGRESS_BYTES_MAX as u64 >> 20);
        while let Ok(done) = queued.try_recv() {
            assert!(serving.outgoing(done).is_some());
        }
        assert_eq!(serving.held.load(Ordering::Relaxed), 0);
        assert!(serving.open());
    }
}
