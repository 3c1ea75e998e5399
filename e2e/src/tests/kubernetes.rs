//! The cluster itself: three nodes in three zones, names, Services and disks that are really gone when their
//! claim is. The other tests stand on it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{World, namespace};
use crate::error::{Error, ensure};
use crate::kubectl::Kubectl;
use crate::run::wait_until;
use crate::target::Target;
use crate::tools::TOOLBOX_IMAGE;

const NAMESPACE: &str = "e2e-kubernetes";

/// How long pods may take to be ready, volumes to be wiped.
const SECONDS_MAX: Duration = Duration::from_secs(90);

pub(super) fn run(world: &World) -> Result<(), Error> {
    let kubectl = world.kubectl();
    zones(&kubectl)?;
    if let Target::Context(_) = world.target {
        // What follows needs an image of ours on the nodes, and disks of ours.
        return Ok(());
    }
    namespace::make(&kubectl, NAMESPACE)?;
    kubectl.apply(&web().to_string())?;
    kubectl.run(&["--namespace", NAMESPACE, "rollout", "status", "statefulset/web", "--timeout=90s"])?;
    names_and_services(&kubectl)?;
    disks(&kubectl)?;
    namespace::remove(&kubectl, NAMESPACE)
}

fn zones(kubectl: &Kubectl) -> Result<(), Error> {
    let nodes = kubectl.get(&["nodes"])?;
    let mut zones: Vec<&str> = nodes["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| node["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str())
        .collect();
    zones.sort_unstable();
    zones.dedup();
    ensure(zones.len() >= 3, || format!("three zones are needed, and there are {zones:?}"))
}

/// Inside of a pod the Service answers by its name, and the answer comes from another pod's own disk.
fn names_and_services(kubectl: &Kubectl) -> Result<(), Error> {
    let url = format!("http://web.{NAMESPACE}.svc.cluster.local:8080/");
    let answer =
        kubectl.run(&["--namespace", NAMESPACE, "exec", "web-0", "--", "wget", "-q", "-O", "-", &url])?;
    ensure(answer.starts_with("web-"), || format!("{url} gave {answer:?}"))
}

/// A claim's data goes with it: its volume comes back empty.
fn disks(kubectl: &Kubectl) -> Result<(), Error> {
    let claim = kubectl.get(&["--namespace", NAMESPACE, "persistentvolumeclaim", "data-web-0"])?;
    let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default().to_owned();
    let object = kubectl.get(&["persistentvolume", &volume])?;
    let page = format!("{}/index.html", object["spec"]["local"]["path"].as_str().unwrap_or_default());
    let page = std::path::Path::new(&page);
    ensure(page.exists(), || format!("{} should hold the pod's page", page.display()))?;
    kubectl.run(&[
        "--namespace",
        NAMESPACE,
        "delete",
        "statefulset/web",
        "persistentvolumeclaim/data-web-0",
    ])?;
    wait_until(&format!("volume {volume} to be offered again"), SECONDS_MAX, "see logs/reclaim.log", || {
        Ok(kubectl.get(&["persistentvolume", &volume])?["status"]["phase"] == "Available")
    })?;
    ensure(!page.exists(), || format!("{} outlived its claim", page.display()))
}

/// One pod a zone, each with a disk of its own, whose page says its name.
fn web() -> Value {
    let labels = json!({"app": "web"});
    let container = json!({
        "name": "web",
        "image": TOOLBOX_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", "echo $HOSTNAME > /data/index.html; exec httpd -f -p 8080 -h /data"],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "securityContext": {
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    });
    let pod = json!({
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": labels},
        }],
        "containers": [container],
    });
    let claim = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {"selector": labels, "ports": [{"port": 8080}]},
    });
    let set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "serviceName": "web",
            "replicas": 3,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            "volumeClaimTemplates": [claim],
        },
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [service, set]})
}
