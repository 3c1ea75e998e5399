//! Pods of an older template.
//!
//! The StatefulSet replaces no pod by itself (see `build/stateful_set.rs`). A pod that runs is left to a person. A pod
//! that does not run, say because the image's name had a typo, serves nobody, so replacing it cannot hurt, and without
//! it a corrected spec would never take effect.

use super::{Action, Plan, Reason, names};
use crate::observe::{Observed, PodState};

pub(super) fn replace(plan: &mut Plan, observed: &Observed) {
    let Some(current) = current_revision(observed) else { return };
    let outdated: Vec<&PodState> = observed
        .pods
        .iter()
        .filter(|pod| !pod.terminating && pod.revision.as_deref() != Some(current))
        .collect();
    let (running, stuck): (Vec<&PodState>, Vec<&PodState>) =
        outdated.into_iter().partition(|pod| pod.running);
    if !running.is_empty() {
        let pods = names(running.iter().map(|pod| pod.name.as_str()));
        plan.find(
            Reason::RestartNeeded,
            format!(
                "{pods} run an older pod template. This version does not restart nodes by itself: delete these pods one at \
                 a time, each when the KVCluster is Ready again"
            ),
        );
    }
    let deletion_in_flight = observed.pods.iter().any(|pod| pod.terminating);
    if let Some(pod) = stuck.first().filter(|_| !deletion_in_flight) {
        plan.actions.push(Action::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
        plan.find(
            Reason::ReplacingPod,
            format!("{} does not run and has an older pod template: it is replaced", pod.name),
        );
    }
}

/// The template that new pods get; None while the StatefulSet controller has not seen the newest spec.
fn current_revision(observed: &Observed) -> Option<&str> {
    let set = observed.existing.stateful_set.as_ref()?;
    let status = set.status.as_ref()?;
    let is_seen = status.observed_generation == set.metadata.generation;
    status.update_revision.as_deref().filter(|_| is_seen)
}
