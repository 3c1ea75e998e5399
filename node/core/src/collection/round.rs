//! The leader's side of one round.

use std::collections::BTreeMap;
use std::mem;

use super::Mark;
use super::message::{
    CANDIDATES_MAX, Candidate, KEYS_BYTES_MAX, PARTICIPANTS_MAX, Reply, Request, RoundId, Step,
};
use crate::id::NodeId;
use crate::planted::{self, Bug};
use crate::ring::Partition;

/// How often one participant is asked one thing.
pub const TRIES_MAX: u32 = 3;

/// What the caller does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Ask a participant, which may be this node; then [`Round::replied`] or [`Round::expired`].
    Ask {
        /// Whom.
        to: NodeId,
        /// What.
        request: Request,
    },
    /// The round is over.
    Finished(Outcome),
}

/// How a round ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Keys that were cleared by everybody; those of them that the owners still held so are forgotten.
    pub cleared: usize,
    /// Whether every owner said that it has done its part. If not, anti-entropy brings the tombstones back to the
    /// others, which does no harm, and a later round tries again.
    pub complete: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Confirm,
    Fence,
    Collect,
    Over,
}

/// One round.
#[derive(Debug)]
pub struct Round {
    id: RoundId,
    partition: Partition,
    owners: Vec<NodeId>,
    fallbacks: Vec<NodeId>,
    /// What this phase is about: what the phase before has left.
    candidates: Vec<Candidate>,
    /// Which of them everybody has cleared who answered in this phase.
    clear: Vec<bool>,
    phase: Phase,
    /// Who has not answered in this phase, and how often it was asked.
    waiting: BTreeMap<NodeId, u32>,
    /// The latest of each who answered.
    marks: BTreeMap<NodeId, Mark>,
}

impl Round {
    /// A round over some candidates; those beyond [`CANDIDATES_MAX`] and [`KEYS_BYTES_MAX`] are left out.
    ///
    /// `owners` are those of the partition in every live epoch, this node included; `fallbacks` is every other node
    /// that may keep a hint of the partition or hold a rest of its data. More than [`PARTICIPANTS_MAX`] of them
    /// make a round that ends without doing anything.
    pub fn new(
        id: RoundId,
        partition: Partition,
        owners: impl IntoIterator<Item = NodeId>,
        fallbacks: impl IntoIterator<Item = NodeId>,
        candidates: impl IntoIterator<Item = Candidate>,
    ) -> Self {
        let mut owners: Vec<NodeId> = owners.into_iter().collect();
        owners.sort_unstable();
        owners.dedup();
        let mut fallbacks: Vec<NodeId> = fallbacks.into_iter().filter(|id| !owners.contains(id)).collect();
        fallbacks.sort_unstable();
        fallbacks.dedup();
        let mut bytes = 0;
        let fits = |candidate: &Candidate| {
            bytes += candidate.key.len();
            bytes <= KEYS_BYTES_MAX
        };
        let mut candidates: Vec<Candidate> =
            candidates.into_iter().take(CANDIDATES_MAX).take_while(fits).collect();
        if owners.len() + fallbacks.len() > PARTICIPANTS_MAX {
            candidates.clear();
        }
        let clear = vec![true; candidates.len()];
        Self {
            id,
            partition,
            owners,
            fallbacks,
            candidates,
            clear,
            phase: Phase::Confirm,
            waiting: BTreeMap::new(),
            marks: BTreeMap::new(),
        }
    }

    /// The first questions.
    pub fn begin(&mut self) -> Vec<Action> {
        self.enter(Phase::Confirm)
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// A participant answered. What is doubled, late or of another round is ignored.
    pub fn replied(&mut self, from: NodeId, reply: Reply) -> Vec<Action> {
        match reply {
            Reply::Cleared { round, step, clear, mark } if round == self.id => {
                let current = matches!(
                    (step, self.phase),
                    (Step::Confirm, Phase::Confirm) | (Step::Fence, Phase::Fence)
                );
                if !current || self.waiting.remove(&from).is_none() {
                    return Vec::new();
                }
                self.clear_only(&clear);
                self.marks.insert(from, mark);
                self.advance()
            }
            Reply::Collected { round, .. } if round == self.id && self.phase == Phase::Collect => {
                self.waiting.remove(&from);
                self.advance()
            }
            Reply::Declined { round } if round == self.id && self.waiting.contains_key(&from) => {
                self.end(false)
            }
            _ => Vec::new(),
        }
    }

    /// A participant did not answer: it is asked again, and at last the round ends.
    pub fn expired(&mut self, from: NodeId) -> Vec<Action> {
        let Some(tries) = self.waiting.get_mut(&from) else { return Vec::new() };
        if *tries >= TRIES_MAX {
            return self.end(false);
        }
        *tries += 1;
        vec![Action::Ask { to: from, request: self.request() }]
    }

    /// Only what every participant cleared stays clear.
    fn clear_only(&mut self, positions: &[u16]) {
        for (at, clear) in self.clear.iter_mut().enumerate() {
            *clear &= positions.contains(&(at as u16));
        }
    }

    /// Goes on when everybody has answered.
    fn advance(&mut self) -> Vec<Action> {
        let early =
            planted::is(Bug::CollectTombstoneEarly) && self.phase == Phase::Confirm && self.marks.len() > 1;
        if !self.waiting.is_empty() && !early {
            return Vec::new();
        }
        match self.phase {
            Phase::Confirm if early => self.enter(Phase::Collect),
            Phase::Confirm => self.enter(Phase::Fence),
            Phase::Fence => self.enter(Phase::Collect),
            Phase::Collect => self.end(true),
            Phase::Over => Vec::new(),
        }
    }

    fn enter(&mut self, phase: Phase) -> Vec<Action> {
        let mut clear = mem::take(&mut self.clear).into_iter();
        self.candidates.retain(|_| clear.next() == Some(true));
        self.clear = vec![true; self.candidates.len()];
        if self.candidates.is_empty() {
            return self.end(true);
        }
        self.phase = phase;
        let fallbacks = if phase == Phase::Fence { self.fallbacks.as_slice() } else { &[] };
        let asked = self.owners.iter().chain(fallbacks);
        self.waiting = asked.clone().map(|&id| (id, 1)).collect();
        // A fence is about what the owners sent until they confirmed.
        let request = self.request();
        asked.map(|&to| Action::Ask { to, request: request.clone() }).collect()
    }

    fn request(&self) -> Request {
        let (round, partition) = (self.id, self.partition);
        match self.phase {
            Phase::Fence => Request::Fence {
                round,
                partition,
                floors: self.floors(),
                keys: self.candidates.iter().map(|candidate| candidate.key.clone()).collect(),
            },
            Phase::Collect => Request::Collect {
                round,
                partition,
                floors: self.floors(),
                candidates: self.candidates.clone(),
            },
            Phase::Confirm | Phase::Over => {
                Request::Confirm { round, partition, candidates: self.candidates.clone() }
            }
        }
    }

    fn floors(&self) -> Vec<(NodeId, Mark)> {
        self.marks.iter().map(|(&id, &mark)| (id, mark)).collect()
    }

    fn end(&mut self, complete: bool) -> Vec<Action> {
        let cleared = if self.phase == Phase::Collect { self.candidates.len() } else { 0 };
        self.phase = Phase::Over;
        self.waiting.clear();
        vec![Action::Finished(Outcome { cleared, complete })]
    }
}
