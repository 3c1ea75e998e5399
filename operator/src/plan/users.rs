//! The Secret of the users must be there before a pod asks for it: the kubelet does not start one without.

use k8s_openapi::api::apps::v1::StatefulSet;

use super::{Finding, Reason};
use crate::build::names::{USERS_KEY, USERS_VOLUME};
use crate::observe::Observed;
use crate::validate::ValidatedCluster;

/// Puts the wish for users back to what the pods have already, while their Secret is not there; and says so. A cluster that is new
/// waits with its pods: nobody may do for a while what the file would forbid.
pub(super) fn settle(cluster: &mut ValidatedCluster, observed: &Observed) -> Option<Finding> {
    let wanted = cluster.users_secret.clone().filter(|_| !observed.has_users)?;
    if let Some(set) = &observed.existing.stateful_set {
        cluster.users_secret = mounted(set);
    }
    let goes_on = match &cluster.users_secret {
        Some(secret) if *secret == wanted => {
            "nodes that run know the users they knew, and no node can start".to_owned()
        }
        Some(secret) => format!("nodes go on with the users of Secret {secret}"),
        None => "nodes go on without users".to_owned(),
    };
    let message = format!(
        "Secret {wanted}, which spec.users names, is not there or has no key {USERS_KEY}: create it, or write the name of one \
         that has it; until then {goes_on}"
    );
    Some(Finding { reason: Reason::UsersMissing, message })
}

/// The Secret of users that the pod template asks for.
fn mounted(set: &StatefulSet) -> Option<String> {
    let volumes = set.spec.template.spec.as_ref()?.volumes.as_ref()?;
    let users = volumes.iter().find(|volume| volume.name == USERS_VOLUME)?;
    users.secret.as_ref()?.secret_name.clone()
}
