//! Whose ring it is, which epoch holds, and who does not have it yet.
//!
//! INV-EPOCH: an epoch is committed to the ConfigMap by compare-and-swap in one pass, and pushed to nodes in a later
//! one, as it was read back. No pass does both, so no node ever hears of an epoch that did not make it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_admin::types::{NodeStatus, StorageState};
use quorate_core::ring::{Epoch, EpochMark, Member, MemberState, planner};
use quorate_core::{ClusterId, NodeId};

use super::progress::Progress;
use super::view::View;
use super::{Action, Plan, Reason, RingChange, change, disks};
use crate::build::names;
use crate::crd::VolumePolicy;
use crate::observe::{Observed, PodState, RingObject, RingState};
use crate::validate::ValidatedCluster;

/// Every member's share of the ring; all equal in this version.
const WEIGHT: u32 = 100;

/// Sees to the ConfigMap with the cluster's identity. Answers whether there is one, or will be after this plan: the
/// pods cannot start without.
pub(super) fn identity(plan: &mut Plan, observed: &Observed) -> bool {
    match &observed.ring {
        RingState::Present(ring) => {
            keep_owner(plan, ring);
            true
        }
        RingState::Malformed(error) => {
            let name = names::ring(&plan.cluster.name);
            plan.find(
                Reason::RingMalformed,
                format!("ConfigMap {name} cannot be read ({error}): put it back from a backup, or delete it, and it is \
                         recovered from the nodes"),
            );
            false
        }
        RingState::Absent => create(plan, observed),
    }
}

/// The ring lives as long as the volumes do.
fn keep_owner(plan: &mut Plan, ring: &RingObject) {
    let goes_with_us = ring.owners.iter().any(|owner| owner.uid == plan.cluster.owner.uid);
    let should = plan.cluster.storage.on_delete == VolumePolicy::Delete;
    if goes_with_us != should {
        plan.actions.push(Action::ReplaceRing {
            cluster_id: ring.cluster_id,
            epoch: ring.epoch.clone(),
            change: ring.change,
            resource_version: ring.resource_version.clone(),
        });
    }
}

/// A new identity only where no disk can have an old one.
fn create(plan: &mut Plan, observed: &Observed) -> bool {
    let said: BTreeSet<ClusterId> = statuses(observed)
        .map(|(_, status)| status.identity.cluster_id)
        .chain(observed.recorded_cluster_id)
        .collect();
    let is_fresh = observed.existing.stateful_set.is_none() && observed.pods.is_empty();
    let name = names::ring(&plan.cluster.name);
    match said.into_iter().collect::<Vec<_>>().as_slice() {
        [] if is_fresh => plan.actions.push(Action::CreateRing { cluster_id: None }),
        [id] => plan.actions.push(Action::CreateRing { cluster_id: Some(*id) }),
        [] => {
            plan.find(
                Reason::RecoveringRing,
                format!("ConfigMap {name} is gone; it is made again as soon as a node answers and says whose disk it has"),
            );
            return false;
        }
        _ => {
            plan.find(
                Reason::RingDisagreement,
                format!("ConfigMap {name} is gone and the nodes have disks of different clusters: put it back from a backup"),
            );
            return false;
        }
    }
    true
}

/// Sees to the epoch: the first one, a lost one, or the next one. Answers the committed one, to be pushed.
pub(super) fn epoch(cluster: &ValidatedCluster, plan: &mut Plan, observed: &Observed) -> Option<Arc<Epoch>> {
    let RingState::Present(ring) = &observed.ring else { return None };
    if !disks_are_of(ring.cluster_id, plan, observed) {
        return None;
    }
    storage(plan, observed);
    disks::mark(plan, observed);
    if let Some(view) = View::of(cluster, observed) {
        change::next(view, &Progress::of(view), plan);
    } else if statuses(observed).any(|(_, status)| status.epoch.is_some()) {
        recover(ring, plan, observed);
    } else {
        first(ring, plan, observed);
    }
    ring.epoch.clone()
}

fn disks_are_of(cluster: ClusterId, plan: &mut Plan, observed: &Observed) -> bool {
    let others = statuses(observed).filter(|(_, status)| status.identity.cluster_id != cluster);
    let others: Vec<&str> = others.map(|(pod, _)| pod.name.as_str()).collect();
    if others.is_empty() {
        return true;
    }
    plan.find(
        Reason::WrongCluster,
        format!(
            "the disks of {} belong to another cluster than {cluster}: delete their volumes if nothing on them is needed",
            super::names(others)
        ),
    );
    false
}

fn storage(plan: &mut Plan, observed: &Observed) {
    let trouble = |state| {
        let with = statuses(observed).filter(move |(_, status)| status.health.storage == state);
        with.map(|(pod, _)| pod.name.as_str()).collect::<Vec<_>>()
    };
    let full = trouble(StorageState::Full);
    if !full.is_empty() {
        let full = super::names(full);
        plan.find(
            Reason::StorageTrouble,
            format!("the disk of {full} is full: it refuses writes until space is free again"),
        );
    }
    let failed = trouble(StorageState::Failed);
    if !failed.is_empty() {
        let failed = super::names(failed);
        plan.find(
            Reason::StorageTrouble,
            format!("the disk of {failed} failed: it refuses writes; see its log"),
        );
    }
}

/// Commits epoch 1 when every node has answered.
fn first(ring: &RingObject, plan: &mut Plan, observed: &Observed) {
    let expected = plan.cluster.nodes;
    let ready: Vec<(&PodState, &NodeStatus)> =
        statuses(observed).filter(|(pod, _)| pod.ordinal < expected && !pod.terminating).collect();
    if ready.len() < usize::from(expected) {
        wait_for_nodes(plan, observed);
        return;
    }
    if let Some(finding) = duplicate(&ready) {
        plan.find(Reason::DuplicateDisk, finding);
        return;
    }
    let members = ready.iter().map(|(pod, status)| member(pod, status)).collect();
    match planner::first_epoch(ring.cluster_id, plan.cluster.partitions, plan.cluster.replication, members) {
        Ok(epoch) => commit(ring, Arc::new(epoch), RingChange::FirstEpoch, plan),
        Err(error) => plan.find(Reason::PlanFailed, format!("the first epoch cannot be planned: {error}")),
    }
}

pub(super) fn member(pod: &PodState, status: &NodeStatus) -> Member {
    Member {
        id: status.identity.node_id,
        name: pod.name.clone(),
        address: status.identity.address.clone(),
        zone: pod.zone.clone(),
        weight: WEIGHT,
        state: MemberState::Active,
    }
}

pub(super) fn commit(ring: &RingObject, epoch: Arc<Epoch>, change: RingChange, plan: &mut Plan) {
    // A change of owner in the same pass would race with this one for the resource version.
    plan.actions.retain(|action| !matches!(action, Action::ReplaceRing { .. }));
    plan.actions.push(Action::ReplaceRing {
        cluster_id: ring.cluster_id,
        epoch: Some(epoch),
        change: Some(change),
        resource_version: ring.resource_version.clone(),
    });
}

fn wait_for_nodes(plan: &mut Plan, observed: &Observed) {
    let cluster = &plan.cluster;
    let pod = |ordinal: u16| observed.pods.iter().find(|pod| pod.ordinal == ordinal);
    let missing: Vec<String> = (0..cluster.nodes)
        .filter(|ordinal| pod(*ordinal).is_none_or(|pod| pod.status().is_none()))
        .map(|ordinal| describe(names::pod(&cluster.name, ordinal), pod(ordinal)))
        .collect();
    let answered = usize::from(cluster.nodes) - missing.len();
    let message = format!(
        "{answered} of {} nodes answer; the first epoch waits for {}",
        cluster.nodes,
        super::names(missing.iter().map(String::as_str))
    );
    plan.find(Reason::WaitingForNodes, message);
}

pub(super) fn describe(name: String, pod: Option<&PodState>) -> String {
    match pod {
        None => format!("{name} (no pod)"),
        Some(PodState { trouble: Some(trouble), .. }) => format!("{name} ({trouble})"),
        Some(_) => name,
    }
}

pub(super) fn duplicate(nodes: &[(&PodState, &NodeStatus)]) -> Option<String> {
    let mut seen: BTreeMap<NodeId, &str> = BTreeMap::new();
    nodes.iter().find_map(|(pod, status)| {
        let id = status.identity.node_id;
        let other = seen.insert(id, &pod.name)?;
        Some(format!(
            "{other} and {} both have the disk {id}: one is a copy; delete the volume and the pod of one of them",
            pod.name
        ))
    })
}

/// The ConfigMap lost its epoch: the nodes have it. Nothing is guessed: the members that the newest one names must all
/// have answered, and every pod, since one that has not may know a newer one.
fn recover(ring: &RingObject, plan: &mut Plan, observed: &Observed) {
    let held = || observed.pods.iter().filter_map(|pod| pod.held.as_ref());
    let Some(newest) = held().max_by_key(|epoch| epoch.number()) else { return };
    let name = names::ring(&plan.cluster.name);
    // While an epoch is on its way, nodes hold the one before: that is no disagreement.
    if held().any(|epoch| newest.follows(epoch).is_err()) || newest.cluster() != ring.cluster_id {
        plan.find(
            Reason::RingDisagreement,
            format!(
                "ConfigMap {name} lost its epoch and the nodes hold different ones: put it back from a backup"
            ),
        );
        return;
    }
    let answered: BTreeSet<NodeId> = statuses(observed).map(|(_, status)| status.identity.node_id).collect();
    let members = newest.members().iter();
    let members = members.filter(|member| member.state.takes_part() && !answered.contains(&member.id));
    let pods = observed.pods.iter().filter(|pod| pod.status().is_none());
    let silent: BTreeSet<&str> =
        members.map(|member| member.name.as_str()).chain(pods.map(|pod| pod.name.as_str())).collect();
    if silent.is_empty() {
        commit(ring, Arc::clone(newest), RingChange::Recovered, plan);
        return;
    }
    let silent = super::names(silent);
    plan.find(
        Reason::RecoveringRing,
        format!("ConfigMap {name} lost its epoch; it is recovered from the nodes when {silent} answers too"),
    );
}

/// Brings the committed epoch to the members that do not have it. Those that it removes are told too, and not waited
/// for.
pub(super) fn push(epoch: &Arc<Epoch>, plan: &mut Plan, observed: &Observed) {
    silent_members(epoch, plan, observed);
    let mark = epoch.mark();
    let ahead = statuses(observed).filter(|(_, status)| {
        status.epoch.is_some_and(|held: EpochMark| held != mark && held.number >= mark.number)
    });
    let ahead: Vec<&str> = ahead.map(|(pod, _)| pod.name.as_str()).collect();
    if !ahead.is_empty() {
        plan.find(
            Reason::EpochConflict,
            format!(
                "{} hold an epoch that is not committed here (epoch {} is): ConfigMap {} was put back to an older state; put \
                 the newest one back",
                super::names(ahead.iter().copied()),
                mark.number,
                names::ring(&plan.cluster.name)
            ),
        );
    }
    let behind: Vec<&PodState> = statuses(observed)
        .filter(|(pod, status)| {
            epoch.member(status.identity.node_id).is_some_and(|member| member.name == pod.name)
        })
        .filter(|(_, status)| status.epoch.is_none_or(|held| held.number < mark.number))
        .map(|(pod, _)| pod)
        .collect();
    let nodes: Vec<(String, String)> =
        behind.iter().filter_map(|pod| Some((pod.name.clone(), pod.address.clone()?))).collect();
    if !nodes.is_empty() {
        let pods = super::names(nodes.iter().map(|(name, _)| name.as_str()));
        plan.find(Reason::PushingEpoch, format!("epoch {} is on its way to {pods}", mark.number));
        plan.actions.push(Action::PushEpoch { epoch: Arc::clone(epoch), nodes });
    }
}

fn silent_members(epoch: &Epoch, plan: &mut Plan, observed: &Observed) {
    let answered: BTreeSet<NodeId> = statuses(observed).map(|(_, status)| status.identity.node_id).collect();
    let has_answered =
        |name: &str| observed.pods.iter().any(|pod| pod.name == name && pod.status().is_some());
    let pod = |name: &str| observed.pods.iter().find(|pod| pod.name == name);
    let silent: Vec<String> = epoch
        .members()
        .iter()
        .filter(|member| member.state.takes_part() && !answered.contains(&member.id))
        // A restart is nothing wrong.
        .filter(|member| !pod(&member.name).is_some_and(|pod| pod.is_on_its_way(observed.now)))
        // Its pod answered with another disk: that is said already.
        .filter(|member| !has_answered(&member.name))
        .map(|member| describe(member.name.clone(), pod(&member.name)))
        .collect();
    if !silent.is_empty() {
        let silent = super::names(silent.iter().map(String::as_str));
        plan.find(Reason::MembersSilent, format!("no answer from {silent}"));
    }
}

/// Whether the ring has room for this disk.
pub(crate) fn is_member(epoch: &Epoch, id: NodeId) -> bool {
    epoch.member(id).is_some_and(|member| member.state.takes_part())
}

fn statuses(observed: &Observed) -> impl Iterator<Item = (&PodState, &NodeStatus)> {
    observed.pods.iter().filter_map(|pod| Some((pod, pod.status()?)))
}
