//! Who joins and who leaves, each as: what is wished and observed, what is done, what is said.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use quorate_admin::types::{Liveness, MemberView, NodeStatus};
use quorate_core::limits::MEMBERS_MAX;
use quorate_core::ring::{Epoch, Member, MemberState, planner};
use quorate_core::{ClusterId, NodeId};

use super::super::*;
use super::failures::seen_as;
use super::{actions, reasons, silence};
use crate::crd::VolumePolicy;
use crate::fixtures::{
    at_rest, claim, cluster_id, disk, existing, node_status, pod, reached, says, settled, validated,
};
use crate::observe::{DiskMark, Observed, RingState};

pub(super) fn nodes(count: i32) -> ValidatedCluster {
    validated("demo", |spec| spec.nodes = count)
}

/// The committed epoch.
pub(super) fn epoch(observed: &Observed) -> Arc<Epoch> {
    let RingState::Present(ring) = &observed.ring else { panic!("there is a ring") };
    ring.epoch.clone().expect("an epoch")
}

/// The epoch that a plan commits, and what it is for.
pub(super) fn committed(plan: &Plan) -> Option<(Arc<Epoch>, RingChange)> {
    plan.actions.iter().find_map(|action| match action {
        Action::ReplaceRing { epoch, change, .. } => Some((epoch.clone()?, (*change)?)),
        _ => None,
    })
}

/// "demo-0 active, demo-1 removed, …", in the order of the pods.
pub(super) fn states(epoch: &Epoch) -> String {
    let mut members: Vec<&Member> = epoch.members().iter().collect();
    members.sort_by_key(|member| (member.name.clone(), member.state.takes_part()));
    let state = |member: &Member| format!("{} {:?}", member.name, member.state).to_lowercase();
    members.into_iter().map(state).collect::<Vec<_>>().join(", ")
}

/// Commits an epoch as the operator would, and lets every member take it.
pub(super) fn adopt(observed: &mut Observed, epoch: &Arc<Epoch>, change: RingChange) {
    let RingState::Present(ring) = &mut observed.ring else { panic!("there is a ring") };
    (ring.epoch, ring.change) = (Some(Arc::clone(epoch)), Some(change));
    for pod in &mut observed.pods {
        let crate::observe::NodeAnswer::Answered(status) = &mut pod.node else { continue };
        if is_member(epoch, status.identity.node_id) {
            status.epoch = Some(epoch.mark());
            status.transition = settled(Some(epoch));
        }
    }
}

/// The same members in other states, as an epoch that was committed and is done.
pub(super) fn change(observed: &mut Observed, ordinals: &[u16], state: MemberState, why: RingChange) {
    let before = epoch(observed);
    let ids: BTreeSet<NodeId> = ordinals.iter().map(|ordinal| disk(*ordinal)).collect();
    let members = before.members().iter().cloned().map(|member| match ids.contains(&member.id) {
        true => Member { state, ..member },
        false => member,
    });
    let next = planner::next(&before, members.collect(), before.replication()).unwrap();
    adopt(observed, &Arc::new(next), why);
}

/// Everybody has something left to do.
fn moves(observed: &mut Observed) {
    for ordinal in 0..observed.pods.len() {
        says(observed, ordinal, |status| status.transition.partitions_unretired = 7);
    }
}

/// Five pods, three members: the new ones answer, and everybody reaches them.
fn grown() -> (ValidatedCluster, Observed) {
    let wish = nodes(5);
    let mut observed = at_rest(&nodes(3));
    observed.existing = existing(&wish);
    for ordinal in 3..5 {
        observed.pods.push(pod(&wish, ordinal, None));
        observed.claims.push(claim(&wish, ordinal));
    }
    (3..5).for_each(|ordinal| reached(&mut observed, disk(ordinal)));
    (wish, observed)
}

#[test]
fn more_nodes_are_first_pods_and_then_members_all_in_one_epoch() {
    let wish = nodes(5);
    let plan = decide(&wish, &at_rest(&nodes(3)));
    assert_eq!(actions(&plan), ["apply StatefulSet demo"]);
    assert_eq!(reasons(&plan), [Reason::WaitingForNodes]);

    let (wish, mut observed) = grown();
    silence(&mut observed, 4);
    let plan = decide(&wish, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::WaitingForNodes]));
    assert!(plan.findings[0].message.contains("2 of 5 nodes"), "{}", plan.findings[0].message);

    let (wish, mut observed) = grown();
    let plan = decide(&wish, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec!["replace ring: ScaleUp".to_owned()], vec![]));
    let (next, why) = committed(&plan).unwrap();
    assert_eq!(next.number(), 2);
    assert_eq!(states(&next), "demo-0 active, demo-1 active, demo-2 active, demo-3 active, demo-4 active");

    // Committed in one pass, pushed in a later one, to all (INV-EPOCH).
    let RingState::Present(ring) = &mut observed.ring else { panic!("there is a ring") };
    (ring.epoch, ring.change) = (Some(next), Some(why));
    let plan = decide(&wish, &observed);
    assert_eq!(actions(&plan), ["push to demo-0 demo-1 demo-2 demo-3 demo-4"]);
}

#[test]
fn a_disk_that_is_not_empty_and_new_does_not_join() {
    type Wrong = fn(&mut NodeStatus);
    let cases: [(Wrong, Reason); 4] = [
        (|status| status.health.keys = 1, Reason::DiskNotEmpty),
        (|status| status.identity.node_id = disk(3), Reason::DuplicateDisk),
        (|status| status.identity.node_id = disk(0), Reason::DuplicateDisk),
        (|status| status.identity.cluster_id = ClusterId::from_u128(9), Reason::WrongCluster),
    ];
    for (wrong, reason) in cases {
        let (wish, mut observed) = grown();
        observed.claims.clear();
        says(&mut observed, 4, wrong);
        let plan = decide(&wish, &observed);
        assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![reason]));
    }
}

/// How one node sees a newcomer, and whether that keeps all of them out.
#[test]
fn newcomers_join_when_every_node_that_answers_has_talked_to_them() {
    type Sight = fn(&mut MemberView);
    let cases: [(&str, Sight, bool); 5] = [
        ("it answered a probe", |_| {}, true),
        ("it is up by hearsay", |seen| seen.clock_skew_ms = None, false),
        (
            "the same, and was asked for data",
            |seen| (seen.clock_skew_ms, seen.latency_micros) = (None, Some(9)),
            false,
        ),
        ("it answered once", |seen| seen.liveness = Liveness::Suspect, false),
        ("it answered once, long ago", |seen| seen.liveness = Liveness::Down, false),
    ];
    // A member, and another newcomer.
    for (what, sight, joins) in cases {
        for observer in [1, 3] {
            let (wish, mut observed) = grown();
            says(&mut observed, observer, |status| {
                let seen = status.members.members.iter_mut().find(|seen| seen.id == disk(4));
                sight(seen.expect("known"));
            });
            let plan = decide(&wish, &observed);
            assert_eq!(committed(&plan).is_some(), joins, "{what}, by demo-{observer}");
            if !joins {
                assert_eq!(reasons(&plan), [Reason::WaitingForNodes], "{what}, by demo-{observer}");
                let said = format!(
                    "2 of 5 nodes are no members yet; they join together when every node that answers reaches demo-4 (not \
                     reachable by demo-{observer} yet)"
                );
                assert_eq!(plan.findings[0].message, said);
            }
        }
    }
}

#[test]
fn who_does_not_answer_is_not_asked_whom_it_reaches() {
    let (wish, mut observed) = grown();
    for ordinal in 0..2 {
        says(&mut observed, ordinal, |status| status.members.members.clear());
    }
    let plan = decide(&wish, &observed);
    let said = "reaches demo-3 (not reachable by demo-0 and demo-1 yet) and demo-4 (not reachable by demo-0 and demo-1 yet)";
    assert!(plan.findings[0].message.ends_with(said), "{}", plan.findings[0].message);
    silence(&mut observed, 1);
    (3..5).for_each(|ordinal| reached(&mut observed, disk(ordinal)));
    let plan = decide(&wish, &observed);
    assert!(committed(&plan).is_some(), "{:?}", plan.findings);
}

#[test]
fn a_pod_that_goes_does_not_join() {
    let (wish, mut observed) = grown();
    observed.pods[4].terminating = true;
    assert_eq!(actions(&decide(&wish, &observed)), Vec::<String>::new());
}

/// What keeps the next epoch from being committed, each alone.
#[test]
fn the_next_epoch_waits_for_what_is_not_known_and_says_so() {
    type Wrong = fn(&mut Observed);
    let cases: [(Wrong, &[Reason]); 5] = [
        (|seen| says(seen, 0, |node| node.epoch = None), &[Reason::PushingEpoch]),
        (|seen| says(seen, 0, |node| node.transition = Default::default()), &[Reason::NodesTooOld]),
        (
            |seen| (0..2).for_each(|ordinal| silence(seen, ordinal)),
            &[Reason::TooFewAnswers, Reason::MembersSilent],
        ),
        (
            |seen| {
                change(seen, &[], MemberState::Active, RingChange::Cancelled);
                change(seen, &[], MemberState::Active, RingChange::Cancelled);
                says(seen, 1, |node| node.transition.oldest_epoch = 1);
            },
            &[Reason::TooManyEpochs, Reason::MovingData],
        ),
        (
            |seen| {
                let number = epoch(seen).number() + 1;
                says(seen, 1, |node| node.epoch.as_mut().unwrap().number = number);
            },
            &[Reason::EpochConflict],
        ),
    ];
    for (wrong, expected) in cases {
        let (wish, mut observed) = grown();
        wrong(&mut observed);
        let plan = decide(&wish, &observed);
        assert_eq!(reasons(&plan), expected);
        assert_eq!(committed(&plan), None, "{expected:?}");
    }
}

#[test]
fn a_change_may_overtake_another_as_long_as_three_epochs_are_live() {
    let (wish, mut observed) = grown();
    change(&mut observed, &[], MemberState::Active, RingChange::Cancelled);
    says(&mut observed, 1, |node| node.transition.oldest_epoch = 1);
    moves(&mut observed);
    let (next, _) = committed(&decide(&wish, &observed)).expect("epochs 1, 2 and 3");
    assert_eq!(next.number(), 3);
}

#[test]
fn one_silent_member_of_three_holds_nobody_up() {
    let (wish, mut observed) = grown();
    silence(&mut observed, 1);
    let plan = decide(&wish, &observed);
    assert!(committed(&plan).is_some());
    assert_eq!(reasons(&plan), [Reason::MembersSilent]);
}

#[test]
fn fewer_nodes_leave_are_proven_needless_and_fenced_and_only_then_their_pods_go() {
    let (wish, mut observed) = (nodes(3), at_rest(&nodes(5)));
    let plan = decide(&wish, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec!["replace ring: ScaleDown".to_owned()], vec![]));
    let (next, why) = committed(&plan).unwrap();
    assert_eq!(states(&next), "demo-0 active, demo-1 active, demo-2 active, demo-3 leaving, demo-4 leaving");

    adopt(&mut observed, &next, why);
    for ordinal in 3..5 {
        says(&mut observed, ordinal, |node| node.transition.partitions_leaving = 9);
    }
    let plan = decide(&wish, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::HandingOver, Reason::MovingData]));
    assert!(plan.findings[0].message.contains("18 partitions"), "{}", plan.findings[0].message);

    adopt(&mut observed, &next, why);
    let plan = decide(&wish, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec!["replace ring: Removed".to_owned()], vec![]));
    let (next, why) = committed(&plan).unwrap();
    assert_eq!(states(&next), "demo-0 active, demo-1 active, demo-2 active, demo-3 removed, demo-4 removed");

    // The pods stay until their peers know.
    let RingState::Present(ring) = &mut observed.ring else { panic!("there is a ring") };
    (ring.epoch, ring.change) = (Some(Arc::clone(&next)), Some(why));
    let plan = decide(&wish, &observed);
    assert_eq!(actions(&plan), ["push to demo-0 demo-1 demo-2 demo-3 demo-4"]);
    adopt(&mut observed, &next, why);
    for ordinal in 3..5 {
        says(&mut observed, ordinal, |node| node.epoch = Some(next.mark()));
    }
    assert_eq!(actions(&decide(&wish, &observed)), ["apply StatefulSet demo"]);

    // The claims go after the pods, one at a time, by their UID.
    observed.existing = existing(&wish);
    assert_eq!(actions(&decide(&wish, &observed)), Vec::<String>::new(), "the pods are still there");
    observed.pods.truncate(3);
    assert_eq!(actions(&decide(&wish, &observed)), ["delete data-demo-3 claim-3"]);
    observed.claims.remove(3);
    assert_eq!(actions(&decide(&wish, &observed)), ["delete data-demo-4 claim-4"]);
    observed.claims.remove(3);
    let plan = decide(&wish, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![]));
}

/// INV-PROOF: what keeps a member that leaves from being fenced, each alone.
#[test]
fn nobody_is_removed_without_proof() {
    type Doubt = fn(&mut Observed);
    let cases: [(Doubt, &[Reason]); 8] = [
        (|seen| says(seen, 3, |node| node.transition.hints_owed = 1), &[Reason::HandingOver]),
        (
            |seen| says(seen, 3, |node| node.transition.partitions_leaving = 1),
            &[Reason::HandingOver, Reason::MovingData],
        ),
        (|seen| says(seen, 0, |node| node.transition.partitions_unretired = 1), &[Reason::MovingData]),
        (|seen| says(seen, 0, |node| node.transition.partitions_syncing = 1), &[Reason::MovingData]),
        (|seen| says(seen, 1, |node| node.transition.oldest_epoch = 1), &[Reason::MovingData]),
        (|seen| says(seen, 1, |node| node.epoch = None), &[Reason::PushingEpoch]),
        (|seen| silence(seen, 3), &[Reason::LeaverSilent, Reason::MembersSilent]),
        (
            |seen| (0..2).for_each(|ordinal| silence(seen, ordinal)),
            &[Reason::TooFewAnswers, Reason::MembersSilent],
        ),
    ];
    for (doubt, expected) in cases {
        let (wish, mut observed) = (nodes(3), at_rest(&nodes(4)));
        change(&mut observed, &[3], MemberState::Leaving, RingChange::ScaleDown);
        assert!(committed(&decide(&wish, &observed)).is_some());
        doubt(&mut observed);
        let plan = decide(&wish, &observed);
        assert_eq!(committed(&plan), None, "{expected:?}");
        assert_eq!(reasons(&plan), expected);
        assert!(!actions(&plan).iter().any(|action| action.contains("StatefulSet")), "{:?}", actions(&plan));
    }
}

/// How a member that leaves, and has nothing left, looks to itself and to Kubernetes, and whether it is removed.
#[test]
fn nobody_is_removed_while_clients_are_led_to_it() {
    let now = Timestamp::from_second(1_000).unwrap();
    let second = |second| Some(Timestamp::from_second(second).unwrap());
    let cases = [
        ("Kubernetes has not noticed", (false, true, None), false),
        ("it noticed just now", (false, false, second(997)), false),
        ("it noticed a while ago", (false, false, second(996)), true),
        ("an older program, which never says so", (true, true, None), true),
    ];
    for (what, (says_ready, is_ready, since), goes) in cases {
        let (wish, mut observed) = (nodes(3), at_rest(&nodes(4)));
        change(&mut observed, &[3], MemberState::Leaving, RingChange::ScaleDown);
        observed.now = now;
        says(&mut observed, 3, |node| node.health.ready = says_ready);
        (observed.pods[3].ready, observed.pods[3].down_since) = (is_ready, since);
        let plan = decide(&wish, &observed);
        assert_eq!(committed(&plan).is_some(), goes, "{what}");
        assert_eq!(reasons(&plan).is_empty(), goes, "{what}: {:?}", plan.findings);
        if !goes {
            let expected = "nothing is left on demo-3: removed as soon as Kubernetes has led clients away, 4 s after it calls \
                            them not ready";
            assert_eq!(plan.findings[0].message, expected, "{what}");
        }
    }
}

#[test]
fn a_scale_down_that_is_taken_back_is_cancelled_in_an_epoch() {
    let mut observed = at_rest(&nodes(5));
    change(&mut observed, &[3, 4], MemberState::Leaving, RingChange::ScaleDown);
    moves(&mut observed);
    let plan = decide(&nodes(5), &observed);
    let (next, why) = committed(&plan).unwrap();
    assert_eq!(why, RingChange::Cancelled);
    assert_eq!(states(&next), "demo-0 active, demo-1 active, demo-2 active, demo-3 active, demo-4 active");

    // Half of it: who is wanted stays, who is not leaves on.
    let (next, _) = committed(&decide(&nodes(4), &observed)).unwrap();
    assert_eq!(states(&next), "demo-0 active, demo-1 active, demo-2 active, demo-3 active, demo-4 leaving");
}

#[test]
fn a_scale_down_that_goes_further_overtakes() {
    let mut observed = at_rest(&nodes(5));
    change(&mut observed, &[4], MemberState::Leaving, RingChange::ScaleDown);
    moves(&mut observed);
    says(&mut observed, 0, |node| node.transition.oldest_epoch = 1);
    says(&mut observed, 4, |node| node.transition.partitions_leaving = 5);
    let plan = decide(&nodes(3), &observed);
    let (next, _) = committed(&plan).expect("three epochs are live");
    assert_eq!(states(&next), "demo-0 active, demo-1 active, demo-2 active, demo-3 leaving, demo-4 leaving");
    assert_eq!(reasons(&plan), [Reason::HandingOver, Reason::MovingData]);
}

#[test]
fn members_leave_by_their_disk_and_never_by_their_number() {
    let mut observed = at_rest(&nodes(4));
    change(&mut observed, &[3], MemberState::Leaving, RingChange::ScaleDown);
    // Another disk answers in the pod: what it says of itself is no proof about the member.
    says(&mut observed, 3, |node| node.identity.node_id = NodeId::from_u128(0xdead));
    seen_as(&mut observed, 3, Liveness::Up);
    observed.claims.clear();
    let plan = decide(&nodes(3), &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::LeaverSilent]));
    // Its disk is gone, and its peers say so: nothing is left to hand over.
    seen_as(&mut observed, 3, Liveness::Down);
    assert_eq!(actions(&decide(&nodes(3), &observed)), ["replace ring: Removed"]);
}

/// The API server refuses it already.
#[test]
fn fewer_nodes_than_copies_are_refused() {
    let plan = decide(&nodes(2), &at_rest(&nodes(3)));
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::BelowFactor]));
    assert_eq!(plan.cluster.nodes, 3, "no pod goes");
}

#[test]
fn no_pod_goes_where_the_epoch_is_lost_or_older_than_the_ring() {
    let wish = nodes(3);
    let mut lost = at_rest(&nodes(5));
    let RingState::Present(ring) = &mut lost.ring else { panic!("there is a ring") };
    ring.epoch = None;
    let mut restored = at_rest(&nodes(5));
    let old = at_rest(&nodes(3)).ring;
    restored.ring = old;
    let mut malformed = at_rest(&nodes(5));
    malformed.ring = RingState::Malformed("no".to_owned());
    let mut gone = at_rest(&nodes(5));
    gone.ring = RingState::Absent;
    for ordinal in 0..5 {
        silence(&mut gone, ordinal);
    }
    for observed in [lost, restored, malformed, gone] {
        let plan = decide(&wish, &observed);
        assert_eq!(plan.cluster.nodes, 5, "{:?}", reasons(&plan));
        assert!(!actions(&plan).iter().any(|action| action.contains("StatefulSet")), "{:?}", actions(&plan));
    }
}

#[test]
fn pods_that_never_joined_go_at_once() {
    let (_, observed) = grown();
    let plan = decide(&nodes(3), &observed);
    assert_eq!(actions(&plan), ["apply StatefulSet demo"]);
    assert_eq!(plan.cluster.nodes, 3);
}

/// INV-PROOF, INV-UID: what keeps a claim, each alone.
#[test]
fn a_claim_stays_unless_its_disk_is_proven_needless() {
    type Doubt = fn(&mut Observed);
    let gone = || {
        let mut observed = at_rest(&nodes(4));
        change(&mut observed, &[3], MemberState::Leaving, RingChange::ScaleDown);
        change(&mut observed, &[3], MemberState::Removed, RingChange::Removed);
        observed.existing = existing(&nodes(3));
        observed.pods.truncate(3);
        observed
    };
    assert_eq!(actions(&decide(&nodes(3), &gone())), ["delete data-demo-3 claim-3"]);
    let doubts: [Doubt; 6] = [
        |seen| seen.claims[3].disk = None,
        |seen| seen.claims[3].disk = Some(DiskMark { cluster: ClusterId::from_u128(9), node: disk(3) }),
        |seen| seen.claims[3].disk = Some(DiskMark { cluster: cluster_id(), node: disk(0) }),
        |seen| seen.claims[3].terminating = true,
        |seen| seen.existing.stateful_set.as_mut().unwrap().spec.replicas = Some(4),
        |seen| (0..2).for_each(|ordinal| silence(seen, ordinal)),
    ];
    for (number, doubt) in doubts.into_iter().enumerate() {
        let mut observed = gone();
        doubt(&mut observed);
        let done = actions(&decide(&nodes(3), &observed));
        assert!(!done.iter().any(|action| action.starts_with("delete")), "{number}: {done:?}");
    }
    let retained = validated("demo", |spec| spec.storage.on_scale_down = VolumePolicy::Retain);
    assert_eq!(actions(&decide(&retained, &gone())), Vec::<String>::new());
}

#[test]
fn the_disk_of_a_pod_is_written_on_its_claim_once() {
    let cluster = nodes(3);
    let mut observed = at_rest(&cluster);
    observed.claims[1].disk = None;
    let expected = format!("mark data-demo-1 {}", disk(1));
    assert_eq!(actions(&decide(&cluster, &observed)), std::slice::from_ref(&expected));
    observed.claims[1].disk = Some(DiskMark { cluster: cluster_id(), node: disk(7) });
    assert_eq!(actions(&decide(&cluster, &observed)), [expected], "a new disk is written over the old one");
    observed.claims[1].terminating = true;
    assert_eq!(actions(&decide(&cluster, &observed)), Vec::<String>::new());
    let mut observed = at_rest(&cluster);
    observed.claims[1].disk = None;
    silence(&mut observed, 1);
    assert_eq!(actions(&decide(&cluster, &observed)), Vec::<String>::new(), "nobody says what is on it");
}

/// Lowered and raised again after the members were fenced: their disks are of no use to the ring any more.
#[test]
fn a_removed_disk_that_is_wanted_again_makes_way_for_an_empty_one() {
    let wish = nodes(4);
    let mut observed = at_rest(&wish);
    change(&mut observed, &[3], MemberState::Leaving, RingChange::ScaleDown);
    change(&mut observed, &[3], MemberState::Removed, RingChange::Removed);
    let mark = epoch(&observed).mark();
    says(&mut observed, 3, |node| node.epoch = Some(mark));
    let plan = decide(&wish, &observed);
    assert_eq!(actions(&plan), ["delete data-demo-3 claim-3"]);
    assert_eq!(reasons(&plan), [Reason::RemovedDisk, Reason::NewDisk]);
    observed.claims[3].terminating = true;
    assert_eq!(actions(&decide(&wish, &observed)), ["renew demo-3 pod-3"]);
    observed.pods[3].terminating = true;
    assert_eq!(actions(&decide(&wish, &observed)), Vec::<String>::new(), "it is on its way");

    let keeps = validated("demo", |spec| {
        spec.nodes = 4;
        spec.storage.on_scale_down = VolumePolicy::Retain;
    });
    observed.claims[3].terminating = false;
    observed.pods[3].terminating = false;
    let plan = decide(&keeps, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::RemovedDisk]), "yours to do");

    // The new disk joins like any other.
    observed.pods[3] = pod(&wish, 3, None);
    says(&mut observed, 3, |node| *node = node_status(&wish, 3, None));
    says(&mut observed, 3, |node| node.identity.node_id = NodeId::from_u128(0xfe));
    reached(&mut observed, NodeId::from_u128(0xfe));
    observed.claims.pop();
    let (next, why) = committed(&decide(&wish, &observed)).unwrap();
    assert_eq!(why, RingChange::ScaleUp);
    assert!(states(&next).ends_with("demo-3 removed, demo-3 active"), "{}", states(&next));
}

/// Those that were removed take their places for good.
#[test]
fn a_ring_that_can_name_nobody_more_says_so_and_can_still_get_smaller() {
    let mut observed = at_rest(&nodes(4));
    let before = epoch(&observed);
    let removed = (before.members().len()..MEMBERS_MAX).map(|number| Member {
        id: NodeId::from_u128(0x1000 + number as u128),
        name: format!("demo-{number}"),
        state: MemberState::Removed,
        ..before.members()[0].clone()
    });
    let members = before.members().iter().cloned().chain(removed).collect();
    let full = Arc::new(planner::next(&before, members, before.replication()).unwrap());
    adopt(&mut observed, &full, RingChange::Removed);
    observed.pods.push(pod(&nodes(5), 4, None));
    reached(&mut observed, disk(4));
    let plan = decide(&nodes(5), &observed);
    assert_eq!(committed(&plan), None);
    let finding =
        plan.findings.iter().find(|finding| finding.reason == Reason::TooManyMembers).expect("said");
    assert!(finding.message.contains("names 1000 members, 996 of them removed"), "{}", finding.message);
    observed.pods.pop();
    assert_eq!(committed(&decide(&nodes(3), &observed)).expect("smaller").1, RingChange::ScaleDown);
}
