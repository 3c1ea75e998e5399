//! The ring changes under load: no acknowledged write is lost, and requests go on.

use serde_json::{Value, json};

use super::World;
use super::namespace;
use super::subject::Subject;
use crate::error::Error;
use crate::load::Load;
use crate::product::is_ready;

const NAMESPACE: &str = "e2e-ring-changes";

pub(super) fn run(world: &World) -> Result<(), Error> {
    let subject = Subject { world, namespace: NAMESPACE };
    subject.make(3)?;
    grown_and_shrunk(&subject)?;
    cancelled(&subject)?;
    replaced(&subject)?;
    namespace::remove(&world.kubectl(), NAMESPACE)
}

fn epoch(cluster: &Value) -> i64 {
    cluster["status"]["ring"]["epoch"].as_i64().unwrap_or(0)
}

/// 3 nodes, 5 nodes, 3 nodes.
fn grown_and_shrunk(subject: &Subject<'_>) -> Result<(), Error> {
    let (_door, store) = subject.service()?;
    let load = Load::start(&subject.world.runtime, &store, "scaled");
    subject.requests_go_on(&load, "before the ring grows")?;
    scale(subject, 5)?;
    subject.expect_members(&["demo-0", "demo-1", "demo-2", "demo-3", "demo-4"])?;
    subject.requests_go_on(&load, "with five nodes")?;
    scale(subject, 3)?;
    subject.expect_members(&["demo-0", "demo-1", "demo-2"])?;
    subject.requests_go_on(&load, "with three nodes again")?;
    subject.check(load, 3, "3 nodes, 5 nodes, 3 nodes")
}

/// To 5 nodes, and back before that is done.
fn cancelled(subject: &Subject<'_>) -> Result<(), Error> {
    let (_door, store) = subject.service()?;
    let load = Load::start(&subject.world.runtime, &store, "cancelled");
    subject.requests_go_on(&load, "before a change that is cancelled")?;
    let before = epoch(&subject.cluster()?);
    subject.patch(&json!({"nodes": 5}))?;
    subject.until("the ring to grow", |cluster| epoch(cluster) > before)?;
    scale(subject, 3)?;
    subject.expect_members(&["demo-0", "demo-1", "demo-2"])?;
    subject.requests_go_on(&load, "after the change was cancelled")?;
    subject.check(load, 3, "3 nodes, towards 5, back to 3")
}

/// A pod and its volume go for good: the pod that comes back has an empty disk, and gets everything.
fn replaced(subject: &Subject<'_>) -> Result<(), Error> {
    let (_door, store) = subject.service()?;
    let load = Load::start(&subject.world.runtime, &store, "replaced");
    subject.requests_go_on(&load, "before a disk is lost")?;
    let node_id = |cluster: &Value| {
        let members = cluster["status"]["members"].as_array().cloned().unwrap_or_default();
        let found = members.into_iter().find(|member| member["name"] == "demo-1");
        found.map(|member| member["nodeId"].clone())
    };
    let before = node_id(&subject.cluster()?);
    subject.run(&["delete", "pvc", "data-demo-1", "--wait=false"])?;
    subject.run(&["delete", "pod", "demo-1"])?;
    subject.until("the new disk to be a member, and whole", |cluster| {
        is_ready(cluster) && node_id(cluster).is_some_and(|now| Some(&now) != before.as_ref())
    })?;
    subject.requests_go_on(&load, "after the disk was replaced")?;
    subject.check(load, 3, "a disk was lost and replaced")
}

/// Sets the number of nodes, and waits until the ring is whole with so many.
fn scale(subject: &Subject<'_>, nodes: u32) -> Result<(), Error> {
    subject.run(&["scale", "kvcluster", "demo", &format!("--replicas={nodes}")])?;
    subject.until(&format!("{nodes} nodes"), |cluster| {
        is_ready(cluster)
            && cluster["status"]["readyNodes"] == nodes
            && cluster["status"]["nodes"] == nodes
            && cluster["status"]["ring"]["transition"].is_null()
    })
}
