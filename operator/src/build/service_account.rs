//! The identity of the pods: it has no right and mounts no token.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::owned;
use crate::validate::ValidatedCluster;

pub(super) fn build(cluster: &ValidatedCluster) -> ServiceAccount {
    ServiceAccount {
        metadata: owned(cluster, cluster.name.clone()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
