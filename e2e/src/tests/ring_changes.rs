//! The ring changes under load: no acknowledged write is lost, and requests go on.

use std::time::Instant;

use serde_json::{Value, json};

use super::World;
use super::namespace;
use super::subject::Subject;
use crate::error::Error;
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

/// 3 nodes, 5 nodes, 3 nodes: an autoscaler asks for more, and a person for fewer.
fn grown_and_shrunk(subject: &Subject<'_>) -> Result<(), Error> {
    let (_door, load) = subject.load("scaled")?;
    subject.autoscale(5)?;
    subject.requests_go_on(&load, "with five nodes")?;
    subject.scale(3)?;
    subject.requests_go_on(&load, "with three nodes again")?;
    subject.check(load, 3, "3 nodes, 5 nodes, 3 nodes")
}

/// To 5 nodes, and back before that is done.
fn cancelled(subject: &Subject<'_>) -> Result<(), Error> {
    let (_door, load) = subject.load("cancelled")?;
    let before = epoch(&subject.cluster()?);
    subject.patch(&json!({"nodes": 5}))?;
    subject.until("the ring to grow", |cluster| epoch(cluster) > before)?;
    subject.scale(3)?;
    subject.requests_go_on(&load, "after the change was cancelled")?;
    subject.check(load, 3, "3 nodes, towards 5, back to 3")
}

/// A pod and its volume go for good: the pod that comes back has an empty disk, and gets everything.
fn replaced(subject: &Subject<'_>) -> Result<(), Error> {
    let (_door, load) = subject.load("replaced")?;
    let node_id = |cluster: &Value| {
        let members = cluster["status"]["members"].as_array().cloned().unwrap_or_default();
        let found = members.into_iter().find(|member| member["name"] == "demo-1");
        found.map(|member| member["nodeId"].clone())
    };
    let before = node_id(&subject.cluster()?);
    let started = Instant::now();
    subject.run(&["delete", "pvc", "data-demo-1", "--wait=false"])?;
    subject.run(&["delete", "pod", "demo-1"])?;
    subject.until("the new disk to be a member, and whole", |cluster| {
        is_ready(cluster) && node_id(cluster).is_some_and(|now| Some(&now) != before.as_ref())
    })?;
    subject.until_whole(3, started, "a disk was lost")?;
    subject.requests_go_on(&load, "after the disk was replaced")?;
    subject.check(load, 3, "a disk was lost and replaced")
}
