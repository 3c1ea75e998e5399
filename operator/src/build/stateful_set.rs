//! The nodes: a pod and a volume each.

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::ObjectMeta;

use super::{names, owned, pod_template};
use crate::crd::{StorageSpec, VolumePolicy};
use crate::validate::ValidatedCluster;

pub(super) fn build(cluster: &ValidatedCluster) -> StatefulSet {
    StatefulSet {
        metadata: metadata(cluster),
        spec: StatefulSetSpec {
            replicas: Some(i32::from(cluster.nodes)),
            service_name: Some(names::peer_service(&cluster.name)),
            // Pods become ready only when the ring serves, which takes several of them: one after the other would wait
            // for ever.
            pod_management_policy: Some("Parallel".to_owned()),
            // A changed template restarts nothing by itself. The StatefulSet controller looks at one pod's readiness
            // alone; whether the *ring* can miss the next node is what a rolling restart must ask (`plan/rollout.rs`).
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            persistent_volume_claim_retention_policy: Some(retention(&cluster.storage)),
            selector: LabelSelector {
                match_labels: Some(names::selector(&cluster.name)),
                ..LabelSelector::default()
            },
            template: pod_template::build(cluster),
            volume_claim_templates: Some(vec![claim(&cluster.storage)]),
            ..StatefulSetSpec::default()
        },
        ..StatefulSet::default()
    }
}

/// The default image is written down, so that an operator with another one restarts nothing, and so that an image that
/// somebody wrote into the template by hand is told apart from it. It stays there while another one is named: who takes
/// that name away, say because the image is broken, means the image before.
fn metadata(cluster: &ValidatedCluster) -> ObjectMeta {
    let image = &cluster.image;
    let default = if image.is_named { image.default.clone() } else { Some(image.reference.clone()) };
    let note = default.map(|default| (names::DEFAULT_IMAGE.to_owned(), default));
    ObjectMeta { annotations: note.map(|note| [note].into()), ..owned(cluster, cluster.name.clone()) }
}

/// With the KVCluster, Kubernetes itself deletes or leaves the volumes, also when the operator is gone: no finalizer
/// that could hang. When fewer nodes are wanted it leaves them, whatever `onScaleDown` says: whoever scaled the
/// StatefulSet by hand would lose the data at once. The operator deletes them, by their UID, when the ring has proven
/// that others have it (INV-PROOF; see `plan/disks.rs`).
fn retention(storage: &StorageSpec) -> StatefulSetPersistentVolumeClaimRetentionPolicy {
    let when_deleted = match storage.on_delete {
        VolumePolicy::Retain => "Retain",
        VolumePolicy::Delete => "Delete",
    };
    StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some(when_deleted.to_owned()),
        when_scaled: Some("Retain".to_owned()),
    }
}

fn claim(storage: &StorageSpec) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(names::DATA_VOLUME.to_owned()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(storage.size.clone()))].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
