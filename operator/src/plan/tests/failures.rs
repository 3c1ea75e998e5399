//! Members that are lost for good: the evidence of both sides, each interlock alone, and what a person gives up.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use quorate_admin::types::{Liveness, MemberView};
use quorate_core::NodeId;
use quorate_core::ring::{MemberState, planner};

use super::super::*;
use super::members::{adopt, change, committed, epoch, nodes, states};
use super::{actions, reasons, silence};
use crate::fixtures::{at_rest, disk, member_view, pod, reached, says};
use crate::observe::{Machine, NodeAnswer, Observed, Obstacle, RingState};

/// The disk that comes in the place of a lost one.
const NEW: NodeId = NodeId::from_u128(0xfe);

/// All that answer see a member like this.
pub(super) fn seen_as(observed: &mut Observed, ordinal: u16, liveness: Liveness) {
    for pod in &mut observed.pods {
        let NodeAnswer::Answered(status) = &mut pod.node else { continue };
        status.members.members.retain(|seen| seen.id != disk(ordinal));
        status.members.members.push(MemberView { liveness, ..member_view(ordinal) });
    }
}

/// A pod that has been down for so many seconds, and whose peers call it down.
fn down(observed: &mut Observed, ordinal: u16, seconds: i64) {
    let at = usize::from(ordinal);
    silence(observed, at);
    observed.now = Timestamp::from_second(100_000).unwrap();
    let pod = &mut observed.pods[at];
    (pod.ready, pod.running) = (false, false);
    pod.obstacle = Some(Obstacle::Volume);
    pod.down_since = Timestamp::from_second(100_000 - seconds).ok();
    seen_as(observed, ordinal, Liveness::Down);
}

/// The node of a pod knows the new disk by hearsay only.
fn unreached(observed: &mut Observed, ordinal: usize) {
    says(observed, ordinal, |status| {
        let seen = status.members.members.iter_mut().find(|seen| seen.id == NEW);
        seen.expect("known").clock_skew_ms = None;
    });
}

/// A pod that came back with an empty disk, which its peers reach.
fn renewed(observed: &mut Observed, ordinal: u16) {
    let cluster = nodes(3);
    observed.pods[usize::from(ordinal)] = pod(&cluster, ordinal, None);
    observed.claims.retain(|claim| claim.ordinal != ordinal);
    says(observed, usize::from(ordinal), |status| {
        status.identity.node_id = NEW;
        status.members.observer = NEW;
    });
    seen_as(observed, ordinal, Liveness::Down);
    reached(observed, NEW);
}

const LONG: i64 = 15 * 60;

#[test]
fn an_empty_disk_in_the_place_of_a_lost_one_takes_it_over_in_one_epoch() {
    let mut observed = at_rest(&nodes(3));
    renewed(&mut observed, 1);
    let plan = decide(&nodes(3), &observed);
    assert_eq!(actions(&plan), ["replace ring: Replaced"]);
    let (next, _) = committed(&plan).unwrap();
    assert_eq!(states(&next), "demo-0 active, demo-1 removed, demo-1 active, demo-2 active");
    assert_eq!(next.member(NEW).unwrap().state, MemberState::Active);
    assert_eq!(next.member(disk(1)).unwrap().state, MemberState::Removed);

    unreached(&mut observed, 2);
    let plan = decide(&nodes(3), &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::WaitingForNodes]));
    assert_eq!(
        plan.findings[0].message,
        "the new disk of demo-1 takes its place when every node that answers reaches demo-1 (not reachable by demo-2 yet)"
    );
}

#[test]
fn what_cannot_come_back_gets_a_new_volume_and_a_new_pod_one_after_the_other() {
    let cluster = nodes(3);
    let mut observed = at_rest(&cluster);
    down(&mut observed, 1, LONG);
    let plan = decide(&cluster, &observed);
    assert_eq!(actions(&plan), ["delete data-demo-1 claim-1"]);
    assert_eq!(reasons(&plan), [Reason::NewDisk, Reason::MembersSilent]);
    observed.claims.remove(1);
    assert_eq!(actions(&decide(&cluster, &observed)), ["renew demo-1 pod-1"]);
    // A machine that is gone ends no pod.
    observed.pods[1].terminating = true;
    assert_eq!(actions(&decide(&cluster, &observed)), Vec::<String>::new());
    observed.pods[1].machine_state = Machine::NotReady;
    assert_eq!(actions(&decide(&cluster, &observed)), ["renew demo-1 pod-1 now"]);
    // Made again by the StatefulSet: nothing is done until the node answers.
    observed.claims = at_rest(&cluster).claims;
    observed.claims[1].disk = None;
    observed.pods[1].terminating = false;
    observed.pods[1].down_since = Some(observed.now);
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::MemberDown, Reason::MembersSilent]));
}

/// What Kubernetes says, and whether it is evidence.
#[test]
fn kubernetes_must_blame_the_machine_or_the_volume() {
    type Fate = fn(&mut Observed);
    let not_yet = &[Reason::MemberDown, Reason::MembersSilent];
    let silent = &[Reason::MembersSilent];
    let lost = &[Reason::NewDisk, Reason::MembersSilent];
    let cases: [(&str, Fate, &[Reason]); 11] = [
        ("its volume cannot be attached", |_| {}, lost),
        ("not for long enough", |seen| down(seen, 1, LONG - 1), not_yet),
        ("no machine has room", |seen| seen.pods[1].obstacle = Some(Obstacle::Room), silent),
        (
            "its volume is gone",
            |seen| {
                seen.pods[1].obstacle = Some(Obstacle::Room);
                seen.claims[1].lost = true;
            },
            lost,
        ),
        ("its image is wrong", |seen| seen.pods[1].obstacle = Some(Obstacle::Template), silent),
        (
            "it crashes, and others with its template do not",
            |seen| {
                seen.pods[1].obstacle = Some(Obstacle::Start);
            },
            lost,
        ),
        (
            "it crashes, and so may every pod of this template",
            |seen| {
                seen.pods[1].obstacle = Some(Obstacle::Start);
                seen.pods[1].revision = Some("r2".to_owned());
            },
            silent,
        ),
        (
            "its machine is cut off",
            |seen| {
                seen.pods[1].obstacle = None;
                seen.pods[1].running = true;
            },
            lost,
        ),
        ("Kubernetes finds it ready", |seen| seen.pods[1].ready = true, silent),
        (
            "it has no pod",
            |seen| {
                seen.pods.remove(1);
            },
            silent,
        ),
        (
            "its claim is gone, just now",
            |seen| {
                down(seen, 1, 1);
                seen.claims.remove(1);
            },
            lost,
        ),
    ];
    for (what, fate, expected) in cases {
        let mut observed = at_rest(&nodes(3));
        down(&mut observed, 1, LONG);
        fate(&mut observed);
        let plan = decide(&nodes(3), &observed);
        let mut said = reasons(&plan);
        said.retain(|reason| *reason != Reason::RolloutHalted && *reason != Reason::ReplacingPod);
        assert_eq!(said, expected, "{what}");
        let acts = plan
            .actions
            .iter()
            .any(|action| matches!(action, Action::DeleteClaim { .. } | Action::RenewPod { .. }));
        assert_eq!(acts, expected == lost, "{what}: {:?}", actions(&plan));
    }
}

/// Each alone keeps a new disk out, and says what would let it in.
#[test]
fn each_interlock_holds_alone() {
    type Fate = fn(&mut Observed);
    let cases: [(Fate, Reason); 8] = [
        (|seen| unreached(seen, 2), Reason::WaitingForNodes),
        (|seen| seen_as(seen, 1, Liveness::Up), Reason::PeersDisagree),
        (|seen| seen_as(seen, 1, Liveness::Suspect), Reason::PeersDisagree),
        (|seen| silence(seen, 2), Reason::QuorumAtRisk),
        (|seen| says(seen, 2, |node| node.transition.partitions_syncing = 1), Reason::QuorumAtRisk),
        (
            |seen| says(seen, 2, |node| node.health.storage = quorate_admin::types::StorageState::Failed),
            Reason::QuorumAtRisk,
        ),
        (
            |seen| {
                let RingState::Present(ring) = &mut seen.ring else { panic!("there is a ring") };
                ring.change = Some(RingChange::Replaced);
                says(seen, 2, |node| node.transition.partitions_leaving = 1);
            },
            Reason::OneAtATime,
        ),
        (|seen| says(seen, 1, |node| node.health.keys = 1), Reason::DiskNotEmpty),
    ];
    for (fate, reason) in cases {
        let mut observed = at_rest(&nodes(3));
        renewed(&mut observed, 1);
        fate(&mut observed);
        let plan = decide(&nodes(3), &observed);
        assert_eq!(committed(&plan), None, "{reason}");
        assert!(reasons(&plan).contains(&reason), "{:?}, not {reason}", reasons(&plan));
    }
}

/// Nine nodes in three zones: a partition has one owner in each, so that a zone may be down as a whole.
fn in_zones() -> (ValidatedCluster, Observed) {
    let cluster = nodes(9);
    let mut observed = at_rest(&cluster);
    let before = epoch(&observed);
    let members = before.members().iter().cloned().map(|mut member| {
        let number = crate::build::names::ordinal("demo", &member.name).unwrap();
        member.zone = Some(format!("zone-{}", number % 3));
        member
    });
    let next = planner::next(&before, members.collect(), before.replication());
    adopt(&mut observed, &Arc::new(next.unwrap()), RingChange::ScaleUp);
    (cluster, observed)
}

#[test]
fn members_of_two_zones_that_are_down_together_stop_it() {
    let (cluster, mut observed) = in_zones();
    down(&mut observed, 1, LONG);
    assert_eq!(actions(&decide(&cluster, &observed)), ["delete data-demo-1 claim-1"], "one zone");
    down(&mut observed, 4, 10);
    let plan = decide(&cluster, &observed);
    assert_eq!(actions(&plan), ["delete data-demo-1 claim-1"], "demo-4 is of the same zone");
    down(&mut observed, 5, 10);
    let plan = decide(&cluster, &observed);
    assert_eq!(actions(&plan), Vec::<String>::new(), "demo-5 is of another, however short it has been down");
    assert!(reasons(&plan).contains(&Reason::ZonesDown), "{:?}", reasons(&plan));
    // A person knows better.
    let plan = decide(&giving_up(&cluster, &disk(1).to_string()), &observed);
    assert_eq!(committed(&plan).unwrap().1, RingChange::DataLossAccepted);
}

#[test]
fn one_that_may_come_back_does_not_hold_up_one_that_never_will() {
    let (cluster, mut observed) = in_zones();
    down(&mut observed, 1, LONG);
    observed.pods[1].obstacle = Some(Obstacle::Room);
    down(&mut observed, 4, LONG);
    assert_eq!(actions(&decide(&cluster, &observed)), ["delete data-demo-4 claim-4"]);
}

#[test]
fn the_second_one_waits_for_the_first() {
    let cluster = nodes(7);
    let mut observed = at_rest(&cluster);
    down(&mut observed, 1, LONG);
    down(&mut observed, 2, LONG);
    let plan = decide(&cluster, &observed);
    assert!(reasons(&plan).contains(&Reason::OneAtATime), "{:?}", reasons(&plan));
    let done = actions(&plan);
    assert!(done.len() <= 1 && !done.iter().any(|action| action.contains("demo-2")), "{done:?}");
}

#[test]
fn nothing_is_replaced_where_the_spec_says_so() {
    let off = crate::fixtures::validated("demo", |spec| spec.failure.auto_replace = false);
    let mut observed = at_rest(&off);
    renewed(&mut observed, 1);
    let plan = decide(&off, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::UnknownDisk]));
    assert!(plan.findings[0].message.contains("autoReplace: true"), "{}", plan.findings[0].message);
    let mut observed = at_rest(&off);
    down(&mut observed, 1, LONG);
    let plan = decide(&off, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::MembersSilent]));
}

fn giving_up(cluster: &ValidatedCluster, id: &str) -> ValidatedCluster {
    ValidatedCluster { accept_data_loss: Some(id.to_owned()), ..cluster.clone() }
}

#[test]
fn what_a_person_gives_up_passes_every_interlock_but_not_the_evidence() {
    let cluster = nodes(3);
    let lost = disk(1).to_string();
    // Two of three are gone, and one has come back empty.
    let mut observed = at_rest(&cluster);
    renewed(&mut observed, 1);
    down(&mut observed, 2, LONG);
    let plan = decide(&cluster, &observed);
    assert_eq!(committed(&plan), None);
    assert!(reasons(&plan).contains(&Reason::QuorumAtRisk), "{:?}", reasons(&plan));
    let plan = decide(&giving_up(&cluster, &lost), &observed);
    let (next, why) = committed(&plan).expect("given up");
    assert_eq!(why, RingChange::DataLossAccepted);
    assert_eq!(states(&next), "demo-0 active, demo-1 lost, demo-1 active, demo-2 active");

    // No automatism, and no order: the replacement before it may wait for what only this one had.
    let by_hand = ValidatedCluster { auto_replace: false, ..giving_up(&cluster, &lost) };
    let mut busy = observed.clone();
    let RingState::Present(ring) = &mut busy.ring else { panic!("there is a ring") };
    ring.change = Some(RingChange::Replaced);
    says(&mut busy, 0, |node| node.transition.partitions_syncing = 1);
    assert_eq!(committed(&decide(&by_hand, &busy)).map(|(_, why)| why), Some(RingChange::DataLossAccepted));
    // The new disk is of no use to nodes that do not reach it.
    let mut apart = observed.clone();
    unreached(&mut apart, 0);
    let plan = decide(&by_hand, &apart);
    assert_eq!(committed(&plan), None);
    assert!(reasons(&plan).contains(&Reason::WaitingForNodes), "{:?}", reasons(&plan));
    // But its peers must call it down, and Kubernetes must have given it its time.
    let mut seen = observed.clone();
    seen_as(&mut seen, 1, Liveness::Up);
    assert_eq!(committed(&decide(&by_hand, &seen)), None);
    let mut recent = at_rest(&cluster);
    down(&mut recent, 1, 10);
    down(&mut recent, 2, LONG);
    let plan = decide(&by_hand, &recent);
    assert_eq!(committed(&plan), None);
    assert!(reasons(&plan).contains(&Reason::MemberDown), "{:?}", reasons(&plan));

    // The other one is not named: it is as safe as before.
    assert_eq!(next.member(disk(2)).unwrap().state, MemberState::Active);
    // Done is done.
    let mut done = observed.clone();
    adopt(&mut done, &next, why);
    let plan = decide(&giving_up(&cluster, &lost), &done);
    assert!(!reasons(&plan).contains(&Reason::DataLossRefused), "{:?}", reasons(&plan));
}

#[test]
fn who_is_alive_or_unknown_is_not_given_up() {
    let cluster = nodes(3);
    let alive = disk(1).to_string();
    let unknown = NodeId::from_u128(0xaa).to_string();
    for name in [alive.as_str(), &unknown, "demo-1", ""] {
        let plan = decide(&giving_up(&cluster, name), &at_rest(&cluster));
        assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::DataLossRefused]), "{name}");
        assert!(plan.findings[0].message.contains(name), "{}", plan.findings[0].message);
    }
    // Silent towards the operator, and well towards its peers.
    let mut observed = at_rest(&cluster);
    silence(&mut observed, 1);
    seen_as(&mut observed, 1, Liveness::Up);
    let plan = decide(&giving_up(&cluster, &alive), &observed);
    assert_eq!(reasons(&plan), [Reason::DataLossRefused, Reason::MembersSilent]);
    // Down, and not yet for long enough.
    let mut observed = at_rest(&cluster);
    down(&mut observed, 1, LONG - 1);
    let plan = decide(&giving_up(&cluster, &alive), &observed);
    assert_eq!(committed(&plan), None);
    assert!(reasons(&plan).contains(&Reason::MemberDown), "{:?}", reasons(&plan));
}

#[test]
fn with_room_what_is_given_up_goes_at_once() {
    let cluster = nodes(4);
    let mut observed = at_rest(&cluster);
    down(&mut observed, 1, LONG);
    let plan = decide(&giving_up(&cluster, &disk(1).to_string()), &observed);
    let (next, _) = committed(&plan).unwrap();
    assert_eq!(states(&next), "demo-0 active, demo-1 lost, demo-2 active, demo-3 active");
}

#[test]
fn who_leaves_and_never_answers_again_is_removed_on_the_same_evidence() {
    let mut observed = at_rest(&nodes(4));
    change(&mut observed, &[3], MemberState::Leaving, RingChange::ScaleDown);
    down(&mut observed, 3, LONG - 1);
    let plan = decide(&nodes(3), &observed);
    assert_eq!(reasons(&plan), [Reason::LeaverSilent, Reason::MembersSilent]);
    down(&mut observed, 3, LONG);
    let (next, why) = committed(&decide(&nodes(3), &observed)).unwrap();
    assert_eq!(why, RingChange::Removed);
    assert_eq!(states(&next), "demo-0 active, demo-1 active, demo-2 active, demo-3 removed");
}
