//! Volumes: which disk is on a claim, and which claims may go.
//!
//! INV-PROOF, INV-UID: a claim is deleted only when the disk that is written on it is proven not to be needed, and only
//! in the incarnation that was observed. A claim on which nothing is written is left to a person.

use quorate_core::NodeId;
use quorate_core::ring::MemberState;

use super::change::Step;
use super::progress::Progress;
use super::view::View;
use super::{Action, Plan, Reason};
use crate::crd::VolumePolicy;
use crate::observe::{ClaimState, DiskMark, Observed, PodState, RingState};

/// Writes on each claim whose disk a node found there.
pub(super) fn mark(plan: &mut Plan, observed: &Observed) {
    let RingState::Present(ring) = &observed.ring else { return };
    let ids = || observed.pods.iter().filter_map(|pod| Some(pod.status()?.identity.node_id));
    let marks = observed.pods.iter().filter_map(|pod| {
        let identity = &pod.status()?.identity;
        // Of two pods with one disk, one has a copy.
        if ids().filter(|id| *id == identity.node_id).count() > 1 {
            return None;
        }
        let claim = observed.claims.iter().find(|claim| claim.ordinal == pod.ordinal)?;
        let disk = DiskMark { cluster: identity.cluster_id, node: identity.node_id };
        let is_due = disk.cluster == ring.cluster_id && claim.disk != Some(disk) && !claim.terminating;
        is_due.then(|| Action::MarkClaim { name: claim.name.clone(), uid: claim.uid.clone(), disk })
    });
    plan.actions.extend(marks);
}

/// Deletes the claims of nodes that are wanted no more, one at a time, where the spec says so.
pub(super) fn sweep(view: View<'_>, progress: &Progress<'_>, plan: &mut Plan) {
    if view.cluster.storage.on_scale_down != VolumePolicy::Delete || !progress.is_heard() {
        return;
    }
    let set = view.observed.existing.stateful_set.as_ref();
    let Some(replicas) = set.and_then(|set| u16::try_from(set.spec.replicas?).ok()) else { return };
    let kept = replicas.max(plan.cluster.nodes);
    let has_pod = |claim: &ClaimState| view.observed.pods.iter().any(|pod| pod.ordinal == claim.ordinal);
    let spare = view.observed.claims.iter().find(|claim| {
        claim.ordinal >= kept && !claim.terminating && !has_pod(claim) && is_needless(view, claim)
    });
    plan.actions.extend(spare.map(|claim| delete(claim, "its node was removed from the ring")));
}

/// A disk of this ring that the ring removed, or never knew. (One that was given up as lost may still hold what somebody
/// wants back.)
fn is_needless(view: View<'_>, claim: &ClaimState) -> bool {
    let Some(disk) = claim.disk.filter(|disk| disk.cluster == view.object.cluster_id) else { return false };
    view.epoch.member(disk.node).is_none_or(|member| member.state == MemberState::Removed)
}

/// A node that was removed and is wanted again needs an empty disk. Its old one goes where the spec says so.
pub(super) fn renew(view: View<'_>, plan: &mut Plan) -> Option<Step> {
    if view.cluster.storage.on_scale_down != VolumePolicy::Delete {
        return None;
    }
    let is_old =
        |id: NodeId| view.epoch.member(id).is_some_and(|member| member.state == MemberState::Removed);
    let place = view.observed.pods.iter().find(|pod| {
        let is_free = pod.ordinal < view.cluster.nodes && view.member_of_pod(&pod.name).is_none();
        is_free && pod.status().is_some_and(|status| is_old(status.identity.node_id))
    })?;
    plan.find(
        Reason::NewDisk,
        format!("{} comes back with an empty disk: its old one was removed from the ring", place.name),
    );
    empty(view, place, false)
}

/// The next step to a pod with an empty disk: the claim first, then the pod. None while that is on its way.
pub(super) fn empty(view: View<'_>, pod: &PodState, machine_is_dead: bool) -> Option<Step> {
    match view.claim(pod.ordinal) {
        Some(claim) if !claim.terminating => Some(Step::Disk(delete(claim, "its disk is replaced"))),
        // A claim that a pod uses goes only after the pod.
        _ if !pod.terminating || machine_is_dead => Some(Step::Disk(Action::RenewPod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            now: pod.terminating,
        })),
        _ => None,
    }
}

fn delete(claim: &ClaimState, why: &'static str) -> Action {
    Action::DeleteClaim { name: claim.name.clone(), uid: claim.uid.clone(), why }
}
