//! What the operator sees may be old, and what happens between two looks it never sees. (After Sieve, OSDI '22.)

use quorate_operator::controller::reconcile;
use serde_json::json;

use crate::deaths::{Change, ROUNDS_MAX, deleted, end, run};
use crate::incarnations::{applier, plan};
use crate::world::{World, operator};

/// In every round somebody carries out what was decided from the look of the round before, at the API server and at the
/// nodes, and everything has moved on since.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_acts_on_an_old_look_comes_to_the_same_end() {
    for change in [Change::Up, Change::Down, Change::Replaced] {
        let (expected, _) = run(change, i64::MAX).await;
        let mut world = World::new().await;
        let (operator, late) = (operator().await, operator().await);
        world.ready_with(&operator, "demo", |spec| spec.nodes = change.nodes_before()).await;
        world.log.clear();
        let mut old = plan(&world, &late).await;
        change.begin(&mut world).await;
        let (mut deletions, mut is_over) = (Vec::new(), false);
        for _ in 0..ROUNDS_MAX {
            operator.writes();
            late.writes();
            let look = plan(&world, &late).await;
            // Refused where what it decided about has changed: that is the point.
            let _ = applier(&late).apply(&old.0, &old.1).await;
            old = look;
            let pass = reconcile(&world.namespace, "demo", &operator.context).await;
            let written = [operator.writes(), late.writes()].concat();
            deletions.extend(deleted(&written));
            if !world.controllers("demo").await && pass.is_ok() && written.is_empty() && !world.settle() {
                is_over = true;
                break;
            }
        }
        assert!(is_over, "{change:?} does not come to rest: {:?}", world.status("demo").await.conditions);
        // Both may ask for the same incarnation to be deleted; it is deleted once.
        deletions.sort();
        deletions.dedup();
        assert_eq!(end(&world, deletions).await, expected, "{change:?}");
    }
}

/// Up and down again, and a rolling change and back, before the operator looks.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_before_it_was_seen_never_was() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let epoch = world.epoch("demo").await;
    for nodes in [5, 3] {
        world.change("demo", json!({"nodes": nodes})).await;
    }
    world.change("demo", json!({"resources": {"limits": {"memory": "1Gi"}}})).await;
    world.change("demo", json!({"resources": null})).await;
    reconcile(&world.namespace, "demo", &operator.context).await.unwrap();
    let namespace = &world.namespace;
    let status = format!("PATCH /apis/quorate.dev/v1alpha1/namespaces/{namespace}/kvclusters/demo/status");
    assert_eq!(operator.writes(), [status], "the generation alone is new");
    assert_eq!(world.epoch("demo").await, epoch);
}

/// The operator looks only when everybody else has come to rest: it misses every state in between.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_looks_rarely_comes_to_the_same_end() {
    for change in [Change::Up, Change::Down, Change::Replaced] {
        let (expected, _) = run(change, i64::MAX).await;
        let mut world = World::new().await;
        let operator = operator().await;
        world.ready_with(&operator, "demo", |spec| spec.nodes = change.nodes_before()).await;
        world.log.clear();
        change.begin(&mut world).await;
        let (mut deletions, mut is_over) = (Vec::new(), false);
        for _ in 0..ROUNDS_MAX {
            operator.writes();
            let pass = reconcile(&world.namespace, "demo", &operator.context).await;
            let written = operator.writes();
            deletions.extend(deleted(&written));
            let mut has_moved = false;
            while world.controllers("demo").await || world.settle() {
                has_moved = true;
            }
            if pass.is_ok() && written.is_empty() && !has_moved {
                is_over = true;
                break;
            }
        }
        assert!(is_over, "{change:?} does not come to rest");
        assert_eq!(end(&world, deletions).await, expected, "{change:?}");
    }
}
