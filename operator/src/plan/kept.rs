//! What the pod template keeps although the spec does not say it. Another template would restart every node.
//!
//! It stands in the StatefulSet; while that is made again (`volumes`) the pods are asked. They are all of one template
//! then; where somebody deleted it in the middle of a rolling change, the highest number has the newest.

use kube::ResourceExt;

use crate::build::names;
use crate::observe::{Observed, RingState};
use crate::validate::ValidatedCluster;

pub(super) fn keep(cluster: &mut ValidatedCluster, observed: &Observed) {
    let has_epoch = matches!(&observed.ring, RingState::Present(ring) if ring.epoch.is_some());
    // Until there is a ring no image is kept, or a wrong default could not be mended.
    if cluster.image.is_named {
        cluster.image.default = noted(observed);
    } else if let Some(image) = image(observed).filter(|_| has_epoch) {
        cluster.image.reference = image;
    }
    if let Some(time) = restarted_at(observed) {
        cluster.pod.annotations.entry(names::RESTARTED_AT.to_owned()).or_insert(time);
    }
}

/// Where the KVCluster names no image, its nodes keep the one they run: another default of the operator, as after an
/// upgrade, restarts nothing.
fn image(observed: &Observed) -> Option<String> {
    let Some(set) = &observed.existing.stateful_set else { return observed.pods.last()?.image.clone() };
    let container = || set.spec.template.spec.as_ref()?.containers.first()?.image.as_ref();
    noted(observed).or_else(|| container().cloned())
}

/// The default that was written down when the ring was made, also while the KVCluster names another image.
fn noted(observed: &Observed) -> Option<String> {
    observed.existing.stateful_set.as_ref()?.annotations().get(names::DEFAULT_IMAGE).cloned()
}

/// What `kubectl rollout restart` wrote.
fn restarted_at(observed: &Observed) -> Option<String> {
    let Some(set) = &observed.existing.stateful_set else {
        return observed.pods.last()?.restarted_at.clone();
    };
    set.spec.template.metadata.as_ref()?.annotations.as_ref()?.get(names::RESTARTED_AT).cloned()
}
