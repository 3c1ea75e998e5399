//! Decisions, each as: what is observed, what is done, what is said.

mod failures;
mod members;
mod rollout;
mod volumes;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use proptest::prelude::*;
use quorate_admin::types::StorageState;
use quorate_core::ring::{Epoch, MemberState, planner};
use quorate_core::{ClusterId, NodeId};

use super::*;
use crate::crd::{UsersSpec, VolumePolicy};
use crate::fixtures::{
    at_rest, before_the_first_epoch, cluster_id, disk, epoch_of, existing, says, validated,
};
use crate::observe::{NodeAnswer, Observed, RingState, SecretState};

/// An action in one word.
fn word(action: &Action) -> String {
    match action {
        Action::CreateSecret => "create secret".to_owned(),
        Action::CreateRing { cluster_id: None } => "create new ring".to_owned(),
        Action::CreateRing { cluster_id: Some(_) } => "create known ring".to_owned(),
        Action::ReplaceRing { change, .. } => {
            format!("replace ring: {}", change.map_or("unknown".to_owned(), |change| change.to_string()))
        }
        Action::Apply(manifest) => format!("apply {:?} {}", manifest.kind, manifest.name),
        Action::PushEpoch { nodes, .. } => {
            format!("push to {}", nodes.iter().map(|(pod, _)| pod.as_str()).collect::<Vec<_>>().join(" "))
        }
        Action::GrowClaim { name, uid, size } => format!("grow {name} {uid} to {size}"),
        Action::OrphanPods { name, uid } => format!("orphan the pods of {name} {uid}"),
        Action::DeletePod { name, uid, why } => format!("delete {name} {uid}: {why:?}"),
        Action::MarkClaim { name, disk, .. } => format!("mark {name} {}", disk.node),
        Action::DeleteClaim { name, uid, .. } => format!("delete {name} {uid}"),
        Action::RenewPod { name, uid, now: false } => format!("renew {name} {uid}"),
        Action::RenewPod { name, uid, now: true } => format!("renew {name} {uid} now"),
    }
}

/// The actions but for the budget of drains, which follows whatever is wrong and has tests of its own.
fn actions(plan: &Plan) -> Vec<String> {
    plan.actions.iter().map(word).filter(|word| word != BUDGET).collect()
}

const BUDGET: &str = "apply PodDisruptionBudget demo";

fn reasons(plan: &Plan) -> Vec<Reason> {
    plan.findings.iter().map(|finding| finding.reason).collect()
}

fn lose_epoch(observed: &mut Observed) {
    let RingState::Present(ring) = &mut observed.ring else { panic!("there is a ring") };
    let epoch = ring.epoch.take().unwrap();
    for pod in &mut observed.pods {
        pod.held = Some(Arc::clone(&epoch));
    }
}

fn silence(observed: &mut Observed, ordinal: usize) {
    observed.pods[ordinal].node = NodeAnswer::Silent("refused".to_owned());
}

#[test]
fn at_rest_nothing_is_done_and_nothing_is_said() {
    let cluster = validated("demo", |_| {});
    let plan = decide(&cluster, &at_rest(&cluster));
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![]));
}

#[test]
fn from_nothing_the_secret_and_the_ring_come_before_the_pods_that_need_them() {
    let cluster = validated("demo", |_| {});
    let plan = decide(&cluster, &Observed::default());
    assert_eq!(
        plan.actions.iter().map(word).collect::<Vec<_>>(),
        [
            "create secret",
            "create new ring",
            "apply ServiceAccount demo",
            "apply Service demo-peers",
            "apply Service demo",
            "apply PodDisruptionBudget demo",
            "apply NetworkPolicy demo",
            "apply StatefulSet demo",
        ]
    );
}

#[test]
fn a_paused_cluster_is_left_alone_and_still_talked_about() {
    let cluster = validated("demo", |spec| spec.paused = true);
    let mut observed = at_rest(&validated("demo", |_| {}));
    observed.existing.client_service = None;
    silence(&mut observed, 1);
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::MembersSilent]));
}

#[test]
fn a_hand_edit_is_repaired_and_nothing_else_is_touched() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    observed.existing.stateful_set.as_mut().unwrap().spec.replicas = Some(7);
    observed.existing.network_policy = None;
    let plan = decide(&cluster, &observed);
    assert_eq!(actions(&plan), ["apply NetworkPolicy demo", "apply StatefulSet demo"]);
}

#[test]
fn a_field_that_the_spec_no_longer_has_is_removed() {
    let before = validated("demo", |spec| {
        spec.pod.node_selector.insert("disk".to_owned(), "ssd".to_owned());
    });
    let now = validated("demo", |_| {});
    let plan = decide(&now, &at_rest(&before));
    assert_eq!(actions(&plan), ["apply StatefulSet demo"]);
}

#[test]
fn a_name_that_belongs_to_somebody_else_is_not_taken_over() {
    let cluster = validated("demo", |_| {});
    let other =
        OwnerReference { uid: "other".to_owned(), controller: Some(true), ..OwnerReference::default() };
    let mut observed = at_rest(&cluster);
    observed.existing.client_service.as_mut().unwrap().metadata.owner_references = Some(vec![other.clone()]);
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::NameTaken]));
    assert!(plan.findings[0].message.contains("Service demo"), "{}", plan.findings[0].message);

    let mut observed = at_rest(&cluster);
    observed.existing.service_account.as_mut().unwrap().metadata.owner_references = None;
    assert_eq!(
        actions(&decide(&cluster, &observed)),
        ["apply ServiceAccount demo"],
        "an orphan of ours is adopted"
    );
    observed.existing.service_account.as_mut().unwrap().metadata.labels = None;
    assert_eq!(
        reasons(&decide(&cluster, &observed)),
        [Reason::NameTaken],
        "without our labels it never was ours"
    );

    // The Secret of an earlier KVCluster of this name, on its way out: adopted, it would vanish later.
    let mut observed = at_rest(&cluster);
    observed.secret = SecretState::Present { text: "old".to_owned(), owners: vec![other] };
    assert_eq!(reasons(&decide(&cluster, &observed)), [Reason::NameTaken]);
}

#[test]
fn a_lost_secret_is_made_anew_only_when_nobody_holds_the_old_one() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    observed.secret = SecretState::Absent;
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::SecretMissing]));

    observed.pods[0].running = false;
    observed.pods[1].running = false;
    assert_eq!(reasons(&decide(&cluster, &observed)), [Reason::SecretMissing], "one still holds it");
    observed.pods[2].running = false;
    assert_eq!(actions(&decide(&cluster, &observed)), ["create secret"]);

    observed.secret = SecretState::Malformed;
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::SecretMalformed]));
}

#[test]
fn users_come_with_their_secret_and_not_before() {
    let without = validated("demo", |_| {});
    let with = |secret: &str| {
        let users = UsersSpec { secret_name: secret.to_owned() };
        validated("demo", |spec| spec.users = Some(users))
    };
    let (old, new) = (with("old-users"), with("new-users"));
    let plan = decide(&new, &at_rest(&without));
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::UsersMissing]));
    assert!(plan.findings[0].message.ends_with("go on without users"), "{}", plan.findings[0].message);

    let plan = decide(&new, &at_rest(&old));
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::UsersMissing]));
    assert!(plan.findings[0].message.ends_with("Secret old-users"), "{}", plan.findings[0].message);

    let mut observed = at_rest(&new);
    assert_eq!(reasons(&decide(&new, &observed)), [Reason::UsersMissing], "it was deleted");
    observed.has_users = true;
    let plan = decide(&new, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![]));

    let mut observed = Observed { has_users: false, ..Observed::default() };
    let made =
        |observed: &Observed| actions(&decide(&new, observed)).contains(&"apply StatefulSet demo".to_owned());
    assert!(
        reasons(&decide(&new, &observed)).contains(&Reason::UsersMissing) && made(&observed),
        "its pods wait"
    );
    observed.has_users = true;
    assert!(!reasons(&decide(&new, &observed)).contains(&Reason::UsersMissing) && made(&observed));
}

#[test]
fn the_first_epoch_is_committed_when_every_node_has_answered() {
    let cluster = validated("demo", |_| {});
    let observed = before_the_first_epoch(&cluster);
    let plan = decide(&cluster, &observed);
    assert_eq!(actions(&plan), ["replace ring: FirstEpoch"]);
    let Action::ReplaceRing { epoch: Some(epoch), resource_version, cluster_id: id, .. } = &plan.actions[0]
    else {
        panic!("an epoch");
    };
    assert_eq!((resource_version.as_str(), *id, epoch.number()), ("7", cluster_id(), 1));
    let members: Vec<_> =
        epoch.members().iter().map(|m| (m.name.as_str(), m.zone.as_deref(), m.state)).collect();
    assert!(members.contains(&("demo-1", Some("zone-1"), MemberState::Active)), "{members:?}");
}

#[test]
fn the_first_epoch_waits_for_every_node_and_says_for_whom() {
    let cluster = validated("demo", |_| {});
    let mut observed = before_the_first_epoch(&cluster);
    silence(&mut observed, 1);
    observed.pods[1].trouble = Some("ImagePullBackOff".to_owned());
    observed.pods.pop();
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::WaitingForNodes]));
    let message = &plan.findings[0].message;
    assert!(message.contains("demo-1 (ImagePullBackOff) and demo-2 (no pod)"), "{message}");
}

#[test]
fn before_the_first_epoch_the_number_of_nodes_may_change() {
    let cluster = validated("demo", |spec| spec.nodes = 4);
    let plan = decide(&cluster, &before_the_first_epoch(&validated("demo", |_| {})));
    assert_eq!(
        (actions(&plan), reasons(&plan)),
        (vec!["apply StatefulSet demo".to_owned()], vec![Reason::WaitingForNodes])
    );
}

#[test]
fn two_pods_with_one_disk_are_no_ring() {
    let cluster = validated("demo", |_| {});
    let mut observed = before_the_first_epoch(&cluster);
    says(&mut observed, 2, |status| status.identity.node_id = disk(0));
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::DuplicateDisk]));
}

#[test]
fn a_disk_of_another_cluster_stops_the_ring_from_being_touched() {
    let cluster = validated("demo", |_| {});
    for mut observed in [before_the_first_epoch(&cluster), at_rest(&cluster)] {
        says(&mut observed, 1, |status| status.identity.cluster_id = ClusterId::from_u128(9));
        let plan = decide(&cluster, &observed);
        assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::WrongCluster]));
    }
}

#[test]
fn the_committed_epoch_is_pushed_to_those_who_do_not_have_it() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    says(&mut observed, 0, |status| status.epoch = None);
    says(&mut observed, 2, |status| status.epoch = None);
    let plan = decide(&cluster, &observed);
    assert_eq!(
        (actions(&plan), reasons(&plan)),
        (vec!["push to demo-0 demo-2".to_owned()], vec![Reason::PushingEpoch])
    );
}

/// An epoch of the same number with another hash, as after a lost compare-and-swap.
fn other_epoch(cluster: &ValidatedCluster) -> Epoch {
    let mut members = epoch_of(cluster).members().to_vec();
    members[0].zone = Some("elsewhere".to_owned());
    planner::first_epoch(cluster_id(), cluster.partitions, cluster.replication, members).unwrap()
}

#[test]
fn a_node_with_an_epoch_that_was_never_committed_gets_no_other() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    let mark = other_epoch(&cluster).mark();
    says(&mut observed, 1, |status| status.epoch = Some(mark));
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::EpochConflict]));
}

#[test]
fn a_lost_epoch_is_recovered_from_the_nodes_when_all_members_agree() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    lose_epoch(&mut observed);
    assert_eq!(actions(&decide(&cluster, &observed)), ["replace ring: Recovered"]);

    silence(&mut observed, 2);
    observed.pods[2].held = None;
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::RecoveringRing]));
    assert!(plan.findings[0].message.contains("demo-2"), "{}", plan.findings[0].message);
}

#[test]
fn nodes_that_disagree_are_never_decided_between() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    lose_epoch(&mut observed);
    observed.pods[1].held = Some(Arc::new(other_epoch(&cluster)));
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::RingDisagreement]));
}

#[test]
fn a_lost_config_map_gets_its_identity_from_the_disks_or_from_the_status() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    observed.ring = RingState::Absent;
    observed.recorded_cluster_id = None;
    let plan = decide(&cluster, &observed);
    assert_eq!(plan.actions[0], Action::CreateRing { cluster_id: Some(cluster_id()) });

    for ordinal in 0..3 {
        silence(&mut observed, ordinal);
    }
    let plan = decide(&cluster, &observed);
    assert_eq!(
        (actions(&plan), reasons(&plan)),
        (vec![], vec![Reason::RecoveringRing]),
        "nobody knows: no guess"
    );
    observed.recorded_cluster_id = Some(cluster_id());
    let plan = decide(&cluster, &observed);
    assert_eq!(plan.actions[0], Action::CreateRing { cluster_id: Some(cluster_id()) });
}

#[test]
fn disks_of_different_clusters_give_no_identity() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    observed.ring = RingState::Absent;
    says(&mut observed, 0, |status| status.identity.cluster_id = ClusterId::from_u128(9));
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::RingDisagreement]));
}

#[test]
fn a_malformed_ring_starts_no_pods() {
    let cluster = validated("demo", |_| {});
    let observed = Observed { ring: RingState::Malformed("no".to_owned()), ..Observed::default() };
    let plan = decide(&cluster, &observed);
    assert_eq!(
        (actions(&plan), reasons(&plan)),
        (vec!["create secret".to_owned()], vec![Reason::RingMalformed])
    );
}

#[test]
fn the_ring_goes_with_the_cluster_exactly_when_the_volumes_do() {
    let retained = validated("demo", |_| {});
    let deleted = validated("demo", |spec| spec.storage.on_delete = VolumePolicy::Delete);
    let plan = decide(&deleted, &at_rest(&retained));
    assert_eq!(actions(&plan), ["replace ring: FirstEpoch", "apply StatefulSet demo"]);
    let Action::ReplaceRing { epoch, .. } = &plan.actions[0] else { panic!("a ring") };
    assert!(epoch.is_some(), "the epoch stays");
}

#[test]
fn changes_that_this_version_cannot_make_are_refused_and_not_done() {
    let old = validated("demo", |_| {});
    type Change = fn(&mut crate::crd::KVClusterSpec);
    let changes: [(Change, &str); 3] = [
        (|spec| spec.replication.read_quorum = 3, "readQuorum 3"),
        (|spec| spec.replication.write_quorum = 3, "writeQuorum 3"),
        (
            |spec| spec.storage.size = "5Gi".to_owned(),
            "storage.size is 5Gi, the volumes have 10Gi and cannot shrink",
        ),
    ];
    for (change, sentence) in changes {
        let plan = decide(&validated("demo", change), &at_rest(&old));
        assert_eq!(
            (actions(&plan), reasons(&plan)),
            (vec![], vec![Reason::ChangeNotSupported]),
            "{sentence}"
        );
        assert!(plan.findings[0].message.contains(sentence), "{}", plan.findings[0].message);
    }
    let same_size = validated("demo", |spec| spec.storage.size = "10240Mi".to_owned());
    assert!(reasons(&decide(&same_size, &at_rest(&old))).is_empty(), "only written otherwise");
}

#[test]
fn a_disk_in_trouble_is_reported() {
    let cluster = validated("demo", |_| {});
    for state in [StorageState::Full, StorageState::Failed] {
        let mut observed = at_rest(&cluster);
        says(&mut observed, 0, |status| status.health.storage = state);
        assert_eq!(reasons(&decide(&cluster, &observed)), [Reason::StorageTrouble]);
    }
}

#[test]
fn many_names_are_counted_and_not_listed() {
    assert_eq!(names(["a"]), "a");
    assert_eq!(names(["a", "b", "c"]), "a, b and c");
    assert_eq!(names(["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
}

#[test]
fn the_hash_of_what_was_applied_does_not_depend_on_when() {
    let cluster = validated("demo", |_| {});
    assert_eq!(existing(&cluster).stateful_set, existing(&cluster).stateful_set);
    let hash = existing(&cluster).stateful_set.unwrap().metadata.annotations.unwrap()[APPLIED_HASH].clone();
    assert_eq!(hash.len(), 16);
}

/// What can be wrong with one node of three.
#[derive(Clone, Debug)]
enum Fault {
    None,
    NoPod,
    Silent,
    NoEpoch,
    OtherDisk,
    OtherEpoch,
    Stopped,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::None),
        Just(Fault::NoPod),
        Just(Fault::Silent),
        Just(Fault::NoEpoch),
        Just(Fault::OtherDisk),
        Just(Fault::OtherEpoch),
        Just(Fault::Stopped),
    ]
}

fn inflict(cluster: &ValidatedCluster, observed: &mut Observed, ordinal: usize, fault: &Fault) {
    match fault {
        Fault::None => {}
        Fault::NoPod => observed.pods.retain(|pod| usize::from(pod.ordinal) != ordinal),
        Fault::Silent => silence(observed, ordinal),
        Fault::NoEpoch => says(observed, ordinal, |status| status.epoch = None),
        Fault::OtherDisk => {
            says(observed, ordinal, |status| status.identity.node_id = NodeId::from_u128(0xdead))
        }
        Fault::OtherEpoch => {
            let mark = other_epoch(cluster).mark();
            says(observed, ordinal, |status| status.epoch = Some(mark));
        }
        Fault::Stopped => {
            silence(observed, ordinal);
            observed.pods[ordinal].running = false;
        }
    }
}

proptest! {
    /// INV-EPOCH: whatever is wrong with the nodes, a committed epoch is neither replaced nor pushed to a disk that it
    /// does not name, or to a node that has another of its number. INV-ONE: nothing is ever deleted for it.
    #[test]
    fn a_committed_epoch_stands(faults in proptest::collection::vec(fault(), 3), secret in any::<bool>()) {
        let cluster = validated("demo", |spec| spec.failure.auto_replace = false);
        let mut observed = at_rest(&cluster);
        for (ordinal, fault) in faults.iter().enumerate().rev() {
            inflict(&cluster, &mut observed, ordinal, fault);
        }
        if !secret {
            observed.secret = SecretState::Absent;
        }
        let plan = decide(&cluster, &observed);
        for action in &plan.actions {
            match action {
                Action::PushEpoch { nodes, .. } => {
                    for (name, _) in nodes {
                        let ordinal: usize = name.rsplit('-').next().unwrap().parse().unwrap();
                        prop_assert!(matches!(faults[ordinal], Fault::NoEpoch), "{name}: {:?}", faults[ordinal]);
                    }
                }
                Action::Apply(Manifest { kind: Kind::PodDisruptionBudget, .. }) => {}
                Action::CreateSecret => prop_assert!(observed.pods.iter().all(|pod| !pod.running)),
                Action::MarkClaim { .. } => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    /// INV-ONE, INV-EPOCH: whatever is wrong and whatever is wished, at most one disruptive thing is done, the next epoch
    /// follows the committed one, nobody comes back who was removed, and at least a quorum of every partition's old
    /// owners still counts.
    #[test]
    fn one_thing_at_a_time(faults in proptest::collection::vec(fault(), 5), wish in 3_i32..8, leaving in 3_u16..6) {
        let cluster = validated("demo", |spec| spec.nodes = wish);
        let mut observed = at_rest(&validated("demo", |spec| spec.nodes = 5));
        let leaving: Vec<u16> = (leaving..5).collect();
        members::change(&mut observed, &leaving, MemberState::Leaving, RingChange::ScaleDown);
        let before = members::epoch(&observed);
        for (ordinal, fault) in faults.iter().enumerate().rev() {
            inflict(&cluster, &mut observed, ordinal, fault);
        }
        let plan = decide(&cluster, &observed);
        prop_assert!(plan.actions.iter().filter(|action| action.is_disruptive()).count() <= 1, "{:?}", actions(&plan));
        if let Some((next, _)) = members::committed(&plan) {
            prop_assert_eq!(next.follows(&before), Ok(true));
            let gone = |member: &&quorate_core::ring::Member| {
                !next.member(member.id).unwrap().state.takes_part() && member.state == MemberState::Active
            };
            prop_assert!(before.members().iter().filter(gone).count() <= 1);
        }
        if plan.cluster.nodes < 5 {
            prop_assert!(leaving.is_empty() || plan.cluster.nodes > *leaving.iter().max().unwrap());
        }
    }

    /// INV-EPOCH: a first epoch is planned only from as many disks as there are nodes, and never while a node has one.
    #[test]
    fn a_first_epoch_names_every_node(faults in proptest::collection::vec(fault(), 3)) {
        let cluster = validated("demo", |_| {});
        let mut observed = before_the_first_epoch(&cluster);
        for (ordinal, fault) in faults.iter().enumerate().rev() {
            inflict(&cluster, &mut observed, ordinal, fault);
        }
        let plan = decide(&cluster, &observed);
        let commits = plan.actions.iter().any(|action| matches!(action, Action::ReplaceRing { change: Some(RingChange::FirstEpoch), .. }));
        let other_disks = faults.iter().filter(|fault| matches!(fault, Fault::OtherDisk)).count();
        let all_answer = faults.iter().all(|fault| matches!(fault, Fault::None | Fault::NoEpoch | Fault::OtherDisk));
        prop_assert_eq!(commits, all_answer && other_disks < 2);
    }
}
