//! What the rest of Kubernetes does for a StatefulSet: its controller makes pods and claims and deletes pods, kubelets
//! run the nodes and end them, and a claim that is deleted goes when no pod uses it.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use quorate_core::NodeId;
use quorate_operator::controller::reconcile;
use serde_json::json;

use crate::fake_node::{Disk, FakeNode};
use crate::world::{Operator, World};

/// Rounds of the operator and of the rest of Kubernetes that a change may need.
const ROUNDS_MAX: usize = 60;

impl World {
    /// The StatefulSet gets its first pods.
    pub(crate) async fn start_pods(&mut self, name: &str) {
        self.controllers(name).await;
        self.log.clear();
    }

    /// One round of every controller and kubelet. Answers whether something changed.
    pub(crate) async fn controllers(&mut self, name: &str) -> bool {
        let before = self.log.len();
        let set: StatefulSet = self.get(name).await.unwrap();
        let replicas = set.spec.replicas.unwrap();
        let seen = set.status.as_ref().and_then(|status| status.observed_generation);
        if seen != set.metadata.generation {
            self.set_revision(name, "r1").await;
        }
        let ordinal = |pod: &Pod| pod.name_any().rsplit('-').next().unwrap().parse::<i32>().unwrap();
        for pod in self.pods(name).await {
            if pod.metadata.deletion_timestamp.is_some() || ordinal(&pod) >= replicas {
                self.end_pod(&pod.name_any()).await;
            }
        }
        let there: BTreeSet<String> = self.pods(name).await.iter().map(ResourceExt::name_any).collect();
        self.end_claims(&there).await;
        for ordinal in 0..replicas {
            let pod = format!("{name}-{ordinal}");
            if !there.contains(&pod) {
                self.make_pod(&set, &pod, ordinal).await;
            }
        }
        self.log.len() > before
    }

    async fn pods(&self, name: &str) -> Vec<Pod> {
        let labels = ListParams::default().labels(&format!("app.kubernetes.io/instance={name}"));
        self.api::<Pod>().list(&labels).await.unwrap().items
    }

    /// The kubelet ends a pod; its disk stays on its volume.
    async fn end_pod(&mut self, name: &str) {
        self.stop_node(name).await;
        self.api::<Pod>().delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
        self.log.push(format!("deleted pod {name}"));
    }

    /// A node stops; its disk stays on its volume.
    pub(crate) async fn stop_node(&mut self, pod: &str) {
        let Some(at) = self.nodes.iter().position(|node| node.disk().name == pod) else { return };
        let node = self.nodes.remove(at);
        if let Some(claim) = self.get::<PersistentVolumeClaim>(&format!("data-{pod}")).await {
            self.disks.insert(claim.uid().unwrap(), node.disk());
        }
    }

    /// What the protection of claims in use does.
    async fn end_claims(&mut self, pods: &BTreeSet<String>) {
        let claims = self.api::<PersistentVolumeClaim>();
        for claim in claims.list(&ListParams::default()).await.unwrap() {
            let name = claim.name_any();
            let in_use = pods.contains(name.strip_prefix("data-").unwrap());
            if claim.metadata.deletion_timestamp.is_some() && !in_use {
                let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                claims.patch(&name, &PatchParams::default(), &free).await.unwrap();
                self.disks.remove(&claim.uid().unwrap());
                self.log.push(format!("deleted claim {name}"));
            }
        }
    }

    async fn make_pod(&mut self, set: &StatefulSet, pod: &str, ordinal: i32) {
        let claim_name = format!("data-{pod}");
        let claim = match self.get::<PersistentVolumeClaim>(&claim_name).await {
            Some(claim) if claim.metadata.deletion_timestamp.is_some() => return,
            Some(claim) => claim,
            None => {
                let mut claim = set.spec.volume_claim_templates.as_ref().unwrap()[0].clone();
                claim.metadata.name = Some(claim_name.clone());
                claim.metadata.labels = set.spec.selector.match_labels.clone();
                self.log.push(format!("made claim {claim_name}"));
                self.api().create(&PostParams::default(), &claim).await.unwrap()
            }
        };
        let name = set.name_any();
        let new = Disk {
            node_id: NodeId::from_uuid(uuid::Uuid::new_v4()),
            cluster_id: self.cluster_id(&name).await,
            name: pod.to_owned(),
            secret: self.secret(&name).await.unwrap(),
            epoch: None,
            worry: |_| {},
            oldest: 0,
            met: BTreeSet::new(),
            down: BTreeSet::new(),
            busy: 0,
        };
        let disk = self.disks.remove(&claim.uid().unwrap()).unwrap_or(new);
        let address = self.address();
        self.nodes.push(FakeNode::start(address, disk, self.gate.clone()).await);
        self.introduce();
        self.start_pod(set, pod, ordinal, Some(address)).await;
        self.log.push(format!("made pod {pod}"));
        let number = |node: &FakeNode| node.disk().name.rsplit('-').next().unwrap().parse::<u16>().unwrap();
        self.nodes.sort_by_key(number);
    }

    /// Everybody talks to everybody who runs, as gossip has it.
    fn introduce(&self) {
        let all: BTreeSet<NodeId> = self.nodes.iter().map(|node| node.disk().node_id).collect();
        self.nodes.iter().for_each(|node| node.change(|disk| disk.met.extend(&all)));
    }

    /// A machine with a local volume is gone for good: the pod waits for a volume that nobody can attach, and the peers
    /// call its node down.
    pub(crate) async fn lose(&mut self, pod: &str) {
        let lost = self.node(pod).disk().node_id;
        self.stop_node(pod).await;
        let long_ago = "2026-01-01T00:00:00Z";
        let status = json!({"status": {
            "phase": "Pending", "podIP": null, "podIPs": null, "containerStatuses": null,
            "conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": long_ago},
                {"type": "PodScheduled", "status": "False", "lastTransitionTime": long_ago,
                 "message": "0/3 nodes are available: 3 node(s) had volume node affinity conflict."}
            ]
        }});
        let patch = Patch::Merge(status);
        self.api::<Pod>().patch_status(pod, &PatchParams::default(), &patch).await.unwrap();
        for node in &self.nodes {
            node.change(|disk| {
                disk.down.insert(lost);
            });
        }
    }

    pub(crate) fn node(&self, pod: &str) -> &FakeNode {
        self.nodes.iter().find(|node| node.disk().name == pod).expect("it runs")
    }

    /// Nodes end what is under way. Answers whether there was any.
    pub(crate) fn settle(&self) -> bool {
        self.nodes.iter().filter(|node| node.settle()).count() > 0
    }

    /// The operator and the rest of Kubernetes in turn, until a pass writes nothing and nothing else happens. Nodes end
    /// what is under way only when the operator waits for them.
    pub(crate) async fn converge(&mut self, operator: &Operator, name: &str) {
        for _ in 0..ROUNDS_MAX {
            operator.writes();
            let pass = reconcile(&self.namespace, name, &operator.context).await;
            let is_quiet = operator.writes().is_empty() && pass.is_ok();
            if !self.controllers(name).await && is_quiet && !self.settle() {
                return;
            }
        }
        panic!("{name} does not come to rest: {:?}", self.status(name).await.conditions);
    }

    /// "demo-0 active, demo-1 removed, …".
    pub(crate) async fn members(&self, name: &str) -> String {
        let epoch = self.epoch(name).await.unwrap();
        let state = |member: &quorate_core::ring::Member| format!("{} {:?}", member.name, member.state);
        let mut states: Vec<String> = epoch.members().iter().map(|m| state(m).to_lowercase()).collect();
        states.sort();
        states.join(", ")
    }

    pub(crate) async fn names<K>(&self) -> Vec<String>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let list = self.api::<K>().list(&ListParams::default()).await.unwrap();
        list.items.iter().map(ResourceExt::name_any).collect()
    }
}
