//! Volumes that grow.
//!
//! The size stands in the StatefulSet's claim template, which nobody may change. So each claim is grown by itself; when
//! all are, the StatefulSet alone is deleted, the pods run on as orphans, and it is made again with the new size: its
//! controller adopts the pods. The pod template is the same, and with it its revision: nothing restarts.
//!
//! Each step follows from what is observed, so that it does not matter after which of them the operator dies: a claim
//! is smaller than wanted or not; the StatefulSet has the old size, or is going, or is gone. (What is gone is made by
//! `objects`, with the wanted size.)

use super::quantity::is_less;
use super::{Action, Plan, Reason, names, rollout};
use crate::build::names as build;
use crate::observe::{ClaimState, Growth, Observed};
use crate::validate::ValidatedCluster;

/// As long as the StatefulSet stands it is applied with the size that it has.
pub(super) fn settle(cluster: &mut ValidatedCluster, observed: &Observed) {
    if let Some(size) = template_size(observed) {
        cluster.storage.size = size;
    }
}

/// The size in the StatefulSet's claim template.
fn template_size(observed: &Observed) -> Option<String> {
    let templates = observed.existing.stateful_set.as_ref()?.spec.volume_claim_templates.as_ref()?;
    let requests = templates.first()?.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Some(requests.get("storage")?.0.clone())
}

/// Takes the next step to volumes of the wanted size.
pub(super) fn grow(wanted: &str, plan: &mut Plan, observed: &Observed) {
    // What a node that is gone left behind grows when it is used again.
    let used =
        observed.claims.iter().filter(|claim| claim.ordinal < plan.cluster.nodes && !claim.terminating);
    let used: Vec<&ClaimState> = used.collect();
    let small: Vec<&ClaimState> =
        used.iter().copied().filter(|claim| is_less(&claim.requested, wanted)).collect();
    if !small.is_empty() {
        grow_claims(&small, wanted, plan);
        return;
    }
    let growing: Vec<&ClaimState> = used.iter().copied().filter(|claim| is_growing(claim)).collect();
    if let Some(first) = growing.first() {
        let claims = list(&growing);
        let step = first.step.as_ref().map(|step| format!(" ({}: {step})", first.name)).unwrap_or_default();
        plan.find(Reason::VolumesGrowing, format!("{claims} are being grown by the storage driver{step}"));
    }
    if template_size(observed).is_some_and(|size| is_less(&size, wanted)) {
        renew_template(wanted, plan, observed);
    }
}

/// All of them or, where one cannot, none: the smallest volume limits the ring.
fn grow_claims(small: &[&ClaimState], wanted: &str, plan: &mut Plan) {
    let cannot: Vec<&ClaimState> =
        small.iter().copied().filter(|claim| claim.growth != Growth::Allowed).collect();
    if let Some(first) = cannot.first() {
        let message = format!(
            "storage.size is {wanted}, and {} cannot grow: {}. Nothing was changed",
            list(&cannot),
            why_not(first)
        );
        plan.find(Reason::VolumesCannotGrow, message);
        return;
    }
    let (can, later): (Vec<&ClaimState>, Vec<&ClaimState>) =
        small.iter().copied().partition(|claim| claim.bound);
    if !later.is_empty() {
        let later = list(&later);
        plan.find(
            Reason::VolumesGrowing,
            format!("{later} grow to {wanted} when there are volumes behind them"),
        );
    }
    if !can.is_empty() {
        plan.find(Reason::VolumesGrowing, format!("{} grow to {wanted}", list(&can)));
    }
    plan.actions.extend(can.into_iter().map(|claim| Action::GrowClaim {
        name: claim.name.clone(),
        uid: claim.uid.clone(),
        size: wanted.to_owned(),
    }));
}

fn why_not(claim: &ClaimState) -> String {
    match (&claim.class, claim.growth) {
        (None, _) => "they have no StorageClass".to_owned(),
        (Some(class), Growth::Unknown) => format!("StorageClass {class} does not exist or cannot be read"),
        (Some(class), _) => format!("StorageClass {class} does not allow it (allowVolumeExpansion)"),
    }
}

/// Only while every pod is ready and of the newest template, which the pods alone know then, and nothing else happens:
/// until the StatefulSet is back, nobody replaces a pod.
fn renew_template(wanted: &str, plan: &mut Plan, observed: &Observed) {
    // One that goes is waited for by `objects`.
    let set = observed.existing.stateful_set.as_ref();
    let Some(set) = set.filter(|set| set.metadata.deletion_timestamp.is_none()) else { return };
    let (Some(name), Some(uid)) = (set.metadata.name.clone(), set.metadata.uid.clone()) else { return };
    let message = format!("StatefulSet {name} is made again with volumes of {wanted}, and the pods run on");
    let unready = unready(plan, observed);
    if !unready.is_empty() {
        let unready = names(unready.iter().map(String::as_str));
        plan.find(Reason::ReplacingStatefulSet, format!("{message}; it waits for {unready} to be ready"));
        return;
    }
    plan.find(Reason::ReplacingStatefulSet, message);
    if plan.actions.is_empty() && rollout::is_over(observed) {
        plan.actions.push(Action::OrphanPods { name, uid });
    }
}

/// The pods that are not as they should be, or not there.
fn unready(plan: &Plan, observed: &Observed) -> Vec<String> {
    let is_ready = |ordinal: &u16| {
        let mut pods = observed.pods.iter();
        pods.any(|pod| pod.ordinal == *ordinal && pod.ready && !pod.terminating)
    };
    let unready = (0..plan.cluster.nodes).filter(|ordinal| !is_ready(ordinal));
    unready.map(|ordinal| build::pod(&plan.cluster.name, ordinal)).collect()
}

fn is_growing(claim: &ClaimState) -> bool {
    claim.capacity.as_ref().is_some_and(|capacity| is_less(capacity, &claim.requested))
}

fn list(claims: &[&ClaimState]) -> String {
    names(claims.iter().map(|claim| claim.name.as_str()))
}
