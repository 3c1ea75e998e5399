//! The operator dies after every single write that it makes, to the API server and to a node, in each change of the
//! members; another with nothing in memory carries on. Enumerated, not sampled: k = 0, 1, … until the run needs no
//! more. Each time the end is the same, and as many objects are made and deleted on the way. (After Sieve, OSDI '22.)

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use quorate_operator::controller::reconcile;
use quorate_operator::crd::Phase;
use serde_json::json;

use crate::world::{Operator, World, operator};

/// Rounds that a change may need, deaths included.
pub(crate) const ROUNDS_MAX: usize = 80;
/// More writes than any change needs.
const WRITES_MAX: i64 = 100;
/// Worlds at the same time.
const WORLDS: usize = 4;

/// A change of the members.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Up,
    Down,
    /// Down, and taken back when the members leave.
    Cancelled,
    Replaced,
}

impl Change {
    pub(crate) fn nodes_before(self) -> i32 {
        match self {
            Self::Up | Self::Replaced => 3,
            Self::Down | Self::Cancelled => 5,
        }
    }

    pub(crate) async fn begin(self, world: &mut World) {
        match self {
            Self::Up => world.change("demo", json!({"nodes": 5})).await,
            Self::Down | Self::Cancelled => world.change("demo", json!({"nodes": 3})).await,
            Self::Replaced => world.lose("demo-1").await,
        }
    }

    /// What happens on the way.
    async fn meddle(self, world: &World) {
        let is_leaving = || async { world.epoch("demo").await.is_some_and(|epoch| epoch.number() == 2) };
        if matches!(self, Self::Cancelled) && is_leaving().await {
            world.change("demo", json!({"nodes": 5})).await;
        }
    }
}

/// What must not depend on when the operator died.
#[derive(Debug, PartialEq)]
pub(crate) struct End {
    members: String,
    epoch: u64,
    pods: Vec<String>,
    claims: Vec<String>,
    /// What the rest of Kubernetes made and deleted.
    made_and_deleted: Vec<String>,
    /// What the operators deleted.
    deletions: Vec<String>,
}

/// The end, and whether the operator died.
pub(crate) async fn run(change: Change, writes: i64) -> (End, bool) {
    let mut world = World::new().await;
    world.ready_with(&operator().await, "demo", |spec| spec.nodes = change.nodes_before()).await;
    world.log.clear();
    let mortal = operator().await;
    mortal.dies_after(writes);
    *world.gate.lock().unwrap() = Some(Arc::clone(&mortal.budget));
    change.begin(&mut world).await;
    let mut deletions = Vec::new();
    let mut living = mortal;
    let mut died = false;
    for _ in 0..ROUNDS_MAX {
        let pass = reconcile(&world.namespace, "demo", &living.context).await;
        let written = living.writes();
        deletions.extend(deleted(&written));
        let is_quiet = written.is_empty() && pass.is_ok();
        if living.is_dead() {
            died = true;
            *world.gate.lock().unwrap() = None;
            living = operator().await;
            continue;
        }
        change.meddle(&world).await;
        if !world.controllers("demo").await && is_quiet && !world.settle() {
            return (end(&world, deletions).await, died);
        }
    }
    let conditions = world.status("demo").await.conditions;
    panic!("{change:?}, dead after {writes} writes: does not come to rest: {conditions:?}");
}

/// The kind and name of what was deleted.
pub(crate) fn deleted(written: &[String]) -> Vec<String> {
    let name = |write: &String| write.strip_prefix("DELETE ")?.split('/').next_back().map(str::to_owned);
    written.iter().filter_map(name).collect()
}

pub(crate) async fn end(world: &World, mut deletions: Vec<String>) -> End {
    assert_eq!(world.status("demo").await.phase, Some(Phase::Ready));
    let mut made_and_deleted = world.log.clone();
    made_and_deleted.sort();
    deletions.sort();
    End {
        members: world.members("demo").await,
        epoch: world.epoch("demo").await.unwrap().number(),
        pods: world.names::<Pod>().await,
        claims: world.names::<PersistentVolumeClaim>().await,
        made_and_deleted,
        deletions,
    }
}

/// Dies after every write, and prints how many deaths there were.
async fn dies_everywhere(change: Change) {
    let (expected, died) = run(change, i64::MAX).await;
    assert!(!died);
    let mut runs = futures::stream::iter(0..WRITES_MAX)
        .map(|writes| tokio::spawn(async move { (writes, run(change, writes).await) }))
        .buffered(WORLDS);
    let mut deaths = 0;
    while let Some(run) = runs.next().await {
        let (writes, (end, died)) = run.unwrap();
        assert_eq!(end, expected, "{change:?}, dead after {writes} writes");
        if !died {
            assert_eq!(deaths, writes, "every write before was a death");
            println!("{change:?}: {deaths} deaths, one after every write");
            return;
        }
        deaths += 1;
    }
    panic!("{change:?} needs more than {WRITES_MAX} writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_scale_up() {
    dies_everywhere(Change::Up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_scale_down() {
    dies_everywhere(Change::Down).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_scale_down_that_is_cancelled() {
    dies_everywhere(Change::Cancelled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_replacement() {
    dies_everywhere(Change::Replaced).await;
}

/// Two operators that both believe to lead, at the same time: the same end, and nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_come_to_the_same_end() {
    for change in [Change::Up, Change::Down, Change::Replaced] {
        let (expected, _) = run(change, i64::MAX).await;
        let mut world = World::new().await;
        let pair: [Operator; 2] = [operator().await, operator().await];
        world.ready_with(&pair[0], "demo", |spec| spec.nodes = change.nodes_before()).await;
        world.log.clear();
        change.begin(&mut world).await;
        let mut deletions = Vec::new();
        for _ in 0..ROUNDS_MAX {
            pair.iter().for_each(|operator| drop(operator.writes()));
            let passes = futures::future::join_all(
                pair.iter().map(|operator| reconcile(&world.namespace, "demo", &operator.context)),
            );
            let is_ok = passes.await.iter().all(Result::is_ok);
            let written: Vec<String> = pair.iter().flat_map(Operator::writes).collect();
            deletions.extend(deleted(&written));
            if !world.controllers("demo").await && is_ok && written.is_empty() && !world.settle() {
                break;
            }
        }
        // Both may ask for the same incarnation to be deleted; it is deleted once.
        deletions.sort();
        deletions.dedup();
        assert_eq!(end(&world, deletions).await, expected, "{change:?}");
    }
}
