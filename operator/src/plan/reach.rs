//! Whether a newcomer can be talked to: it owns a share of the ring from the moment of its epoch, and every request for
//! that share may come through any node.
//!
//! That it answers the operator says little: its name may be unknown to its peers for some seconds, since a resolver
//! keeps for a while that there was no such name. So each of them must have talked to it.

use quorate_admin::types::NodeStatus;
use quorate_core::NodeId;

use super::names;
use super::view::View;
use crate::observe::PodState;

/// The newcomers that somebody who answers has not reached yet, each with those: "demo-3 (not reachable by demo-0 yet)".
/// Who does not answer is not asked: it may be gone for good.
pub(super) fn unreached(view: View<'_>, comers: &[(&PodState, &NodeStatus)]) -> Vec<String> {
    let members = view.answering().map(|(member, status)| (member.name.as_str(), status));
    let others = comers.iter().map(|(pod, status)| (pod.name.as_str(), *status));
    let observers: Vec<(&str, &NodeStatus)> = members.chain(others).collect();
    let unreached = |(pod, status): &(&PodState, &NodeStatus)| {
        let id = status.identity.node_id;
        let by: Vec<&str> =
            observers.iter().filter(|(_, observer)| !reaches(observer, id)).map(|(name, _)| *name).collect();
        (!by.is_empty()).then(|| format!("{} (not reachable by {} yet)", pod.name, names(by)))
    };
    comers.iter().filter_map(unreached).collect()
}

fn reaches(observer: &NodeStatus, id: NodeId) -> bool {
    observer.identity.node_id == id
        || observer.members.members.iter().any(|seen| seen.id == id && seen.is_reached())
}
