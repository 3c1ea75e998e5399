//! The committed ring and what its members say of it: what every decision about members starts from.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_admin::types::{NodeStatus, StorageState};
use quorate_core::NodeId;
use quorate_core::ring::{Epoch, Member, MemberState, Partition};

use crate::build::names;
use crate::observe::{ClaimState, Observed, PodState, RingObject, RingState};
use crate::validate::ValidatedCluster;

/// A committed epoch, the wish, and what was observed.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// The wish: its `nodes` are those that the ring shall have.
    pub(super) cluster: &'a ValidatedCluster,
    pub(super) object: &'a RingObject,
    pub(super) epoch: &'a Arc<Epoch>,
    pub(super) observed: &'a Observed,
}

impl<'a> View<'a> {
    /// None before the first epoch, and while it is lost.
    pub(super) fn of(cluster: &'a ValidatedCluster, observed: &'a Observed) -> Option<Self> {
        let RingState::Present(object) = &observed.ring else { return None };
        Some(Self { cluster, object, epoch: object.epoch.as_ref()?, observed })
    }

    /// Who takes part: active and leaving members.
    pub(super) fn members(self) -> impl Iterator<Item = &'a Member> {
        self.epoch.members().iter().filter(|member| member.state.takes_part())
    }

    /// The members in a state.
    pub(super) fn in_state(self, state: MemberState) -> impl Iterator<Item = &'a Member> {
        self.epoch.members().iter().filter(move |member| member.state == state)
    }

    /// The member that takes part under a pod's name.
    pub(super) fn member_of_pod(self, name: &str) -> Option<&'a Member> {
        self.members().find(|member| member.name == name)
    }

    /// Whether the wish has a place for a member. One whose name is not of the StatefulSet's making stays.
    pub(super) fn is_wanted(self, member: &Member) -> bool {
        self.ordinal(member).is_none_or(|ordinal| ordinal < self.cluster.nodes)
    }

    pub(super) fn ordinal(self, member: &Member) -> Option<u16> {
        names::ordinal(&self.cluster.name, &member.name)
    }

    /// A member's pod.
    pub(super) fn pod(self, member: &Member) -> Option<&'a PodState> {
        self.observed.pods.iter().find(|pod| pod.name == member.name)
    }

    /// The claim that the pod with a number mounts.
    pub(super) fn claim(self, ordinal: u16) -> Option<&'a ClaimState> {
        self.observed.claims.iter().find(|claim| claim.ordinal == ordinal)
    }

    /// Every pod that answers.
    pub(super) fn answers(self) -> impl Iterator<Item = (&'a PodState, &'a NodeStatus)> {
        self.observed.pods.iter().filter_map(|pod| Some((pod, pod.status()?)))
    }

    /// What a member says. Its disk and its pod must match: a disk in another pod is not where the ring says it is.
    pub(super) fn answer(self, member: &Member) -> Option<&'a NodeStatus> {
        self.pod(member)?.status().filter(|status| status.identity.node_id == member.id)
    }

    /// The members that answer.
    pub(super) fn answering(self) -> impl Iterator<Item = (&'a Member, &'a NodeStatus)> {
        self.members().filter_map(move |member| Some((member, self.answer(member)?)))
    }

    /// Owners of a partition that must have answered before something is known of it: every read quorum meets them, and
    /// they are enough to end an older epoch.
    pub(super) fn quorum(self) -> usize {
        let replication = self.epoch.replication();
        usize::from(replication.read_quorum.max(replication.factor + 1 - replication.read_quorum))
    }

    /// How many partitions have fewer than [`Self::quorum`] owners of which something holds.
    pub(super) fn short(self, holds: impl Fn(&Member, &NodeStatus) -> bool) -> usize {
        let good: BTreeSet<NodeId> = self
            .answering()
            .filter(|(member, status)| holds(member, status))
            .map(|(member, _)| member.id)
            .collect();
        let is_short =
            |p: &Partition| self.epoch.owners(*p).filter(|m| good.contains(&m.id)).count() < self.quorum();
        self.epoch.partitions().iter().filter(is_short).count()
    }

    /// Whether a member has all of what it owns, and serves it.
    pub(super) fn is_whole(self, status: &NodeStatus) -> bool {
        status.epoch == Some(self.epoch.mark())
            && status.health.storage != StorageState::Failed
            && status.transition.partitions_syncing == 0
    }
}
