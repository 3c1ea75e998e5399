//! The ConfigMap that holds the cluster's identity and the committed epoch: the one place where epochs are decided.
//!
//! INV-EPOCH: it is created once and then changed by compare-and-swap alone, before any node hears of the epoch.
//!
//! It lives as long as the volumes do: where they are retained it has no owner, so that a KVCluster that is made again
//! under the same name finds the ring that its disks belong to.

use k8s_openapi::api::core::v1::ConfigMap;
use quorate_core::ClusterId;
use quorate_core::ring::Epoch;

use super::{names, owned};
use crate::crd::VolumePolicy;
use crate::plan::RingChange;
use crate::validate::ValidatedCluster;

/// The ConfigMap with this identity and epoch, and what the epoch is for. `resource_version` is that of the one it
/// replaces.
pub fn ring(
    cluster: &ValidatedCluster,
    id: ClusterId,
    epoch: Option<(&Epoch, Option<RingChange>)>,
    resource_version: Option<String>,
) -> ConfigMap {
    let identity = (names::CLUSTER_ID_KEY, id.to_string());
    let text = epoch.map(|(epoch, _)| {
        serde_json::to_string(epoch).expect("an epoch is strings and numbers, which serialize")
    });
    let text = text.map(|text| (names::EPOCH_KEY, text));
    let change = epoch.and_then(|(_, change)| Some((names::CHANGE_KEY, change?.to_string())));
    let data = [Some(identity), text, change].into_iter().flatten();
    let data = data.map(|(key, value)| (key.to_owned(), value)).collect();
    let mut metadata = owned(cluster, names::ring(&cluster.name));
    metadata.resource_version = resource_version;
    if cluster.storage.on_delete == VolumePolicy::Retain {
        metadata.owner_references = None;
    }
    ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
}
