//! The volume claims of a cluster, and which disk is on each.
//!
//! A claim's name says which pod mounts it, not whose data is on it: a claim that was deleted and made again has the
//! same name and another disk. So the operator writes on each claim whose disk a node found there, and decides about a
//! volume by that alone (INV-UID, INV-PROOF).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use quorate_core::{ClusterId, NodeId};

use super::{Growth, ObserveError, Reader};
use crate::build::names;

/// A volume claim of the StatefulSet.
#[derive(Clone, Debug)]
pub struct ClaimState {
    /// Its name.
    pub name: String,
    /// Its incarnation.
    pub uid: String,
    /// The number of the pod that mounts it.
    pub ordinal: u16,
    /// Whether the volume behind it is gone.
    pub lost: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether there is a volume behind it: before, the API server lets nobody change its size.
    pub bound: bool,
    /// The size that it asks for.
    pub requested: String,
    /// The size that the volume has; none before there is one.
    pub capacity: Option<String>,
    /// What the storage driver last said about growing it, in its words.
    pub step: Option<String>,
    /// Its StorageClass.
    pub class: Option<String>,
    /// Whether it can grow; asked only where it should.
    pub growth: Growth,
    /// The disk that a node found on it, as written there.
    pub disk: Option<DiskMark>,
}

/// Whose data is on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskMark {
    /// The ring that the disk belongs to.
    pub cluster: ClusterId,
    /// The disk.
    pub node: NodeId,
}

impl DiskMark {
    fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        Some(Self {
            cluster: annotations.get(names::CLUSTER_ID_ANNOTATION)?.parse().ok()?,
            node: annotations.get(names::NODE_ID_ANNOTATION)?.parse().ok()?,
        })
    }
}

impl Reader<'_> {
    /// The claims of the StatefulSet's pods, by number.
    ///
    /// Read before the pods: a claim that a node's answer is written on must be at least as old as the answer. The UID
    /// then refuses one that was made since.
    pub(super) async fn claims(&self, wanted_size: &str) -> Result<Vec<ClaimState>, ObserveError> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = ListParams::default().labels(&names::selector_text(&self.name));
        let list = api.list(&params).await;
        let list = list.map_err(|source| ObserveError::Read { what: "the volume claims", source })?;
        let states = list.items.iter().filter_map(|claim| claim_state(&self.name, claim));
        let mut states: Vec<ClaimState> = states.collect();
        states.sort_by_key(|claim| claim.ordinal);
        self.with_growth(states, wanted_size).await
    }
}

/// None for a claim whose name is not of the StatefulSet's making.
fn claim_state(cluster: &str, claim: &PersistentVolumeClaim) -> Option<ClaimState> {
    let name = claim.name_any();
    let ordinal = name.strip_prefix(&names::claim_prefix(cluster))?.parse().ok()?;
    let spec = claim.spec.as_ref();
    let requests = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let status = claim.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let phase = status.and_then(|status| status.phase.as_deref());
    Some(ClaimState {
        name,
        uid: claim.uid().unwrap_or_default(),
        ordinal,
        lost: phase == Some("Lost"),
        terminating: claim.metadata.deletion_timestamp.is_some(),
        bound: phase == Some("Bound"),
        requested: requests.and_then(|requests| Some(requests.get("storage")?.0.clone())).unwrap_or_default(),
        capacity: status.and_then(|status| Some(status.capacity.as_ref()?.get("storage")?.0.clone())),
        step: conditions.iter().find(|condition| condition.status == "True").map(|last| last.type_.clone()),
        class: spec.and_then(|spec| spec.storage_class_name.clone()).filter(|class| !class.is_empty()),
        growth: Growth::Unknown,
        disk: DiskMark::read(claim.annotations()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str, annotations: &[(&str, &str)]) -> Option<ClaimState> {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some(name.to_owned());
        let pairs = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        claim.metadata.annotations = Some(pairs.collect());
        claim_state("demo", &claim)
    }

    #[test]
    fn only_names_of_the_stateful_set_are_numbered() {
        assert_eq!(claim("data-demo-12", &[]).map(|claim| claim.ordinal), Some(12));
        for other in ["data-demo-x", "data-other-1", "demo-1", "data-demo-1-1"] {
            assert!(claim(other, &[]).is_none(), "{other}");
        }
    }

    #[test]
    fn half_a_mark_is_none() {
        let id = "11111111-2222-3333-4444-555555555555";
        let (node, cluster) = (names::NODE_ID_ANNOTATION, names::CLUSTER_ID_ANNOTATION);
        assert!(claim("data-demo-0", &[(node, id), (cluster, id)]).unwrap().disk.is_some());
        for half in [&[(node, id)][..], &[(cluster, id)], &[(node, "x"), (cluster, id)]] {
            assert_eq!(claim("data-demo-0", half).unwrap().disk, None);
        }
    }
}
