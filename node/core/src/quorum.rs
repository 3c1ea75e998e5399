//! When an operation is decided: replies of replicas in, decisions out.
//!
//! Strict quorums: only owners count, each once. With R + W > N a decided read has a reply from at least one
//! replica that acknowledged any decided write (INV-OVERLAP).

use crate::causality::VersionSet;
use crate::id::NodeId;

/// What a replica's failure says about the write it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It is certain that the replica did not and will not apply it: it was not sent, or it was refused.
    NotApplied,
    /// The connection broke or time ran out: it may have been applied, or be yet.
    Unknown,
}

/// What became of one replica's part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Waiting,
    Acknowledged,
    Failed(Failure),
}

/// How a write ended for the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteDecision {
    /// Keep waiting.
    Wait,
    /// W owners hold it durably.
    Acknowledged {
        /// How many by now; at least W.
        replicas: u8,
    },
    /// No owner has it, and none will.
    NotWritten,
    /// Fewer than W acknowledged, but it may be on some: a later read may or may not see it.
    Indeterminate {
        /// How many did acknowledge.
        replicas: u8,
    },
}

/// One write on its way to the owners of a partition.
#[derive(Debug)]
pub struct WriteQuorum {
    needed: u8,
    parts: Vec<(NodeId, Part)>,
}

impl WriteQuorum {
    /// A write that needs `needed` of `owners`.
    pub fn new(owners: impl IntoIterator<Item = NodeId>, needed: u8) -> Self {
        Self { needed, parts: owners.into_iter().map(|owner| (owner, Part::Waiting)).collect() }
    }

    /// The owners whose part is open.
    pub fn waiting(&self) -> impl Iterator<Item = NodeId> {
        self.parts.iter().filter(|(_, part)| *part == Part::Waiting).map(|&(owner, _)| owner)
    }

    /// An owner holds the write durably.
    pub fn acknowledged(&mut self, owner: NodeId) -> WriteDecision {
        self.settle(owner, Part::Acknowledged)
    }

    /// An owner's part failed.
    pub fn failed(&mut self, owner: NodeId, failure: Failure) -> WriteDecision {
        self.settle(owner, Part::Failed(failure))
    }

    /// Time is up: what the client is told now.
    pub fn expired(&mut self) -> WriteDecision {
        for (_, part) in &mut self.parts {
            if *part == Part::Waiting {
                *part = Part::Failed(Failure::Unknown);
            }
        }
        self.decision()
    }

    /// Only the first word of an owner counts; a stranger's does not.
    fn settle(&mut self, owner: NodeId, outcome: Part) -> WriteDecision {
        if let Some((_, part)) = self.parts.iter_mut().find(|(o, part)| *o == owner && *part == Part::Waiting)
        {
            *part = outcome;
        }
        self.decision()
    }

    /// What is known now.
    pub fn decision(&self) -> WriteDecision {
        let count = |wanted| self.parts.iter().filter(|(_, part)| *part == wanted).count() as u8;
        let (replicas, waiting) = (count(Part::Acknowledged), count(Part::Waiting));
        if replicas >= self.needed {
            WriteDecision::Acknowledged { replicas }
        } else if replicas + waiting >= self.needed {
            WriteDecision::Wait
        } else if replicas + waiting + count(Part::Failed(Failure::Unknown)) == 0 {
            WriteDecision::NotWritten
        } else {
            WriteDecision::Indeterminate { replicas }
        }
    }
}

/// How a read stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadDecision {
    /// Keep waiting.
    Wait,
    /// R owners replied: answer with [`ReadQuorum::merged`].
    Answer,
    /// R replies cannot be had any more.
    Unavailable,
}

/// One read on its way to the owners of a partition.
#[derive(Debug)]
pub struct ReadQuorum {
    needed: u8,
    owners: u8,
    failed: Vec<NodeId>,
    replies: Vec<(NodeId, VersionSet)>,
}

impl ReadQuorum {
    /// A read that needs `needed` of `owners` owners.
    pub fn new(owners: u8, needed: u8) -> Self {
        Self { needed, owners, failed: Vec::new(), replies: Vec::new() }
    }

    /// An owner replied; one that holds nothing replies with the empty set.
    pub fn replied(&mut self, owner: NodeId, set: VersionSet) -> ReadDecision {
        if !self.heard(owner) {
            self.replies.push((owner, set));
        }
        self.decision()
    }

    /// An owner will not reply.
    pub fn failed(&mut self, owner: NodeId) -> ReadDecision {
        if !self.heard(owner) {
            self.failed.push(owner);
        }
        self.decision()
    }

    fn heard(&self, owner: NodeId) -> bool {
        self.failed.contains(&owner) || self.replies.iter().any(|(replied, _)| *replied == owner)
    }

    /// What is known now.
    pub fn decision(&self) -> ReadDecision {
        if self.replies.len() >= usize::from(self.needed) {
            ReadDecision::Answer
        } else if self.failed.len() > usize::from(self.owners - self.needed) {
            ReadDecision::Unavailable
        } else {
            ReadDecision::Wait
        }
    }

    /// How many owners replied.
    pub fn replies(&self) -> u8 {
        self.replies.len() as u8
    }

    /// Whether every owner was heard: nothing more will come.
    pub fn complete(&self) -> bool {
        self.replies.len() + self.failed.len() >= usize::from(self.owners)
    }

    /// What all replies say together.
    pub fn merged(&self) -> VersionSet {
        let mut merged = VersionSet::default();
        for (_, set) in &self.replies {
            merged.merge(set);
        }
        merged
    }

    /// Who replied with less than the merged set, and so needs a read repair.
    pub fn stale<'a>(&'a self, merged: &'a VersionSet) -> impl Iterator<Item = NodeId> + 'a {
        self.replies.iter().filter(move |(_, set)| set != merged).map(|&(owner, _)| owner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::causality::{Actor, Context, Dot, Event, Policy, Stamp};

    const A: NodeId = NodeId::from_u128(1);
    const B: NodeId = NodeId::from_u128(2);
    const C: NodeId = NodeId::from_u128(3);

    fn write() -> WriteQuorum {
        WriteQuorum::new([A, B, C], 2)
    }

    #[test]
    fn a_write_is_acknowledged_at_w() {
        let mut quorum = write();
        assert_eq!(quorum.acknowledged(A), WriteDecision::Wait);
        assert_eq!(quorum.acknowledged(A), WriteDecision::Wait, "one owner counts once");
        assert_eq!(quorum.acknowledged(NodeId::from_u128(9)), WriteDecision::Wait, "a stranger counts never");
        assert_eq!(quorum.acknowledged(C), WriteDecision::Acknowledged { replicas: 2 });
    }

    #[test]
    fn not_written_only_when_it_is_certain() {
        let mut quorum = write();
        assert_eq!(quorum.failed(A, Failure::NotApplied), WriteDecision::Wait);
        assert_eq!(
            quorum.failed(B, Failure::NotApplied),
            WriteDecision::Indeterminate { replicas: 0 },
            "C may yet"
        );
        assert_eq!(quorum.failed(C, Failure::NotApplied), WriteDecision::NotWritten);
        let mut quorum = write();
        quorum.failed(A, Failure::NotApplied);
        quorum.failed(B, Failure::Unknown);
        assert_eq!(quorum.failed(C, Failure::NotApplied), WriteDecision::Indeterminate { replicas: 0 });
    }

    #[test]
    fn time_is_up_means_indeterminate() {
        let mut quorum = write();
        quorum.acknowledged(B);
        assert_eq!(quorum.expired(), WriteDecision::Indeterminate { replicas: 1 });
        assert_eq!(quorum.acknowledged(C), WriteDecision::Indeterminate { replicas: 1 }, "too late to count");
    }

    fn set(value: &'static str, start: u64) -> VersionSet {
        let mut set = VersionSet::default();
        let event = Event {
            context: Context::default(),
            stamp: Stamp::at_ms(1),
            value: Some(value.into()),
            policy: Policy::Siblings,
        };
        set.write(event, Dot { actor: Actor { node: A, start }, counter: 1 }).unwrap();
        set
    }

    #[test]
    fn a_read_answers_at_r_and_names_the_stale() {
        let mut quorum = ReadQuorum::new(3, 2);
        assert_eq!(quorum.replied(A, VersionSet::default()), ReadDecision::Wait);
        assert_eq!(quorum.replied(B, set("x", 1)), ReadDecision::Answer);
        assert!(!quorum.complete());
        quorum.replied(C, set("y", 2));
        assert!(quorum.complete());
        let merged = quorum.merged();
        assert_eq!(merged.values().count(), 2);
        assert_eq!(quorum.stale(&merged).collect::<Vec<_>>(), [A, B, C]);
    }

    #[test]
    fn a_read_is_unavailable_as_soon_as_r_cannot_be_had() {
        let mut quorum = ReadQuorum::new(3, 2);
        assert_eq!(quorum.failed(A), ReadDecision::Wait);
        assert_eq!(quorum.failed(A), ReadDecision::Wait);
        assert_eq!(quorum.failed(B), ReadDecision::Unavailable);
    }

    proptest! {
        /// INV-OVERLAP: with R + W > N, whoever answers and in whatever order, a decided read contains what
        /// a decided write wrote.
        #[test]
        fn a_decided_read_meets_a_decided_write(
            n in 1u8..=9,
            r in 1u8..=9,
            w in 1u8..=9,
            write_order in Just((0..9u128).collect::<Vec<_>>()).prop_shuffle(),
            read_order in Just((0..9u128).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            prop_assume!(r <= n && w <= n && r + w > n);
            let owners = (0..u128::from(n)).map(NodeId::from_u128);
            let mut write = WriteQuorum::new(owners, w);
            let mut holders = Vec::new();
            for id in write_order.into_iter().filter(|&id| id < u128::from(n)) {
                if matches!(write.decision(), WriteDecision::Acknowledged { .. }) {
                    break;
                }
                holders.push(NodeId::from_u128(id));
                write.acknowledged(NodeId::from_u128(id));
            }
            let mut read = ReadQuorum::new(n, r);
            for id in read_order.into_iter().filter(|&id| id < u128::from(n)) {
                if read.decision() == ReadDecision::Answer {
                    break;
                }
                let id = NodeId::from_u128(id);
                read.replied(id, if holders.contains(&id) { set("x", 1) } else { VersionSet::default() });
            }
            prop_assert_eq!(read.decision(), ReadDecision::Answer);
            prop_assert_eq!(read.merged().values().count(), 1);
        }
    }
}
