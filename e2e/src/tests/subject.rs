//! A KVCluster under test, and the clients that work on it meanwhile.

use std::time::Duration;

use serde_json::{Value, json};

use super::World;
use crate::error::{Error, ensure};
use crate::load::{self, Load};
use crate::product;
use crate::run::wait_until;
use crate::store::Store;
use crate::target::Door;
use crate::up::HTTP_PORT;

/// The name of every KVCluster under test.
const NAME: &str = "demo";
/// How many requests of the clients make "goes on".
const PROGRESS_REQUESTS_MIN: u64 = 200;
/// How long a step may take.
const SECONDS_MAX: Duration = Duration::from_secs(240);

pub(super) struct Subject<'a> {
    pub(super) world: &'a World,
    pub(super) namespace: &'a str,
}

impl Subject<'_> {
    /// Makes it with so many nodes, and waits until it serves.
    pub(super) fn make(&self, nodes: u32) -> Result<(), Error> {
        super::namespace::make(&self.world.kubectl(), self.namespace)?;
        let cluster = json!({
            "apiVersion": "quorate.dev/v1alpha1",
            "kind": "KVCluster",
            "metadata": {"name": NAME, "namespace": self.namespace},
            "spec": {
                "nodes": nodes,
                "storage": {"size": "1Gi", "onDelete": "Delete"},
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
            },
        });
        self.world.kubectl().apply(&cluster.to_string())?;
        self.wait_ready()
    }

    pub(super) fn wait_ready(&self) -> Result<(), Error> {
        product::wait_ready(&self.world.kubectl(), self.namespace, NAME, &self.world.progress)
    }

    pub(super) fn patch(&self, spec: &Value) -> Result<(), Error> {
        let patch = json!({"spec": spec}).to_string();
        self.run(&["patch", "kvcluster", NAME, "--type=merge", "--patch", &patch])
    }

    /// kubectl in its namespace.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<(), Error> {
        self.world.kubectl().run(&[&["--namespace", self.namespace], arguments].concat()).map(drop)
    }

    pub(super) fn read(&self, object: &str) -> Result<Value, Error> {
        self.world.kubectl().get(&["--namespace", self.namespace, object])
    }

    pub(super) fn cluster(&self) -> Result<Value, Error> {
        self.read(&format!("kvcluster/{NAME}"))
    }

    /// Waits for something to be true of the KVCluster.
    pub(super) fn until(&self, what: &str, done: impl Fn(&Value) -> bool) -> Result<(), Error> {
        let hint = format!("see kubectl --namespace {} describe kvcluster/{NAME}", self.namespace);
        wait_until(what, SECONDS_MAX, &hint, || Ok(done(&self.cluster()?)))
    }

    /// A way in that stays while pods come and go.
    pub(super) fn service(&self) -> Result<(Door, Store), Error> {
        let door = self.world.target.door(self.namespace, &format!("service/{NAME}"), HTTP_PORT)?;
        let store = Store::new(door.url())?;
        Ok((door, store))
    }

    /// From now on, so many more writes are acknowledged and reads answered.
    pub(super) fn requests_go_on(&self, load: &Load, when: &str) -> Result<(), Error> {
        let start = load.mark();
        let hint = format!("they stand still {when}");
        wait_until(&format!("writes and reads {when}"), SECONDS_MAX, &hint, || {
            let now = load.mark();
            Ok(now.writes >= start.writes + PROGRESS_REQUESTS_MIN
                && now.reads >= start.reads + PROGRESS_REQUESTS_MIN)
        })
    }

    /// Stops the clients, checks every write that was acknowledged through each node, and tells how it went.
    pub(super) fn check(&self, load: Load, nodes: u32, what: &str) -> Result<(), Error> {
        let mark = load.mark();
        let keys = self.world.runtime.block_on(load.finish())?;
        for number in 0..nodes {
            let door = self.world.target.door(self.namespace, &format!("pod/{NAME}-{number}"), HTTP_PORT)?;
            self.world.runtime.block_on(load::check(&Store::new(door.url())?, &keys))?;
        }
        self.world.progress.step(&format!(
            "{what}: {} writes acknowledged, none lost; {} reads; {} requests refused",
            mark.writes, mark.reads, mark.errors
        ));
        Ok(())
    }

    /// Checks that exactly these members are in the ring, by name.
    pub(super) fn expect_members(&self, expected: &[&str]) -> Result<(), Error> {
        let cluster = self.cluster()?;
        let members = cluster["status"]["members"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> = members.iter().filter_map(|member| member["name"].as_str()).collect();
        ensure(names == expected, || format!("the members are {names:?}, not {expected:?}"))
    }
}
