//! News that ride along with messages, each a limited number of times (SWIM, section 4.1): the least told
//! first. It names nodes only; what is told about one is what is known when the message leaves.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::NodeId;

/// How often news are told per decimal digit of the cluster's size. Enough that the chance of missing a node
/// is small; the exchange of whole views reaches the rest.
const TELLINGS_PER_DIGIT: u32 = 4;

/// Bounded by the table: a node is in it once.
#[derive(Default)]
pub(super) struct News {
    told: BTreeMap<NodeId, u32>,
    order: BTreeSet<(u32, NodeId)>,
}

impl News {
    /// Something new is known about a node: whatever was told about it before counts no more.
    pub(super) fn add(&mut self, id: NodeId) {
        self.remove(id);
        self.told.insert(id, 0);
        self.order.insert((0, id));
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        if let Some(told) = self.told.remove(&id) {
            self.order.remove(&(told, id));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.told.len()
    }

    /// Up to `most` nodes to tell about, in a cluster of `nodes`.
    pub(super) fn take(&mut self, most: usize, nodes: usize) -> Vec<NodeId> {
        let tellings = TELLINGS_PER_DIGIT * (nodes.max(1).ilog10() + 1);
        let chosen: Vec<(u32, NodeId)> = self.order.iter().take(most).copied().collect();
        for &(told, id) in &chosen {
            self.remove(id);
            if told + 1 < tellings {
                self.told.insert(id, told + 1);
                self.order.insert((told + 1, id));
            }
        }
        chosen.into_iter().map(|(_, id)| id).collect()
    }
}
