//! Rolling changes, and the budget of drains that goes with them.

use k8s_openapi::jiff::SignedDuration;
use quorate_admin::types::{MemberView, StorageState};
use quorate_core::NodeId;

use super::{BUDGET, actions, reasons, silence, word};
use crate::build::names;
use crate::crd::{ImageSpec, PullPolicy};
use crate::fixtures::{
    at_rest, before_the_first_epoch, disk, member_view, says, settings, settled_budget, validated,
};
use crate::observe::{Observed, PodState, RingState};
use crate::plan::{Plan, Reason, decide};
use crate::validate::ValidatedCluster;

/// A whole ring whose pods all have an older template; the budget is at zero already.
fn outdated(cluster: &ValidatedCluster) -> Observed {
    let mut observed = at_rest(cluster);
    for pod in &mut observed.pods {
        pod.revision = Some("r0".to_owned());
    }
    settled_budget(cluster, observed)
}

fn all_actions(plan: &Plan) -> Vec<String> {
    plan.actions.iter().map(word).collect()
}

fn owes(observed: &mut Observed, keeper: usize, owner: NodeId, name: &str) {
    let view = MemberView { id: owner, name: name.to_owned(), hints_owed: 3, ..member_view(0) };
    says(observed, keeper, |status| status.members.members.push(view));
}

#[test]
fn a_whole_ring_is_restarted_from_the_highest_number_one_pod_at_a_time() {
    let cluster = validated("demo", |_| {});
    let mut observed = outdated(&cluster);
    for (ordinal, uid) in [(2, "pod-2"), (1, "pod-1"), (0, "pod-0")] {
        let plan = decide(&cluster, &observed);
        assert_eq!(
            (all_actions(&plan), reasons(&plan)),
            (vec![format!("delete demo-{ordinal} {uid}: Rolling")], vec![Reason::RollingRestart])
        );
        observed.pods[ordinal].terminating = true;
        assert!(all_actions(&decide(&cluster, &observed)).is_empty(), "one at a time");
        observed.pods[ordinal].terminating = false;
        observed.pods[ordinal].revision = Some("r1".to_owned());
    }
    let plan = decide(&cluster, &observed);
    assert_eq!((all_actions(&plan), reasons(&plan)), (vec![BUDGET.to_owned()], vec![]), "drains may go on");
}

/// INV-ONE: a drain and the operator never take a node each.
#[test]
fn drains_are_stopped_before_a_node_is_restarted() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    observed.pods[1].revision = Some("r0".to_owned());
    let plan = decide(&cluster, &observed);
    assert_eq!((all_actions(&plan), reasons(&plan)), (vec![BUDGET.to_owned()], vec![Reason::RollingRestart]));
}

#[test]
fn a_restart_waits_for_whatever_the_ring_lacks_and_says_for_what() {
    type Fate = fn(&mut Observed);
    let fates: [(Fate, &str); 11] = [
        (|seen| seen.pods[0].ready = false, "because demo-0 is not ready"),
        (
            |seen| {
                seen.pods[0].ready = false;
                says(seen, 0, |status| status.health.reason = Some("starting".to_owned()));
            },
            "because demo-0 is not ready (starting)",
        ),
        (|seen| seen.pods[0].terminating = true, "because demo-0 is being stopped"),
        (|seen| silence(seen, 0), "because demo-0 does not answer"),
        (|seen| drop(seen.pods.remove(0)), "because demo-0 does not answer"),
        (|seen| says(seen, 0, |status| status.epoch = None), "because demo-0 does not serve epoch 1 yet"),
        (
            |seen| says(seen, 0, |status| status.health.storage = StorageState::Full),
            "because the disk of demo-0 is full or failed",
        ),
        (
            |seen| says(seen, 0, |status| status.transition.partitions_leaving = 1),
            "because demo-0 still moves data for a change of the ring",
        ),
        (
            |seen| says(seen, 0, |status| status.health.partitions = 8),
            "because demo-0 does not reach every owner of every partition yet",
        ),
        (|seen| owes(seen, 0, disk(2), "demo-2"), "because demo-0 still keeps hints for demo-2"),
        (|seen| owes(seen, 2, disk(1), "demo-1"), "because demo-2 still keeps hints for demo-1"),
    ];
    let cluster = validated("demo", |_| {});
    for (fate, clause) in fates {
        let mut observed = outdated(&cluster);
        fate(&mut observed);
        // What is wrong with a pod that is outdated itself is another story: see below.
        observed.pods[0].revision = Some("r1".to_owned());
        let plan = decide(&cluster, &observed);
        assert!(!all_actions(&plan).iter().any(|action| action.starts_with("delete")), "{clause}: {plan:?}");
        let said = plan.findings.iter().find(|finding| finding.reason == Reason::RollingRestart);
        let message = &said.expect(clause).message;
        assert!(message.ends_with(clause), "{clause:?} in {message:?}");
    }
}

#[test]
fn hints_for_a_member_that_was_removed_hold_nothing_up() {
    let cluster = validated("demo", |_| {});
    let mut observed = outdated(&cluster);
    owes(&mut observed, 0, NodeId::from_u128(0xdead), "demo-7");
    assert_eq!(all_actions(&decide(&cluster, &observed)), ["delete demo-2 pod-2: Rolling"]);
}

/// A node that runs and never gets ready with its configuration must not keep the corrected one away.
#[test]
fn an_outdated_pod_that_is_not_ready_goes_first_if_the_others_are_whole() {
    let cluster = validated("demo", |_| {});
    let mut observed = outdated(&cluster);
    observed.pods[1].ready = false;
    for ordinal in [0, 2] {
        says(&mut observed, ordinal, |status| status.health.partitions = 8);
    }
    owes(&mut observed, 0, disk(1), "demo-1");
    let plan = decide(&cluster, &observed);
    assert_eq!(all_actions(&plan), ["delete demo-1 pod-1: Rolling"]);
    silence(&mut observed, 0);
    let plan = decide(&cluster, &observed);
    assert!(all_actions(&plan).is_empty(), "then the ring would miss two");
}

#[test]
fn the_first_node_that_does_not_come_up_stops_the_change() {
    let cluster = validated("demo", |_| {});
    for trouble in ["ImagePullBackOff", "crashed: Error", "0/3 nodes are available"] {
        let mut observed = outdated(&cluster);
        let pod = &mut observed.pods[2];
        pod.revision = Some("r1".to_owned());
        (pod.ready, pod.running, pod.trouble) = (false, false, Some(trouble.to_owned()));
        silence(&mut observed, 2);
        let plan = decide(&cluster, &observed);
        assert_eq!(
            (all_actions(&plan), reasons(&plan)),
            (vec![], vec![Reason::RolloutHalted, Reason::MembersSilent]),
            "{trouble}"
        );
        let message = &plan.findings[0].message;
        assert!(message.starts_with("demo-2 does not come up") && message.contains(trouble), "{message}");
        assert!(message.contains("demo-1 and demo-0 keep the older one"), "{message}");

        // One that is merely on its way is waited for.
        observed.pods[2].trouble = Some("ContainerCreating".to_owned());
        assert!(reasons(&decide(&cluster, &observed)).contains(&Reason::RollingRestart));
    }
}

#[test]
fn a_restart_is_nothing_wrong_unless_it_takes_too_long() {
    let cluster = validated("demo", |_| {});
    type Fate = fn(&mut PodState);
    let fates: [(Fate, bool); 5] = [
        (|pod| pod.terminating = true, true),
        (|pod| (pod.running, pod.started, pod.ready) = (false, false, false), true),
        // It runs and loads its index.
        (|pod| (pod.started, pod.ready) = (false, false), true),
        (|pod| pod.ready = false, false),
        (|pod| (pod.started, pod.ready, pod.has_crashed) = (false, false, true), false),
    ];
    for (number, (fate, is_fine)) in fates.into_iter().enumerate() {
        let mut observed = at_rest(&cluster);
        silence(&mut observed, 1);
        fate(&mut observed.pods[1]);
        observed.pods[1].down_since = Some(observed.now);
        let is_said =
            |observed: &Observed| reasons(&decide(&cluster, observed)).contains(&Reason::MembersSilent);
        assert_eq!(is_said(&observed), !is_fine, "{number}");
        observed.now += SignedDuration::from_mins(10);
        assert!(is_said(&observed), "{number}");
    }
}

#[test]
fn a_corrected_template_replaces_the_pod_that_crashes_first() {
    let cluster = validated("demo", |_| {});
    let mut observed = outdated(&cluster);
    let crashes = |pod: &mut PodState, running| {
        (pod.ready, pod.running, pod.has_crashed) = (false, running, true);
        pod.trouble = Some("crashed: Error".to_owned());
    };
    for running in [false, true] {
        crashes(&mut observed.pods[1], running);
        silence(&mut observed, 1);
        // Not even a member that is silent holds this up: nothing is lost with a pod that serves nobody.
        silence(&mut observed, 0);
        let plan = decide(&cluster, &observed);
        assert_eq!(all_actions(&plan), ["delete demo-1 pod-1: Stuck"], "running now: {running}");
    }
}

#[test]
fn pods_that_cannot_start_get_the_corrected_template_one_at_a_time_by_uid() {
    let cluster = validated("demo", |_| {});
    let mut observed = before_the_first_epoch(&cluster);
    for ordinal in 0..3 {
        silence(&mut observed, ordinal);
        observed.pods[ordinal].ready = false;
        observed.pods[ordinal].running = false;
        observed.pods[ordinal].revision = Some("r0".to_owned());
    }
    let plan = decide(&cluster, &observed);
    assert_eq!(actions(&plan), ["delete demo-2 pod-2: Stuck"]);
    observed.pods[2].terminating = true;
    assert!(actions(&decide(&cluster, &observed)).is_empty(), "one at a time");
}

#[test]
fn nothing_is_restarted_while_it_is_unknown_with_which_template_it_would_come_back() {
    let cluster = validated("demo", |_| {});
    type Fate = fn(&mut Observed);
    let fates: [Fate; 3] = [
        // The StatefulSet controller has not seen the newest spec.
        |seen| seen.existing.stateful_set.as_mut().unwrap().metadata.generation = Some(2),
        // The template is about to be put right.
        |seen| seen.existing.stateful_set.as_mut().unwrap().spec.template.spec = None,
        // It is being deleted: who would make the pod again?
        |seen| {
            let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
            let set = seen.existing.stateful_set.as_mut().unwrap();
            set.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        },
    ];
    for running in [true, false] {
        for fate in fates {
            let mut observed = outdated(&cluster);
            (observed.pods[1].ready, observed.pods[1].running) = (running, running);
            fate(&mut observed);
            let plan = decide(&cluster, &observed);
            assert!(!all_actions(&plan).iter().any(|action| action.starts_with("delete")), "{plan:?}");
        }
    }
}

#[test]
fn a_paused_cluster_is_not_restarted() {
    let cluster = validated("demo", |spec| spec.paused = true);
    assert!(all_actions(&decide(&cluster, &outdated(&validated("demo", |_| {})))).is_empty());
}

#[test]
fn a_drain_may_take_a_node_of_a_whole_ring_alone() {
    let cluster = validated("demo", |_| {});
    let whole = at_rest(&cluster);
    assert_eq!(budget(&whole), 1);
    assert_eq!(budget(&before_the_first_epoch(&cluster)), 0);
    type Fate = fn(&mut Observed);
    let fates: [Fate; 6] = [
        |seen| seen.pods[0].ready = false,
        |seen| silence(seen, 0),
        |seen| owes(seen, 0, disk(1), "demo-1"),
        |seen| says(seen, 0, |status| status.transition.partitions_unretired = 1),
        |seen| seen.pods[0].revision = Some("r0".to_owned()),
        |seen| {
            let RingState::Present(ring) = &mut seen.ring else { panic!("a ring") };
            ring.epoch = None;
        },
    ];
    for (number, fate) in fates.iter().enumerate() {
        let mut observed = whole.clone();
        fate(&mut observed);
        let plan = decide(&cluster, &observed);
        assert_eq!(all_actions(&plan)[0], BUDGET, "{number}");
        let observed = settled_budget(&cluster, observed);
        assert_eq!(budget(&observed), 0, "{number}");
        let plan = decide(&cluster, &observed);
        assert!(!all_actions(&plan).contains(&BUDGET.to_owned()), "written once: {number}");
    }
}

fn budget(observed: &Observed) -> i64 {
    let budget = observed.existing.disruption_budget.clone().unwrap().spec.unwrap();
    serde_json::to_value(budget.max_unavailable).unwrap().as_i64().unwrap()
}

/// CloudNativePG #5950: an upgrade of the operator restarted every database.
#[test]
fn another_default_image_of_the_operator_restarts_nothing() {
    let mut upgraded = validated("demo", |_| {});
    upgraded.image.reference = "quorate/node:newer".to_owned();
    let old = at_rest(&validated("demo", |_| {}));
    assert!(all_actions(&decide(&upgraded, &old)).is_empty());
    // The default of the version before this one was not written down.
    let mut unnoted = old.clone();
    let annotations = unnoted.existing.stateful_set.as_mut().unwrap().metadata.annotations.as_mut().unwrap();
    annotations.remove(names::DEFAULT_IMAGE).unwrap();
    assert_eq!(template_image(&decide(&upgraded, &unnoted)), settings().node_image);

    // Nobody runs yet: a wrong default is mended.
    let new = before_the_first_epoch(&validated("demo", |_| {}));
    assert_eq!(template_image(&decide(&upgraded, &new)), "quorate/node:newer");

    assert_eq!(template_image(&decide(&of_image("2"), &old)), "quorate/node:2");
}

/// An image that does not run is taken away again, and not kept because it is what "runs".
#[test]
fn who_takes_the_name_of_an_image_away_gets_the_one_before() {
    let unnamed = validated("demo", |_| {});
    let mut observed = at_rest(&unnamed);
    for tag in ["broken", "broken-too"] {
        let plan = decide(&of_image(tag), &observed);
        assert_eq!(template_image(&plan), format!("quorate/node:{tag}"));
        crate::fixtures::absorb(&mut observed.existing, &plan);
    }
    let mut upgraded = unnamed;
    upgraded.image.reference = "quorate/node:newer".to_owned();
    assert_eq!(template_image(&decide(&upgraded, &observed)), settings().node_image);
}

fn of_image(tag: &str) -> ValidatedCluster {
    validated("demo", |spec| {
        spec.image = Some(ImageSpec {
            repository: "quorate/node".to_owned(),
            tag: Some(tag.to_owned()),
            digest: None,
            pull_policy: PullPolicy::default(),
            pull_secrets: Vec::new(),
        });
    })
}

#[test]
fn an_image_that_somebody_wrote_into_the_template_is_put_back() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    let pod = observed.existing.stateful_set.as_mut().unwrap().spec.template.spec.as_mut().unwrap();
    pod.containers[0].image = Some("somebody/else:1".to_owned());
    assert_eq!(template_image(&decide(&cluster, &observed)), settings().node_image);
}

/// The image of the template that a plan applies.
fn template_image(plan: &Plan) -> String {
    let mut existing = crate::observe::Existing::default();
    crate::fixtures::absorb(&mut existing, plan);
    let set = existing.stateful_set.expect("the template is applied");
    set.spec.template.spec.unwrap().containers[0].image.clone().unwrap()
}
