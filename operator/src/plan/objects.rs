//! The objects that are applied, and the Secret.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::Serialize;
use serde_json::Value;

use super::{Action, Plan, Reason, drift};
use crate::build::{self, Prepared, Spare, names};
use crate::observe::{Existing, Observed, RingState, SecretState};

/// An object to apply, as it goes over the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it.
    pub body: Value,
}

/// The kinds that are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Kubernetes' own names.
pub enum Kind {
    ServiceAccount,
    Service,
    PodDisruptionBudget,
    NetworkPolicy,
    StatefulSet,
}

/// Whether every name that the cluster needs is free or its own. Nothing is done otherwise: what belongs to somebody
/// else is not taken over, and what is still being deleted with an earlier KVCluster of this name is waited for.
pub(super) fn names_are_free(plan: &mut Plan, observed: &Observed) -> bool {
    let Existing {
        service_account,
        peer_service,
        client_service,
        disruption_budget,
        network_policy,
        stateful_set,
    } = &observed.existing;
    let applied = [
        ("ServiceAccount", service_account.as_ref().map(Resource::meta)),
        ("Service", peer_service.as_ref().map(Resource::meta)),
        ("Service", client_service.as_ref().map(Resource::meta)),
        ("PodDisruptionBudget", disruption_budget.as_ref().map(Resource::meta)),
        ("NetworkPolicy", network_policy.as_ref().map(Resource::meta)),
        ("StatefulSet", stateful_set.as_ref().map(Resource::meta)),
    ];
    let cluster = &plan.cluster;
    let foreign = applied
        .iter()
        .filter_map(|(kind, meta)| Some((kind, (*meta)?)))
        .filter(|(_, meta)| !is_ours(plan, meta));
    let mut taken: Vec<String> =
        foreign.map(|(kind, meta)| format!("{kind} {}", meta.name.clone().unwrap_or_default())).collect();
    let others = |owners: &[OwnerReference]| owners.iter().any(|owner| owner.uid != cluster.owner.uid);
    if matches!(&observed.ring, RingState::Present(ring) if others(&ring.owners)) {
        taken.push(format!("ConfigMap {}", names::ring(&cluster.name)));
    }
    if matches!(&observed.secret, SecretState::Present { owners, .. } if others(owners)) {
        taken.push(format!("Secret {}", names::secret(&cluster.name)));
    }
    if taken.is_empty() {
        return true;
    }
    let taken = super::names(taken.iter().map(String::as_str));
    plan.find(
        Reason::NameTaken,
        format!(
            "{taken} exists and does not belong to this KVCluster. If it is left from an earlier one it goes by itself; \
             otherwise rename it or this KVCluster"
        ),
    );
    false
}

/// Owned by this incarnation; or orphaned on purpose, and still with the labels of this operator.
fn is_ours(plan: &Plan, meta: &ObjectMeta) -> bool {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    match owners.iter().find(|owner| owner.controller == Some(true)) {
        Some(controller) => controller.uid == plan.cluster.owner.uid,
        None => {
            let labels = meta.labels.as_ref();
            let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
            label(names::MANAGED_BY_LABEL) == Some(names::OPERATOR)
                && label(names::INSTANCE_LABEL) == Some(plan.cluster.name.as_str())
        }
    }
}

/// The Secret is made when nobody can hold another one. While a node runs, a new secret would split the ring into those
/// who restarted and those who did not.
pub(super) fn secret(plan: &mut Plan, observed: &Observed) {
    let name = names::secret(&plan.cluster.name);
    match &observed.secret {
        SecretState::Present { .. } => {}
        SecretState::Malformed => plan.find(
            Reason::SecretMalformed,
            format!(
                "Secret {name} has no text under the key {}: put the old value back from a backup; it is never overwritten",
                names::SECRET_KEY
            ),
        ),
        SecretState::Absent => {
            let holders: Vec<&str> =
                observed.pods.iter().filter(|pod| pod.running).map(|pod| pod.name.as_str()).collect();
            if holders.is_empty() {
                plan.actions.push(Action::CreateSecret);
            } else {
                let holders = super::names(holders);
                plan.find(
                    Reason::SecretMissing,
                    format!(
                        "Secret {name} is gone while {holders} hold its value: put it back from a backup; or delete all \
                         pods of the cluster at once, then a new secret is made and all start with it"
                    ),
                );
            }
        }
    }
}

/// Every object that differs. Destructured without `..`: what is built is compared, or this does not compile.
pub(super) fn apply(plan: &mut Plan, spare: Spare, observed: &Observed) {
    let Prepared {
        service_account,
        peer_service,
        client_service,
        disruption_budget,
        network_policy,
        stateful_set,
    } = build::prepare(&plan.cluster, spare);
    let found = &observed.existing;
    let manifests = [
        manifest(Kind::ServiceAccount, &service_account, found.service_account.as_ref()),
        manifest(Kind::Service, &peer_service, found.peer_service.as_ref()),
        manifest(Kind::Service, &client_service, found.client_service.as_ref()),
        manifest(Kind::PodDisruptionBudget, &disruption_budget, found.disruption_budget.as_ref()),
        manifest(Kind::NetworkPolicy, &network_policy, found.network_policy.as_ref()),
        manifest(Kind::StatefulSet, &stateful_set, found.stateful_set.as_ref()),
    ];
    plan.actions.extend(manifests.into_iter().flatten().map(Action::Apply));
    if let Some(set) = found.stateful_set.as_ref().filter(|set| set.metadata.deletion_timestamp.is_some()) {
        // What is applied to it now goes with it.
        plan.actions
            .retain(|action| !matches!(action, Action::Apply(Manifest { kind: Kind::StatefulSet, .. })));
        let name = set.metadata.name.as_deref().unwrap_or_default();
        plan.find(
            Reason::ReplacingStatefulSet,
            format!("StatefulSet {name} is being deleted; it is made again as soon as it is gone"),
        );
    }
}

/// None when the object is as it should be.
fn manifest<K: Resource<DynamicType = ()> + Serialize>(
    kind: Kind,
    wanted: &K,
    found: Option<&K>,
) -> Option<Manifest> {
    let body = drift::stamped(value(wanted));
    let is_same = found.is_some_and(|found| !drift::differs(&body, &value(found)));
    (!is_same).then(|| Manifest { kind, name: wanted.meta().name.clone().unwrap_or_default(), body })
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object)
        .expect("Kubernetes objects are strings, numbers, lists and maps, which serialize")
}
