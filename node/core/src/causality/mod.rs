//! Which value is newer: dotted version vector sets and a hybrid logical clock.
//!
//! Every write creates one [`Dot`], at an owner of the key. A [`VersionSet`] is what a replica stores for a
//! key: the concurrent [`Version`]s (siblings) and the [`Context`], the causal past they stand in.
//!
//! The actor of a dot is one *start* of one disk, and its counter is counted over all keys. For one key a
//! context entry `(actor, n)` therefore means "every write of this key that the actor made with a counter up
//! to n"; the numbers between that belong to other keys are never asked for. It holds because an actor never
//! forgets: whatever a crash takes (unsynced writes that peers already have, a rotten segment), the next
//! start is another actor, and its writes do not claim to have seen what was forgotten. Were the disk alone
//! the actor, its first write after such a crash would erase acknowledged siblings from its peers
//! (INV-ACK, INV-AMNESIA; docs/design/0001-actor-is-a-start.md).
//!
//! Sources: Preguiça, Baquero, Almeida, Fonte, Gonçalves, "Dotted Version Vectors" (2010); Almeida et al.,
//! "Scalable and Accurate Causality Tracking for Eventually Consistent Stores" (2014).

mod clock;
mod encoding;
mod expiry;
#[cfg(test)]
mod model;
mod set;

pub use clock::{CLOCK_AHEAD_MAX_MS, Clock, STAMP_AHEAD_MAX_MS, Stamp, StampAhead, TooFarAhead};
pub use encoding::VersionSetError;
pub use expiry::Expiry;
pub use set::{Event, Policy, Version, VersionSet, WriteRefused};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// Who makes dots: one start of one disk, from the first write to the crash or stop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Actor {
    /// The disk.
    pub node: NodeId,
    /// Counts the disk's starts, from 1; on disk before the first dot is made.
    pub start: u64,
}

/// A write's unique event: who made it, and the maker's count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Dot {
    /// The owner that took the write, in its start of then.
    pub actor: Actor,
    /// That actor's count of writes, over all keys, from 1.
    pub counter: u64,
}

/// Makes dots, each once (INV-AMNESIA).
#[derive(Debug)]
pub struct DotMaker {
    last: Dot,
}

impl DotMaker {
    /// The maker of one start. There must never be a second one for the same actor.
    pub fn new(actor: Actor) -> Self {
        Self { last: Dot { actor, counter: 0 } }
    }

    /// A dot that was never made before.
    pub fn make(&mut self) -> Dot {
        self.last.counter += 1; // 2⁶⁴ writes within one start cannot happen.
        self.last
    }
}

/// A causal past: per actor, the highest counter seen (a version vector).
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Context(BTreeMap<Actor, u64>);

impl Context {
    /// Whether this past includes an event.
    pub fn covers(&self, dot: Dot) -> bool {
        self.0.get(&dot.actor).is_some_and(|&seen| seen >= dot.counter)
    }

    /// Includes an event.
    pub fn include(&mut self, dot: Dot) {
        let seen = self.0.entry(dot.actor).or_default();
        *seen = dot.counter.max(*seen);
    }

    /// Includes another past.
    pub fn merge(&mut self, other: &Context) {
        for (&actor, &counter) in &other.0 {
            self.include(Dot { actor, counter });
        }
    }

    /// Whether it includes nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many actors it names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The highest counter seen of an actor; 0 for none.
    pub fn seen(&self, actor: Actor) -> u64 {
        self.0.get(&actor).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_past_covers_what_one_start_made_and_says_nothing_of_another() {
        let actor = |start| Actor { node: NodeId::from_u128(1), start };
        let mut maker = DotMaker::new(actor(1));
        let (first, second) = (maker.make(), maker.make());
        let mut context = Context::default();
        context.include(second);
        assert!(first != second && context.covers(first));
        assert!(!context.covers(DotMaker::new(actor(2)).make()));
    }
}
