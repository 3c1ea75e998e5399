//! The nodes that this one knows, each under the greatest claim heard. Bounded: when it is full, nodes that
//! left, then nodes that are down, longest first, make room for those that are up; without such, newcomers
//! wait.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::claim::{Claim, Incarnation, NodeInfo, State};
use super::message::KNOWN_MAX;
use crate::id::NodeId;
use crate::planted::{self, Bug};

/// How this node sees another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberView {
    /// Who it is and where.
    pub node: Arc<NodeInfo>,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// How it is.
    pub state: State,
    /// Since when, in this node's time.
    pub since: Duration,
    /// How often it was down and came back, as long as this node knows it.
    pub flaps: u32,
    /// How far its clock is ahead of this node's, in milliseconds: see [`super::Membership::skew`].
    pub skew_ms: Option<i64>,
    /// Who said so last.
    pub(super) by: NodeId,
}

impl MemberView {
    pub(super) fn claim(&self) -> Claim {
        Claim { node: self.node.clone(), incarnation: self.incarnation, state: self.state, by: self.by }
    }
}

/// What became of a claim.
pub(super) enum Outcome {
    /// It is older than what is known, or there is no room.
    Ignored,
    /// It says again what is known.
    Repeated,
    /// It stands now. `visible`: it changes more than the count of refutations.
    Stands { visible: bool },
}

#[derive(Default)]
pub(super) struct Table {
    members: BTreeMap<NodeId, MemberView>,
    /// How many of them take part: asked for with each message.
    live: usize,
}

impl Table {
    pub(super) fn get(&self, id: NodeId) -> Option<&MemberView> {
        self.members.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &MemberView> {
        self.members.values()
    }

    /// Nodes that take part.
    pub(super) fn live(&self) -> impl Iterator<Item = &MemberView> {
        self.iter().filter(|member| member.state.is_live())
    }

    /// How many nodes take part.
    pub(super) fn live_count(&self) -> usize {
        self.live
    }

    pub(super) fn remove(&mut self, id: NodeId) -> bool {
        let removed = self.members.remove(&id);
        self.live -= usize::from(removed.as_ref().is_some_and(|member| member.state.is_live()));
        removed.is_some()
    }

    pub(super) fn absorb(&mut self, claim: &Claim, now: Duration) -> Outcome {
        let id = claim.node.id;
        let Some(known) = self.members.get_mut(&id) else {
            return self.admit(claim, now);
        };
        match claim.compare(known.incarnation, known.state, &known.node) {
            Ordering::Less => return Outcome::Ignored,
            Ordering::Equal => return Outcome::Repeated,
            Ordering::Greater if planted::is(Bug::ForgetRefutation) && !known.state.is_live() => {
                return Outcome::Ignored;
            }
            Ordering::Greater => {}
        }
        let same_state = claim.state == known.state;
        let same_life = claim.incarnation.start == known.incarnation.start && claim.node == known.node;
        let since = if same_state && same_life { known.since } else { now };
        self.live += usize::from(claim.state.is_live());
        self.live -= usize::from(known.state.is_live());
        let flapped = known.state == State::Down && claim.state.is_live();
        let flaps = known.flaps.saturating_add(flapped.into());
        // Another life, perhaps on another machine: that one has not answered yet.
        let skew_ms = known.skew_ms.filter(|_| same_life);
        *known = MemberView { flaps, skew_ms, ..view(claim, since) };
        Outcome::Stands { visible: !(same_state && same_life) }
    }

    /// Another node makes the same claim.
    pub(super) fn said_by(&mut self, id: NodeId, by: NodeId) {
        if let Some(known) = self.members.get_mut(&id) {
            known.by = by;
        }
    }

    /// The node's clock was compared with ours.
    pub(super) fn compared(&mut self, id: NodeId, skew_ms: i64) {
        if let Some(known) = self.members.get_mut(&id) {
            known.skew_ms = Some(skew_ms);
        }
    }

    fn admit(&mut self, claim: &Claim, now: Duration) -> Outcome {
        if self.members.len() >= KNOWN_MAX && !(claim.state.is_live() && self.make_room()) {
            return Outcome::Ignored;
        }
        self.members.insert(claim.node.id, view(claim, now));
        self.live += usize::from(claim.state.is_live());
        Outcome::Stands { visible: true }
    }

    fn make_room(&mut self) -> bool {
        let gone = self.iter().filter(|m| !m.state.is_live());
        let oldest = gone.min_by_key(|m| (m.state != State::Left, m.since)).map(|m| m.node.id);
        oldest.is_some_and(|id| self.remove(id))
    }
}

fn view(claim: &Claim, since: Duration) -> MemberView {
    let Claim { node, incarnation, state, by } = claim.clone();
    MemberView { node, incarnation, state, since, flaps: 0, skew_ms: None, by }
}
