//! INV-UID: what was deleted and made again under the same name is another object, and is left alone.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::events::Recorder;
use quorate_operator::apply::{Applier, ApplyError};
use quorate_operator::controller::reconcile;
use quorate_operator::crd::{KVCluster, KVClusterStatus};
use quorate_operator::metrics::Metrics;
use quorate_operator::observe::{Observed, observe};
use quorate_operator::plan::{Action, Plan, decide};
use quorate_operator::validate::validate;
use serde_json::json;

use crate::world::{Operator, World, operator, settings};

/// What the operator would do now.
pub(crate) async fn plan(world: &World, operator: &Operator) -> (Plan, Observed) {
    let cluster: KVCluster = world.get("demo").await.unwrap();
    let observed = observe(&operator.client, &cluster).await.unwrap();
    (decide(&validate(&cluster, &settings()).unwrap(), &observed), observed)
}

/// Carries out the one action that was chosen, late.
async fn carry_out(
    operator: &Operator,
    (plan, observed): (Plan, Observed),
    chosen: impl Fn(&Action) -> bool,
) -> Result<(), ApplyError> {
    let mut plan = plan;
    plan.actions.retain(chosen);
    assert_eq!(plan.actions.len(), 1, "{:?}", plan.actions);
    applier(operator).apply(&plan, &observed).await.1
}

pub(crate) fn applier(operator: &Operator) -> Applier {
    let recorder = Recorder::new(operator.client.clone(), "test".into());
    Applier::new(operator.client.clone(), Metrics::new().unwrap(), recorder)
}

/// A claim goes and comes back between the look and the deed.
async fn claim_made_again(world: &mut World, pod: &str) -> String {
    let name = format!("data-{pod}");
    let old = world.get::<PersistentVolumeClaim>(&name).await.unwrap().uid().unwrap();
    world.api::<PersistentVolumeClaim>().delete(&name, &DeleteParams::default()).await.unwrap();
    world.api::<Pod>().delete(pod, &DeleteParams::default().grace_period(0)).await.unwrap();
    world.stop_node(pod).await;
    while world.controllers("demo").await {}
    let new = world.get::<PersistentVolumeClaim>(&name).await.unwrap().uid().unwrap();
    assert_ne!(old, new);
    new
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_made_again_is_not_deleted() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    world.lose("demo-1").await;
    let plan = plan(&world, &operator).await;
    let new = claim_made_again(&mut world, "demo-1").await;
    let done = carry_out(&operator, plan, |action| matches!(action, Action::DeleteClaim { .. })).await;
    assert!(matches!(done, Err(ApplyError::Conflict { .. })), "{done:?}");
    let claim = world.get::<PersistentVolumeClaim>("data-demo-1").await.unwrap();
    assert_eq!((claim.uid().unwrap(), claim.metadata.deletion_timestamp), (new, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_made_again_is_not_deleted() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    world.lose("demo-1").await;
    world.api::<PersistentVolumeClaim>().delete("data-demo-1", &DeleteParams::default()).await.unwrap();
    let plan = plan(&world, &operator).await;
    world.api::<Pod>().delete("demo-1", &DeleteParams::default().grace_period(0)).await.unwrap();
    while world.controllers("demo").await {}
    let done = carry_out(&operator, plan, |action| matches!(action, Action::RenewPod { .. })).await;
    assert!(matches!(done, Err(ApplyError::Conflict { .. })), "{done:?}");
    assert_eq!(world.get::<Pod>("demo-1").await.unwrap().metadata.deletion_timestamp, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_a_claim_is_not_written_on_its_successor() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let forget = Patch::Merge(json!({"metadata": {"annotations": null}}));
    let claims = world.api::<PersistentVolumeClaim>();
    claims.patch("data-demo-1", &PatchParams::default(), &forget).await.unwrap();
    let plan = plan(&world, &operator).await;
    claim_made_again(&mut world, "demo-1").await;
    let done = carry_out(&operator, plan, |action| matches!(action, Action::MarkClaim { .. })).await;
    assert!(matches!(done, Err(ApplyError::Conflict { .. })), "{done:?}");
    let claim = world.get::<PersistentVolumeClaim>("data-demo-1").await.unwrap();
    assert!(claim.annotations().is_empty(), "{:?}", claim.annotations());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_epoch_of_a_ring_is_not_written_into_its_successor() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    world.change("demo", json!({"nodes": 4})).await;
    reconcile(&world.namespace, "demo", &operator.context).await.unwrap();
    while world.controllers("demo").await {}
    let plan = plan(&world, &operator).await;
    let ring: ConfigMap = world.get("demo-ring").await.unwrap();
    world.api::<ConfigMap>().delete("demo-ring", &DeleteParams::default()).await.unwrap();
    let metadata = ObjectMeta { name: Some("demo-ring".to_owned()), ..ObjectMeta::default() };
    let made_again = ConfigMap { metadata, ..ring };
    world.api().create(&PostParams::default(), &made_again).await.unwrap();
    let done = carry_out(&operator, plan, |action| matches!(action, Action::ReplaceRing { .. })).await;
    assert!(matches!(done, Err(ApplyError::Conflict { .. })), "{done:?}");
    assert_eq!(world.epoch("demo").await.unwrap().number(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_cluster_is_not_written_on_its_successor() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let old: KVCluster = world.get("demo").await.unwrap();
    world.api::<KVCluster>().delete("demo", &DeleteParams::default()).await.unwrap();
    world.create("demo", |_| {}).await;
    let late = applier(&operator).report(&old, &KVClusterStatus::default()).await;
    assert!(matches!(late, Err(ApplyError::Conflict { .. })), "{late:?}");
    assert_eq!(world.get::<KVCluster>("demo").await.unwrap().status, None);
}
