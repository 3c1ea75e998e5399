//! The chart in the hands of Helm 3, from its first installation to its last: the other tests use Helm 4.
//!
//! The operator and the CRD are there once for the whole cluster, so that Helm 4's release makes room at the start and
//! is put back at the end: each Helm finds the CRD that the other has left behind.

use serde_json::{Value, json};

use super::{World, namespace};
use crate::error::{Error, ensure};
use crate::helm::Helm;
use crate::product::{self, NAMESPACE, RELEASE};
use crate::store::Store;
use crate::up::HTTP_PORT;

/// The KVCluster that lives through all of it.
const CLUSTER: (&str, &str) = ("e2e-helm-3", "demo");

/// The value that the upgrade changes, and the variable that the operator's pods get from it.
const CHANGE: (&str, &str, &str) = ("log.level=debug", "QUORATE_LOG", "debug");

/// A key that is written while there is an operator, and read when there is none.
const KEY: &str = "kept";

pub(super) fn run(world: &World) -> Result<(), Error> {
    if !world.target.takes_images() {
        // What is installed there is a person's own.
        return Ok(());
    }
    let (kubectl, progress) = (world.kubectl(), &world.progress);
    let ready = || product::wait_ready(&kubectl, CLUSTER.0, CLUSTER.1, progress);
    namespace::make(&kubectl, CLUSTER.0)?;
    world.target.helm(progress)?.uninstall(RELEASE, NAMESPACE)?;
    let helm = world.target.helm_3(progress)?;
    product::install_with(&helm, &world.target, &[], progress)?;
    kubectl.apply(&kvcluster().to_string())?;
    ready()?;
    helm.test(RELEASE, NAMESPACE)?;
    upgrade(world, &helm)?;
    ready()?;
    write(world)?;
    helm.uninstall(RELEASE, NAMESPACE)?;
    progress.step("uninstalled: the KVCluster stays and serves");
    read(world)?;
    product::install(&world.target, progress)?;
    ready()?;
    namespace::remove(&kubectl, CLUSTER.0)
}

fn kvcluster() -> Value {
    json!({
        "apiVersion": "quorate.dev/v1alpha1",
        "kind": "KVCluster",
        "metadata": {"name": CLUSTER.1, "namespace": CLUSTER.0},
        "spec": {
            "nodes": 3,
            "storage": {"size": "1Gi", "onDelete": "Delete"},
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        },
    })
}

/// A changed value arrives in the operator's pods.
fn upgrade(world: &World, helm: &Helm) -> Result<(), Error> {
    let (value, variable, wanted) = CHANGE;
    product::install_with(helm, &world.target, &[value], &world.progress)?;
    let selector = "--selector=app.kubernetes.io/name=quorate-operator";
    let found = world.kubectl().get(&["--namespace", NAMESPACE, "deployments", selector])?;
    let environment = &found["items"][0]["spec"]["template"]["spec"]["containers"][0]["env"];
    let has_changed = environment
        .as_array()
        .into_iter()
        .flatten()
        .any(|one| one["name"] == variable && one["value"] == wanted);
    ensure(has_changed, || format!("{value} should give {variable}={wanted}, not {environment}"))
}

fn write(world: &World) -> Result<(), Error> {
    let door = world.target.door(CLUSTER.0, &format!("service/{}", CLUSTER.1), HTTP_PORT)?;
    world.runtime.block_on(Store::new(door.url())?.put(KEY, KEY))
}

fn read(world: &World) -> Result<(), Error> {
    let door = world.target.door(CLUSTER.0, &format!("service/{}", CLUSTER.1), HTTP_PORT)?;
    let values = world.runtime.block_on(Store::new(door.url())?.get(KEY))?;
    ensure(values == [KEY], || format!("{KEY} should be there without an operator, not {values:?}"))
}
