//! Changes of the pods under load: of the configuration, and to images that do not run, and back.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::World;
use super::namespace;
use super::subject::Subject;
use crate::error::{Error, ensure};
use crate::product::condition;
use crate::target::Target;
use crate::tools::TOOLBOX_IMAGE;

const NAMESPACE: &str = "e2e-rolling-change";

/// The first to be restarted.
const FIRST: &str = "demo-2";

pub(super) fn run(world: &World) -> Result<(), Error> {
    // A forwarded port leads to one pod for good, and each pod goes here.
    let Target::BuiltIn(_) = world.target else { return Ok(()) };
    let subject = Subject { world, namespace: NAMESPACE };
    subject.make(3)?;
    configured(&subject)?;
    broken_and_mended(&subject)?;
    namespace::remove(&world.kubectl(), NAMESPACE)
}

/// A changed setting restarts every node.
fn configured(subject: &Subject<'_>) -> Result<(), Error> {
    let (_door, load) = subject.load("configured")?;
    let before = pods(subject)?;
    let started = Instant::now();
    subject.patch(&json!({"sync": {"antiEntropyInterval": "30s"}}))?;
    subject.until("the change to be through", is_through)?;
    subject.until_whole(3, started, "the configuration was changed")?;
    let after = pods(subject)?;
    let restarted =
        before.iter().filter(|(name, uid)| after.get(*name).is_some_and(|now| now != *uid)).count();
    ensure(restarted == 3, || format!("every node should have been restarted: {before:?}, then {after:?}"))?;
    subject.check(load, 3, "the configuration changed")
}

/// An image that does not exist, then one that crashes, then the old one: the change stops at the first node, which is
/// mended first each time, and the others never notice.
fn broken_and_mended(subject: &Subject<'_>) -> Result<(), Error> {
    let (_door, load) = subject.load("broken")?;
    let before = pods(subject)?;
    halts_with(subject, "quorate/node", "no-such-tag")?;
    let (repository, tag) = TOOLBOX_IMAGE.split_once(':').unwrap_or((TOOLBOX_IMAGE, ""));
    halts_with(subject, repository, tag)?;
    let started = Instant::now();
    subject.patch(&json!({"image": null}))?;
    subject.until("the old image to be back", is_through)?;
    subject.until_whole(3, started, "the image was written back")?;
    let after = pods(subject)?;
    let restarted: Vec<&String> =
        before.keys().filter(|name| before.get(*name) != after.get(*name)).collect();
    ensure(restarted == [FIRST], || format!("{FIRST} alone should have been replaced, not {restarted:?}"))?;
    subject.check(load, 3, "two broken images, and back")
}

/// The status says that the change is halted, and the pod that halts it is one of this image.
fn halts_with(subject: &Subject<'_>, repository: &str, tag: &str) -> Result<(), Error> {
    let started = Instant::now();
    subject.patch(&json!({"image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}}))?;
    let image = format!("{repository}:{tag}");
    subject.until(&format!("the change to {image} to be halted"), |cluster| {
        let degraded = condition(cluster, "Degraded");
        let pod = subject.read(&format!("pod/{FIRST}")).unwrap_or_default();
        is_current(cluster)
            && degraded.is_some_and(|found| found["reason"] == "RolloutHalted")
            && pod["spec"]["containers"][0]["image"] == image
    })?;
    let seconds = started.elapsed().as_secs();
    subject.world.progress.step(&format!("{image} was halted at {FIRST} after {seconds} s"));
    Ok(())
}

fn is_current(cluster: &Value) -> bool {
    cluster["status"]["observedGeneration"] == cluster["metadata"]["generation"]
}

fn is_through(cluster: &Value) -> bool {
    is_current(cluster) && cluster["status"]["phase"] == "Ready"
}

/// The pods' names and incarnations.
fn pods(subject: &Subject<'_>) -> Result<BTreeMap<String, String>, Error> {
    let list = subject.read("pods")?;
    let pods = list["items"].as_array().into_iter().flatten();
    let text = |pod: &Value, key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
    Ok(pods.map(|pod| (text(pod, "name"), text(pod, "uid"))).collect())
}
