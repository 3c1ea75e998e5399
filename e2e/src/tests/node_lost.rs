//! A machine loses its power under load: once for a while, and once for good, with its disks.

use std::time::Instant;

use serde_json::{Value, json};

use super::World;
use super::namespace;
use super::subject::{SECONDS_MAX, Subject};
use crate::cluster::Cluster;
use crate::error::{Error, ensure};
use crate::node::NODES;
use crate::product::{condition, is_ready};
use crate::run::wait_until;
use crate::target::Target;

const NAMESPACE: &str = "e2e-node-lost";

pub(super) fn run(world: &World) -> Result<(), Error> {
    // Nobody cuts the power of a person's own machines.
    let Target::BuiltIn(cluster) = &world.target else { return Ok(()) };
    let subject = Subject { world, namespace: NAMESPACE };
    subject.make(3)?;
    // The soonest that the API server takes.
    subject.patch(&json!({"failure": {"permanentAfter": "1m"}}))?;
    subject.wait_ready()?;
    back_again(&subject, cluster)?;
    for_good(&subject, cluster)?;
    namespace::remove(&world.kubectl(), NAMESPACE)
}

/// The clients of this machine come in through the first node; the last one is the victim, so that only the connections
/// to what runs there die with it.
fn victim() -> &'static str {
    NODES[NODES.len() - 1].name()
}

fn back_again(subject: &Subject<'_>, cluster: &Cluster) -> Result<(), Error> {
    let (_door, load) = subject.load("back")?;
    cluster.kill_node(victim())?;
    let killed = kubernetes_notices(subject);
    let served = killed.and_then(|()| subject.requests_go_on(&load, "while a machine is down"));
    // Also when that failed: everything else needs the machine.
    let started = Instant::now();
    cluster.start_node(victim())?;
    served?;
    subject.until_whole(3, started, &format!("{} has power again", victim()))?;
    subject.until("Kubernetes to see it", is_ready)?;
    subject.check(load, 3, "a machine lost its power and came back")
}

/// The machine and its disks are gone, and a person says so by deleting its Node object: the member is replaced by a new
/// one elsewhere.
fn for_good(subject: &Subject<'_>, cluster: &Cluster) -> Result<(), Error> {
    let (_door, load) = subject.load("lost")?;
    let lost = member_on(subject, victim())?;
    let started = Instant::now();
    cluster.kill_node(victim())?;
    cluster.wipe_volumes(victim())?;
    let replaced = replaced_elsewhere(subject, &lost, started)
        .and_then(|()| subject.requests_go_on(&load, "after the member was replaced"))
        .and_then(|()| subject.check(load, 3, "a machine was lost for good with its disks"));
    // Also when that failed: everything else needs the machine.
    cluster.start_node_anew(victim())?;
    replaced
}

fn replaced_elsewhere(subject: &Subject<'_>, lost: &(String, Value), started: Instant) -> Result<(), Error> {
    let (pod, disk) = lost;
    kubernetes_notices(subject)?;
    subject.world.kubectl().run(&["delete", "node", victim()])?;
    subject.until(&format!("{pod} to be replaced"), |cluster| {
        is_ready(cluster)
            && member(cluster, pod).is_some_and(|now| now["nodeId"].is_string() && now["nodeId"] != *disk)
    })?;
    subject.until_whole(3, started, &format!("{} was lost for good", victim()))?;
    let now = subject.read(&format!("pod/{pod}"))?["spec"]["nodeName"].clone();
    ensure(now.is_string() && now != victim(), || format!("{pod} should be elsewhere, not on {now}"))
}

/// The Node object is not ready: whoever asks the Service is not sent there any more.
fn kubernetes_notices(subject: &Subject<'_>) -> Result<(), Error> {
    let kubectl = subject.world.kubectl();
    let object = format!("node/{}", victim());
    wait_until("Kubernetes to notice", SECONDS_MAX, "see the nodes", || {
        let node = kubectl.get(&[&object])?;
        Ok(condition(&node, "Ready").is_some_and(|ready| ready["status"] != "True"))
    })
}

fn member(cluster: &Value, pod: &str) -> Option<Value> {
    cluster["status"]["members"].as_array()?.iter().find(|member| member["name"] == pod).cloned()
}

/// The pod on a machine, and the disk that the ring has in its place.
fn member_on(subject: &Subject<'_>, machine: &str) -> Result<(String, Value), Error> {
    let pods = subject.read("pods")?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let pod = pods.iter().find(|pod| pod["spec"]["nodeName"] == machine);
    let pod = pod.and_then(|pod| pod["metadata"]["name"].as_str());
    let pod =
        pod.ok_or_else(|| Error::Unexpected(format!("no pod of {} runs on {machine}", subject.namespace)))?;
    let disk = member(&subject.cluster()?, pod).map(|member| member["nodeId"].clone()).unwrap_or_default();
    Ok((pod.to_owned(), disk))
}
