//! The pods of a cluster and the machines under them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Node, Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{NodeAnswer, ObserveError, PodState, Reader, STARTING};
use crate::build::names;

/// What keeps a pod from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// No machine can take it because of its volume.
    Volume,
    /// No machine has room for it, or none is allowed.
    Room,
    /// Its image or its configuration: no fault of the machine or the volume.
    Template,
    /// Its container is being made, or ended and is started again.
    Start,
}

/// How a machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Machine {
    /// The pod has none, or nobody asked.
    #[default]
    Unknown,
    /// Kubernetes reaches it.
    Ready,
    /// Kubernetes does not reach it.
    NotReady,
    /// Its object is gone.
    Gone,
}

impl Reader<'_> {
    /// The pods of this StatefulSet's incarnation, by number, and those that it will adopt: while it is made again (see
    /// `plan/volumes.rs`) they belong to nobody. Those of another owner are not ours.
    pub(super) async fn pods(
        &self,
        stateful_set: Option<&StatefulSet>,
    ) -> Result<Vec<PodState>, ObserveError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = ListParams::default().labels(&names::selector_text(&self.name));
        let list =
            api.list(&params).await.map_err(|source| ObserveError::Read { what: "the pods", source })?;
        let uid = stateful_set.and_then(|set| set.metadata.uid.as_deref());
        let ours =
            |pod: &Pod| match pod.owner_references().iter().find(|owner| owner.controller == Some(true)) {
                Some(owner) => Some(owner.uid.as_str()) == uid,
                None => true,
            };
        let states = list.items.into_iter().filter(ours).filter_map(|pod| pod_state(&self.name, &pod));
        let mut states: Vec<PodState> = states.collect();
        states.sort_by_key(|pod| pod.ordinal);
        Ok(states)
    }

    /// Looks at machines: for zones, where those count, and for how the machine of a pod in trouble is.
    pub(super) async fn with_machines(
        &self,
        mut pods: Vec<PodState>,
        zone_label: Option<&str>,
    ) -> Result<Vec<PodState>, ObserveError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let mut seen: BTreeMap<String, Option<Node>> = BTreeMap::new();
        for pod in pods.iter_mut().filter(|pod| zone_label.is_some() || !pod.ready) {
            let Some(name) = &pod.machine else { continue };
            if !seen.contains_key(name) {
                let read = api.get_opt(name).await;
                let node = read.map_err(|source| ObserveError::Read { what: "a machine", source })?;
                seen.insert(name.clone(), node);
            }
            let machine = seen.get(name).and_then(Option::as_ref);
            pod.machine_state = machine.map_or(Machine::Gone, machine_state);
            let zone = zone_label.and_then(|label| machine?.labels().get(label).cloned());
            pod.zone = zone.filter(|zone| !zone.is_empty());
        }
        Ok(pods)
    }
}

fn machine_state(node: &Node) -> Machine {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    match conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        true => Machine::Ready,
        false => Machine::NotReady,
    }
}

/// None for a pod whose name is not of the StatefulSet's making.
fn pod_state(cluster: &str, pod: &Pod) -> Option<PodState> {
    let name = pod.name_any();
    let ordinal = names::ordinal(cluster, &name)?;
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let condition = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    let ready = condition("Ready").is_some_and(|condition| condition.status == "True");
    let unscheduled = condition("PodScheduled").filter(|condition| condition.status == "False");
    let containers = status.container_statuses.unwrap_or_default();
    let container = containers.into_iter().find(|container| container.name == names::CONTAINER);
    let container = container.unwrap_or_default();
    let message = unscheduled.and_then(|condition| condition.message.clone().or(condition.reason.clone()));
    Some(PodState {
        name,
        uid: pod.uid().unwrap_or_default(),
        ordinal,
        ready,
        running: container.state.as_ref().is_some_and(|state| state.running.is_some()),
        started: container.started == Some(true),
        has_crashed: crash(&container).is_some(),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        revision: pod.labels().get("controller-revision-hash").cloned(),
        image: image(pod),
        restarted_at: pod.annotations().get(names::RESTARTED_AT).cloned(),
        address: status.pod_ip.filter(|ip| !ip.is_empty()).map(|ip| address(&ip)),
        trouble: message.or_else(|| trouble(&container)).filter(|_| !ready),
        obstacle: unscheduled.map(scheduling_obstacle).or_else(|| container_obstacle(&container)),
        down_since: if ready { None } else { down_since(pod, condition("Ready").or(unscheduled)) },
        machine: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        machine_state: Machine::Unknown,
        zone: None,
        node: NodeAnswer::NotAsked,
        held: None,
    })
}

/// As the template says: the status names it otherwise.
fn image(pod: &Pod) -> Option<String> {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.find(|container| container.name == names::CONTAINER)?.image.clone()
}

/// How the container ended last.
fn crash(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let states = [&container.state, &container.last_state];
    states.into_iter().find_map(|state| state.as_ref()?.terminated.as_ref())
}

/// In the same words for as long as it is the same trouble: a container that crashes runs now and then, and an image
/// that cannot be pulled is tried again.
fn trouble(container: &ContainerStatus) -> Option<String> {
    if let Some(crash) = crash(container) {
        return Some(format!("crashed: {}", crash.reason.as_deref().unwrap_or("Unknown")));
    }
    let waiting = container.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
    Some(if waiting == "ErrImagePull" { "ImagePullBackOff".to_owned() } else { waiting })
}

/// The scheduler says in words alone what it lacks; every sentence of its about volumes names one.
fn scheduling_obstacle(condition: &PodCondition) -> Obstacle {
    let message = condition.message.as_deref().unwrap_or_default().to_lowercase();
    match message.contains("volume") {
        true => Obstacle::Volume,
        false => Obstacle::Room,
    }
}

fn container_obstacle(container: &ContainerStatus) -> Option<Obstacle> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref()?.reason.as_deref());
    match waiting {
        Some("CrashLoopBackOff") => Some(Obstacle::Start),
        Some(reason) if STARTING.contains(&reason) => Some(Obstacle::Start),
        // ErrImagePull, ImagePullBackOff, InvalidImageName, CreateContainerConfigError and whatever else there may be.
        Some(_) => Some(Obstacle::Template),
        None => crash(container).map(|_| Obstacle::Start),
    }
}

/// Since when a pod is not ready: since it last was, or since it was made.
fn down_since(pod: &Pod, condition: Option<&PodCondition>) -> Option<Timestamp> {
    let changed = condition.and_then(|condition| condition.last_transition_time.as_ref());
    changed.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

fn address(ip: &str) -> String {
    let port = names::PEER_PORT;
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_names_of_the_stateful_set_are_numbered() {
        let named = |name: &str| {
            let mut pod = Pod::default();
            pod.metadata.name = Some(name.to_owned());
            pod_state("demo", &pod).map(|pod| pod.ordinal)
        };
        assert_eq!(named("demo-12"), Some(12));
        assert_eq!(named("demo-x"), None);
        assert_eq!(named("other-1"), None);
    }

    #[test]
    fn an_address_of_ipv6_is_bracketed() {
        assert_eq!(address("10.0.0.1"), "10.0.0.1:5000");
        assert_eq!(address("fd00::1"), "[fd00::1]:5000");
    }

    fn state(status: Value) -> PodState {
        let pod = json!({
            "metadata": {"name": "demo-0", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status
        });
        pod_state("demo", &serde_json::from_value(pod).unwrap()).unwrap()
    }

    #[test]
    fn what_keeps_a_pod_from_running_is_told_apart() {
        let unscheduled = |message: &str| json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": message}]});
        let waiting = |reason: &str| {
            json!({"containerStatuses": [{
                "name": "node", "image": "x", "imageID": "x", "ready": false, "restartCount": 1,
                "state": {"waiting": {"reason": reason}}
            }]})
        };
        let cases = [
            (unscheduled("0/3 nodes are available: 3 Insufficient cpu."), Some(Obstacle::Room)),
            (unscheduled("3 node(s) had volume node affinity conflict."), Some(Obstacle::Volume)),
            (unscheduled("3 node(s) didn't match PersistentVolume's node affinity"), Some(Obstacle::Volume)),
            (waiting("CrashLoopBackOff"), Some(Obstacle::Start)),
            (waiting("ContainerCreating"), Some(Obstacle::Start)),
            (waiting("ImagePullBackOff"), Some(Obstacle::Template)),
            (waiting("CreateContainerConfigError"), Some(Obstacle::Template)),
            (json!({}), None),
        ];
        for (status, expected) in cases {
            assert_eq!(state(status.clone()).obstacle, expected, "{status}");
        }
    }

    #[test]
    fn a_pod_is_down_since_it_was_last_ready_or_made() {
        let ready = |status: &str| {
            json!({"conditions": [
                {"type": "Ready", "status": status, "lastTransitionTime": "2026-01-02T00:00:00Z"}
            ]})
        };
        let since = |status: Value| state(status).down_since.map(|time| time.to_string());
        assert_eq!(since(ready("True")), None);
        assert_eq!(since(ready("False")).unwrap(), "2026-01-02T00:00:00Z");
        assert_eq!(since(json!({})).unwrap(), "2026-01-01T00:00:00Z");
    }
}
