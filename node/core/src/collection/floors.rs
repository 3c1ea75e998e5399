//! What is too old to be taken.
//!
//! Invariant: a floor never sinks while the process runs, and nothing is taken from a sender that has not told this
//! start its mark.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::limits::MEMBERS_MAX;
use crate::planted::{self, Bug};

/// The most senders that have a floor: those of the largest ring, and room for those that replace them.
pub const FLOORS_MAX: usize = 2 * MEMBERS_MAX;

/// How far a node has counted its content messages. Later starts count anew, and are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Mark {
    /// The start of its disk.
    pub start: u64,
    /// The messages counted in this start.
    pub sent: u64,
}

/// Why content is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Turned {
    /// As good as lost: the sender reads again and sends that, or leaves it to repair.
    #[error("the message was sent before its sender cleared a collection, or by an earlier start of it")]
    Late,
    /// Ask the sender for its mark, raise the floor to the answer, and take what comes then.
    #[error("this start has not yet heard how far the sender has counted")]
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Floor {
    mark: Mark,
    /// Whether the sender itself told its mark, in answer to a question of this start. What a leader passes on may be
    /// older than what an earlier start of this node knew.
    told: bool,
}

/// The highest mark of each sender whose content is refused up to it.
#[derive(Clone, Default, Debug)]
pub struct Floors(BTreeMap<NodeId, Floor>);

impl Floors {
    /// Those of a start that has just begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether content may be taken: `start` is the sender's, as the connection proves it, and `sent` its count.
    pub fn admit(&self, sender: NodeId, mark: Mark) -> Result<(), Turned> {
        if planted::is(Bug::SkipFloors) {
            return Ok(());
        }
        match self.0.get(&sender) {
            Some(floor) if floor.told && mark > floor.mark => Ok(()),
            Some(floor) if floor.told => Err(Turned::Late),
            _ => Err(Turned::Unknown),
        }
    }

    /// A sender has told its mark, in answer to a question that this start has asked: what it counts from there on
    /// is taken. False when there is no room for one more sender.
    #[must_use]
    pub fn raise(&mut self, sender: NodeId, mark: Mark) -> bool {
        self.put(sender, mark, true)
    }

    /// Refuses content up to a mark from now on, as the leader of a round asks. A sender that was unknown stays so.
    pub(super) fn lift(&mut self, sender: NodeId, mark: Mark) -> bool {
        self.put(sender, mark, false)
    }

    fn put(&mut self, sender: NodeId, mark: Mark, told: bool) -> bool {
        if self.0.len() >= FLOORS_MAX && !self.0.contains_key(&sender) {
            return false;
        }
        let floor = self.0.entry(sender).or_insert(Floor { mark, told });
        *floor = Floor { mark: mark.max(floor.mark), told: told || floor.told };
        true
    }

    /// Whether a sender has told its mark.
    pub fn knows(&self, sender: NodeId) -> bool {
        self.0.get(&sender).is_some_and(|floor| floor.told)
    }

    /// Lets go of senders that are no members any more: whatever they say is refused already.
    pub fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.0.retain(|&sender, _| is_member(sender));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::from_u128(1);

    fn mark(start: u64, sent: u64) -> Mark {
        Mark { start, sent }
    }

    #[test]
    fn a_floor_refuses_what_was_counted_before_and_never_sinks() {
        let mut floors = Floors::new();
        assert_eq!(floors.admit(A, mark(1, 9)), Err(Turned::Unknown));
        assert!(floors.lift(A, mark(2, 5)));
        assert!(!floors.knows(A));
        assert_eq!(floors.admit(A, mark(2, 9)), Err(Turned::Unknown), "only another node's word");
        assert!(floors.raise(A, mark(2, 3)));
        let taken =
            [(1, 99), (2, 4), (2, 5), (2, 6), (3, 0)].map(|(s, n)| floors.admit(A, mark(s, n)).is_ok());
        assert_eq!(taken, [false, false, false, true, true]);
    }

    #[test]
    fn floors_are_bounded_and_one_more_sender_is_told_so() {
        let mut floors = Floors::new();
        let known = |n: usize| NodeId::from_u128(n as u128);
        assert!((0..FLOORS_MAX).all(|n| floors.raise(known(n), mark(1, 1))));
        assert!(!floors.raise(known(FLOORS_MAX), mark(1, 1)));
        assert!(floors.raise(known(0), mark(1, 2)), "those that are known rise");
        floors.retain(|node| node == known(0));
        assert!(floors.raise(known(FLOORS_MAX), mark(1, 1)));
    }
}
