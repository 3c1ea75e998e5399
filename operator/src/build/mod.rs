//! From a [`ValidatedCluster`] to Kubernetes objects. Pure; one file an object.
//!
//! The same input gives the same bytes: no clock, no dice, no hash maps. [`Prepared`] is destructured without `..`
//! where it is applied, so that an object that is built and never applied does not compile.

mod client_service;
mod disruption_budget;
pub mod names;
mod network_policy;
mod peer_service;
mod pod_template;
mod ring;
mod secret;
mod service_account;
mod stateful_set;

pub use disruption_budget::Spare;
pub use ring::ring;
pub use secret::{SECRET_BYTES, secret};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::ObjectMeta;

use crate::validate::ValidatedCluster;

/// Every object that is applied for a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The identity of the pods, without any right.
    pub service_account: ServiceAccount,
    /// Through which peers find each other.
    pub peer_service: Service,
    /// Through which clients find any node.
    pub client_service: Service,
    /// What a drain may take at once.
    pub disruption_budget: PodDisruptionBudget,
    /// Who may talk to the nodes.
    pub network_policy: NetworkPolicy,
    /// The nodes.
    pub stateful_set: StatefulSet,
}

/// Builds them all. `spare` is what a drain may take now.
pub fn prepare(cluster: &ValidatedCluster, spare: Spare) -> Prepared {
    Prepared {
        service_account: service_account::build(cluster),
        peer_service: peer_service::build(cluster),
        client_service: client_service::build(cluster),
        disruption_budget: disruption_budget::build(cluster, spare),
        network_policy: network_policy::build(cluster),
        stateful_set: stateful_set::build(cluster),
    }
}

/// The metadata of an object that goes when the KVCluster goes.
fn owned(cluster: &ValidatedCluster, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(names::labels(&cluster.name)),
        owner_references: Some(vec![cluster.owner.clone()]),
        ..ObjectMeta::default()
    }
}
