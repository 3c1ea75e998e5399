//! What is said about a node, and which of two sayings stands.
//!
//! Claims about one node are totally ordered, and the greater one stands: so nodes that have heard the same
//! claims, in whatever order and however often, agree (the merge is commutative, associative, idempotent).

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::limits::NAME_BYTES_MAX;

/// Who a node is and where it is reached.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The identity. Names and addresses pass from disk to disk; this never does.
    pub id: NodeId,
    /// For people: the pod's name on Kubernetes.
    pub name: String,
    /// `host:port` of the peer listener.
    pub address: String,
    /// The failure domain, when known.
    pub zone: Option<String>,
}

impl NodeInfo {
    /// Whether every text is 1 to [`NAME_BYTES_MAX`] bytes long.
    pub(super) fn is_bounded(&self) -> bool {
        [&self.name, &self.address].into_iter().chain(&self.zone).all(|text| is_bounded(text))
    }
}

/// Whether a text is 1 to [`NAME_BYTES_MAX`] bytes long.
pub(super) fn is_bounded(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
}

/// Which life of a node a claim is about. Only the node itself makes greater ones: by starting anew, and by
/// refuting what it hears about itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Incarnation {
    /// Grows with every start of the process on its disk.
    pub start: u64,
    /// Grows with every claim that the process refutes.
    pub refutation: u64,
}

impl Incarnation {
    /// The smallest that is greater.
    pub(super) fn next(self) -> Self {
        match self.refutation.checked_add(1) {
            Some(refutation) => Self { refutation, ..self },
            None => Self { start: self.start.saturating_add(1), refutation: 0 },
        }
    }
}

/// How a node is doing. The order is that of a quarrel about one incarnation: the later word stands, and only
/// the node itself overrules it, by the next incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It answers.
    Up,
    /// It did not answer somebody; it has a while to refute.
    Suspect,
    /// It did not refute in time.
    Down,
    /// It said that it goes.
    Left,
}

impl State {
    /// Whether it takes part: probed, gossiped with.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Up | Self::Suspect)
    }
}

/// One saying about one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// Shared, since claims are copied into message after message.
    pub node: Arc<NodeInfo>,
    /// The life that it is about.
    pub incarnation: Incarnation,
    /// How the node is.
    pub state: State,
    /// Who says so: independent suspicions count for more than repeated ones. No part of the order.
    pub by: NodeId,
}

impl Claim {
    /// Which of this claim and another one about the same node stands: the greater. The node's description
    /// decides last: it differs only where two processes run on copies of one disk.
    pub(super) fn compare(&self, incarnation: Incarnation, state: State, node: &Arc<NodeInfo>) -> Ordering {
        let words = (self.incarnation, self.state).cmp(&(incarnation, state));
        // Most claims that are heard are known already, and come from one description.
        words.then_with(|| if Arc::ptr_eq(&self.node, node) { Ordering::Equal } else { self.node.cmp(node) })
    }

    /// Whether this claim stands against another one about the same node.
    pub fn beats(&self, other: &Self) -> bool {
        self.compare(other.incarnation, other.state, &other.node).is_gt()
    }
}
