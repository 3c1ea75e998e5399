//! What Kubernetes does to pods by itself, or because a person asks: each pod deleted, each machine drained, under load.

use std::time::Instant;

use super::World;
use super::namespace;
use super::subject::Subject;
use crate::error::{Error, ensure};
use crate::node::NODES;
use crate::target::Target;

const NAMESPACE: &str = "e2e-disruptions";

pub(super) fn run(world: &World) -> Result<(), Error> {
    // A forwarded port leads to one pod for good, and each pod goes here.
    let Target::BuiltIn(_) = world.target else { return Ok(()) };
    let subject = Subject { world, namespace: NAMESPACE };
    subject.make(3)?;
    each_pod_deleted(&subject)?;
    each_machine_drained(&subject)?;
    namespace::remove(&world.kubectl(), NAMESPACE)
}

fn each_pod_deleted(subject: &Subject<'_>) -> Result<(), Error> {
    let (_door, load) = subject.load("deleted")?;
    for number in 0..3 {
        let pod = format!("demo-{number}");
        let started = Instant::now();
        subject.run(&["delete", "pod", &pod])?;
        subject.until_whole(3, started, &format!("{pod} was deleted"))?;
    }
    subject.check(load, 3, "each pod deleted in turn")
}

/// Nothing but the budget keeps the drains in order: the next one begins as soon as the machine before it is back.
fn each_machine_drained(subject: &Subject<'_>) -> Result<(), Error> {
    let (_door, load) = subject.load("drained")?;
    for machine in NODES.map(|node| node.name()) {
        let started = Instant::now();
        let drained = drain(subject, machine).and_then(|()| nobody_else_may_go(subject));
        // Also when that failed: the next test needs the machine.
        subject.world.kubectl().run(&["uncordon", machine])?;
        drained?;
        let seconds = started.elapsed().as_secs();
        subject.world.progress.step(&format!("{machine} was drained in {seconds} s, and is back"));
    }
    subject.until_whole(3, Instant::now(), "every machine was drained")?;
    subject.check(load, 3, "every machine drained in turn")
}

fn drain(subject: &Subject<'_>, machine: &str) -> Result<(), Error> {
    let arguments = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s"];
    subject.world.kubectl().run(&[&["drain", machine], &arguments[..]].concat()).map(drop)
}

/// While a node is away, the budget lets no other one be evicted.
fn nobody_else_may_go(subject: &Subject<'_>) -> Result<(), Error> {
    let pods = subject.read("pods")?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let running: Vec<&str> = pods
        .iter()
        .filter(|pod| pod["status"]["phase"] == "Running")
        .filter_map(|pod| pod["metadata"]["name"].as_str())
        .collect();
    ensure(running.len() == 2, || format!("two nodes run while a machine is drained, not {running:?}"))?;
    for pod in running {
        let refusal = subject.evict(pod).err().map(|error| error.to_string()).unwrap_or_default();
        ensure(refusal.contains("disruption budget"), || {
            format!("the budget should refuse to evict {pod}: {refusal:?}")
        })?;
    }
    Ok(())
}
