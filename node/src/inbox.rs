//! What waits for the engine: everything that happens to a node, in the order in which it came.
//!
//! Invariant: pushing never waits, so that any thread may do it, the storage's committer included; and it wakes the
//! engine once for all that it then finds. No bound of its own is needed, since whoever pushes has one (INV-BOUND):
//! clients' requests by the API, peers' requests by their connections, answers by the requests that they answer,
//! completions by the storage's queue. Gossip alone needs no answer, and is dropped when too much of it waits.

use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_core::NodeId;
use quorate_core::ring::{Epoch, EpochMark};
use quorate_replica::{AdoptError, Answer, ClientRequest, Completion, Replica, Sender};
use quorate_wire::peer::{Frame, Request};
use tokio::sync::{Notify, oneshot};

use crate::peers::{Opened, Reply};
use crate::readers::Library;

/// Gossip messages that may wait to be taken in; more are dropped.
const GOSSIP_MAX: usize = 1024;

/// A question to the replica.
pub(crate) type Question = Box<dyn FnOnce(&Replica<Library>) + Send>;

/// Something that happened.
pub(crate) enum Input {
    /// A client asks.
    Client { request: ClientRequest, answer: oneshot::Sender<Answer> },
    /// A peer asks.
    Asked { from: Sender, request: Request, reply: Reply },
    /// A peer answers or gossips.
    Said { from: Sender, frame: Frame },
    /// A connection to or from a peer was opened.
    Opened(Opened),
    /// A request was certainly not sent.
    Unsent { request: u64 },
    /// A connection broke over which requests were sent that have no answer.
    Disconnected { peer: NodeId },
    /// The storage or the disk has done something.
    Completed(Completion),
    /// Somebody pushes an epoch.
    Adopt { epoch: Box<Epoch>, adopted: oneshot::Sender<Result<EpochMark, AdoptError>> },
    /// Somebody wants to know something.
    Question(Question),
    /// Tell the peers that this node goes; the answer comes when those that can be reached have heard.
    Leave { heard: oneshot::Sender<()> },
    /// End.
    Stop,
}

#[derive(Default)]
struct Waiting {
    inputs: Vec<Input>,
    gossip: usize,
    closed: bool,
}

/// The engine's inbox.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts something in. What comes after the end is dropped, and whoever waits for an answer learns that.
    pub(crate) fn push(&self, input: Input) {
        self.push_all(std::iter::once(input));
    }

    /// Puts several in, together.
    pub(crate) fn push_all(&self, inputs: impl IntoIterator<Item = Input>) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        let was_empty = waiting.inputs.is_empty();
        for input in inputs {
            let gossip = matches!(input, Input::Said { frame: Frame::Gossip { .. }, .. });
            if gossip && waiting.gossip >= GOSSIP_MAX {
                continue;
            }
            waiting.gossip += usize::from(gossip);
            waiting.inputs.push(input);
        }
        let wake = was_empty && !waiting.inputs.is_empty();
        drop(waiting);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Exchanges what waits for an empty list.
    pub(crate) fn take(&self, empty: &mut Vec<Input>) {
        debug_assert!(empty.is_empty());
        let mut waiting = self.lock();
        std::mem::swap(&mut waiting.inputs, empty);
        waiting.gossip = 0;
    }

    /// Resolves when something was put in since the last time; maybe once too often.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes nothing any more.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let dropped = std::mem::take(&mut waiting.inputs);
        drop(waiting);
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_core::membership::{self, Membership, NodeInfo};

    use super::*;

    fn gossip() -> Input {
        let id = NodeId::from_u128(1);
        let info = NodeInfo { id, name: "a".into(), address: "a:1".into(), zone: None };
        let config = membership::Config::new(Duration::from_secs(5));
        let mut membership = Membership::new(info, 1, config, Duration::ZERO).unwrap();
        membership.join(["b:1".to_owned()], Duration::ZERO);
        let message =
            membership.tick(Duration::ZERO, &mut || 0).into_iter().find_map(|action| match action {
                membership::Action::Send { message, .. } => Some(message),
                membership::Action::Changed(_) => None,
            });
        let frame = Frame::Gossip { epoch: 0, position: 0, message: message.expect("it asks its seed") };
        Input::Said { from: Sender { node: id, start: 1 }, frame }
    }

    #[tokio::test]
    async fn the_first_of_many_wakes_and_all_are_taken() {
        let inbox = Inbox::default();
        inbox.push_all([Input::Stop, Input::Unsent { request: 1 }]);
        inbox.push(Input::Stop);
        inbox.filled().await;
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        assert_eq!(taken.len(), 3);
        assert!(futures::poll!(Box::pin(inbox.filled())).is_pending(), "one wake for all");
        inbox.push(Input::Stop);
        inbox.filled().await;
    }

    #[test]
    fn gossip_that_nobody_takes_is_bounded() {
        let inbox = Inbox::default();
        for _ in 0..GOSSIP_MAX + 10 {
            inbox.push(gossip());
        }
        inbox.push(Input::Stop);
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        assert_eq!(taken.len(), GOSSIP_MAX + 1, "all but the gossip that was too much");
        inbox.push(gossip());
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        assert_eq!(taken.len(), 1);
    }

    #[tokio::test]
    async fn who_asks_after_the_end_learns_that() {
        let inbox = Inbox::default();
        let (heard, before) = oneshot::channel();
        inbox.push(Input::Leave { heard });
        inbox.close();
        let (heard, after) = oneshot::channel();
        inbox.push(Input::Leave { heard });
        assert!(before.await.is_err() && after.await.is_err());
    }
}
