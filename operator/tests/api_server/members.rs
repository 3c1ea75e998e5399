//! Members come and go: all the way, with nodes that take their time.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use quorate_admin::types::NodeStatus;
use quorate_operator::controller::reconcile;
use quorate_operator::crd::{KVCluster, NodeState, Phase, VolumePolicy};
use serde_json::json;

use crate::world::{World, operator};

const THREE: &str = "demo-0 active, demo-1 active, demo-2 active";
const FIVE: &str = "demo-0 active, demo-1 active, demo-2 active, demo-3 active, demo-4 active";

#[tokio::test(flavor = "multi_thread")]
async fn up_by_the_scale_subresource_and_down_again() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let clusters: Api<KVCluster> = world.api();
    let to = |nodes: i32| Patch::Merge(json!({"spec": {"replicas": nodes}}));
    clusters.patch_scale("demo", &PatchParams::default(), &to(5)).await.unwrap();
    world.converge(&operator, "demo").await;
    assert_eq!(world.members("demo").await, FIVE);
    let status = world.status("demo").await;
    assert_eq!((status.phase, status.ready_nodes), (Some(Phase::Ready), 5));
    // What an autoscaler reads: how many there are, and which pods to measure.
    let scale = clusters.get_scale("demo").await.unwrap();
    let (wanted, there) = (scale.spec.unwrap().replicas, scale.status.unwrap());
    assert_eq!((wanted, there.replicas), (Some(5), 5));
    let measured = world.api::<Pod>().list(&ListParams::default().labels(&there.selector.unwrap())).await;
    assert_eq!(measured.unwrap().items.len(), 5);
    assert_eq!(status.ring.unwrap().epoch, Some(2), "one epoch for all that joined");
    assert!(world.nodes.iter().all(|node| node.disk().epoch.unwrap().number() == 2));

    clusters.patch_scale("demo", &PatchParams::default(), &to(3)).await.unwrap();
    world.converge(&operator, "demo").await;
    assert_eq!(world.members("demo").await, format!("{THREE}, demo-3 removed, demo-4 removed"));
    let status = world.status("demo").await;
    assert_eq!((status.phase, status.ready_nodes, status.members.len()), (Some(Phase::Ready), 3, 3));
    assert_eq!(world.names::<PersistentVolumeClaim>().await, ["data-demo-0", "data-demo-1", "data-demo-2"]);
    let events = world.events("demo").await;
    assert!(events.contains(&"VolumeDeleted".to_owned()), "{events:?}");

    // And up again: new disks under the old names.
    world.change("demo", json!({"nodes": 4})).await;
    world.converge(&operator, "demo").await;
    let members = world.members("demo").await;
    assert_eq!(members, format!("{THREE}, demo-3 active, demo-3 removed, demo-4 removed"));
}

/// A resolver keeps for a while that there was no such name: one member does not reach the newcomers at first.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_before_every_member_reaches_them() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let by_hearsay = |status: &mut NodeStatus| {
        status.members.members.iter_mut().for_each(|seen| seen.clock_skew_ms = None);
    };
    world.nodes[1].change(|disk| disk.worry = by_hearsay);
    world.change("demo", json!({"nodes": 5})).await;
    world.converge(&operator, "demo").await;
    assert_eq!(world.members("demo").await, THREE);
    assert_eq!(world.nodes.len(), 5, "they run");
    assert_eq!(world.condition("demo", "Progressing").await, "True: WaitingForNodes");
    let conditions = world.status("demo").await.conditions;
    let said = conditions.iter().find(|condition| condition.type_ == "Progressing").unwrap();
    assert!(said.message.contains("demo-3 (not reachable by demo-1 yet)"), "{}", said.message);

    world.nodes[1].change(|disk| disk.worry = |_| {});
    world.converge(&operator, "demo").await;
    assert_eq!(world.members("demo").await, FIVE);
}

/// While nodes move data the operator waits, says so once, and writes nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_operator_writes_only_when_what_it_waits_for_changed() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready_with(&operator, "demo", |spec| spec.nodes = 5).await;
    world.change("demo", json!({"nodes": 3})).await;
    world.rest(&operator, "demo").await;
    let transition = world.status("demo").await.ring.unwrap().transition.expect("under way");
    assert_eq!((transition.from_epoch, transition.to_epoch), (1, 2));
    assert_eq!(transition.reason.as_deref(), Some("ScaleDown"));
    assert_eq!((transition.partitions_unretired, transition.partitions_leaving), (8, 8));
    assert_eq!(transition.percent, 96);
    assert_eq!(world.condition("demo", "Progressing").await, "True: HandingOver");
    assert_eq!(world.condition("demo", "Available").await, "True: QuorumEverywhere");
    let states: Vec<_> = world.status("demo").await.members.into_iter().map(|member| member.state).collect();
    assert_eq!(states.iter().filter(|state| **state == Some(NodeState::Leaving)).count(), 2);
    for _ in 0..3 {
        reconcile(&world.namespace, "demo", &operator.context).await.unwrap();
        assert_eq!(operator.writes(), Vec::<String>::new());
    }
    assert_eq!(
        world.get::<StatefulSet>("demo").await.unwrap().spec.replicas,
        Some(5),
        "no pod goes before the proof"
    );

    // One that is done is not all that are.
    world.node("demo-3").settle();
    world.rest(&operator, "demo").await;
    assert_eq!(world.epoch("demo").await.unwrap().number(), 2);
    world.converge(&operator, "demo").await;
    assert_eq!(world.status("demo").await.phase, Some(Phase::Ready));
    assert_eq!(world.status("demo").await.ring.unwrap().transition, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_half_way_nothing_is_lost() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready_with(&operator, "demo", |spec| spec.nodes = 5).await;
    let disks: Vec<_> = world.nodes.iter().map(|node| node.disk().node_id).collect();
    world.change("demo", json!({"nodes": 3})).await;
    world.rest(&operator, "demo").await;
    world.change("demo", json!({"nodes": 5})).await;
    world.converge(&operator, "demo").await;
    assert_eq!(world.members("demo").await, FIVE);
    assert_eq!(world.epoch("demo").await.unwrap().number(), 3);
    assert_eq!(world.log, Vec::<String>::new(), "no pod and no claim was touched");
    let after: Vec<_> = world.nodes.iter().map(|node| node.disk().node_id).collect();
    assert_eq!(after, disks);
}

#[tokio::test(flavor = "multi_thread")]
async fn lowered_further_it_is_overtaken_and_never_more_than_three_epochs_live() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready_with(&operator, "demo", |spec| spec.nodes = 6).await;
    for nodes in [5, 4, 3] {
        world.change("demo", json!({"nodes": nodes})).await;
        world.rest(&operator, "demo").await;
    }
    assert_eq!(world.epoch("demo").await.unwrap().number(), 3, "epochs 1, 2 and 3 are live");
    assert_eq!(world.condition("demo", "Progressing").await, "True: HandingOver");
    world.converge(&operator, "demo").await;
    let members = world.members("demo").await;
    assert_eq!(members, format!("{THREE}, demo-3 removed, demo-4 removed, demo-5 removed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_volumes_stay_and_are_no_members_when_they_come_back() {
    let mut world = World::new().await;
    let operator = operator().await;
    world
        .ready_with(&operator, "demo", |spec| {
            spec.nodes = 4;
            spec.storage.on_scale_down = VolumePolicy::Retain;
        })
        .await;
    world.change("demo", json!({"nodes": 3})).await;
    world.converge(&operator, "demo").await;
    assert_eq!(world.names::<PersistentVolumeClaim>().await.len(), 4);
    world.change("demo", json!({"nodes": 4})).await;
    world.converge(&operator, "demo").await;
    assert_eq!(world.condition("demo", "Degraded").await, "True: RemovedDisk");
    assert_eq!(world.members("demo").await, format!("{THREE}, demo-3 removed"));
    // What the message says to do.
    let claims: Api<PersistentVolumeClaim> = world.api();
    claims.delete("data-demo-3", &DeleteParams::default()).await.unwrap();
    world.api::<Pod>().delete("demo-3", &DeleteParams::default()).await.unwrap();
    world.converge(&operator, "demo").await;
    assert_eq!(world.members("demo").await, format!("{THREE}, demo-3 active, demo-3 removed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_on_a_lost_machine_is_replaced_by_an_empty_disk() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let lost = world.node("demo-1").disk().node_id;
    world.lose("demo-1").await;
    world.converge(&operator, "demo").await;
    let members = "demo-0 active, demo-1 active, demo-1 removed, demo-2 active";
    assert_eq!(world.members("demo").await, members);
    assert_ne!(world.node("demo-1").disk().node_id, lost);
    let made =
        ["deleted pod demo-1", "deleted claim data-demo-1", "made claim data-demo-1", "made pod demo-1"];
    let mut log = world.log.clone();
    log.sort();
    let mut expected = made.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(log, expected, "once each");
    assert_eq!(world.status("demo").await.phase, Some(Phase::Ready));
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_and_claim_deleted_together_make_a_new_member() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let lost = world.node("demo-2").disk().node_id;
    let claims: Api<PersistentVolumeClaim> = world.api();
    claims.delete("data-demo-2", &DeleteParams::default()).await.unwrap();
    world.api::<Pod>().delete("demo-2", &DeleteParams::default()).await.unwrap();
    world.controllers("demo").await;
    world.rest(&operator, "demo").await;
    assert_eq!(world.condition("demo", "Degraded").await, "True: PeersDisagree", "they have not noticed yet");
    for node in &world.nodes {
        node.change(|disk| {
            disk.down.insert(lost);
        });
    }
    world.converge(&operator, "demo").await;
    assert_eq!(world.members("demo").await, "demo-0 active, demo-1 active, demo-2 active, demo-2 removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_given_up_by_name_alone() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let lost = world.node("demo-1").disk().node_id;
    let annotate =
        |id: String| Patch::Merge(json!({"metadata": {"annotations": {"quorate.dev/accept-data-loss": id}}}));
    let clusters: Api<KVCluster> = world.api();
    clusters.patch("demo", &PatchParams::default(), &annotate(lost.to_string())).await.unwrap();
    world.rest(&operator, "demo").await;
    assert_eq!(world.condition("demo", "Progressing").await, "False: DataLossRefused", "it is alive");

    world.lose("demo-1").await;
    world.lose("demo-2").await;
    world.converge(&operator, "demo").await;
    let members = world.members("demo").await;
    assert_eq!(members, "demo-0 active, demo-1 active, demo-1 lost, demo-2 active");
    assert!(world.get::<KVCluster>("demo").await.unwrap().annotations().len() == 1);
}
