//! The driver: it shows the order of the phases and decides nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};

use crate::apply::{Applier, ApplyError};
use crate::build::names;
use crate::crd::{KVCluster, Phase};
use crate::metrics::Metrics;
use crate::observe::{ObserveError, observe};
use crate::plan::decide;
use crate::status::{self, Outcome};
use crate::validate::{Settings, validate};

/// Clusters that are reconciled at the same time.
const CLUSTERS_IN_FLIGHT_MAX: u16 = 8;
/// Watches report one change as several events.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// After a pass that changed something.
const AFTER_CHANGE: Duration = Duration::from_secs(1);
/// While nodes are on their way: they are polled, since no watch tells how they are.
const WHILE_CONVERGING: Duration = Duration::from_secs(3);
/// When everything is as it should be.
const WHEN_STABLE: Duration = Duration::from_secs(30);
/// After a node did not take an epoch for a reason that passes: a change of the ring waits for it, and the pause must not
/// grow.
const WHILE_PUSHING: Duration = Duration::from_secs(2);
/// The longest pause after failures.
const BACKOFF_SECONDS_MAX: u64 = 60;

/// What every pass needs.
pub struct Context {
    client: Client,
    settings: Settings,
    metrics: Metrics,
    applier: Applier,
    /// Failures in a row, by cluster; entries go with success.
    failures: Mutex<BTreeMap<String, u32>>,
}

/// A pass failed; the variant is the metric's label.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Reading.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Writing.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl ReconcileError {
    fn label(&self) -> &'static str {
        match self {
            Self::Observe(_) => "observe",
            Self::Apply(ApplyError::Conflict { .. }) => "conflict",
            Self::Apply(ApplyError::Push { .. }) => "push",
            Self::Apply(_) => "apply",
        }
    }
}

impl Context {
    /// A context; `instance` names this replica in events.
    pub fn new(client: Client, settings: Settings, metrics: Metrics, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: names::OPERATOR.to_owned(), instance };
        let recorder = Recorder::new(client.clone(), reporter);
        let applier = Applier::new(client.clone(), metrics.clone(), recorder);
        Self { client, settings, metrics, applier, failures: Mutex::default() }
    }

    /// How long to wait after a pass that failed.
    fn pause(&self, cluster: &str, error: &ReconcileError) -> Duration {
        match error {
            // Somebody was faster: look again.
            ReconcileError::Apply(ApplyError::Conflict { .. }) => AFTER_CHANGE,
            ReconcileError::Apply(error) if error.is_passing_push() => WHILE_PUSHING,
            _ => self.failed(cluster),
        }
    }

    fn failed(&self, cluster: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(cluster.to_owned()).or_default();
        *count = count.saturating_add(1);
        Duration::from_secs(2_u64.saturating_pow(*count - 1).min(BACKOFF_SECONDS_MAX))
    }

    fn succeeded(&self, cluster: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(cluster);
    }
}

/// One pass over one cluster. Every pass starts from nothing but what it reads.
pub async fn reconcile(namespace: &str, name: &str, context: &Context) -> Result<Action, ReconcileError> {
    let api: Api<KVCluster> = Api::namespaced(context.client.clone(), namespace);
    let read = api.get_opt(name).await;
    let cluster = read.map_err(|source| ObserveError::Read { what: "the KVCluster", source })?;
    // What is being deleted goes by owner references and by the StatefulSet's own policy for volumes.
    let Some(cluster) = cluster.filter(|cluster| cluster.metadata.deletion_timestamp.is_none()) else {
        return Ok(Action::await_change());
    };
    let observed = observe(&context.client, &cluster).await?;
    let (findings, actions, notices, applied) = match validate(&cluster, &context.settings) {
        Ok(validated) => {
            let plan = decide(&validated, &observed);
            let (notices, applied) = context.applier.apply(&plan, &observed).await;
            let steps = plan.steps();
            (plan.findings, steps, notices, applied)
        }
        Err(refusals) => (status::refused(&refusals), 0, Vec::new(), Ok(())),
    };
    let outcome = Outcome { observed: &observed, findings, actions, failure: applied.as_ref().err() };
    let status = status::status(&cluster, &outcome, Timestamp::now());
    context.applier.notify(&cluster, &notices).await;
    let is_new = context.applier.report(&cluster, &status).await?;
    if is_new {
        context.applier.notify(&cluster, &status::transitions(cluster.status.as_ref(), &status)).await;
    }
    applied?;
    Ok(Action::requeue(match status.phase {
        _ if actions > 0 => AFTER_CHANGE,
        Some(Phase::Ready | Phase::Refused | Phase::Paused) => WHEN_STABLE,
        _ => WHILE_CONVERGING,
    }))
}

async fn measured(
    cluster: Arc<DeserializeGuard<KVCluster>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let namespace = cluster.namespace().unwrap_or_default();
    let name = cluster.name_any();
    if let Err(error) = &cluster.0 {
        tracing::error!(namespace, name, %error, "cannot be read: the definition in the cluster is of another version");
        return Ok(Action::await_change());
    }
    let timer = context.metrics.duration.start_timer();
    let result = reconcile(&namespace, &name, &context).await;
    timer.observe_duration();
    let outcome = result.as_ref().map_or_else(ReconcileError::label, |_| "ok");
    context.metrics.reconciles.with_label_values(&[outcome]).inc();
    if result.is_ok() {
        context.succeeded(&format!("{namespace}/{name}"));
    }
    result
}

fn on_error(
    cluster: Arc<DeserializeGuard<KVCluster>>,
    error: &ReconcileError,
    context: Arc<Context>,
) -> Action {
    let key = format!("{}/{}", cluster.namespace().unwrap_or_default(), cluster.name_any());
    let pause = context.pause(&key, error);
    match error {
        ReconcileError::Apply(ApplyError::Conflict { .. }) => {}
        error => tracing::warn!(cluster = key, %error, pause_seconds = pause.as_secs(), "a pass failed"),
    }
    Action::requeue(pause)
}

/// Reconciles every KVCluster until `stop` resolves, and then ends the passes that are under way.
pub async fn run(
    context: Arc<Context>,
    namespace: Option<&str>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = context.client.clone();
    let ours = watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY_LABEL, names::OPERATOR));
    let config = Config::default().concurrency(CLUSTERS_IN_FLIGHT_MAX).debounce(DEBOUNCE);
    // Secrets are not watched: that right reaches every secret of the Kubernetes cluster. Each pass reads ours by name.
    let controller: Controller<DeserializeGuard<KVCluster>> =
        Controller::new(scoped(&client, namespace), watcher::Config::default());
    controller
        .with_config(config)
        .owns(scoped::<StatefulSet>(&client, namespace), ours.clone())
        .owns(scoped::<Service>(&client, namespace), ours.clone())
        .owns(scoped::<ServiceAccount>(&client, namespace), ours.clone())
        .owns(scoped::<PodDisruptionBudget>(&client, namespace), ours.clone())
        .owns(scoped::<NetworkPolicy>(&client, namespace), ours.clone())
        .watches(scoped::<ConfigMap>(&client, namespace), ours.clone(), instance)
        .watches(scoped::<Pod>(&client, namespace), ours, instance)
        .graceful_shutdown_on(stop)
        .run(measured, on_error, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "the controller");
            }
        })
        .await;
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The KVCluster whose name an object carries: pods belong to the StatefulSet, and the ring may belong to nobody.
fn instance<K: Resource<DynamicType = ()>>(object: K) -> Option<ObjectRef<DeserializeGuard<KVCluster>>> {
    let cluster = object.labels().get(names::INSTANCE_LABEL)?;
    Some(ObjectRef::new(cluster).within(&object.namespace()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let settings = Settings { node_image: "quorate/node:test".to_owned(), operator_namespace: None };
        Context::new(Client::try_from(config).unwrap(), settings, Metrics::new().unwrap(), None)
    }

    fn push(is_passing: bool) -> ReconcileError {
        ApplyError::Push { pod: "demo-0".to_owned(), message: "busy".to_owned(), is_passing }.into()
    }

    #[tokio::test]
    async fn pauses_grow_but_for_what_passes_by_itself() {
        let context = context();
        let seconds = |error: &ReconcileError| context.pause("shop/demo", error).as_secs();
        let conflict = ApplyError::Conflict { what: "ConfigMap demo-ring".to_owned() }.into();
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!((seconds(&conflict), seconds(&push(true))), (1, 2));
            assert_eq!(seconds(&push(false)), expected);
        }
        context.succeeded("shop/demo");
        assert_eq!(seconds(&push(false)), 1);
    }
}
