//! What a drain may take: one node while the ring is whole, and nothing while it is not.
//!
//! Kubernetes counts pods that are ready. A node that is ready may still owe its peers hints, or be needed by a change
//! of the ring, so that the operator looks at the ring and sets the budget by it.
//!
//! Never more than one, however many copies there are; and one also for a ring of a single node, or its machine could
//! never be drained: a node that moves keeps its volume.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{names, owned};
use crate::validate::ValidatedCluster;

/// What the ring can miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    /// A node is away already, or the ring is busy.
    Nothing,
    /// Any one node.
    OneNode,
}

pub(super) fn build(cluster: &ValidatedCluster, spare: Spare) -> PodDisruptionBudget {
    let unavailable = match spare {
        Spare::Nothing => 0,
        Spare::OneNode => 1,
    };
    PodDisruptionBudget {
        metadata: owned(cluster, cluster.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(unavailable)),
            selector: Some(LabelSelector {
                match_labels: Some(names::selector(&cluster.name)),
                ..LabelSelector::default()
            }),
            // A node that is not ready may be the one that others wait for: it counts.
            unhealthy_pod_eviction_policy: Some("IfHealthyBudget".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
