//! Reads the API server and the nodes into one [`Observed`]. The only reader.
//!
//! Every read goes to the API server itself, not to a watch's cache: a stale view is how quorum guards break. What
//! could not be read is told apart from what is not there: unknown is never "absent".

mod claims;
mod growth;
mod pods;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, Client, ResourceExt};
use quorate_admin::types::NodeStatus;
use quorate_core::ClusterId;
use quorate_core::ring::Epoch;

pub use claims::{ClaimState, DiskMark};
pub use growth::Growth;
pub use pods::{Machine, Obstacle};

use crate::build::names;
use crate::crd::{KVCluster, Spread};
use crate::plan::RingChange;

/// One call to a node; a node that takes longer is not answering.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// Nodes asked at the same time.
const NODES_IN_FLIGHT_MAX: usize = 32;

/// Everything that decisions are made from.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The objects that the operator applies.
    pub existing: Existing,
    /// The cluster's secret.
    pub secret: SecretState,
    /// Whether the Secret that the KVCluster names for its users is there and has their file.
    pub has_users: bool,
    /// The committed epoch.
    pub ring: RingState,
    /// The identity of the cluster that the status remembers, for when the ConfigMap is lost.
    pub recorded_cluster_id: Option<ClusterId>,
    /// Whether the status remembers that an epoch was committed.
    pub recorded_epoch: bool,
    /// The volume claims of the pods, by number.
    pub claims: Vec<ClaimState>,
    /// The pods of the StatefulSet, by number.
    pub pods: Vec<PodState>,
    /// When this was observed.
    pub now: Timestamp,
}

/// The objects that the operator applies, as they are.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // As in `build::Prepared`.
pub struct Existing {
    pub service_account: Option<ServiceAccount>,
    pub peer_service: Option<Service>,
    pub client_service: Option<Service>,
    pub disruption_budget: Option<PodDisruptionBudget>,
    pub network_policy: Option<NetworkPolicy>,
    pub stateful_set: Option<StatefulSet>,
}

/// The Secret, as it is.
#[derive(Clone, Default, PartialEq)]
pub enum SecretState {
    /// There is none.
    #[default]
    Absent,
    /// There is one without a usable value.
    Malformed,
    /// The secret.
    Present {
        /// Its value.
        text: String,
        /// Whom it goes with.
        owners: Vec<OwnerReference>,
    },
}

impl std::fmt::Debug for SecretState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Malformed => "Malformed",
            Self::Present { .. } => "Present(..)",
        })
    }
}

/// The ring's ConfigMap, as it is.
#[derive(Clone, Debug, Default)]
pub enum RingState {
    /// There is none.
    #[default]
    Absent,
    /// There is one that cannot be read; the reason is for people.
    Malformed(String),
    /// The ring.
    Present(RingObject),
}

/// The ring's ConfigMap.
#[derive(Clone, Debug)]
pub struct RingObject {
    /// The identity that every disk carries.
    pub cluster_id: ClusterId,
    /// The committed epoch; none before the first.
    pub epoch: Option<Arc<Epoch>>,
    /// What that epoch was committed for; none where the ConfigMap does not say.
    pub change: Option<RingChange>,
    /// For the compare-and-swap.
    pub resource_version: String,
    /// Whom it goes with.
    pub owners: Vec<OwnerReference>,
}

/// A pod of the cluster, and the node in it.
#[derive(Clone, Debug)]
pub struct PodState {
    /// Its name.
    pub name: String,
    /// Its incarnation.
    pub uid: String,
    /// Its number in the StatefulSet.
    pub ordinal: u16,
    /// Whether Kubernetes counts it as ready.
    pub ready: bool,
    /// Whether its container runs now.
    pub running: bool,
    /// Whether its container passed its startup probe.
    pub started: bool,
    /// Whether its container ended before in this incarnation of the pod.
    pub has_crashed: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Which version of the pod template it was made from.
    pub revision: Option<String>,
    /// The image of its container.
    pub image: Option<String>,
    /// What `kubectl rollout restart` wrote into the template that it was made from.
    pub restarted_at: Option<String>,
    /// `host:port` of the admin API, once it has an address.
    pub address: Option<String>,
    /// Why Kubernetes does not run it, in its words.
    pub trouble: Option<String>,
    /// What keeps it from running.
    pub obstacle: Option<Obstacle>,
    /// Since when Kubernetes counts it as not ready; none while it is ready.
    pub down_since: Option<Timestamp>,
    /// The name of the machine that it runs on.
    pub machine: Option<String>,
    /// How that machine is.
    pub machine_state: Machine,
    /// The zone of that machine.
    pub zone: Option<String>,
    /// What the node said.
    pub node: NodeAnswer,
    /// The epoch that it serves by; asked only when the committed one is lost.
    pub held: Option<Arc<Epoch>>,
}

/// What a node said about itself.
#[derive(Clone, Debug)]
pub enum NodeAnswer {
    /// It was not asked: no address, or no secret to ask with.
    NotAsked,
    /// No answer, or an error; the reason is for people.
    Silent(String),
    /// Its status.
    Answered(Box<NodeStatus>),
}

/// How long a pod that stops or starts is taken for one that is on its way: as long as a node may take to load its
/// index. After that, something is wrong.
const ON_ITS_WAY_MAX: SignedDuration = SignedDuration::from_mins(10);
/// What a pod that starts as it should waits for.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

impl PodState {
    /// Why it will not come up by itself, as far as one can tell.
    pub fn broken(&self) -> Option<&str> {
        self.trouble.as_deref().filter(|trouble| !STARTING.contains(trouble))
    }

    /// Whether it stops or starts, and nothing is wrong with that.
    pub fn is_on_its_way(&self, now: Timestamp) -> bool {
        let starts = !self.ready && !self.started && !self.has_crashed && self.broken().is_none();
        let is_recent = self.down_since.is_none_or(|since| now.duration_since(since) < ON_ITS_WAY_MAX);
        (self.terminating || starts) && is_recent
    }

    /// What the node said, if it answered.
    pub fn status(&self) -> Option<&NodeStatus> {
        match &self.node {
            NodeAnswer::Answered(status) => Some(status),
            NodeAnswer::NotAsked | NodeAnswer::Silent(_) => None,
        }
    }
}

/// The API server could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A request failed.
    #[error("reading {what}: {source}")]
    Read {
        /// What was read.
        what: &'static str,
        /// Why not.
        source: kube::Error,
    },
    /// No HTTP client for the admin API.
    #[error("making a client of the admin API: {0}")]
    Client(String),
}

/// Reads everything about one cluster.
pub async fn observe(client: &Client, cluster: &KVCluster) -> Result<Observed, ObserveError> {
    let reader =
        Reader { client, name: cluster.name_any(), namespace: cluster.namespace().unwrap_or_default() };
    let name = &reader.name;
    let existing = Existing {
        service_account: reader.get("the ServiceAccount", name).await?,
        peer_service: reader.get("the peer Service", &names::peer_service(name)).await?,
        client_service: reader.get("the client Service", name).await?,
        disruption_budget: reader.get("the PodDisruptionBudget", name).await?,
        network_policy: reader.get("the NetworkPolicy", name).await?,
        stateful_set: reader.get("the StatefulSet", name).await?,
    };
    let secret = secret_state(reader.get("the Secret", &names::secret(name)).await?);
    let has_users = match &cluster.spec.users {
        Some(users) => has_users(reader.get("the Secret of the users", &users.secret_name).await?),
        None => false,
    };
    let ring = ring_state(reader.get("the ring's ConfigMap", &names::ring(name)).await?);
    let claims = reader.claims(&cluster.spec.storage.size).await?;
    let pods = reader.pods(existing.stateful_set.as_ref()).await?;
    let zones = &cluster.spec.zones;
    let topology_key = (zones.spread != Spread::Disabled).then_some(zones.topology_key.as_str());
    let pods = reader.with_machines(pods, topology_key).await?;
    let epoch_is_known = matches!(&ring, RingState::Present(RingObject { epoch: Some(_), .. }));
    let pods = match &secret {
        SecretState::Present { text, .. } => ask_nodes(pods, text, !epoch_is_known).await?,
        SecretState::Absent | SecretState::Malformed => pods,
    };
    let recorded = cluster.status.as_ref().and_then(|status| status.ring.as_ref());
    Ok(Observed {
        existing,
        secret,
        has_users,
        ring,
        recorded_cluster_id: recorded.and_then(|ring| ring.cluster_id.as_ref()?.parse().ok()),
        recorded_epoch: recorded.is_some_and(|ring| ring.epoch.is_some()),
        claims,
        pods,
        now: Timestamp::now(),
    })
}

/// Reads one cluster's objects.
struct Reader<'a> {
    client: &'a Client,
    name: String,
    namespace: String,
}

impl Reader<'_> {
    async fn get<K>(&self, what: &'static str, name: &str) -> Result<Option<K>, ObserveError>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        api.get_opt(name).await.map_err(|source| ObserveError::Read { what, source })
    }
}

fn secret_state(secret: Option<Secret>) -> SecretState {
    let Some(secret) = secret else { return SecretState::Absent };
    let owners = secret.metadata.owner_references.unwrap_or_default();
    let value = secret.data.and_then(|mut data| data.remove(names::SECRET_KEY));
    let text = value.and_then(|bytes| String::from_utf8(bytes.0).ok());
    match text.as_deref().map(str::trim) {
        None | Some("") => SecretState::Malformed,
        Some(text) => SecretState::Present { text: text.to_owned(), owners },
    }
}

fn has_users(secret: Option<Secret>) -> bool {
    secret.and_then(|secret| secret.data).is_some_and(|data| data.contains_key(names::USERS_KEY))
}

fn ring_state(map: Option<ConfigMap>) -> RingState {
    let Some(map) = map else { return RingState::Absent };
    let data = map.data.clone().unwrap_or_default();
    let Some(Ok(cluster_id)) = data.get(names::CLUSTER_ID_KEY).map(|id| id.parse::<ClusterId>()) else {
        return RingState::Malformed(format!("{} is not a UUID", names::CLUSTER_ID_KEY));
    };
    let epoch = match data.get(names::EPOCH_KEY).map(|text| serde_json::from_str::<Epoch>(text)).transpose() {
        Ok(epoch) => epoch,
        Err(error) => return RingState::Malformed(format!("{}: {error}", names::EPOCH_KEY)),
    };
    if epoch.as_ref().is_some_and(|epoch| epoch.cluster() != cluster_id) {
        return RingState::Malformed(format!("{} is of another cluster", names::EPOCH_KEY));
    }
    RingState::Present(RingObject {
        cluster_id,
        epoch: epoch.map(Arc::new),
        change: data.get(names::CHANGE_KEY).and_then(|word| word.parse().ok()),
        resource_version: map.resource_version().unwrap_or_default(),
        owners: map.metadata.owner_references.unwrap_or_default(),
    })
}

/// Asks all nodes at once: one that does not answer holds nobody else up.
async fn ask_nodes(
    pods: Vec<PodState>,
    secret: &str,
    epochs_too: bool,
) -> Result<Vec<PodState>, ObserveError> {
    let client = admin_client(secret)?;
    let asked = futures::stream::iter(pods.into_iter().map(|pod| ask_node(&client, pod, epochs_too)));
    Ok(asked.buffered(NODES_IN_FLIGHT_MAX).collect().await)
}

async fn ask_node(client: &quorate_admin::Client, mut pod: PodState, epoch_too: bool) -> PodState {
    let Some(address) = pod.address.clone() else { return pod };
    pod.node = match client.status(&address).await {
        Ok(status) => NodeAnswer::Answered(Box::new(status)),
        Err(error) => NodeAnswer::Silent(error.to_string()),
    };
    let has_epoch = pod.status().is_some_and(|status| status.epoch.is_some());
    if epoch_too && has_epoch {
        match client.epoch(&address).await {
            Ok(epoch) => pod.held = epoch.map(Arc::new),
            Err(error) => pod.node = NodeAnswer::Silent(error.to_string()),
        }
    }
    pod
}

/// A client of the admin API of the nodes that share a secret.
pub(crate) fn admin_client(secret: &str) -> Result<quorate_admin::Client, ObserveError> {
    quorate_admin::Client::new(secret, NODE_TIMEOUT).map_err(|error| ObserveError::Client(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(data: &[(&str, &str)]) -> ConfigMap {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn a_ring_that_cannot_be_read_is_not_taken_for_an_absent_one() {
        let id = "11111111-2222-3333-4444-555555555555";
        assert!(matches!(ring_state(None), RingState::Absent));
        assert!(matches!(ring_state(Some(map(&[]))), RingState::Malformed(_)));
        assert!(matches!(ring_state(Some(map(&[("cluster-id", "demo")]))), RingState::Malformed(_)));
        let broken = map(&[("cluster-id", id), ("epoch.json", "{}")]);
        assert!(matches!(ring_state(Some(broken)), RingState::Malformed(_)));
        let RingState::Present(ring) = ring_state(Some(map(&[("cluster-id", id)]))) else {
            panic!("readable")
        };
        assert!(ring.epoch.is_none());
    }

    #[test]
    fn a_secret_without_a_value_is_not_taken_for_an_absent_one() {
        assert_eq!(secret_state(None), SecretState::Absent);
        assert_eq!(secret_state(Some(Secret::default())), SecretState::Malformed);
    }
}
