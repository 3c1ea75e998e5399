//! Converged means quiet, and whatever a hand did is put right.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use quorate_operator::controller::reconcile;
use quorate_operator::crd::Phase;
use serde_json::json;

use crate::world::{World, operator};

#[tokio::test(flavor = "multi_thread")]
async fn a_converged_cluster_causes_no_write_also_after_a_restart() {
    let mut world = World::new().await;
    let first = operator().await;
    world.ready(&first, "demo").await;
    for operator in [&first, &operator().await] {
        for _ in 0..3 {
            reconcile(&world.namespace, "demo", &operator.context).await.unwrap();
        }
        assert_eq!(operator.writes(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_the_api_server_writes_differently_cause_no_write() {
    let world = World::new().await;
    let operator = operator().await;
    let spec = json!({
        "storage": {"size": "2048Mi"},
        "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"memory": "1.5Gi"}},
        "pod": {
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
            ]
        }
    });
    world.create("demo", |wish| *wish = serde_json::from_value(spec).unwrap()).await;
    world.rest(&operator, "demo").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_edits_are_repaired() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let by_hand = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };

    let edit = Patch::Merge(
        json!({"spec": {"replicas": 9}, "metadata": {"labels": {"app.kubernetes.io/name": "x"}}}),
    );
    world.api::<StatefulSet>().patch("demo", &by_hand, &edit).await.unwrap();
    world.api::<Service>().delete("demo-peers", &DeleteParams::default()).await.unwrap();
    let edit = Patch::Merge(json!({"spec": {"ports": [{"name": "http", "port": 1, "targetPort": "http"}]}}));
    world.api::<Service>().patch("demo", &by_hand, &edit).await.unwrap();
    let edit = Patch::Merge(json!({"spec": {"ingress": [{}]}}));
    world.api::<NetworkPolicy>().patch("demo", &by_hand, &edit).await.unwrap();
    let edit = Patch::Merge(json!({"spec": {"maxUnavailable": 3}}));
    world.api::<PodDisruptionBudget>().patch("demo", &by_hand, &edit).await.unwrap();

    world.rest(&operator, "demo").await;
    let set: StatefulSet = world.get("demo").await.unwrap();
    assert_eq!(set.spec.replicas, Some(3));
    assert_eq!(set.labels()["app.kubernetes.io/name"], "quorate");
    assert!(world.get::<Service>("demo-peers").await.is_some());
    let ports = world.get::<Service>("demo").await.unwrap().spec.unwrap().ports.unwrap();
    assert_eq!(ports.iter().map(|port| port.port).collect::<Vec<_>>(), [7001]);
    let policy: NetworkPolicy = world.get("demo").await.unwrap();
    assert_eq!(policy.spec.unwrap().ingress.unwrap().len(), 2);
    let budget: PodDisruptionBudget = world.get("demo").await.unwrap();
    assert_eq!(serde_json::to_value(budget.spec.unwrap().max_unavailable).unwrap(), 1);
}

/// `kubectl scale statefulset demo` takes pods, and no disk: the same members are back.
#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_that_a_hand_made_smaller_gets_its_pods_and_disks_back() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let disks = |world: &World| world.nodes.iter().map(|node| node.disk().node_id).collect::<Vec<_>>();
    let before = (world.epoch("demo").await, disks(&world));
    let edit = Patch::Merge(json!({"spec": {"replicas": 1}}));
    world.api::<StatefulSet>().patch("demo", &PatchParams::default(), &edit).await.unwrap();
    world.controllers("demo").await;
    assert_eq!(world.nodes.len(), 1);
    world.converge(&operator, "demo").await;
    assert_eq!(world.status("demo").await.phase, Some(Phase::Ready));
    assert_eq!((world.epoch("demo").await, disks(&world)), before);
}

/// A ring that somebody put back from a backup: the nodes know a newer one, and nothing follows from the older.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_a_hand_put_back_decides_nothing() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let rings = world.api::<ConfigMap>();
    let backup = rings.get("demo-ring").await.unwrap().data;
    world.change("demo", json!({"nodes": 4})).await;
    world.converge(&operator, "demo").await;
    let newest = rings.get("demo-ring").await.unwrap().data;
    let put = |data| Patch::Merge(json!({"data": data}));
    rings.patch("demo-ring", &PatchParams::default(), &put(backup)).await.unwrap();
    world.change("demo", json!({"nodes": 5})).await;
    world.converge(&operator, "demo").await;
    assert_eq!(world.condition("demo", "Degraded").await, "True: EpochConflict");
    assert_eq!(world.epoch("demo").await.unwrap().number(), 1, "nothing is committed");
    assert!(world.nodes[..4].iter().all(|node| node.disk().epoch.unwrap().number() == 2));
    rings.patch("demo-ring", &PatchParams::default(), &put(newest)).await.unwrap();
    world.converge(&operator, "demo").await;
    assert_eq!(world.status("demo").await.phase, Some(Phase::Ready));
    assert_eq!(world.epoch("demo").await.unwrap().number(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_add_stays_theirs_and_causes_no_write() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let by_hand = PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() };
    let edit = Patch::Merge(
        json!({"metadata": {"annotations": {"example.com/note": "hello"}, "labels": {"team": "a"}}}),
    );
    world.api::<Service>().patch("demo", &by_hand, &edit).await.unwrap();
    reconcile(&world.namespace, "demo", &operator.context).await.unwrap();
    assert_eq!(operator.writes(), Vec::<String>::new());
    assert_eq!(world.get::<Service>("demo").await.unwrap().annotations()["example.com/note"], "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_never_overwritten_and_made_anew_only_when_no_node_holds_it() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let secret = world.secret("demo").await.unwrap();
    assert_eq!(secret.len(), 64);

    let labels = Patch::Merge(json!({"metadata": {"labels": null}}));
    world.api::<Secret>().patch("demo-secret", &PatchParams::default(), &labels).await.unwrap();
    world.rest(&operator, "demo").await;
    assert_eq!(world.secret("demo").await.unwrap(), secret);

    world.api::<Secret>().delete("demo-secret", &DeleteParams::default()).await.unwrap();
    world.rest(&operator, "demo").await;
    assert_eq!(world.secret("demo").await, None, "the nodes hold the old one");
    assert_eq!(world.condition("demo", "Degraded").await, "True: SecretMissing");

    for ordinal in 0..3 {
        world.delete_pod(&format!("demo-{ordinal}")).await;
    }
    world.rest(&operator, "demo").await;
    let new = world.secret("demo").await.unwrap();
    assert_ne!(new, secret);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_cluster_is_reported_and_not_touched() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    world.change("demo", json!({"paused": true})).await;
    world.api::<Service>().delete("demo", &DeleteParams::default()).await.unwrap();
    world.nodes.pop();
    world.rest(&operator, "demo").await;
    assert!(world.get::<Service>("demo").await.is_none(), "nothing is changed");
    assert_eq!(world.condition("demo", "Paused").await, "True: PausedBySpec");
    assert_eq!(world.condition("demo", "Degraded").await, "True: MembersSilent");
    assert_eq!(world.status("demo").await.phase, Some(Phase::Paused));

    world.change("demo", json!({"paused": false})).await;
    world.rest(&operator, "demo").await;
    assert!(world.get::<Service>("demo").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_version_cannot_do_is_refused_in_the_status() {
    let world = World::new().await;
    let operator = operator().await;
    world.create("demo", |spec| spec.protocols.udp.enabled = true).await;
    world.rest(&operator, "demo").await;
    assert_eq!(world.condition("demo", "Progressing").await, "False: NotSupportedYet");
    assert_eq!(world.status("demo").await.phase, Some(Phase::Refused));
    assert!(world.get::<StatefulSet>("demo").await.is_none(), "half of a wish is worse than none");
    world.change("demo", json!({"protocols": {"udp": {"enabled": false}}})).await;
    world.rest(&operator, "demo").await;
    assert!(world.get::<StatefulSet>("demo").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_quorums_is_refused_politely_and_not_done() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    world.change("demo", json!({"replication": {"readQuorum": 3}})).await;
    world.rest(&operator, "demo").await;
    assert_eq!(world.condition("demo", "Progressing").await, "False: ChangeNotSupported");
    assert_eq!(world.condition("demo", "Ready").await, "True: AllNodesReady", "it serves as before");
    assert_eq!(world.status("demo").await.phase, Some(Phase::Refused));
    assert_eq!(world.epoch("demo").await.unwrap().replication().read_quorum, 2);
    world.change("demo", json!({"replication": {"readQuorum": 2}})).await;
    world.rest(&operator, "demo").await;
    assert_eq!(world.status("demo").await.phase, Some(Phase::Ready));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_side_by_side_share_nothing() {
    let mut world = World::new().await;
    let mut other = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "one").await;
    world.ready(&operator, "two").await;
    other.ready(&operator, "one").await;
    let ids = [world.cluster_id("one").await, world.cluster_id("two").await, other.cluster_id("one").await];
    assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
    assert_ne!(world.secret("one").await, world.secret("two").await);
    for (world, name) in [(&world, "one"), (&world, "two"), (&other, "one")] {
        world.rest(&operator, name).await;
        assert_eq!(world.status(name).await.phase, Some(Phase::Ready));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_left_to_its_owner() {
    let world = World::new().await;
    let operator = operator().await;
    let taken: Service = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "demo"}, "spec": {"ports": [{"port": 80}]}
    }))
    .unwrap();
    world.api::<Service>().create(&Default::default(), &taken).await.unwrap();
    world.create("demo", |_| {}).await;
    world.rest(&operator, "demo").await;
    assert_eq!(world.condition("demo", "Degraded").await, "True: NameTaken");
    let service: Service = world.get("demo").await.unwrap();
    assert_eq!(service.spec.unwrap().ports.unwrap()[0].port, 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_image_reaches_pods_that_never_ran() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.create("demo", |_| {}).await;
    world.rest(&operator, "demo").await;
    let set: StatefulSet = world.get("demo").await.unwrap();
    for ordinal in 0..3 {
        world.start_pod(&set, &format!("demo-{ordinal}"), ordinal, None).await;
    }
    world.set_revision("demo", "r1").await;
    world.rest(&operator, "demo").await;
    world.change("demo", json!({"image": {"repository": "quorate/node", "tag": "right"}})).await;
    reconcile(&world.namespace, "demo", &operator.context).await.unwrap();
    world.set_revision("demo", "r2").await;
    operator.writes();
    reconcile(&world.namespace, "demo", &operator.context).await.unwrap();
    let deletions: Vec<String> =
        operator.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect();
    assert_eq!(
        deletions,
        [format!("DELETE /api/v1/namespaces/{}/pods/demo-2", world.namespace)],
        "one at a time"
    );
    world.nodes.clear();
}
