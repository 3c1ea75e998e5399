//! Which content may be taken: not what was read before something that was collected since (INV-NOZOMBIE).
//!
//! Every message with a version set carries its sender's count, drawn before the set was read. A floor for each sender
//! refuses what was counted before a collection; see `quorate_core::collection`.

use std::collections::BTreeSet;

use quorate_core::NodeId;
use quorate_core::collection::{Floors, Mark};
use quorate_wire::peer::{Refusal, Request, Response};

use crate::calls::{Ending, Purpose};
use crate::interface::Sender;
use crate::replica::Replica;
use crate::ring::takes_part;
use crate::storage::Storage;

#[derive(Default)]
pub(crate) struct Content {
    pub(crate) floors: Floors,
    /// Content messages counted at this start.
    sent: u64,
    /// Who was asked for its mark.
    asked: BTreeSet<NodeId>,
}

impl<S: Storage> Replica<S> {
    /// Counts a message with content. To be drawn before anything of the content is read.
    pub(crate) fn next_sent(&mut self) -> u64 {
        self.content.sent += 1;
        self.content.sent
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { start: self.identity.actor.start, sent: self.content.sent }
    }

    /// Whether content may be taken. A sender whose mark is not known yet is asked for it.
    pub(crate) fn admit_content(&mut self, from: Sender, sent: u64) -> Result<(), Refusal> {
        let mark = Mark { start: from.start, sent };
        self.content.floors.admit(from.node, mark).map_err(|_| {
            self.stats.stale_messages += 1;
            self.ask_mark(from.node);
            Refusal::Stale
        })
    }

    /// Asks the members whose marks are not known, ahead of their content.
    pub(crate) fn ask_marks(&mut self) {
        let Some(epoch) = self.ring.current().cloned() else { return };
        self.content.floors.retain(|node| takes_part(&epoch, node));
        self.once.retain(|node| takes_part(&epoch, node));
        for member in epoch.members() {
            if member.id != self.id() && takes_part(&epoch, member.id) {
                self.ask_mark(member.id);
            }
        }
    }

    pub(crate) fn ask_mark(&mut self, node: NodeId) {
        let other = node != self.id() && !self.content.floors.knows(node);
        if other && self.is_up(node) && self.content.asked.insert(node) {
            self.call(node, Request::Mark, Purpose::Mark);
        }
    }

    pub(crate) fn mark_told(&mut self, node: NodeId, ending: &Ending) {
        self.content.asked.remove(&node);
        if let Ending::Response(Response::Mark(mark)) = ending {
            // There is room for every member of the largest ring.
            let _ = self.content.floors.raise(node, *mark);
        }
    }
}
