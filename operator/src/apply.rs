//! Carries a plan out. The only writer.
//!
//! What it needs of the API server, and no more (the chart grants exactly this):
//!
//! | write | right |
//! | --- | --- |
//! | the objects of `build::Prepared` | create, patch (server-side apply, one field manager) |
//! | the Secret | create: it can never be overwritten, not even by a bug |
//! | the ring's ConfigMap | create, update (compare-and-swap; never a patch) |
//! | pods of an older template | delete, with the UID as precondition |
//! | the status | patch of kvclusters/status |
//! | events | create, patch |

use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::events::{Event, Recorder};
use kube::{Api, Client, Resource, ResourceExt};
use quorate_core::ClusterId;
use quorate_core::ring::Epoch;
use rand::RngCore;
use serde_json::json;
use uuid::Uuid;

use crate::build::{self, names};
use crate::crd::{KVCluster, KVClusterStatus};
use crate::metrics::Metrics;
use crate::observe::{Observed, SecretState, admin_client};
use crate::plan::{Action, Deletion, Kind, Manifest, Plan, RingChange};
use crate::status::Notice;

/// Nodes that get an epoch at the same time.
const PUSHES_IN_FLIGHT_MAX: usize = 32;

/// The only thing that writes.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    metrics: Metrics,
    recorder: Recorder,
}

/// An action failed. The ones before it are done; the next pass sees them.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else was faster; nothing is wrong.
    #[error("{what} changed in the meantime")]
    Conflict {
        /// What.
        what: String,
    },
    /// The API server refused.
    #[error("{what}: {message}")]
    Refused {
        /// What was written.
        what: String,
        /// What the API server said.
        message: String,
    },
    /// The API server could not be reached.
    #[error("{what}: {source}")]
    Unreachable {
        /// What was written.
        what: String,
        /// Why not.
        source: kube::Error,
    },
    /// A node did not take the epoch; said by the next observation in its own way.
    #[error("pushing the epoch to {pod}: {message}")]
    Push {
        /// Whom.
        pod: String,
        /// Why not.
        message: String,
    },
}

impl ApplyError {
    fn of(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict { what },
            kube::Error::Api(status) => Self::Refused { what, message: status.message.clone() },
            source => Self::Unreachable { what, source },
        }
    }
}

impl Applier {
    /// Writes through this client, in the name of this operator.
    pub fn new(client: Client, metrics: Metrics, recorder: Recorder) -> Self {
        Self { client, metrics, recorder }
    }

    /// Carries out every action in order, until one fails. Answers what people may want to hear of.
    pub async fn apply(&self, plan: &Plan, observed: &Observed) -> (Vec<Notice>, Result<(), ApplyError>) {
        let mut notices = Vec::new();
        for action in &plan.actions {
            match self.carry_out(plan, action, observed).await {
                Ok(notice) => notices.extend(notice),
                Err(error) => return (notices, Err(error)),
            }
        }
        (notices, Ok(()))
    }

    async fn carry_out(
        &self,
        plan: &Plan,
        action: &Action,
        observed: &Observed,
    ) -> Result<Option<Notice>, ApplyError> {
        let cluster = &plan.cluster;
        match action {
            Action::CreateSecret => {
                let mut random = [0; build::SECRET_BYTES];
                rand::rng().fill_bytes(&mut random);
                self.create(&cluster.namespace, &build::secret(cluster, random)).await?;
                Ok(Some(Notice::normal(
                    "SecretCreated",
                    format!("made Secret {}", names::secret(&cluster.name)),
                )))
            }
            Action::CreateRing { cluster_id } => {
                let id = cluster_id.unwrap_or_else(|| ClusterId::from_uuid(Uuid::new_v4()));
                self.create(&cluster.namespace, &build::ring(cluster, id, None, None)).await?;
                Ok(Some(Notice::normal("RingCreated", format!("made the ring of cluster {id}"))))
            }
            Action::ReplaceRing { cluster_id, epoch, resource_version, why } => {
                let ring =
                    build::ring(cluster, *cluster_id, epoch.as_deref(), Some(resource_version.clone()));
                self.replace(&cluster.namespace, &ring).await?;
                Ok(epoch.as_ref().and_then(|epoch| committed(epoch, *why)))
            }
            Action::Apply(manifest) => self.apply_manifest(&cluster.namespace, manifest).await.map(|()| None),
            Action::PushEpoch { epoch, nodes } => self.push(epoch, nodes, observed).await.map(|()| None),
            Action::DeletePod { name, uid, why } => {
                self.delete_pod(&cluster.namespace, name, uid).await?;
                Ok(Some(deleted(name, *why)))
            }
        }
    }

    async fn create<K>(&self, namespace: &str, object: &K) -> Result<(), ApplyError>
    where
        K: Written,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        self.count(&K::kind(&()), "create");
        let params = PostParams { field_manager: Some(names::OPERATOR.to_owned()), ..PostParams::default() };
        let created = api.create(&params, object).await;
        created.map(|_| ()).map_err(|error| ApplyError::of(what(&K::kind(&()), &object.name_any()), error))
    }

    /// Compare-and-swap: the object carries the resource version that it replaces.
    async fn replace<K>(&self, namespace: &str, object: &K) -> Result<(), ApplyError>
    where
        K: Written,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        self.count(&K::kind(&()), "update");
        let params = PostParams { field_manager: Some(names::OPERATOR.to_owned()), ..PostParams::default() };
        let replaced = api.replace(&object.name_any(), &params, object).await;
        replaced.map(|_| ()).map_err(|error| ApplyError::of(what(&K::kind(&()), &object.name_any()), error))
    }

    async fn apply_manifest(&self, namespace: &str, manifest: &Manifest) -> Result<(), ApplyError> {
        let resource = resource(manifest.kind);
        let what = what(&resource.kind, &manifest.name);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        self.count(&resource.kind, "apply");
        let params = PatchParams::apply(names::OPERATOR).force();
        match api.patch(&manifest.name, &params, &Patch::Apply(&manifest.body)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 422 => {
                // Where somebody edited the key of a list's item (the port of a Service), server-side apply puts our
                // item beside theirs, and the two do not get along. A merge patch replaces the list.
                self.count(&resource.kind, "patch");
                let params =
                    PatchParams { field_manager: Some(names::OPERATOR.to_owned()), ..PatchParams::default() };
                let patched = api.patch(&manifest.name, &params, &Patch::Merge(&manifest.body)).await;
                // What the first answer said is what a person must read: the second try has other reasons to fail.
                patched.map(|_| ()).map_err(|_| ApplyError::Refused { what, message: status.message.clone() })
            }
            Err(error) => Err(ApplyError::of(what, error)),
        }
    }

    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApplyError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        self.count("Pod", "delete");
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        api.delete(name, &params).await.map(|_| ()).map_err(|error| ApplyError::of(what("Pod", name), error))
    }

    /// Every node gets its chance, also when another does not take it.
    async fn push(
        &self,
        epoch: &Epoch,
        nodes: &[(String, String)],
        observed: &Observed,
    ) -> Result<(), ApplyError> {
        let SecretState::Present { text, .. } = &observed.secret else { return Ok(()) };
        let client = admin_client(text)
            .map_err(|error| ApplyError::Push { pod: "every node".to_owned(), message: error.to_string() })?;
        let client = &client;
        let pushes = futures::stream::iter(nodes.to_vec()).map(|(pod, address)| async move {
            let pushed = client.push_epoch(&address, epoch).await;
            pushed.map(|_| ()).map_err(|error| ApplyError::Push { pod, message: error.to_string() })
        });
        let results: Vec<Result<(), ApplyError>> = pushes.buffered(PUSHES_IN_FLIGHT_MAX).collect().await;
        results.into_iter().collect()
    }

    /// Writes the status if it says something new. Answers whether it did.
    pub async fn report(&self, cluster: &KVCluster, status: &KVClusterStatus) -> Result<bool, ApplyError> {
        if cluster.status.as_ref() == Some(status) {
            return Ok(false);
        }
        let name = cluster.name_any();
        let api: Api<KVCluster> =
            Api::namespaced(self.client.clone(), &cluster.namespace().unwrap_or_default());
        let body = json!({
            "apiVersion": KVCluster::api_version(&()),
            "kind": KVCluster::kind(&()),
            // An object of that name that was made since is another one: its status is not ours to write.
            "metadata": {"name": name, "uid": cluster.uid()},
            "status": status,
        });
        self.count("KVCluster/status", "apply");
        let params = PatchParams::apply(names::OPERATOR).force();
        let patched = api.patch_status(&name, &params, &Patch::Apply(&body)).await;
        patched.map(|_| true).map_err(|error| ApplyError::of(format!("the status of {name}"), error))
    }

    /// Tells people. An event that is lost is no reason to fail.
    pub async fn notify(&self, cluster: &KVCluster, notices: &[Notice]) {
        for notice in notices {
            self.count("Event", "create");
            let event = Event {
                type_: notice.type_,
                reason: notice.reason.clone(),
                note: Some(notice.note.clone()),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &cluster.object_ref(&())).await {
                tracing::warn!(%error, reason = notice.reason, "an event was not recorded");
            }
        }
    }

    fn count(&self, kind: &str, verb: &str) {
        self.metrics.writes.with_label_values(&[kind, verb]).inc();
    }
}

/// The two kinds that are created whole and never applied.
trait Written:
    Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
    + Clone
    + std::fmt::Debug
    + serde::Serialize
    + serde::de::DeserializeOwned
{
}

impl Written for Secret {}
impl Written for ConfigMap {}

fn committed(epoch: &Epoch, why: RingChange) -> Option<Notice> {
    let number = epoch.number();
    let members = epoch.members().len();
    match why {
        RingChange::FirstEpoch => {
            Some(Notice::normal("EpochCommitted", format!("committed epoch {number} with {members} members")))
        }
        RingChange::Recovered => Some(Notice::warning(
            "EpochRecovered",
            format!("recovered the lost epoch {number} from the nodes"),
        )),
        RingChange::Owner => None,
    }
}

fn deleted(name: &str, why: Deletion) -> Notice {
    let (reason, note) = match why {
        Deletion::Stuck => {
            ("PodReplaced", format!("{name} does not run and has an older pod template: deleted it"))
        }
        Deletion::Rolling => {
            ("PodRestarted", format!("{name} has an older pod template, and the ring is whole: restarted it"))
        }
    };
    Notice::normal(reason, note)
}

fn what(kind: &str, name: &str) -> String {
    format!("{kind} {name}")
}

fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
        Kind::Service => ApiResource::erase::<Service>(&()),
        Kind::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
        Kind::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
        Kind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
    }
}
