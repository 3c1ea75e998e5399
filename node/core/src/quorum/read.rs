//! One read on its way to the owners of a partition.
//!
//! Values cross the wire once: the first owner is asked for the set, the others for its digest. When all say the same,
//! that is the answer.
//!
//! When they do not, that may be because they were asked at different moments: an owner that was asked early had not
//! heard of a delete, which all had, and had forgotten, when another was asked (INV-NOZOMBIE). So all are asked again, for
//! their sets, and what they say together is the answer if none says less than it did before. Why that is right: of the
//! owners that had a write when the read began, one is among those that answer (R + W > N). If it still had it in the round
//! before, it has it now, and so does the answer. If it had forgotten it by then, all had it before, and so each reply of this
//! round comes from an owner that has it, or has forgotten it and all that it replaced. An owner that says less now
//! has forgotten something since the last round: one more round, then, is after that. Nothing that was written
//! before the read is collected twice, so rounds are few.

use crate::causality::VersionSet;
use crate::id::NodeId;
use crate::planted::{self, Bug};

/// What an owner is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Who.
    pub owner: NodeId,
    /// The whole set, or only its digest.
    pub whole: bool,
}

/// What an owner replied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Its set; the empty one for nothing.
    Set(VersionSet),
    /// The digest of its set.
    Digest(u64),
}

/// How a read stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadDecision {
    /// Keep waiting.
    Wait,
    /// R owners replied: answer with [`ReadQuorum::merged`].
    Answer,
    /// R owners replied, but not the same: go on with [`ReadQuorum::again`].
    Again,
    /// R replies cannot be had any more.
    Unavailable,
}

/// Rounds until a read is answered in any case: one with digests, one with sets, one when it is not known whether an owner
/// says less than before, one after an owner did.
const ROUNDS_MAX: u8 = 4;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    NotAsked,
    Asked { whole: bool },
    Digest(u64),
    Set { digest: u64, set: VersionSet },
    Failed,
}

impl Part {
    fn digest(&self) -> Option<u64> {
        match self {
            Self::Digest(digest) | Self::Set { digest, .. } => Some(*digest),
            _ => None,
        }
    }

    /// Whether this reply certainly says all that another one did.
    fn includes(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Set { set, .. }, Self::Set { set: before, .. }) => !set.clone().merge(before),
            _ => self.digest().is_some() && self.digest() == before.digest(),
        }
    }
}

#[derive(Debug)]
struct Owner {
    id: NodeId,
    part: Part,
    /// In the round before.
    before: Part,
}

/// One read on its way, or one round of it.
#[derive(Debug)]
pub struct ReadQuorum {
    needed: u8,
    round: u8,
    /// In the order in which they are asked.
    owners: Vec<Owner>,
    merged: VersionSet,
}

impl ReadQuorum {
    /// A read that needs `needed` of `owners`, the best first.
    pub fn new(owners: impl IntoIterator<Item = NodeId>, needed: u8) -> Self {
        let new = |id| Owner { id, part: Part::NotAsked, before: Part::NotAsked };
        let owners = owners.into_iter().map(new).collect();
        let needed = if planted::is(Bug::ReadOneFewer) { (needed - 1).max(1) } else { needed };
        Self { needed, round: 1, owners, merged: VersionSet::default() }
    }

    /// The next round. Replies to what was asked in this one must not be told to it.
    pub fn again(self) -> Self {
        let again = |Owner { id, part, .. }| match part {
            Part::Failed => Owner { id, part, before: Part::Failed },
            before => Owner { id, part: Part::NotAsked, before },
        };
        let mut owners: Vec<Owner> = self.owners.into_iter().map(again).collect();
        owners.sort_by_key(|owner| owner.before.digest().is_none());
        Self { round: self.round + 1, owners, merged: VersionSet::default(), ..self }
    }

    /// Whom to ask now: as many as are needed and not on their way. To be called at the start and after each
    /// [`ReadQuorum::replied`] and [`ReadQuorum::failed`].
    pub fn asks(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        while self.count(|part| !matches!(part, Part::NotAsked | Part::Failed)) < usize::from(self.needed) {
            let comes = self.count(|part| matches!(part, Part::Set { .. } | Part::Asked { whole: true })) > 0;
            match self.next() {
                Some(at) => asks.push(self.ask(at, !comes || self.round > 1)),
                None => break,
            }
        }
        asks
    }

    /// One more owner to ask, because those that were asked are slow. It is asked for the set: it may be the set
    /// that is late.
    pub fn hedge(&mut self) -> Option<Ask> {
        self.next().map(|at| self.ask(at, true))
    }

    fn next(&self) -> Option<usize> {
        self.owners.iter().position(|owner| owner.part == Part::NotAsked)
    }

    fn ask(&mut self, at: usize, whole: bool) -> Ask {
        self.owners[at].part = Part::Asked { whole };
        Ask { owner: self.owners[at].id, whole }
    }

    fn count(&self, wanted: impl Fn(&Part) -> bool) -> usize {
        self.owners.iter().filter(|owner| wanted(&owner.part)).count()
    }

    /// An owner replied.
    pub fn replied(&mut self, owner: NodeId, reply: Reply) -> ReadDecision {
        // The first word counts, but for a set after a digest; a stranger's does not.
        let known = self.owners.iter_mut().find(|known| known.id == owner);
        if let Some(known) = known.filter(|known| !matches!(known.part, Part::Set { .. })) {
            known.part = match reply {
                Reply::Digest(digest) => Part::Digest(digest),
                Reply::Set(set) => {
                    if planted::is(Bug::SkipReadMerge) {
                        self.merged = set.clone();
                    } else {
                        self.merged.merge(&set);
                    }
                    Part::Set { digest: set.digest(), set }
                }
            };
        }
        self.decision()
    }

    /// An owner will not reply.
    pub fn failed(&mut self, owner: NodeId) -> ReadDecision {
        if let Some(known) = self.owners.iter_mut().find(|known| known.id == owner)
            && matches!(known.part, Part::NotAsked | Part::Asked { .. })
        {
            known.part = Part::Failed;
        }
        self.decision()
    }

    /// What is known now.
    pub fn decision(&self) -> ReadDecision {
        let failed = self.count(|part| *part == Part::Failed);
        if self.count(|part| part.digest().is_some()) >= usize::from(self.needed) {
            if self.agree() || self.is_settled() { ReadDecision::Answer } else { ReadDecision::Again }
        } else if self.owners.len() - failed < usize::from(self.needed) {
            ReadDecision::Unavailable
        } else {
            ReadDecision::Wait
        }
    }

    /// Whether all replies are the same, and one is a set.
    fn agree(&self) -> bool {
        let set = self.owners.iter().find(|owner| matches!(owner.part, Part::Set { .. }));
        let digest = set.and_then(|owner| owner.part.digest());
        digest.is_some() && self.count(|part| part.digest().is_some_and(|other| Some(other) != digest)) == 0
    }

    /// Whether no owner has forgotten anything since the round before.
    fn is_settled(&self) -> bool {
        let mut replied = self.owners.iter().filter(|owner| owner.part.digest().is_some());
        self.round >= ROUNDS_MAX || replied.all(|owner| owner.part.includes(&owner.before))
    }

    /// How many owners replied with what [`ReadQuorum::merged`] contains.
    pub fn replies(&self) -> u8 {
        self.count(|part| part.digest().is_some_and(|digest| self.explained(digest))) as u8
    }

    /// Owners that were asked and have not replied.
    pub fn waiting(&self) -> usize {
        self.count(|part| matches!(part, Part::Asked { .. }))
    }

    /// What all replies say together.
    pub fn merged(&self) -> &VersionSet {
        &self.merged
    }

    /// Who replied with less than the merged set, and so needs a read repair.
    pub fn stale(&self) -> Vec<NodeId> {
        let whole = self.merged.digest();
        let stale = |part: &Part| match part {
            Part::Set { digest, .. } => *digest != whole,
            // One that holds something else may have more.
            Part::Digest(digest) => self.explained(*digest) && *digest != whole,
            _ => false,
        };
        self.owners.iter().filter(|owner| stale(&owner.part)).map(|owner| owner.id).collect()
    }

    /// Owners whose sets are in the merged one, one for each different set: from them it can be had.
    pub fn sources(&self) -> Vec<NodeId> {
        let mut seen = Vec::new();
        let mut sources = Vec::new();
        for owner in &self.owners {
            if let Part::Set { digest, .. } = &owner.part
                && !seen.contains(digest)
            {
                seen.push(*digest);
                sources.push(owner.id);
            }
        }
        sources
    }

    /// Whether a set with this digest has come.
    fn explained(&self, wanted: u64) -> bool {
        self.count(|part| matches!(part, Part::Set { digest, .. } if *digest == wanted)) > 0
    }
}
