//! Carries a plan out. The only writer.
//!
//! What it needs of the API server, and no more (the chart grants exactly this):
//!
//! | write | right |
//! | --- | --- |
//! | the objects of `build::Prepared` | create, patch (server-side apply, one field manager) |
//! | the Secret | create: it can never be overwritten, not even by a bug |
//! | the ring's ConfigMap | create, update (compare-and-swap; never a patch) |
//! | pods of an older template, or whose disk is lost | delete, with the UID as precondition |
//! | volume claims | patch (which disk is on it, and its size), delete (with the UID as precondition) |
//! | the StatefulSet, to be made again | delete without its pods, with the UID as precondition |
//! | the status | patch of kvclusters/status |
//! | events | create, patch |

use std::collections::BTreeMap;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::events::{Event, Recorder};
use kube::{Api, Client, Resource, ResourceExt};
use quorate_core::ClusterId;
use quorate_core::ring::{Epoch, MemberState};
use rand::RngCore;
use serde_json::json;
use uuid::Uuid;

use crate::build::{self, names};
use crate::crd::{KVCluster, KVClusterStatus};
use crate::metrics::Metrics;
use crate::observe::{DiskMark, Observed, RingState, SecretState, admin_client};
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
        /// Whether it may take it in a moment.
        is_passing: bool,
    },
}

impl ApplyError {
    /// Whether a node may take in a moment what it did not take now.
    pub fn is_passing_push(&self) -> bool {
        matches!(self, Self::Push { is_passing: true, .. })
    }

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
            Action::ReplaceRing { cluster_id, epoch, change, resource_version } => {
                let said = epoch.as_deref().map(|epoch| (epoch, *change));
                let ring = build::ring(cluster, *cluster_id, said, Some(resource_version.clone()));
                self.replace(&cluster.namespace, &ring).await?;
                Ok(said.filter(|(epoch, _)| is_new(epoch, observed)).and_then(committed))
            }
            Action::Apply(manifest) => self.apply_manifest(&cluster.namespace, manifest).await.map(|()| None),
            Action::PushEpoch { epoch, nodes } => self.push(epoch, nodes, observed).await.map(|()| None),
            Action::DeletePod { name, uid, why } => {
                self.delete::<Pod>(&cluster.namespace, name, uid, DeleteParams::default()).await?;
                Ok(Some(deleted(name, *why)))
            }
            Action::MarkClaim { name, uid, disk } => {
                self.mark_claim(&cluster.namespace, name, uid, disk).await.map(|()| None)
            }
            Action::DeleteClaim { name, uid, why } => {
                let how = DeleteParams::default();
                self.delete::<PersistentVolumeClaim>(&cluster.namespace, name, uid, how).await?;
                Ok(Some(Notice::normal("VolumeDeleted", format!("deleted the volume claim {name}: {why}"))))
            }
            Action::RenewPod { name, uid, now } => {
                let how = DeleteParams { grace_period_seconds: now.then_some(0), ..DeleteParams::default() };
                self.delete::<Pod>(&cluster.namespace, name, uid, how).await?;
                let note = format!("{name} comes back with a new volume: deleted the pod");
                Ok(Some(Notice::normal("PodRenewed", note)))
            }
            Action::GrowClaim { name, uid, size } => {
                self.grow_claim(&cluster.namespace, name, uid, size).await?;
                Ok(Some(Notice::normal("VolumeGrown", format!("asked for {size} for {name}"))))
            }
            Action::OrphanPods { name, uid } => {
                let orphan = Some(PropagationPolicy::Orphan);
                let how = DeleteParams { propagation_policy: orphan, ..DeleteParams::default() };
                self.delete::<StatefulSet>(&cluster.namespace, name, uid, how).await?;
                let note = format!("deleted StatefulSet {name} to make it again; the pods run on");
                Ok(Some(Notice::normal("StatefulSetReplaced", note)))
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

    /// INV-UID: another incarnation of the name is refused.
    async fn delete<K>(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        how: DeleteParams,
    ) -> Result<(), ApplyError>
    where
        K: Written,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        self.count(&K::kind(&()), "delete");
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..how
        };
        match api.delete(name, &params).await {
            // Gone already: what was wanted.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => deleted.map(|_| ()).map_err(|error| ApplyError::of(what(&K::kind(&()), name), error)),
        }
    }

    async fn mark_claim(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        disk: &DiskMark,
    ) -> Result<(), ApplyError> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        self.count("PersistentVolumeClaim", "patch");
        let annotations = BTreeMap::from([
            (names::CLUSTER_ID_ANNOTATION, disk.cluster.to_string()),
            (names::NODE_ID_ANNOTATION, disk.node.to_string()),
        ]);
        let patch = Patch::Merge(json!({"metadata": {"uid": uid, "annotations": annotations}}));
        let params =
            PatchParams { field_manager: Some(names::OPERATOR.to_owned()), ..PatchParams::default() };
        match api.patch(name, &params, &patch).await {
            // Another incarnation: its UID cannot change, says the API server.
            Err(kube::Error::Api(status)) if status.code == 422 => {
                Err(ApplyError::Conflict { what: what("PersistentVolumeClaim", name) })
            }
            marked => {
                marked.map(|_| ()).map_err(|error| ApplyError::of(what("PersistentVolumeClaim", name), error))
            }
        }
    }

    async fn grow_claim(&self, namespace: &str, name: &str, uid: &str, size: &str) -> Result<(), ApplyError> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        self.count("PersistentVolumeClaim", "patch");
        let patch = Patch::Merge(json!({
            "metadata": {"uid": uid}, "spec": {"resources": {"requests": {"storage": size}}}
        }));
        let params =
            PatchParams { field_manager: Some(names::OPERATOR.to_owned()), ..PatchParams::default() };
        let patched = api.patch(name, &params, &patch).await;
        patched.map(|_| ()).map_err(|error| ApplyError::of(what("PersistentVolumeClaim", name), error))
    }

    /// Every node gets its chance, also when another does not take it.
    async fn push(
        &self,
        epoch: &Epoch,
        nodes: &[(String, String)],
        observed: &Observed,
    ) -> Result<(), ApplyError> {
        let SecretState::Present { text, .. } = &observed.secret else { return Ok(()) };
        let failed = |pod: &str, message: String, is_passing| ApplyError::Push {
            pod: pod.to_owned(),
            message,
            is_passing,
        };
        let client = &admin_client(text).map_err(|error| failed("every node", error.to_string(), false))?;
        let pushes = futures::stream::iter(nodes.to_vec()).map(|(pod, address)| async move {
            let pushed = client.push_epoch(&address, epoch).await;
            pushed.err().map(|error| failed(&pod, error.to_string(), error.is_passing()))
        });
        let failures: Vec<Option<ApplyError>> = pushes.buffered(PUSHES_IN_FLIGHT_MAX).collect().await;
        // One that passes is tried again soon, whatever the others say.
        match failures.into_iter().flatten().max_by_key(ApplyError::is_passing_push) {
            Some(error) => Err(error),
            None => Ok(()),
        }
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
            // INV-UID: an object of that name that was made since is another one, and its status is not ours to write. The
            // API server does not look at a UID here.
            "metadata": {"name": name, "resourceVersion": cluster.resource_version()},
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

/// The kinds that are written otherwise than by server-side apply.
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
impl Written for Pod {}
impl Written for PersistentVolumeClaim {}
impl Written for StatefulSet {}

/// Whether this commits another epoch than the one that was committed already.
fn is_new(epoch: &Epoch, observed: &Observed) -> bool {
    let known = match &observed.ring {
        RingState::Present(ring) => ring.epoch.as_ref().map(|epoch| epoch.mark()),
        RingState::Absent | RingState::Malformed(_) => None,
    };
    known != Some(epoch.mark())
}

fn committed((epoch, change): (&Epoch, Option<RingChange>)) -> Option<Notice> {
    let number = epoch.number();
    let count = |state| epoch.members().iter().filter(|member| member.state == state).count();
    let (active, leaving) = (count(MemberState::Active), count(MemberState::Leaving));
    let change = change?;
    Some(match change {
        RingChange::Recovered => {
            Notice::warning("EpochRecovered", format!("recovered the lost epoch {number} from the nodes"))
        }
        RingChange::DataLossAccepted => Notice::warning(
            "DataLossAccepted",
            format!("committed epoch {number}, which gives up what only a lost member held"),
        ),
        change if leaving > 0 => Notice::normal(
            "EpochCommitted",
            format!("committed epoch {number} ({change}) with {active} members; {leaving} leave"),
        ),
        change => Notice::normal(
            "EpochCommitted",
            format!("committed epoch {number} ({change}) with {active} members"),
        ),
    })
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
