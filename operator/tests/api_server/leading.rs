//! The whole operator: watches, the lease, and the order in which they start and stop.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use quorate_operator::controller;
use quorate_operator::crd::Phase;
use quorate_operator::lease::Candidate;
use tokio::sync::oneshot;

use crate::world::{World, eventually, operator};

#[tokio::test(flavor = "multi_thread")]
async fn the_running_operator_brings_a_cluster_up_and_repairs_it() {
    let mut world = World::new().await;
    let operator = operator().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let context = Arc::new(operator.context);
    let namespace = world.namespace.clone();
    let stopped = async move { stopped.await.unwrap_or_default() };
    let running = tokio::spawn(async move {
        controller::run(context, Some(&namespace), futures::FutureExt::shared(stopped)).await;
    });
    world.create("demo", |_| {}).await;
    eventually("the status is written", || async { world.status("demo").await.phase }).await;
    world.start_pods("demo").await;
    let phase = |world: &World| {
        let (world, name) = (world.api::<quorate_operator::crd::KVCluster>(), "demo");
        async move { world.get(name).await.unwrap().status.and_then(|status| status.phase) }
    };
    eventually("the cluster is ready", || async {
        phase(&world).await.filter(|phase| *phase == Phase::Ready)
    })
    .await;

    // At rest the next look is half a minute away: what repairs this is the watch.
    world.api::<Service>().delete("demo", &DeleteParams::default()).await.unwrap();
    eventually("the Service is back", || async { world.get::<Service>("demo").await }).await;
    stop.send(()).unwrap();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_the_other_takes_over_when_it_lets_go() {
    let world = World::new().await;
    let mut first = Candidate::new(world.client.clone(), &world.namespace, "first".to_owned());
    let mut second = Candidate::new(world.client.clone(), &world.namespace, "second".to_owned());
    first.lead().await;
    let waiting = tokio::spawn(async move {
        second.lead().await;
        second
    });
    first.lead().await;
    assert!(!waiting.is_finished(), "the lease is the first one's");
    first.release().await.unwrap();
    let mut second = waiting.await.unwrap();
    second.lead().await;
    second.release().await.unwrap();
}
