//! One read on its way to the owners of a partition.
//!
//! Values cross the wire once: the first owner is asked for the set, the others for its digest. An owner whose
//! digest is that of a set that has come counts as having replied with it; one whose digest is another is
//! asked again, for the set.

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
    /// R replies cannot be had any more.
    Unavailable,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    NotAsked,
    Asked { whole: bool },
    Digest(u64),
    Set { digest: u64 },
    Failed,
}

/// One read on its way.
#[derive(Debug)]
pub struct ReadQuorum {
    needed: u8,
    /// In the order in which they are asked.
    owners: Vec<(NodeId, Part)>,
    merged: VersionSet,
}

impl ReadQuorum {
    /// A read that needs `needed` of `owners`, the best first.
    pub fn new(owners: impl IntoIterator<Item = NodeId>, needed: u8) -> Self {
        let owners = owners.into_iter().map(|id| (id, Part::NotAsked)).collect();
        let needed = if planted::is(Bug::ReadOneFewer) { (needed - 1).max(1) } else { needed };
        Self { needed, owners, merged: VersionSet::default() }
    }

    /// Whom to ask now: as many as are needed and not on their way. To be called at the start and after each
    /// [`ReadQuorum::replied`] and [`ReadQuorum::failed`].
    pub fn asks(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        let replied = |part: &Part| matches!(part, Part::Set { .. } | Part::Digest(_));
        if self.count(replied) >= usize::from(self.needed) && self.decision() == ReadDecision::Wait {
            // Enough have replied, but with digests that no set explains.
            let unexplained = |part: &Part| matches!(part, Part::Digest(d) if !self.explained(*d));
            let again: Vec<usize> =
                (0..self.owners.len()).filter(|&at| unexplained(&self.owners[at].1)).collect();
            asks.extend(again.into_iter().map(|at| self.ask(at, true)));
        }
        while self.count(|part| !matches!(part, Part::NotAsked | Part::Failed)) < usize::from(self.needed) {
            let comes = self.count(|part| matches!(part, Part::Set { .. } | Part::Asked { whole: true })) > 0;
            match self.next() {
                Some(at) => asks.push(self.ask(at, !comes)),
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
        self.owners.iter().position(|(_, part)| *part == Part::NotAsked)
    }

    fn ask(&mut self, at: usize, whole: bool) -> Ask {
        self.owners[at].1 = Part::Asked { whole };
        Ask { owner: self.owners[at].0, whole }
    }

    fn count(&self, wanted: impl Fn(&Part) -> bool) -> usize {
        self.owners.iter().filter(|(_, part)| wanted(part)).count()
    }

    /// An owner replied.
    pub fn replied(&mut self, owner: NodeId, reply: Reply) -> ReadDecision {
        let part = match &reply {
            Reply::Set(set) => Part::Set { digest: set.digest() },
            Reply::Digest(digest) => Part::Digest(*digest),
        };
        // The first word counts, but for a set after a digest; a stranger's does not.
        if let Some((_, known)) = self.owners.iter_mut().find(|(id, _)| *id == owner)
            && !matches!(known, Part::Set { .. })
        {
            *known = part;
            if let Reply::Set(set) = reply {
                if planted::is(Bug::SkipReadMerge) {
                    self.merged = set;
                } else {
                    self.merged.merge(&set);
                }
            }
        }
        self.decision()
    }

    /// An owner will not reply.
    pub fn failed(&mut self, owner: NodeId) -> ReadDecision {
        if let Some((_, part)) = self.owners.iter_mut().find(|(id, _)| *id == owner)
            && matches!(part, Part::NotAsked | Part::Asked { .. })
        {
            *part = Part::Failed;
        }
        self.decision()
    }

    /// What is known now.
    pub fn decision(&self) -> ReadDecision {
        let failed = self.count(|part| *part == Part::Failed);
        if self.replies() >= self.needed {
            ReadDecision::Answer
        } else if self.owners.len() - failed < usize::from(self.needed) {
            ReadDecision::Unavailable
        } else {
            ReadDecision::Wait
        }
    }

    /// How many owners replied with what [`ReadQuorum::merged`] contains.
    pub fn replies(&self) -> u8 {
        let counts = |part: &Part| match part {
            Part::Set { .. } => true,
            Part::Digest(digest) => self.explained(*digest),
            _ => false,
        };
        self.count(counts) as u8
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
            Part::Set { digest } => *digest != whole,
            // One that holds something else will be asked for it: it is not known to be stale.
            Part::Digest(digest) => self.explained(*digest) && *digest != whole,
            _ => false,
        };
        self.owners.iter().filter(|(_, part)| stale(part)).map(|(id, _)| *id).collect()
    }

    /// Owners whose sets are in the merged one, one for each different set: from them it can be had.
    pub fn sources(&self) -> Vec<NodeId> {
        let mut seen = Vec::new();
        let mut sources = Vec::new();
        for (id, part) in &self.owners {
            if let Part::Set { digest } = part
                && !seen.contains(digest)
            {
                seen.push(*digest);
                sources.push(*id);
            }
        }
        sources
    }

    /// Whether a set with this digest has come.
    fn explained(&self, wanted: u64) -> bool {
        self.owners.iter().any(|(_, part)| matches!(part, Part::Set { digest } if *digest == wanted))
    }
}
