//! Whether a member is gone for good: what Kubernetes says, and what the other members say.
//!
//! An outage is rarely for good, and silence towards the operator proves nothing: both sides must agree.

use k8s_openapi::jiff::Timestamp;
use quorate_admin::types::{Liveness, NodeStatus};
use quorate_core::ring::Member;

use super::view::View;
use crate::observe::{ClaimState, Obstacle, PodState};

/// A member that does not answer as itself.
pub(super) struct Suspect<'a> {
    pub(super) member: &'a Member,
    pub(super) pod: Option<&'a PodState>,
    /// What runs in its place, with another disk.
    pub(super) other: Option<(&'a PodState, &'a NodeStatus)>,
    pub(super) kubernetes: Kubernetes,
    pub(super) peers: Peers,
}

/// What Kubernetes says of a member that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kubernetes {
    /// Its disk is gone: its pod has another one, or there is no volume claim.
    DiskGone,
    /// It has been down since then, for a reason that its machine or its volume can have.
    DownSince(Timestamp),
    /// Nothing that its machine or its volume could be blamed for.
    Nothing,
}

/// How the members that answer see a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peers {
    /// Call it down, or never heard of it.
    pub(super) down: usize,
    /// Were asked.
    pub(super) asked: usize,
}

impl Peers {
    pub(super) fn agree(self) -> bool {
        2 * self.down > self.asked
    }
}

impl<'a> Suspect<'a> {
    /// None for a member that answers.
    pub(super) fn of(view: View<'a>, member: &'a Member) -> Option<Self> {
        if view.answer(member).is_some() {
            return None;
        }
        let pod = view.pod(member);
        let other = pod.and_then(|pod| Some((pod, pod.status()?)));
        let claim = view.ordinal(member).and_then(|ordinal| view.claim(ordinal));
        let kubernetes = match other {
            Some(_) => Kubernetes::DiskGone,
            None => kubernetes(view, pod, claim),
        };
        Some(Self { member, pod, other, kubernetes, peers: peers(view, member) })
    }

    /// When Kubernetes' side of the evidence is complete; none for never, as it stands.
    pub(super) fn since(&self, view: View<'_>) -> Option<Timestamp> {
        match self.kubernetes {
            Kubernetes::DiskGone => Some(Timestamp::MIN),
            // A time beyond the calendar never comes.
            Kubernetes::DownSince(since) => since.checked_add(view.cluster.permanent_after).ok(),
            Kubernetes::Nothing => None,
        }
    }

    /// Whether both sides say that it is gone for good.
    pub(super) fn is_gone(&self, view: View<'_>) -> bool {
        self.peers.agree() && self.since(view).is_some_and(|time| time <= view.observed.now)
    }
}

fn kubernetes(view: View<'_>, pod: Option<&PodState>, claim: Option<&ClaimState>) -> Kubernetes {
    if claim.is_none_or(|claim| claim.terminating) {
        return Kubernetes::DiskGone;
    }
    let Some(pod) = pod.filter(|pod| !pod.ready) else { return Kubernetes::Nothing };
    // A program that runs nowhere is no fault of this one's disk.
    let works_elsewhere = || {
        let same = |(other, _): &(&PodState, _)| other.name != pod.name && other.revision == pod.revision;
        view.answers().any(|answer| same(&answer))
    };
    let blames_the_machine = match pod.obstacle {
        _ if claim.is_some_and(|claim| claim.lost) => true,
        Some(Obstacle::Room | Obstacle::Template) => false,
        Some(Obstacle::Volume) => true,
        Some(Obstacle::Start) | None => works_elsewhere(),
    };
    match pod.down_since.filter(|_| blames_the_machine) {
        Some(since) => Kubernetes::DownSince(since),
        None => Kubernetes::Nothing,
    }
}

fn peers(view: View<'_>, member: &Member) -> Peers {
    let others = view.answering().filter(|(other, _)| other.id != member.id);
    let mut peers = Peers { down: 0, asked: 0 };
    for (_, status) in others {
        let seen = status.members.members.iter().find(|seen| seen.id == member.id);
        peers.asked += 1;
        let is_down = seen.is_none_or(|seen| matches!(seen.liveness, Liveness::Down | Liveness::Left));
        peers.down += usize::from(is_down);
    }
    peers
}
