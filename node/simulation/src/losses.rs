//! Which disks are gone, or lost something, and which of these losses are made good.
//!
//! What was acknowledged survives while fewer than W owners of a key have lost their disks (INV-ACK). One that was replaced
//! counts no more when everybody has left behind the last epoch in which it owned anything: then every owner has what it
//! must have, without it.

use std::collections::BTreeSet;

use quorate_core::NodeId;
use quorate_core::ring::{Epoch, Partition};

use crate::operator::owns_anything;
use crate::world::World;

/// Nodes that lost something.
#[derive(Default)]
pub(crate) struct Losses {
    ever: BTreeSet<NodeId>,
    made_good: BTreeSet<NodeId>,
}

impl Losses {
    pub(crate) fn add(&mut self, node: NodeId) {
        self.ever.insert(node);
        self.made_good.remove(&node);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ever.is_empty()
    }

    /// Whether it ever lost something.
    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.ever.contains(&node)
    }

    /// Whether it lost something that is not made good.
    pub(crate) fn is_open(&self, node: NodeId) -> bool {
        self.ever.contains(&node) && !self.made_good.contains(&node)
    }

    fn open(&self) -> impl Iterator<Item = NodeId> {
        self.ever.difference(&self.made_good).copied()
    }
}

impl World {
    /// Whether one more disk may lose something, so that what was acknowledged is still there and can be read.
    pub(crate) fn may_lose(&mut self, node: NodeId) -> bool {
        self.look_for_mended();
        let open = self.losses.open().count() as u64;
        self.losses.is_open(node) || !self.counts(node) || open < self.scenario.losses_max()
    }

    /// Takes note of losses that are made good.
    pub(crate) fn look_for_mended(&mut self) {
        let mended: Vec<NodeId> = self.losses.open().filter(|id| !self.counts(*id)).collect();
        self.losses.made_good.extend(mended);
    }

    /// Whether anybody relies on what a node holds: it owns something in an epoch that is live for somebody.
    fn counts(&self, node: NodeId) -> bool {
        let last = self.operator.log().iter().rev().find(|epoch| owns_anything(epoch, node));
        last.is_some_and(|epoch| self.oldest_live() <= epoch.number())
    }

    /// The oldest epoch that is live for a member.
    fn oldest_live(&self) -> u64 {
        let takes_part = |id| self.operator.takes_part(id);
        let members = self.machines.iter().filter(|machine| takes_part(machine.documents.node));
        let oldest = members.filter_map(|machine| {
            let running = machine.process.as_ref().and_then(|process| process.replica.ring_state());
            let kept = machine.documents.ring.as_ref().map(|ring| ring.chain.oldest());
            running
                .map(|state| state.chain().oldest())
                .or(kept)
                .map(|epoch: &std::sync::Arc<Epoch>| epoch.number())
        });
        oldest.min().unwrap_or(0)
    }

    /// How many of those who ever owned a partition have lost something, and of how many that is not made good.
    pub(crate) fn losses_of(&self, partition: Partition) -> (u8, u8) {
        let owners = self.operator.owners_ever(partition);
        let count = |lost: &dyn Fn(NodeId) -> bool| owners.iter().filter(|owner| lost(**owner)).count() as u8;
        (count(&|id| self.losses.contains(id)), count(&|id| self.losses.is_open(id)))
    }
}
