//! The whole operator: watches, the lease, and the order in which they start and stop.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use quorate_operator::controller;
use quorate_operator::crd::Phase;
use quorate_operator::lease::Candidate;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::world::{Operator, World, eventually, operator};

/// An operator with its watches.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(operator: Operator, namespace: &str) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (context, namespace) = (Arc::new(operator.context), namespace.to_owned());
        let stopped = async move { stopped.await.unwrap_or_default() };
        let task = tokio::spawn(async move {
            controller::run(context, Some(&namespace), futures::FutureExt::shared(stopped)).await;
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

async fn is_ready(world: &World) {
    eventually("the cluster is ready", || async {
        world.status("demo").await.phase.filter(|phase| *phase == Phase::Ready)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_operator_brings_a_cluster_up_and_repairs_it() {
    let mut world = World::new().await;
    let running = Running::start(operator().await, &world.namespace);
    world.create("demo", |_| {}).await;
    eventually("the status is written", || async { world.status("demo").await.phase }).await;
    world.start_pods("demo").await;
    is_ready(&world).await;

    // At rest the next look is half a minute away: what repairs this is the watch.
    world.api::<Service>().delete("demo", &DeleteParams::default()).await.unwrap();
    eventually("the Service is back", || async { world.get::<Service>("demo").await }).await;
    running.stop().await;
}

/// A pause that grew with each refusal would come to more than half a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_busy_gets_its_epoch_soon_after() {
    let mut world = World::new().await;
    world.create("demo", |_| {}).await;
    world.rest(&operator().await, "demo").await;
    world.start_pods("demo").await;
    world.nodes[1].change(|disk| disk.busy = 5);
    let running = Running::start(operator().await, &world.namespace);
    is_ready(&world).await;
    assert_eq!(world.nodes[1].disk().busy, 0);
    running.stop().await;
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
