//! One write on its way to the owners of a partition, and to fallbacks for those that are away.
//!
//! While the ring changes, the owners in each live epoch are a set of their own, and the write needs W of each.

use super::QuorumKind;
use crate::id::NodeId;
use crate::planted::{self, Bug};

/// What a replica's failure says about the write it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It is certain that the replica did not and will not apply it: it was not sent, or it was refused.
    NotApplied,
    /// The connection broke or time ran out: it may have been applied, or be yet.
    Unknown,
}

/// What became of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    None,
    Waiting,
    Done,
    Failed(Failure),
}

impl Part {
    /// Only the first word counts.
    fn settle(&mut self, outcome: Part) {
        if *self == Part::Waiting {
            *self = outcome;
        }
    }

    fn may_be_there(self) -> bool {
        matches!(self, Part::Waiting | Part::Done | Part::Failed(Failure::Unknown))
    }
}

/// An owner's message, and the hint for it.
#[derive(Debug)]
struct Owner {
    id: NodeId,
    own: Part,
    hint: Part,
}

/// How a write ended for the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteDecision {
    /// Keep waiting.
    Wait,
    /// W replicas of each set hold it durably.
    Acknowledged {
        /// Owners that do, by now, in the set that has the fewest.
        replicas: u8,
        /// Fallbacks that keep a hint for another owner, by now.
        hints: u8,
    },
    /// Nobody has it, and nobody will.
    NotWritten,
    /// Fewer than W acknowledged, but it may be on some: a later read may or may not see it.
    Indeterminate {
        /// How many did acknowledge, in the set that has the fewest.
        replicas: u8,
    },
}

/// One write on its way.
#[derive(Debug)]
pub struct WriteQuorum {
    needed: u8,
    kind: QuorumKind,
    /// Of every set, and of sets that are live no more.
    owners: Vec<Owner>,
    /// The owners in each live epoch.
    sets: Vec<Vec<NodeId>>,
}

impl WriteQuorum {
    /// A write that needs `needed` of each set of owners; each owner was sent its message.
    pub fn new(sets: &[Vec<NodeId>], needed: u8, kind: QuorumKind) -> Self {
        let mut quorum = Self { needed, kind, owners: Vec::new(), sets: Vec::new() };
        quorum.reroute(sets);
        quorum
    }

    /// Other sets count from now on. Says which owners are new, and so are to be sent their message. What was
    /// acknowledged stays so: the copy is there.
    pub fn reroute(&mut self, sets: &[Vec<NodeId>]) -> Vec<NodeId> {
        self.sets = sets.to_vec();
        let mut fresh = Vec::new();
        for &id in sets.iter().flatten() {
            if !self.owners.iter().any(|owner| owner.id == id) {
                self.owners.push(Owner { id, own: Part::Waiting, hint: Part::None });
                fresh.push(id);
            }
        }
        fresh
    }

    /// Whether an owner counts in some set.
    pub fn wants(&self, owner: NodeId) -> bool {
        self.sets.iter().any(|set| set.contains(&owner))
    }

    /// An owner holds the write durably.
    pub fn acknowledged(&mut self, owner: NodeId) -> WriteDecision {
        self.settle(owner, |owner| owner.own.settle(Part::Done))
    }

    /// An owner's part failed.
    pub fn failed(&mut self, owner: NodeId, failure: Failure) -> WriteDecision {
        self.settle(owner, |owner| owner.own.settle(Part::Failed(failure)))
    }

    /// A fallback was sent a hint for this owner. Says whether that is the first.
    pub fn hinting(&mut self, owner: NodeId) -> bool {
        let found = self.owners.iter_mut().find(|o| o.id == owner);
        found.is_some_and(|owner| std::mem::replace(&mut owner.hint, Part::Waiting) == Part::None)
    }

    /// A fallback keeps the hint for this owner durably.
    pub fn hinted(&mut self, owner: NodeId) -> WriteDecision {
        self.settle(owner, |owner| owner.hint.settle(Part::Done))
    }

    /// The hint for this owner failed.
    pub fn hint_failed(&mut self, owner: NodeId, failure: Failure) -> WriteDecision {
        self.settle(owner, |owner| owner.hint.settle(Part::Failed(failure)))
    }

    /// Time is up: what the client is told now.
    pub fn expired(&mut self) -> WriteDecision {
        for owner in &mut self.owners {
            owner.own.settle(Part::Failed(Failure::Unknown));
            owner.hint.settle(Part::Failed(Failure::Unknown));
        }
        self.decision()
    }

    /// Owners that did not acknowledge, for which no hint is on its way or kept.
    pub fn missing(&self) -> impl Iterator<Item = NodeId> {
        let missing = |o: &&Owner| o.own != Part::Done && matches!(o.hint, Part::None);
        self.owners.iter().filter(missing).map(|o| o.id).filter(|id| self.wants(*id))
    }

    /// Whether every message has found its end.
    pub fn complete(&self) -> bool {
        self.owners.iter().all(|owner| owner.own != Part::Waiting && owner.hint != Part::Waiting)
    }

    /// A stranger's word does not count.
    fn settle(&mut self, id: NodeId, settle: impl FnOnce(&mut Owner)) -> WriteDecision {
        if let Some(owner) = self.owners.iter_mut().find(|owner| owner.id == id) {
            settle(owner);
        }
        self.decision()
    }

    /// What is known now.
    pub fn decision(&self) -> WriteDecision {
        let counts: Vec<Count> = self.sets.iter().map(|set| self.count(set)).collect();
        let fewest = |of: fn(&Count) -> u8| counts.iter().map(of).min().unwrap_or(0);
        let (replicas, hints) = (fewest(|count| count.replicas), fewest(|count| count.hints));
        if fewest(|count| count.replicas + count.stood_for) >= self.needed {
            WriteDecision::Acknowledged { replicas, hints }
        } else if fewest(|count| count.replicas + count.open) >= self.needed {
            WriteDecision::Wait
        } else if !self.owners.iter().any(|o| o.own.may_be_there() || o.hint.may_be_there()) {
            WriteDecision::NotWritten
        } else {
            WriteDecision::Indeterminate { replicas }
        }
    }

    fn count(&self, set: &[NodeId]) -> Count {
        let hints_count = self.kind == QuorumKind::Sloppy || planted::is(Bug::CountHintInStrictQuorum);
        let of_set = || self.owners.iter().filter(|o| set.contains(&o.id));
        let count = |wanted: &dyn Fn(&Owner) -> bool| of_set().filter(|o| wanted(o)).count() as u8;
        let mut replicas = count(&|o| o.own == Part::Done);
        if planted::is(Bug::CountTwice) && replicas > 0 {
            replicas += 1;
        }
        let hints = count(&|o| o.own != Part::Done && o.hint == Part::Done);
        let open = |o: &Owner| {
            let hint = hints_count && matches!(o.hint, Part::Waiting | Part::Done);
            o.own == Part::Waiting || hint
        };
        Count {
            replicas,
            hints,
            stood_for: if hints_count { hints } else { 0 },
            open: count(&|o| o.own != Part::Done && open(o)),
        }
    }
}

/// How one set of owners stands.
struct Count {
    replicas: u8,
    hints: u8,
    /// Hints that count as replicas.
    stood_for: u8,
    /// Owners that may yet count.
    open: u8,
}
