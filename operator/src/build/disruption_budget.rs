//! What a drain may take: one node at a time.
//!
//! Always one, whatever the quorums: a budget of none would hang every drain for good, and a node that moves keeps its
//! volume.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{names, owned};
use crate::validate::ValidatedCluster;

const UNAVAILABLE_PODS_MAX: i32 = 1;

pub(super) fn build(cluster: &ValidatedCluster) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: owned(cluster, cluster.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(UNAVAILABLE_PODS_MAX)),
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
