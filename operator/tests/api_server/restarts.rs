//! The operator dies after every single write, and another with nothing in memory carries on. (After Sieve, OSDI '22.)

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use quorate_operator::controller::reconcile;
use quorate_operator::crd::Phase;

use crate::world::{World, operator, operator_as};

/// Writes from nothing to the first rest: the Secret, the ring, six objects, events and statuses.
const WRITES_MAX: i64 = 16;

#[tokio::test(flavor = "multi_thread")]
async fn whenever_it_dies_the_next_one_carries_on_to_the_same_end() {
    let mut deaths = 0;
    for writes in 0..WRITES_MAX {
        let mut world = World::new().await;
        world.create("demo", |_| {}).await;
        let mortal = operator().await;
        mortal.dies_after(writes);
        // It may die in any of these passes; that is the point.
        let passes = [
            reconcile(&world.namespace, "demo", &mortal.context).await,
            reconcile(&world.namespace, "demo", &mortal.context).await,
        ];
        deaths += u32::from(passes.iter().any(Result::is_err));
        let secret = world.secret("demo").await;

        let next = operator().await;
        world.rest(&next, "demo").await;
        assert!(secret.is_none() || secret == world.secret("demo").await, "after {writes} writes");
        world.start_pods("demo").await;
        let mortal = operator().await;
        mortal.dies_after(writes);
        let _ = reconcile(&world.namespace, "demo", &mortal.context).await;
        let epoch = world.epoch("demo").await;
        world.rest(&operator().await, "demo").await;
        assert!(epoch.is_none() || epoch == world.epoch("demo").await, "after {writes} writes");
        assert_eq!(world.status("demo").await.phase, Some(Phase::Ready), "after {writes} writes");
        assert!(world.get::<StatefulSet>("demo").await.is_some());
        assert!(world.get::<Service>("demo").await.is_some());
        assert!(world.get::<Service>("demo-peers").await.is_some());
        assert!(world.get::<ServiceAccount>("demo").await.is_some());
        assert!(world.get::<NetworkPolicy>("demo").await.is_some());
        assert!(world.get::<PodDisruptionBudget>("demo").await.is_some());
    }
    assert!(deaths >= 8, "it died {deaths} times");
}

/// `rbac.yaml` is enough to come all the way.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough() {
    let mut world = World::new().await;
    let user = format!("operator-of-{}", world.namespace);
    world.grant(&user).await;
    let operator = operator_as(&user).await;
    world.ready(&operator, "demo").await;
    let events = world.events("demo").await;
    for reason in ["SecretCreated", "RingCreated", "EpochCommitted", "Ready"] {
        assert!(events.iter().any(|event| event == reason), "{reason} in {events:?}");
    }
}
