//! The ring's epoch: committed once, pushed to all, recovered when lost, never guessed.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::events::Recorder;
use quorate_core::NodeId;
use quorate_core::ring::{Epoch, planner};
use quorate_operator::apply::{Applier, ApplyError};
use quorate_operator::controller::reconcile;
use quorate_operator::crd::{KVCluster, NodeState, Phase};
use quorate_operator::metrics::Metrics;
use quorate_operator::observe::observe;
use quorate_operator::plan::{Action, decide};
use quorate_operator::validate::validate;
use serde_json::json;

use crate::world::{World, operator, settings};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_epoch_is_committed_before_any_node_hears_of_it() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.create("demo", |_| {}).await;
    world.rest(&operator, "demo").await;
    world.start_pods("demo").await;

    reconcile(&world.namespace, "demo", &operator.context).await.unwrap();
    let committed = world.epoch("demo").await.expect("committed");
    assert!(world.nodes.iter().all(|node| node.disk().epoch.is_none()), "nobody has heard of it");

    world.rest(&operator, "demo").await;
    for node in &world.nodes {
        assert_eq!(node.disk().epoch.as_ref(), Some(&committed));
    }
    let zones: Vec<&str> = committed.members().iter().filter_map(|member| member.zone.as_deref()).collect();
    assert_eq!(zones.len(), 3, "{zones:?}");
    assert!(["zone-a", "zone-b", "zone-c"].iter().all(|zone| zones.contains(zone)), "{zones:?}");

    let status = world.status("demo").await;
    let ring = status.ring.unwrap();
    assert_eq!(
        (ring.epoch, ring.partitions, ring.partitions_at_quorum, ring.partitions_in_full),
        (Some(1), 256, 256, 256)
    );
    assert_eq!((status.phase, status.nodes, status.ready_nodes), (Some(Phase::Ready), 3, 3));
    assert!(
        status.members.iter().all(|member| member.state == Some(NodeState::Serving)),
        "{:?}",
        status.members
    );
}

/// Two operators plan from the same observation; the slower one's commit fails and leaves no trace.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_commits_only_one_succeeds_and_the_nodes_get_that_one() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.create("demo", |_| {}).await;
    world.rest(&operator, "demo").await;
    world.start_pods("demo").await;

    let cluster: KVCluster = world.get("demo").await.unwrap();
    let observed = observe(&operator.client, &cluster).await.unwrap();
    let slow = decide(&validate(&cluster, &settings()).unwrap(), &observed);
    let mut fast = slow.clone();
    for action in &mut fast.actions {
        if let Action::ReplaceRing { cluster_id, epoch: Some(epoch), .. } = action {
            let mut members = epoch.members().to_vec();
            members[0].zone = Some("elsewhere".to_owned());
            let other = planner::first_epoch(*cluster_id, 256, epoch.replication(), members).unwrap();
            *epoch = std::sync::Arc::new(other);
        }
    }
    let recorder = Recorder::new(operator.client.clone(), "test".into());
    let applier = Applier::new(operator.client.clone(), Metrics::new().unwrap(), recorder);
    applier.apply(&fast, &observed).await.1.unwrap();
    let (notices, result) = applier.apply(&slow, &observed).await;
    assert!(matches!(result, Err(ApplyError::Conflict { .. })), "{result:?}");
    assert!(notices.is_empty());

    world.rest(&operator, "demo").await;
    let committed = world.epoch("demo").await.unwrap();
    assert!(committed.members().iter().any(|member| member.zone.as_deref() == Some("elsewhere")));
    assert!(world.nodes.iter().all(|node| node.disk().epoch.as_ref() == Some(&committed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ring_is_recovered_from_the_nodes_and_is_the_same() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let (id, epoch) = (world.cluster_id("demo").await, world.epoch("demo").await);
    world.api::<ConfigMap>().delete("demo-ring", &DeleteParams::default()).await.unwrap();
    world.rest(&operator, "demo").await;
    assert_eq!((world.cluster_id("demo").await, world.epoch("demo").await), (id, epoch));
    assert_eq!(world.status("demo").await.phase, Some(Phase::Ready));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_disagree_are_never_decided_between() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let other = other_than(&world.epoch("demo").await.unwrap());
    world.nodes[1].change(|disk| disk.epoch = Some(other));
    let lose = Patch::Merge(json!({"data": {"epoch.json": null}}));
    world.api::<ConfigMap>().patch("demo-ring", &PatchParams::default(), &lose).await.unwrap();
    world.rest(&operator, "demo").await;
    assert_eq!(world.condition("demo", "Degraded").await, "True: RingDisagreement");
    assert_eq!(world.epoch("demo").await, None);
}

fn other_than(epoch: &Epoch) -> Epoch {
    let mut members = epoch.members().to_vec();
    members[0].zone = Some("elsewhere".to_owned());
    planner::first_epoch(epoch.cluster(), 256, epoch.replication(), members).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_replaced_another_disk_is_reported_and_gets_no_epoch() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready_with(&operator, "demo", |spec| spec.failure.auto_replace = false).await;
    let committed = world.epoch("demo").await;
    world.nodes[2].change(|disk| {
        disk.node_id = NodeId::from_u128(0xdead);
        disk.epoch = None;
    });
    world.rest(&operator, "demo").await;
    assert_eq!(world.condition("demo", "Degraded").await, "True: UnknownDisk");
    assert_eq!(world.condition("demo", "Available").await, "True: QuorumEverywhere");
    assert_eq!(world.nodes[2].disk().epoch, None);
    assert_eq!(world.epoch("demo").await, committed);
    let states: Vec<_> = world.status("demo").await.members.into_iter().map(|member| member.state).collect();
    assert!(states.contains(&Some(NodeState::UnknownDisk)), "{states:?}");
}

/// Deleted with its volumes kept, and made again: the ring is found again, and with it the data.
#[tokio::test(flavor = "multi_thread")]
async fn a_retained_ring_is_found_again_by_a_cluster_of_the_same_name() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let (id, epoch) = (world.cluster_id("demo").await, world.epoch("demo").await);
    world.api::<KVCluster>().delete("demo", &DeleteParams::default()).await.unwrap();
    world.collect_garbage().await;
    assert!(world.secret("demo").await.is_none(), "what is owned goes");

    world.create("demo", |_| {}).await;
    world.rest(&operator, "demo").await;
    assert_eq!((world.cluster_id("demo").await, world.epoch("demo").await), (id, epoch));
}
