//! Volumes grow, and no node is restarted for it.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use quorate_operator::controller::reconcile;
use quorate_operator::crd::Phase;
use quorate_operator::plan::Action;
use serde_json::json;

use crate::incarnations::{applier, plan};
use crate::world::{Operator, World, operator, operator_as};

/// Passes that volumes may need, with a new operator after each write.
const PASSES_MAX: i64 = 60;

impl World {
    /// A StorageClass of this test.
    async fn storage_class(&self, grows: bool) -> String {
        let name = format!("{}-{grows}", self.namespace);
        let class: StorageClass = serde_json::from_value(json!({
            "metadata": {"name": name}, "provisioner": "example.com/none", "allowVolumeExpansion": grows
        }))
        .unwrap();
        Api::all(self.client.clone()).create(&PostParams::default(), &class).await.unwrap();
        name
    }

    /// What the storage driver says of the volumes.
    async fn capacities(&self, size: &str) {
        let status = Patch::Merge(json!({"status": {"phase": "Bound", "capacity": {"storage": size}}}));
        for claim in self.names::<PersistentVolumeClaim>().await {
            let api = self.api::<PersistentVolumeClaim>();
            api.patch_status(&claim, &PatchParams::default(), &status).await.unwrap();
        }
    }

    /// What the garbage collector does when an object is deleted without what it owns.
    async fn let_pods_go(&self, set: &StatefulSet) {
        let orphan = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
        for pod in self.api::<Pod>().list(&ListParams::default()).await.unwrap() {
            self.api::<Pod>().patch(&pod.name_any(), &PatchParams::default(), &orphan).await.unwrap();
        }
        let gone = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.api::<StatefulSet>().patch(&set.name_any(), &PatchParams::default(), &gone).await.unwrap();
    }

    /// What the StatefulSet controller does with pods that belong to nobody.
    async fn adopt_pods(&self, set: &StatefulSet, revision: &str) {
        let owner = json!([{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set.name_any(), "uid": set.uid(), "controller": true
        }]);
        let adopt = Patch::Merge(json!({"metadata": {"ownerReferences": owner}}));
        for pod in self.api::<Pod>().list(&ListParams::default()).await.unwrap() {
            self.api::<Pod>().patch(&pod.name_any(), &PatchParams::default(), &adopt).await.unwrap();
        }
        self.set_revision(&set.name_any(), revision).await;
    }

    async fn pod_uids(&self) -> Vec<String> {
        let pods = self.api::<Pod>().list(&ListParams::default()).await.unwrap();
        pods.iter().filter_map(ResourceExt::uid).collect()
    }

    /// The size in the StatefulSet, and those that the claims ask for.
    async fn sizes(&self) -> (String, Vec<String>) {
        let size = |claim: &PersistentVolumeClaim| {
            claim.spec.clone().unwrap().resources.unwrap().requests.unwrap()["storage"].0.clone()
        };
        let set: StatefulSet = self.get("demo").await.unwrap();
        let claims = self.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap();
        let claims = claims.iter().map(size).collect();
        (size(&set.spec.volume_claim_templates.unwrap()[0]), claims)
    }

    /// A ring with claims.
    async fn with_volumes(&mut self, operator: &Operator, grows: bool) {
        let class = self.storage_class(grows).await;
        self.create("demo", |spec| spec.storage.class_name = Some(class.clone())).await;
        self.rest(operator, "demo").await;
        self.start_pods("demo").await;
        self.capacities("10Gi").await;
        self.rest(operator, "demo").await;
        assert_eq!(self.condition("demo", "Ready").await, "True: AllNodesReady");
    }

    /// Passes until volumes, StatefulSet and pods are as wanted; whoever dies is followed by one with nothing in memory.
    /// Answers whether anybody died, and what was deleted.
    async fn grow(&self, mut acting: Operator, size: &str) -> (bool, Vec<String>) {
        self.change("demo", json!({"storage": {"size": size}})).await;
        let (mut died, mut deletions) = (false, Vec::new());
        for _ in 0..PASSES_MAX {
            let pass = reconcile(&self.namespace, "demo", &acting.context).await;
            let writes = acting.writes();
            deletions.extend(writes.iter().filter(|write| write.starts_with("DELETE")).cloned());
            if pass.is_err() && !died {
                (acting, died) = (operator().await, true);
                continue;
            }
            self.capacities(size).await;
            match self.get::<StatefulSet>("demo").await {
                Some(set) if set.metadata.deletion_timestamp.is_some() => self.let_pods_go(&set).await,
                Some(set) if set.status.as_ref().is_none_or(|status| status.update_revision.is_none()) => {
                    self.adopt_pods(&set, "r1").await;
                }
                _ if writes.is_empty() && pass.is_ok() => return (died, deletions),
                _ => {}
            }
        }
        panic!("no end: {:?}", self.status("demo").await.conditions);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_grow_under_running_nodes() {
    let mut world = World::new().await;
    // With the documented rights.
    let user = format!("operator-of-{}", world.namespace);
    world.grant(&user).await;
    let operator = operator_as(&user).await;
    world.with_volumes(&operator, true).await;
    let (pods, set) = (world.pod_uids().await, world.get::<StatefulSet>("demo").await.unwrap());
    let deletions = world.grow(operator, "20Gi").await.1;
    let path = format!("DELETE /apis/apps/v1/namespaces/{}/statefulsets/demo", world.namespace);
    assert_eq!(deletions, [path]);
    assert_eq!(world.sizes().await, ("20Gi".to_owned(), vec!["20Gi".to_owned(); 3]));
    assert_eq!(world.pod_uids().await, pods, "the same pods");
    assert_ne!(world.get::<StatefulSet>("demo").await.unwrap().uid(), set.uid());
    assert_eq!(world.status("demo").await.phase, Some(Phase::Ready));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_volumes_cannot_grow_nothing_is_touched() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.with_volumes(&operator, false).await;
    world.change("demo", json!({"storage": {"size": "20Gi"}})).await;
    world.rest(&operator, "demo").await;
    assert_eq!(world.condition("demo", "Progressing").await, "False: VolumesCannotGrow");
    assert_eq!(world.sizes().await, ("10Gi".to_owned(), vec!["10Gi".to_owned(); 3]));
}

/// The operator dies after every single write.
#[tokio::test(flavor = "multi_thread")]
async fn whenever_it_dies_while_volumes_grow_the_next_one_carries_on() {
    let mut world = World::new().await;
    world.with_volumes(&operator().await, true).await;
    let pods = world.pod_uids().await;
    for writes in 0..PASSES_MAX {
        let size = format!("{}Gi", 20 + writes);
        let mortal = operator().await;
        mortal.dies_after(writes);
        let (died, deletions) = world.grow(mortal, &size).await;
        assert_eq!(world.sizes().await, (size.clone(), vec![size; 3]), "after {writes} writes");
        assert_eq!(world.pod_uids().await, pods, "after {writes} writes");
        assert_eq!(deletions.len(), 1, "after {writes} writes: {deletions:?}");
        if !died {
            assert!(writes >= 6, "it died {writes} times");
            return;
        }
    }
    panic!("more than {PASSES_MAX} writes");
}

/// INV-UID: what was decided about another incarnation is not done to this one.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_again_is_neither_grown_nor_deleted() {
    let mut world = World::new().await;
    let operator = operator().await;
    world.with_volumes(&operator, true).await;
    let actions = [
        Action::GrowClaim { name: "data-demo-1".to_owned(), uid: "old".to_owned(), size: "20Gi".to_owned() },
        Action::OrphanPods { name: "demo".to_owned(), uid: "old".to_owned() },
    ];
    for action in actions {
        let (mut late, observed) = plan(&world, &operator).await;
        late.actions = vec![action];
        let done = applier(&operator).apply(&late, &observed).await.1;
        assert!(done.is_err(), "{:?}", late.actions);
    }
    assert_eq!(world.sizes().await, ("10Gi".to_owned(), vec!["10Gi".to_owned(); 3]));
    let set: StatefulSet = world.get("demo").await.unwrap();
    assert_eq!(set.metadata.deletion_timestamp, None);
}
