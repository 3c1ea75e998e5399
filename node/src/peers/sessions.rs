//! Which start of a node is listened to: the latest that a connection was opened in.
//!
//! Invariant: what an earlier start said is never taken, however late it comes. A node that restarts opens new
//! connections, and the old ones are cut at the first of them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use quorate_core::NodeId;
use quorate_replica::Sender;
use tokio::sync::Notify;

/// A connection that was opened.
pub(crate) struct Opened {
    /// Who is at the other end.
    pub(crate) peer: Sender,
    /// Whether this node connected.
    pub(crate) outgoing: bool,
    /// Breaks it. Alive as long as the connection is.
    pub(crate) cut: Weak<Notify>,
}

impl Opened {
    fn cut(&self) {
        if let Some(cut) = self.cut.upgrade() {
            cut.notify_one();
        }
    }
}

/// A cut for a connection that is opened: its task waits for it.
pub(super) fn cut() -> Arc<Notify> {
    Arc::default()
}

#[derive(Default)]
struct Session {
    start: u64,
    open: Vec<Opened>,
}

/// The latest starts of all nodes that ever connected, which know the cluster's secret.
#[derive(Default)]
pub(crate) struct Sessions(HashMap<NodeId, Session>);

impl Sessions {
    pub(crate) fn opened(&mut self, opened: Opened) {
        let session = self.0.entry(opened.peer.node).or_default();
        if opened.peer.start < session.start {
            return opened.cut();
        }
        if opened.peer.start > session.start {
            session.start = opened.peer.start;
            session.open.drain(..).for_each(|earlier| earlier.cut());
        }
        session.open.retain(|open| open.cut.strong_count() > 0);
        session.open.push(opened);
    }

    /// Whether what a node says in this start is taken.
    pub(crate) fn admits(&self, from: Sender) -> bool {
        self.0.get(&from.node).is_none_or(|session| session.start <= from.start)
    }

    /// Breaks the connections to a node, so that what is asked over them is known to be lost.
    pub(crate) fn cut_outgoing(&mut self, node: NodeId) {
        if let Some(session) = self.0.get_mut(&node) {
            session.open.extract_if(.., |open| open.outgoing).for_each(|open| open.cut());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    const NODE: NodeId = NodeId::from_u128(1);

    fn open(sessions: &mut Sessions, start: u64, outgoing: bool) -> Arc<Notify> {
        let kept = cut();
        let peer = Sender { node: NODE, start };
        sessions.opened(Opened { peer, outgoing, cut: Arc::downgrade(&kept) });
        kept
    }

    async fn is_cut(cut: &Notify) -> bool {
        futures::poll!(Box::pin(cut.notified())) == Poll::Ready(())
    }

    #[tokio::test]
    async fn a_later_start_cuts_what_earlier_ones_opened_and_they_are_not_heard_again() {
        let mut sessions = Sessions::default();
        let (first, second) = (open(&mut sessions, 5, true), open(&mut sessions, 5, false));
        let later = open(&mut sessions, 9, false);
        assert!(is_cut(&first).await && is_cut(&second).await && !is_cut(&later).await);
        assert!(!sessions.admits(Sender { node: NODE, start: 5 }));
        assert!(sessions.admits(Sender { node: NODE, start: 9 }));
        assert!(is_cut(&open(&mut sessions, 5, true)).await, "an earlier start that comes late");
        assert!(!is_cut(&later).await);
    }

    #[tokio::test]
    async fn only_what_this_node_opened_is_cut_when_the_other_is_down() {
        let mut sessions = Sessions::default();
        let (to, from) = (open(&mut sessions, 5, true), open(&mut sessions, 5, false));
        sessions.cut_outgoing(NODE);
        assert!(is_cut(&to).await && !is_cut(&from).await);
    }

    #[test]
    fn ended_connections_are_forgotten() {
        let mut sessions = Sessions::default();
        for _ in 0..100 {
            drop(open(&mut sessions, 5, false));
        }
        assert_eq!(sessions.0[&NODE].open.len(), 1);
    }
}
