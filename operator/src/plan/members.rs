//! Who should be a member: the wish against the ring.
//!
//! Members are disks. A place is a pod's name, and a member leaves or comes back only where its own disk, its name and
//! its pod agree; a number alone decides nothing.

use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;
use quorate_admin::types::NodeStatus;
use quorate_core::NodeId;
use quorate_core::ring::{Member, MemberState};

use super::change::{Step, with_states};
use super::progress::Progress;
use super::view::View;
use super::{Finding, Plan, Reason, RingChange, failure, names as list, reach, ring};
use crate::build::names;
use crate::observe::{Observed, PodState, RingState};
use crate::validate::ValidatedCluster;

/// How long the Service may lead clients to a pod that is not ready. (Kubernetes writes such times in whole seconds.)
const CLIENTS_LED_AWAY_AFTER: SignedDuration = SignedDuration::from_secs(4);

/// How many pods the StatefulSet shall have: as many as are wanted, and never fewer than the ring needs.
///
/// A pod goes only after the epoch that removes its member is committed, and known to its peers. Where the epoch is not
/// known, no pod goes at all.
pub(super) fn pods(cluster: &ValidatedCluster, observed: &Observed) -> u16 {
    let current = current(observed);
    let Some(view) = View::of(cluster, observed) else {
        let began = observed.recorded_epoch
            || matches!(observed.ring, RingState::Malformed(_))
            || observed.pods.iter().any(|pod| pod.status().is_some_and(|status| status.epoch.is_some()));
        return if began { current.max(cluster.nodes) } else { cluster.nodes };
    };
    let highest = view.members().filter_map(|member| view.ordinal(member)).max();
    let needed = highest.map_or(0, |ordinal| ordinal.saturating_add(1)).max(cluster.nodes);
    if Progress::of(view).is_heard() { needed } else { needed.max(current) }
}

/// How many it has; while it is made again, how many it had.
fn current(observed: &Observed) -> u16 {
    match &observed.existing.stateful_set {
        Some(set) => set.spec.replicas.and_then(|replicas| u16::try_from(replicas).ok()).unwrap_or(0),
        None => observed.pods.last().map_or(0, |pod| pod.ordinal.saturating_add(1)),
    }
}

/// A scale-down that was taken back: who leaves and is wanted again owns its share again.
pub(super) fn reactivate(view: View<'_>) -> Option<Step> {
    let wanted = |member: &Member| member.state == MemberState::Leaving && view.is_wanted(member);
    view.members().any(wanted).then(|| Step::Epoch {
        members: with_states(view, |member| wanted(member).then_some(MemberState::Active)),
        change: RingChange::Cancelled,
    })
}

/// The highest numbers go: first they own nothing any more.
pub(super) fn leave(view: View<'_>, plan: &mut Plan) -> Option<Step> {
    let goes = |member: &Member| member.state == MemberState::Active && !view.is_wanted(member);
    if !view.members().any(goes) {
        return None;
    }
    let stays = view.in_state(MemberState::Active).filter(|member| !goes(member)).count();
    let factor = view.epoch.replication().factor;
    if stays < usize::from(factor) {
        plan.find(
            Reason::BelowFactor,
            format!("{stays} members would be left for {factor} copies: nobody leaves; write nodes: {factor} or more"),
        );
        return None;
    }
    let members = with_states(view, |member| goes(member).then_some(MemberState::Leaving));
    Some(Step::Epoch { members, change: RingChange::ScaleDown })
}

/// Who left, and has nothing any more that somebody needs, is fenced for good. One epoch for all that go.
pub(super) fn remove(view: View<'_>, progress: &Progress<'_>, plan: &mut Plan) -> Option<Step> {
    let (answering, silent): (Vec<&Member>, Vec<&Member>) =
        view.in_state(MemberState::Leaving).partition(|member| view.answer(member).is_some());
    let left = |member: &Member| {
        let transition = &view.answer(member)?.transition;
        Some((transition.partitions_leaving, transition.hints_owed))
    };
    let busy: Vec<&Member> =
        answering.iter().copied().filter(|member| left(member) != Some((0, 0))).collect();
    if !busy.is_empty() {
        let (partitions, hints) = busy
            .iter()
            .filter_map(|member| left(member))
            .fold((0_u64, 0_u64), |(partitions, hints), (p, h)| (partitions + u64::from(p), hints + h));
        let busy = list(busy.iter().map(|member| member.name.as_str()));
        plan.find(
            Reason::HandingOver,
            format!("{busy} leave: {partitions} partitions and {hints} hints are still to be handed over"),
        );
        return None;
    }
    let (gone, unclear): (Vec<&Member>, Vec<&Member>) =
        silent.into_iter().partition(|member| failure::is_gone(view, member));
    if !unclear.is_empty() {
        let unclear = list(unclear.iter().map(|member| member.name.as_str()));
        plan.find(
            Reason::LeaverSilent,
            format!(
                "{unclear} leave and do not answer: what they may still have to hand over is unknown. They are removed when \
                 they answer, or when they have been down for failure.permanentAfter"
            ),
        );
    }
    let goes: BTreeSet<NodeId> = answering.into_iter().chain(gone).map(|member| member.id).collect();
    if goes.is_empty() {
        return None;
    }
    if !progress.is_done() {
        // Less than that is needed to go on; but what keeps the ring from going on keeps it from being done.
        progress.may_go_on(false, plan);
        return None;
    }
    let asked = view.members().filter(|member| goes.contains(&member.id) && !is_left_alone(view, member));
    let asked = list(asked.map(|member| member.name.as_str()));
    if !asked.is_empty() {
        plan.find(
            Reason::HandingOver,
            format!(
                "nothing is left on {asked}: removed as soon as Kubernetes has led clients away, {} s after it calls them \
                 not ready",
                CLIENTS_LED_AWAY_AFTER.as_secs()
            ),
        );
        return None;
    }
    let members = with_states(view, |member| goes.contains(&member.id).then_some(MemberState::Removed));
    Some(Step::Epoch { members, change: RingChange::Removed })
}

/// Whether clients are not led to a member any more: from the moment that it is removed it refuses them. One that has left
/// says that it is not ready; then the Service forgets it.
fn is_left_alone(view: View<'_>, member: &Member) -> bool {
    let (Some(pod), Some(status)) = (view.pod(member), view.answer(member)) else { return true };
    // An older program stays ready until it is removed: whoever waits for it waits for ever.
    let is_asked_till_the_end = status.health.ready;
    let since = pod.down_since.filter(|_| !pod.ready);
    is_asked_till_the_end
        || since.is_some_and(|since| view.observed.now.duration_since(since) >= CLIENTS_LED_AWAY_AFTER)
}

/// The places that nobody has are filled, all in one epoch, when a node answers in each, and everybody reaches it.
pub(super) fn join(view: View<'_>, plan: &mut Plan) -> Option<Step> {
    let place = |ordinal| names::pod(&view.cluster.name, ordinal);
    let free: Vec<String> =
        (0..view.cluster.nodes).map(place).filter(|name| view.member_of_pod(name).is_none()).collect();
    let pods: Vec<(&String, Option<&PodState>)> = free
        .iter()
        .map(|name| (name, view.observed.pods.iter().find(|pod| pod.name == *name && !pod.terminating)))
        .collect();
    let missing: Vec<String> = pods
        .iter()
        .filter(|(_, pod)| pod.is_none_or(|pod| pod.status().is_none()))
        .map(|(name, pod)| ring::describe((*name).clone(), *pod))
        .collect();
    if !missing.is_empty() {
        let missing = list(missing.iter().map(String::as_str));
        let (free, wanted) = (free.len(), view.cluster.nodes);
        plan.find(
            Reason::WaitingForNodes,
            format!("{free} of {wanted} nodes are no members yet; they join together when {missing} answer"),
        );
        return None;
    }
    let comers: Vec<(&PodState, &NodeStatus)> =
        pods.into_iter().filter_map(|(_, pod)| Some((pod?, pod?.status()?))).collect();
    if let Some(message) = ring::duplicate(&comers) {
        plan.find(Reason::DuplicateDisk, message);
        return None;
    }
    let members: Result<Vec<Member>, Finding> =
        comers.iter().map(|(pod, status)| newcomer(view, pod, status)).collect();
    let members = match members {
        Ok(members) if members.is_empty() => return None,
        Ok(members) => members,
        Err(finding) => {
            plan.findings.push(finding);
            return None;
        }
    };
    let unreached = reach::unreached(view, &comers);
    if !unreached.is_empty() {
        let unreached = list(unreached.iter().map(String::as_str));
        let (free, wanted) = (free.len(), view.cluster.nodes);
        plan.find(
            Reason::WaitingForNodes,
            format!(
                "{free} of {wanted} nodes are no members yet; they join together when every node that answers reaches \
                 {unreached}"
            ),
        );
        return None;
    }
    let members = view.epoch.members().iter().cloned().chain(members).collect();
    Some(Step::Epoch { members, change: RingChange::ScaleUp })
}

/// The member that a pod's node can become: with an empty disk that the ring never knew.
pub(super) fn newcomer(view: View<'_>, pod: &PodState, status: &NodeStatus) -> Result<Member, Finding> {
    let id = status.identity.node_id;
    let refuse = |reason, message| Err(Finding { reason, message });
    match view.epoch.member(id) {
        Some(known) if known.state.takes_part() => refuse(
            Reason::DuplicateDisk,
            format!("{} has the disk of {} ({id}): put each volume back to its pod", pod.name, known.name),
        ),
        Some(_) => refuse(
            Reason::RemovedDisk,
            format!(
                "{} has a disk that was removed from the ring for good ({id}): delete its volume claim and then the pod, so \
                 that it comes back with an empty one",
                pod.name
            ),
        ),
        None if status.health.keys > 0 => refuse(
            Reason::DiskNotEmpty,
            format!(
                "{} has a disk with data ({id}) that the ring never knew: delete its volume claim and then the pod, if \
                 nothing on it is needed",
                pod.name
            ),
        ),
        None => Ok(ring::member(pod, status)),
    }
}
