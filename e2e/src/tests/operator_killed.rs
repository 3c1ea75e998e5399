//! The operator and what it talks to go away under load: its leader is killed again and again while the ring grows and
//! shrinks, and then the API server is down for a minute.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::World;
use super::namespace;
use super::subject::Subject;
use crate::cluster::Cluster;
use crate::error::{Error, ensure};
use crate::product;
use crate::run::wait_until;
use crate::target::Target;

const NAMESPACE: &str = "e2e-operator-killed";

/// Who leads is written there.
const LEASE: &str = "leases/quorate-operator";

/// How long a leader lives.
const LIFE: Duration = Duration::from_secs(3);

/// How long another may take to lead after it.
const SUCCESSION_SECONDS_MAX: Duration = Duration::from_secs(60);

/// How long the API server is down.
const OUTAGE: Duration = Duration::from_secs(60);

pub(super) fn run(world: &World) -> Result<(), Error> {
    // A person's own operator and API server are left alone.
    let Target::BuiltIn(cluster) = &world.target else { return Ok(()) };
    let subject = Subject { world, namespace: NAMESPACE };
    subject.make(3)?;
    killed_while_the_ring_changes(&subject)?;
    without_an_api_server(&subject, cluster)?;
    namespace::remove(&world.kubectl(), NAMESPACE)
}

fn killed_while_the_ring_changes(subject: &Subject<'_>) -> Result<(), Error> {
    let (_door, load) = subject.load("killed")?;
    let stop = AtomicBool::new(false);
    let (changed, kills) = thread::scope(|scope| {
        let killer = scope.spawn(|| kill_leaders(subject.world, &stop));
        let changed = subject.scale(5).and_then(|()| subject.scale(3));
        stop.store(true, Ordering::Relaxed);
        (changed, killer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    changed?;
    let kills = kills?;
    subject.world.progress.step(&format!("{kills} leaders were killed meanwhile"));
    ensure(kills > 2, || format!("only {kills} leaders were killed while the ring changed"))?;
    subject.check(load, 3, "3 nodes, 5 nodes, 3 nodes, while operators were killed")
}

/// Kills whoever leads, some seconds after it began. Returns how many.
fn kill_leaders(world: &World, stop: &AtomicBool) -> Result<usize, Error> {
    let kubectl = world.kubectl();
    let leader = || -> Result<Option<String>, Error> {
        let lease = kubectl.get(&["--namespace", product::NAMESPACE, LEASE])?;
        Ok(lease["spec"]["holderIdentity"].as_str().map(str::to_owned))
    };
    let (mut last, mut kills) = (None, 0);
    loop {
        wait_until("another operator to lead", SUCCESSION_SECONDS_MAX, "see the operator's pods", || {
            Ok(stop.load(Ordering::Relaxed) || leader()?.is_some_and(|now| Some(&now) != last.as_ref()))
        })?;
        last = leader()?;
        let dies = Instant::now() + LIFE;
        wait_until("a leader's time", SUCCESSION_SECONDS_MAX, "", || {
            Ok(stop.load(Ordering::Relaxed) || Instant::now() >= dies)
        })?;
        if stop.load(Ordering::Relaxed) {
            return Ok(kills);
        }
        let pod = last.as_deref().unwrap_or_default();
        let how = ["--force", "--grace-period=0", "--ignore-not-found"];
        kubectl.run(&[&["--namespace", product::NAMESPACE, "delete", "pod", pod], &how[..]].concat())?;
        kills += 1;
    }
}

/// Nodes ask nobody but each other.
fn without_an_api_server(subject: &Subject<'_>, cluster: &Cluster) -> Result<(), Error> {
    let (_door, load) = subject.load("outage")?;
    cluster.stop_api_server()?;
    let stopped = Instant::now();
    let served = wait_until("the minute to be over", 2 * OUTAGE, "", || {
        subject.requests_go_on(&load, "without an API server")?;
        Ok(stopped.elapsed() >= OUTAGE)
    });
    // Also when that failed: everything else needs it.
    cluster.start_api_server()?;
    served?;
    let started = Instant::now();
    subject.until_whole(3, started, "the API server is back")?;
    operator_works(subject)?;
    let seconds = started.elapsed().as_secs();
    subject.world.progress.step(&format!("the operator works {seconds} s after the API server is back"));
    subject.requests_go_on(&load, "with the API server again")?;
    subject.check(load, 3, "the API server down for a minute")
}

/// It does when it answers a change.
fn operator_works(subject: &Subject<'_>) -> Result<(), Error> {
    subject.patch(&json!({"paused": true}))?;
    subject.until("the operator to report the pause", |cluster| cluster["status"]["phase"] == "Paused")?;
    subject.patch(&json!({"paused": false}))?;
    subject.wait_ready()
}
