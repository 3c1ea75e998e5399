//! Whether the ring is whole: every member runs, serves the committed epoch and owes nobody anything, so that the ring
//! can miss one node. Asked before the operator takes a node away, and for the budget of those who drain machines.
//!
//! What is not known is lacking: a node that does not answer may owe hints. Nothing in these sentences counts, so that
//! a status that waits is written only when what it waits for changes.

use quorate_admin::types::{NodeStatus, StorageState};
use quorate_core::NodeId;
use quorate_core::ring::{Epoch, Member};

use super::ring::is_member;
use crate::observe::{Observed, PodState, RingState};

/// The first thing that the ring lacks, as a clause; none when it is whole. What is wrong with the pod `besides` does
/// not count: it is down already, or about to be.
pub(super) fn lack(observed: &Observed, besides: Option<&PodState>) -> Option<String> {
    let RingState::Present(ring) = &observed.ring else { return Some("the ring cannot be read".to_owned()) };
    let Some(epoch) = &ring.epoch else { return Some("the first epoch is not committed yet".to_owned()) };
    let others: Vec<&PodState> =
        observed.pods.iter().filter(|pod| besides.is_none_or(|spared| spared.name != pod.name)).collect();
    others
        .iter()
        .find_map(|pod| lack_of_pod(pod))
        .or_else(|| lack_of_members(epoch, &others, besides))
        .or_else(|| others.iter().find_map(|pod| lack_of_node(epoch, pod, besides)))
}

/// A pod that is no member yet counts too: it is on its way into the ring, or out of it.
fn lack_of_pod(pod: &PodState) -> Option<String> {
    let name = &pod.name;
    match (&pod.trouble, pod.status()) {
        _ if pod.terminating => Some(format!("{name} is being stopped")),
        _ if pod.ready => None,
        (Some(trouble), _) => Some(format!("{name} is not ready ({trouble})")),
        (None, Some(NodeStatus { health, .. })) if health.reason.is_some() => {
            Some(format!("{name} is not ready ({})", health.reason.clone().unwrap_or_default()))
        }
        (None, _) => Some(format!("{name} is not ready")),
    }
}

fn lack_of_members(epoch: &Epoch, pods: &[&PodState], besides: Option<&PodState>) -> Option<String> {
    let answers = |member: &Member| {
        let statuses = pods.iter().filter_map(|pod| pod.status());
        statuses.into_iter().any(|status| status.identity.node_id == member.id)
    };
    let is_spared = |member: &Member| besides.is_some_and(|pod| pod.name == member.name);
    let mut expected =
        epoch.members().iter().filter(|member| member.state.takes_part() && !is_spared(member));
    expected.find(|member| !answers(member)).map(|member| format!("{} does not answer", member.name))
}

fn lack_of_node(epoch: &Epoch, pod: &PodState, besides: Option<&PodState>) -> Option<String> {
    let name = &pod.name;
    let Some(status) = pod.status() else { return Some(format!("{name} does not answer")) };
    if status.epoch != Some(epoch.mark()) {
        return Some(format!("{name} does not serve epoch {} yet", epoch.number()));
    }
    if status.health.storage != StorageState::Writable {
        return Some(format!("the disk of {name} is full or failed"));
    }
    if !status.transition.is_settled() {
        return Some(format!("{name} still moves data for a change of the ring"));
    }
    if besides.is_none() && status.health.partitions_in_full != status.health.partitions {
        return Some(format!("{name} does not reach every owner of every partition yet"));
    }
    let owed = owed_to(epoch, status, besides)?;
    Some(format!("{name} still keeps hints for {owed}"))
}

/// A member that hints are kept for. Those of a member that was removed are handed to others in their own time.
fn owed_to<'a>(epoch: &Epoch, status: &'a NodeStatus, besides: Option<&PodState>) -> Option<&'a str> {
    let spared: Option<NodeId> = besides.and_then(PodState::status).map(|status| status.identity.node_id);
    let owed = status.members.members.iter().find(|member| {
        let is_spared = Some(member.id) == spared || besides.is_some_and(|pod| pod.name == member.name);
        member.hints_owed > 0 && is_member(epoch, member.id) && !is_spared
    });
    owed.map(|member| member.name.as_str())
}
