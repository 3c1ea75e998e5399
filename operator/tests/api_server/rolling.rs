//! A changed pod template reaches every node, one at a time, and only while the ring is whole.

use std::net::Ipv4Addr;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use quorate_admin::types::{Liveness, MemberView, NodeStatus};
use quorate_operator::controller::reconcile;
use quorate_operator::crd::Phase;
use serde_json::json;

use crate::world::{Operator, World, operator};

/// Restarts that a rolling change of these tests may take at most.
const RESTARTS_MAX: usize = 10;
/// Writes of a whole rolling change: a template, a budget, three pods, their events and statuses.
const WRITES_MAX: i64 = 64;

impl World {
    /// The pods that are being deleted: the kubelet has not stopped them yet.
    async fn stopping(&self) -> Vec<String> {
        let pods = self.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
        let stopping = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_some());
        stopping.map(|pod| pod.name_any()).collect()
    }

    /// What the kubelet and the StatefulSet controller do with a deleted pod: it stops, and comes back with the newest
    /// template; unless that cannot run.
    async fn restart(&self, name: &str, runs: bool) {
        let pod: Pod = self.get(name).await.unwrap();
        let ordinal: usize = name.rsplit('-').next().unwrap().parse().unwrap();
        let address: Ipv4Addr = self.nodes[ordinal].address;
        let set: StatefulSet = self.get(&pod.owner_references()[0].name).await.unwrap();
        self.delete_pod(name).await;
        let ordinal = i32::try_from(ordinal).unwrap();
        self.start_pod(&set, name, ordinal, runs.then_some(address)).await;
    }

    /// Passes and restarts until nothing is left to do. Answers which pods were restarted.
    async fn roll(&self, operator: &Operator, cluster: &str) -> Vec<String> {
        let mut restarted = Vec::new();
        for _ in 0..RESTARTS_MAX {
            self.rest(operator, cluster).await;
            let stopping = self.stopping().await;
            assert!(stopping.len() <= 1, "one at a time: {stopping:?}");
            let Some(pod) = stopping.first() else { return restarted };
            self.restart(pod, true).await;
            restarted.push(pod.clone());
        }
        panic!("no end after {restarted:?}");
    }

    /// Another template, as the StatefulSet controller sees it.
    async fn new_template(&self, operator: &Operator, patch: serde_json::Value, revision: &str) {
        self.change("demo", patch).await;
        reconcile(&self.namespace, "demo", &operator.context).await.unwrap();
        self.set_revision("demo", revision).await;
    }

    async fn budget(&self) -> i64 {
        let budget: PodDisruptionBudget = self.get("demo").await.unwrap();
        serde_json::to_value(budget.spec.unwrap().max_unavailable).unwrap().as_i64().unwrap()
    }

    async fn progress(&self) -> String {
        let status = self.status("demo").await;
        let condition = status.conditions.into_iter().find(|condition| condition.type_ == "Progressing");
        condition.map(|condition| format!("{}: {}", condition.reason, condition.message)).unwrap()
    }
}

/// Keeps hints for another member. (Its own id stands for that one's: any member's will do.)
fn keeps_a_hint(status: &mut NodeStatus) {
    status.members.members.push(MemberView {
        id: status.members.observer,
        name: "demo-2".to_owned(),
        address: String::new(),
        zone: None,
        liveness: Liveness::Up,
        in_ring: true,
        latency_micros: None,
        clock_skew_ms: None,
        last_full_sync_unix_ms: None,
        hints_owed: 1,
        hint_bytes_owed: 100,
    });
}

fn limits(memory: &str) -> serde_json::Value {
    json!({"resources": {"limits": {"memory": memory}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_rolled_one_node_at_a_time_and_waits_for_the_ring() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    assert_eq!(world.budget().await, 1);
    world.new_template(&operator, limits("1Gi"), "r2").await;
    world.rest(&operator, "demo").await;
    assert_eq!(world.stopping().await, ["demo-2"]);
    assert_eq!(world.budget().await, 0, "a drain would be one too many");

    // It is back, and somebody still owes it hints: a wait, and no write while it lasts.
    world.nodes[1].change(|disk| disk.worry = keeps_a_hint);
    world.restart("demo-2", true).await;
    world.rest(&operator, "demo").await;
    assert!(world.stopping().await.is_empty());
    let progress = world.progress().await;
    assert!(progress.starts_with("RollingRestart: demo-1 and demo-0 have an older"), "{progress}");
    assert!(progress.ends_with("waits because demo-1 still keeps hints for demo-2"), "{progress}");
    for _ in 0..3 {
        reconcile(&world.namespace, "demo", &operator.context).await.unwrap();
    }
    assert_eq!(operator.writes(), Vec::<String>::new());

    // A change of the ring is under way.
    world.nodes[1].change(|disk| disk.worry = |_| {});
    world.nodes[0].change(|disk| disk.worry = |status| status.transition.partitions_syncing = 3);
    world.rest(&operator, "demo").await;
    assert!(world.stopping().await.is_empty());
    assert!(world.progress().await.ends_with("demo-0 still moves data for a change of the ring"));

    world.nodes[0].change(|disk| disk.worry = |_| {});
    assert_eq!(world.roll(&operator, "demo").await, ["demo-1", "demo-0"]);
    assert_eq!(world.status("demo").await.phase, Some(Phase::Ready));
    assert_eq!(world.budget().await, 1);
    let events = world.events("demo").await;
    assert!(events.iter().any(|event| event == "PodRestarted"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_template_takes_one_node_and_a_corrected_one_mends_it_first() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let image = |tag: &str| json!({"image": {"repository": "quorate/node", "tag": tag}});
    world.new_template(&operator, image("typo"), "r2").await;
    world.rest(&operator, "demo").await;
    assert_eq!(world.stopping().await, ["demo-2"]);
    world.restart("demo-2", false).await;
    world.rest(&operator, "demo").await;
    assert!(world.stopping().await.is_empty(), "the others keep what works");
    assert_eq!(world.condition("demo", "Degraded").await, "True: RolloutHalted");
    assert_eq!(world.condition("demo", "Available").await, "True: QuorumEverywhere");
    assert_eq!(world.budget().await, 0);

    world.new_template(&operator, image("right"), "r3").await;
    assert_eq!(world.roll(&operator, "demo").await, ["demo-2", "demo-1", "demo-0"]);
    assert_eq!(world.status("demo").await.phase, Some(Phase::Ready));
    let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap();
    for pod in pods {
        assert_eq!(pod.spec.unwrap().containers[0].image.as_deref(), Some("quorate/node:right"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_a_rolling_change_where_it_is() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    world.new_template(&operator, limits("1Gi"), "r2").await;
    world.rest(&operator, "demo").await;
    world.restart("demo-2", true).await;
    world.change("demo", json!({"paused": true})).await;
    world.rest(&operator, "demo").await;
    assert!(world.stopping().await.is_empty());
    world.change("demo", json!({"paused": false})).await;
    assert_eq!(world.roll(&operator, "demo").await, ["demo-1", "demo-0"]);
}

/// `kubectl rollout restart statefulset demo` writes an annotation into the template, which is nobody's but its own.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_rollout_restart_works_and_waits_for_the_ring() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.ready(&operator, "demo").await;
    let now = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
    let patch = Patch::Merge(json!({"spec": {"template": {"metadata": {"annotations": now}}}}));
    world.api::<StatefulSet>().patch("demo", &PatchParams::default(), &patch).await.unwrap();
    world.set_revision("demo", "r2").await;
    assert_eq!(world.roll(&operator, "demo").await, ["demo-2", "demo-1", "demo-0"]);
    let set: StatefulSet = world.get("demo").await.unwrap();
    let annotations = set.spec.template.metadata.unwrap().annotations.unwrap();
    assert!(annotations.contains_key("kubectl.kubernetes.io/restartedAt"));
}

/// The operator dies after every single write of a rolling change; each time the next one brings it to the same end.
#[tokio::test(flavor = "multi_thread")]
async fn whenever_it_dies_in_a_rolling_change_no_node_is_restarted_twice() {
    let mut world = World::new().await;
    world.ready(&operator().await, "demo").await;
    for writes in 0..WRITES_MAX {
        world.change("demo", limits(&format!("{}Mi", 512 + writes))).await;
        let mortal = operator().await;
        mortal.dies_after(writes);
        let (restarted, died) = roll_mortally(&world, mortal, &format!("r{}", writes + 2)).await;
        assert_eq!(restarted, ["demo-2", "demo-1", "demo-0"], "after {writes} writes");
        assert_eq!(world.status("demo").await.phase, Some(Phase::Ready), "after {writes} writes");
        assert_eq!(world.budget().await, 1, "after {writes} writes");
        if !died {
            assert!(writes >= 8, "it died {writes} times");
            return;
        }
    }
    panic!("a rolling change takes more than {WRITES_MAX} writes");
}

/// Rolls; an operator that died is followed by one with nothing in memory. Answers which pods were restarted, and
/// whether it died.
async fn roll_mortally(world: &World, mut acting: Operator, revision: &str) -> (Vec<String>, bool) {
    let (mut restarted, mut died, mut is_seen) = (Vec::new(), false, false);
    for _ in 0..WRITES_MAX {
        acting.writes();
        let pass = reconcile(&world.namespace, "demo", &acting.context).await;
        if pass.is_err() && !died {
            (acting, died) = (operator().await, true);
            continue;
        }
        let set: StatefulSet = world.get("demo").await.unwrap();
        let status = set.status.unwrap();
        if !is_seen && status.observed_generation != set.metadata.generation {
            world.set_revision("demo", revision).await;
            is_seen = true;
        } else if let Some(pod) = world.stopping().await.first() {
            world.restart(pod, true).await;
            restarted.push(pod.clone());
        } else if acting.writes().is_empty() && pass.is_ok() {
            return (restarted, died);
        }
    }
    panic!("no end after {restarted:?}");
}
