//! A changed pod template reaches the pods: one at a time, the highest number first, and only while the ring can miss
//! one more node.
//!
//! The StatefulSet replaces no pod by itself (see `build/stateful_set.rs`): its controller looks at one pod's readiness,
//! and the question is whether the *ring* is whole. INV-ONE: a node is restarted by a plan that does nothing else, so
//! that the budget for drains is at zero by then, and no other change is on its way. INV-UID: a deletion names the
//! incarnation that was observed. Nothing is remembered: which pods are outdated says how far the change is.
//!
//! A pod that cannot run, say because the image's name had a typo, serves nobody: it is replaced first and at once, or
//! a corrected spec would never take effect (kubernetes #67250).

use super::{Action, Deletion, Finding, Kind, Manifest, Plan, Reason, names, whole};
use crate::observe::{Observed, PodState};

/// Whether a node is to be restarted, now or when the ring is whole.
pub(super) fn is_due(observed: &Observed) -> bool {
    outdated(observed).is_some_and(|pods| !pods.is_empty())
}

/// Whether every pod is known to be of the newest template.
pub(super) fn is_over(observed: &Observed) -> bool {
    outdated(observed).is_some_and(|pods| pods.is_empty())
}

/// Takes the next step.
pub(super) fn roll(plan: &mut Plan, observed: &Observed) {
    let Some(outdated) = outdated(observed) else { return };
    if let Some(pod) = outdated.iter().find(|pod| is_stuck(pod)) {
        replace_stuck(pod, plan, observed);
    } else if let Some(finding) = halted(&outdated, observed) {
        // Before whatever follows from it, such as a member that does not answer.
        plan.findings.insert(0, finding);
    } else if let Some(next) = next(&outdated) {
        restart(next, &outdated, plan, observed);
    }
}

/// The pods of an older template, the highest number first; none while it is unknown which template is the newest, or
/// nobody would make new pods.
fn outdated(observed: &Observed) -> Option<Vec<&PodState>> {
    let current = current_revision(observed)?;
    let is_outdated = |pod: &&PodState| !pod.terminating && pod.revision.as_deref() != Some(current);
    Some(observed.pods.iter().rev().filter(is_outdated).collect())
}

fn current_revision(observed: &Observed) -> Option<&str> {
    let set = observed.existing.stateful_set.as_ref()?;
    let status = set.status.as_ref()?;
    let is_seen = status.observed_generation == set.metadata.generation;
    let stays = set.metadata.deletion_timestamp.is_none();
    status.update_revision.as_deref().filter(|_| is_seen && stays)
}

/// Serves nobody, and will not by itself.
fn is_stuck(pod: &PodState) -> bool {
    !pod.ready && (!pod.running || (pod.has_crashed && pod.status().is_none()))
}

/// One that is not ready goes first: the ring misses it already.
fn next<'a>(outdated: &[&'a PodState]) -> Option<&'a PodState> {
    outdated.iter().find(|pod| !pod.ready).or(outdated.first()).copied()
}

fn replace_stuck(pod: &PodState, plan: &mut Plan, observed: &Observed) {
    let template_changes = plan
        .actions
        .iter()
        .any(|action| matches!(action, Action::Apply(Manifest { kind: Kind::StatefulSet, .. })));
    let in_flight = observed.pods.iter().any(|pod| pod.terminating);
    if !template_changes && !in_flight && !plan.disrupts() {
        plan.actions.push(delete(pod, Deletion::Stuck));
    }
    plan.find(
        Reason::ReplacingPod,
        format!("{} does not run and has an older pod template: it is replaced", pod.name),
    );
}

/// A pod of the newest template that does not come up: the next one would not either.
fn halted(outdated: &[&PodState], observed: &Observed) -> Option<Finding> {
    let is_current = |pod: &&PodState| !outdated.iter().any(|other| other.name == pod.name);
    let broken =
        |pod: &PodState| (!pod.ready && !pod.terminating).then(|| pod.broken().map(str::to_owned))?;
    let (pod, trouble) = observed.pods.iter().filter(is_current).find_map(|pod| Some((pod, broken(pod)?)))?;
    let rest = outdated.first().map(|_| names(outdated.iter().map(|pod| pod.name.as_str())))?;
    let message = format!(
        "{} does not come up with the new pod template ({trouble}), so that {rest} keep the older one. Correct the spec or \
         write the old one again: {} is replaced first then",
        pod.name, pod.name
    );
    Some(Finding { reason: Reason::RolloutHalted, message })
}

fn restart(next: &PodState, outdated: &[&PodState], plan: &mut Plan, observed: &Observed) {
    let besides = (!next.ready).then_some(next);
    let pods = names(outdated.iter().map(|pod| pod.name.as_str()));
    let next_name = &next.name;
    let message = match whole::lack(observed, besides) {
        Some(lack) => format!(
            "{pods} have an older pod template; {next_name} is restarted next, and waits because {lack}"
        ),
        None if !plan.actions.is_empty() => {
            format!("{pods} have an older pod template; {next_name} is restarted next")
        }
        None => {
            plan.actions.push(delete(next, Deletion::Rolling));
            format!("{pods} have an older pod template; {next_name} is restarted now")
        }
    };
    plan.find(Reason::RollingRestart, message);
}

fn delete(pod: &PodState, why: Deletion) -> Action {
    Action::DeletePod { name: pod.name.clone(), uid: pod.uid.clone(), why }
}
