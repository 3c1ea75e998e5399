//! A namespace of a real API server, with what a test needs of the rest of Kubernetes: machines, pods of a StatefulSet
//! and the nodes in them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, Request};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use quorate_core::ClusterId;
use quorate_core::ring::Epoch;
use quorate_operator::controller::{Context, reconcile};
use quorate_operator::crd::{self, KVCluster, KVClusterSpec, KVClusterStatus};
use quorate_operator::metrics::Metrics;
use quorate_operator::validate::Settings;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tower::BoxError;
use tower::filter::FilterLayer;

use crate::fake_node::{Budget, Disk, FakeNode, Gate};

/// Passes that a cluster may need to come to rest.
const PASSES_MAX: usize = 20;
/// Looks that a condition of the API server itself may need.
pub(crate) const LOOKS_MAX: usize = 600;
pub(crate) const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Of the 64 of a block; the first and the last are none.
const ADDRESSES_A_BLOCK: u16 = 62;

/// A namespace.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    block: u16,
    addresses: u16,
    pub(crate) nodes: Vec<FakeNode>,
    /// What is on volumes, by the UID of their claim.
    pub(crate) disks: BTreeMap<String, Disk>,
    /// What the rest of Kubernetes made and deleted.
    pub(crate) log: Vec<String>,
    pub(crate) gate: Gate,
}

/// An operator with nothing in memory, and a tap on what it writes.
pub(crate) struct Operator {
    pub(crate) context: Context,
    pub(crate) client: Client,
    pub(crate) metrics: Metrics,
    writes: Arc<Mutex<Vec<String>>>,
    pub(crate) budget: Budget,
}

impl Operator {
    /// What it wrote since the last time.
    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.writes.lock().unwrap())
    }

    /// From now on it dies after so many writes: each one more fails before it reaches the API server.
    pub(crate) fn dies_after(&self, writes: i64) {
        self.budget.store(writes, Ordering::SeqCst);
    }

    /// Whether it wanted to write more than that.
    pub(crate) fn is_dead(&self) -> bool {
        self.budget.load(Ordering::SeqCst) < 0
    }
}

/// Addresses that no world of this process has yet.
fn next_block() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let block = NEXT.fetch_add(1, Ordering::SeqCst);
    assert!(block < 1024, "there are 1023 blocks of addresses");
    block
}

pub(crate) async fn config() -> Config {
    let path = std::env::var("QUORATE_TEST_KUBECONFIG").expect(
        "QUORATE_TEST_KUBECONFIG names the kubeconfig of a running API server; cargo xtask test sets it",
    );
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// What every operator of these tests was configured with.
pub(crate) fn settings() -> Settings {
    Settings { node_image: "quorate/node:test".to_owned(), operator_namespace: Some("default".to_owned()) }
}

/// An operator with every right.
pub(crate) async fn operator() -> Operator {
    operator_with(config().await)
}

/// An operator in the name of somebody.
pub(crate) async fn operator_as(user: &str) -> Operator {
    let mut config = config().await;
    config.headers.push(("impersonate-user".parse().unwrap(), user.parse().unwrap()));
    operator_with(config)
}

/// An operator with a configuration of its own.
pub(crate) fn operator_with(config: Config) -> Operator {
    let writes: Arc<Mutex<Vec<String>>> = Arc::default();
    let budget = Arc::new(AtomicI64::new(i64::MAX));
    let (log, left) = (Arc::clone(&writes), Arc::clone(&budget));
    let tap = FilterLayer::new(move |request: Request<Body>| -> Result<Request<Body>, BoxError> {
        if request.method() != Method::GET {
            if left.fetch_sub(1, Ordering::SeqCst) <= 0 {
                return Err("the operator died".into());
            }
            log.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        }
        Ok(request)
    });
    let client = ClientBuilder::try_from(config).unwrap().with_layer(&tap).build();
    let metrics = Metrics::new().unwrap();
    let context = Context::new(client.clone(), settings(), metrics.clone(), Some("test".to_owned()));
    Operator { context, client, metrics, writes, budget }
}

/// Looks until something is there.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    for _ in 0..LOOKS_MAX {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("waited in vain: {what}");
}

impl World {
    /// A new namespace.
    pub(crate) async fn new() -> Self {
        let client = Client::try_from(config().await).unwrap();
        define(&client).await;
        machines(&client).await;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let metadata =
            ObjectMeta { generate_name: Some("operator-test-".to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let namespace = namespaces.create(&PostParams::default(), &namespace).await.unwrap().name_any();
        Self {
            client,
            namespace,
            block: next_block(),
            addresses: 0,
            nodes: Vec::new(),
            disks: BTreeMap::new(),
            log: Vec::new(),
            gate: Gate::default(),
        }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn create(&self, name: &str, change: impl FnOnce(&mut KVClusterSpec)) -> KVCluster {
        let mut spec = KVClusterSpec::default();
        change(&mut spec);
        self.api().create(&PostParams::default(), &KVCluster::new(name, spec)).await.unwrap()
    }

    /// Changes the spec as a person would.
    pub(crate) async fn change(&self, name: &str, patch: Value) {
        let patch = json!({"spec": patch});
        self.api::<KVCluster>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn get<K>(&self, name: &str) -> Option<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        self.api::<K>().get_opt(name).await.unwrap()
    }

    pub(crate) async fn status(&self, name: &str) -> KVClusterStatus {
        self.get::<KVCluster>(name).await.unwrap().status.unwrap_or_default()
    }

    /// "True: AllNodesReady".
    pub(crate) async fn condition(&self, name: &str, type_: &str) -> String {
        let status = self.status(name).await;
        let condition = status.conditions.into_iter().find(|condition| condition.type_ == type_);
        condition.map(|condition| format!("{}: {}", condition.status, condition.reason)).unwrap_or_default()
    }

    pub(crate) async fn epoch(&self, name: &str) -> Option<Epoch> {
        let map: ConfigMap = self.get(&format!("{name}-ring")).await?;
        map.data?.get("epoch.json").map(|text| serde_json::from_str(text).unwrap())
    }

    pub(crate) async fn cluster_id(&self, name: &str) -> ClusterId {
        let map: ConfigMap = self.get(&format!("{name}-ring")).await.unwrap();
        map.data.unwrap()["cluster-id"].parse().unwrap()
    }

    pub(crate) async fn secret(&self, name: &str) -> Option<String> {
        let secret: Secret = self.get(&format!("{name}-secret")).await?;
        Some(String::from_utf8(secret.data?["secret"].0.clone()).unwrap())
    }

    /// Passes until one writes nothing.
    pub(crate) async fn rest(&self, operator: &Operator, name: &str) {
        for _ in 0..PASSES_MAX {
            operator.writes();
            // An error is part of the way: the next pass sees what is there.
            let pass = reconcile(&self.namespace, name, &operator.context).await;
            if operator.writes().is_empty() && pass.is_ok() {
                return;
            }
        }
        panic!("{name} does not come to rest: {:?}", self.status(name).await.conditions);
    }

    /// An address that nobody has: 127.<64 + process>.<block>.<block and node>.
    pub(crate) fn address(&mut self) -> Ipv4Addr {
        let process = u8::try_from(std::process::id() % 128).unwrap();
        if self.addresses == ADDRESSES_A_BLOCK {
            (self.block, self.addresses) = (next_block(), 0);
        }
        self.addresses += 1;
        let [high, low] = (self.block << 6 | self.addresses).to_be_bytes();
        Ipv4Addr::new(127, 64 + process, high, low)
    }

    /// A pod of a StatefulSet on one of the machines; without an address its container does not run.
    pub(crate) async fn start_pod(
        &self,
        set: &StatefulSet,
        name: &str,
        ordinal: i32,
        address: Option<Ipv4Addr>,
    ) {
        let template = set.spec.template.clone();
        let mut labels = template.metadata.unwrap().labels.unwrap();
        let revision = set.status.as_ref().and_then(|status| status.update_revision.as_deref());
        labels.insert("controller-revision-hash".to_owned(), revision.unwrap_or("r1").to_owned());
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set.name_any(), "uid": set.uid(), "controller": true
        });
        let mut spec = serde_json::to_value(template.spec.unwrap()).unwrap();
        spec["nodeName"] = json!(format!("machine-{}", ordinal % 3));
        spec["volumes"].as_array_mut().unwrap().push(json!({"name": "data", "emptyDir": {}}));
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
            "spec": spec,
        }))
        .unwrap();
        self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff"}});
        let state = if address.is_some() { running } else { waiting };
        let ready = if address.is_some() { "True" } else { "False" };
        let status = json!({"status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": address.map(|ip| json!([{"ip": ip}])),
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{
                "name": "node", "image": "x", "imageID": "x", "ready": address.is_some(), "restartCount": 0, "state": state
            }],
        }});
        self.api::<Pod>().patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    /// What the StatefulSet controller says it makes pods from.
    pub(crate) async fn set_revision(&self, name: &str, revision: &str) {
        let set: StatefulSet = self.get(name).await.unwrap();
        let status = json!({"status": {
            "replicas": 3, "observedGeneration": set.metadata.generation, "updateRevision": revision
        }});
        self.api::<StatefulSet>()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// What the garbage collector does: deletes what an owner that is gone owned.
    pub(crate) async fn collect_garbage(&self) {
        let all = ListParams::default();
        let gone = DeleteParams::default().grace_period(0);
        let pods = self.api::<Pod>().list(&all).await.unwrap();
        for pod in pods {
            self.api::<Pod>().delete(&pod.name_any(), &gone).await.unwrap();
        }
        delete_owned::<StatefulSet>(&self.api()).await;
        delete_owned::<Service>(&self.api()).await;
        delete_owned::<ServiceAccount>(&self.api()).await;
        delete_owned::<NetworkPolicy>(&self.api()).await;
        delete_owned::<PodDisruptionBudget>(&self.api()).await;
        delete_owned::<Secret>(&self.api()).await;
        delete_owned::<ConfigMap>(&self.api()).await;
    }

    /// The rights of `rbac.yaml`, for somebody.
    pub(crate) async fn grant(&self, user: &str) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/rbac.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let mut role: ClusterRole = serde_yaml::Deserializer::from_str(&text)
            .map(|document| Value::deserialize(document).unwrap())
            .find(|document| document["kind"] == "ClusterRole")
            .map(|document| serde_json::from_value(document).unwrap())
            .unwrap();
        role.metadata.name = Some(user.to_owned());
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }))
        .unwrap();
        Api::all(self.client.clone()).create(&PostParams::default(), &role).await.unwrap();
        Api::all(self.client.clone()).create(&PostParams::default(), &binding).await.unwrap();
        // The authorizer watches roles: it hears of them a moment later.
        let review: SelfSubjectAccessReview = serde_json::from_value(json!({"spec": {"resourceAttributes": {
            "group": "quorate.dev", "resource": "kvclusters", "verb": "list"
        }}}))
        .unwrap();
        let reviews: Api<SelfSubjectAccessReview> = Api::all(operator_as(user).await.client);
        eventually("the rights are known", || async {
            let answer = reviews.create(&PostParams::default(), &review).await.ok()?;
            answer.status.filter(|status| status.allowed)
        })
        .await;
    }

    /// The reasons of all events about a cluster.
    pub(crate) async fn events(&self, name: &str) -> Vec<String> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap();
        let about = events
            .items
            .into_iter()
            .filter(|event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name));
        about.filter_map(|event| event.reason).collect()
    }

    pub(crate) async fn delete_pod(&self, name: &str) {
        self.api::<Pod>().delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    /// A cluster that has come all the way to Ready.
    pub(crate) async fn ready(&mut self, operator: &Operator, name: &str) {
        self.ready_with(operator, name, |_| {}).await;
    }

    /// The same, with another wish.
    pub(crate) async fn ready_with(
        &mut self,
        operator: &Operator,
        name: &str,
        change: impl FnOnce(&mut KVClusterSpec),
    ) {
        self.create(name, change).await;
        self.rest(operator, name).await;
        self.start_pods(name).await;
        self.rest(operator, name).await;
        assert_eq!(self.condition(name, "Ready").await, "True: AllNodesReady");
    }
}

async fn delete_owned<K>(api: &Api<K>)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let owned = api.list(&ListParams::default()).await.unwrap();
    for object in owned.items.iter().filter(|object| !object.owner_references().is_empty()) {
        api.delete(&object.name_any(), &DeleteParams::default()).await.unwrap();
    }
}

async fn define(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("operator-test").force();
    let definition = crd::definition();
    let name = definition.name_any();
    // Tests start at the same time; the same definition applied twice is one.
    eventually("the definition is applied", || async {
        definitions.patch(&name, &params, &Patch::Apply(&definition)).await.ok()
    })
    .await;
    let clusters: Api<KVCluster> = Api::default_namespaced(client.clone());
    eventually("KVClusters are served", || async { clusters.list(&Default::default()).await.ok() }).await;
}

/// Three machines in three zones.
async fn machines(client: &Client) {
    let machines: Api<Node> = Api::all(client.clone());
    for (number, zone) in ["a", "b", "c"].iter().enumerate() {
        let machine = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("machine-{number}"), "labels": {"topology.kubernetes.io/zone": format!("zone-{zone}")}},
        });
        let name = format!("machine-{number}");
        let params = PatchParams::apply("operator-test").force();
        eventually("a machine", || async {
            machines.patch(&name, &params, &Patch::Apply(&machine)).await.ok()
        })
        .await;
        let ready = Patch::Merge(json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        machines.patch_status(&name, &PatchParams::default(), &ready).await.unwrap();
    }
}
