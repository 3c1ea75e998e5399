//! Whose turn it is to be probed, the probe that is under way, and the probes made for others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::claim::Incarnation;
use super::message::KNOWN_MAX;
use super::{Dice, Peer};
use crate::id::NodeId;

/// Probes made for others at once; more are not taken on.
const RELAYS_MAX: usize = 256;

/// The probe of this interval.
pub(super) struct Probe {
    pub(super) target: NodeId,
    /// The life that is probed: a later one is not suspected for it.
    pub(super) incarnation: Incarnation,
    pub(super) sequence: u64,
    pub(super) sent: Duration,
    /// When helpers are asked; none once they are.
    pub(super) helpers_due: Option<Duration>,
    /// Helpers that answer in any case.
    pub(super) nacks_awaited: u32,
}

/// The turns: everybody once in a random order, then everybody in another (SWIM, section 4.3), so that no
/// node waits long for its probe.
#[derive(Default)]
pub(super) struct Turns {
    /// Those to come in this round, the next one last; at most one more than [`KNOWN_MAX`].
    coming: Vec<NodeId>,
    /// The same, to find.
    listed: BTreeSet<NodeId>,
}

impl Turns {
    /// Whose turn it is; `live` begins a new round.
    pub(super) fn next(
        &mut self,
        live: impl Fn() -> Vec<NodeId>,
        is_live: impl Fn(NodeId) -> bool,
        dice: Dice<'_>,
    ) -> Option<NodeId> {
        while let Some(id) = self.pop() {
            if is_live(id) {
                return Some(id);
            }
        }
        self.coming = live();
        shuffle(&mut self.coming, usize::MAX, dice);
        self.listed = self.coming.iter().copied().collect();
        self.pop()
    }

    /// This node is next.
    pub(super) fn hasten(&mut self, id: NodeId) {
        self.put(id, self.coming.len());
    }

    /// This node comes after the next one.
    pub(super) fn repeat(&mut self, id: NodeId) {
        self.put(id, self.coming.len().saturating_sub(1));
    }

    /// A node that appears in the middle of a round.
    pub(super) fn insert(&mut self, id: NodeId, dice: Dice<'_>) {
        if self.coming.len() < KNOWN_MAX && self.listed.insert(id) {
            self.coming.insert(below(self.coming.len() + 1, dice), id);
        }
    }

    fn put(&mut self, id: NodeId, at: usize) {
        if !self.listed.insert(id) {
            self.coming.retain(|other| *other != id);
        }
        self.coming.insert(at.min(self.coming.len()), id);
    }

    fn pop(&mut self) -> Option<NodeId> {
        let id = self.coming.pop()?;
        self.listed.remove(&id);
        Some(id)
    }
}

/// A probe made for another node.
pub(super) struct Relay {
    pub(super) asker: Peer,
    /// The asker's number of it.
    pub(super) sequence: u64,
    pub(super) target: NodeId,
    pub(super) ends: Duration,
}

/// The probes made for others, by our number of them.
#[derive(Default)]
pub(super) struct Relays {
    open: BTreeMap<u64, Relay>,
}

impl Relays {
    /// Whether there is room for one more.
    pub(super) fn open(&mut self, sequence: u64, relay: Relay) -> bool {
        let room = self.open.len() < RELAYS_MAX;
        if room {
            self.open.insert(sequence, relay);
        }
        room
    }

    /// The relay that this answer belongs to.
    pub(super) fn close(&mut self, sequence: u64, target: NodeId) -> Option<Relay> {
        self.open.get(&sequence).filter(|relay| relay.target == target)?;
        self.open.remove(&sequence)
    }

    /// Those that got no answer in time.
    pub(super) fn expired(&mut self, now: Duration) -> Vec<Relay> {
        self.open.extract_if(.., |_, relay| relay.ends <= now).map(|(_, relay)| relay).collect()
    }

    pub(super) fn next_end(&self) -> Option<Duration> {
        self.open.values().map(|relay| relay.ends).min()
    }
}

/// A number below `bound`, which is above 0.
fn below(bound: usize, dice: Dice<'_>) -> usize {
    (dice() % bound as u64) as usize
}

/// Puts `count` of the items, chosen at random, at the front in random order.
pub(super) fn shuffle<T>(items: &mut [T], count: usize, dice: Dice<'_>) {
    for at in 0..count.min(items.len()) {
        items.swap(at, at + below(items.len() - at, dice));
    }
}

/// Up to `count` of the items at random.
pub(super) fn choose<T>(mut items: Vec<T>, count: usize, dice: Dice<'_>) -> Vec<T> {
    shuffle(&mut items, count, dice);
    items.truncate(count);
    items
}
