//! A KVCluster under test, and the clients that work on it meanwhile.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::World;
use crate::error::{Error, ensure};
use crate::load::{self, Load};
use crate::product;
use crate::run::{run_with_input, wait_until};
use crate::store::Store;
use crate::target::Door;
use crate::up::{HTTP_PORT, PEER_PORT};
use crate::vitals::Vitals;

/// The name of every KVCluster under test.
const NAME: &str = "demo";
/// How many requests of the clients make "goes on".
const PROGRESS_REQUESTS_MIN: u64 = 200;
/// How long a step may take.
pub(super) const SECONDS_MAX: Duration = Duration::from_secs(240);

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

    /// Sets the number of nodes, and waits until the ring is whole with so many, and no others.
    pub(super) fn scale(&self, nodes: u32) -> Result<(), Error> {
        let started = Instant::now();
        self.run(&["scale", "kvcluster", NAME, &format!("--replicas={nodes}")])?;
        self.until_resized(nodes, started)
    }

    /// The same, by a HorizontalPodAutoscaler, which is gone afterwards. It goes to the least that it is allowed without
    /// measuring anything.
    pub(super) fn autoscale(&self, nodes: u32) -> Result<(), Error> {
        let started = Instant::now();
        let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
        let autoscaler = json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": NAME, "namespace": self.namespace},
            "spec": {
                "scaleTargetRef": {"apiVersion": "quorate.dev/v1alpha1", "kind": "KVCluster", "name": NAME},
                "minReplicas": nodes,
                "maxReplicas": nodes,
                "metrics": [{"type": "Resource", "resource": cpu}],
            },
        });
        self.world.kubectl().apply(&autoscaler.to_string())?;
        self.until("the autoscaler to ask for nodes", |cluster| cluster["spec"]["nodes"] == nodes)?;
        self.run(&["delete", "horizontalpodautoscaler", NAME])?;
        self.until_resized(nodes, started)
    }

    fn until_resized(&self, nodes: u32, started: Instant) -> Result<(), Error> {
        self.until(&format!("{nodes} nodes"), |cluster| {
            product::is_ready(cluster)
                && cluster["status"]["readyNodes"] == nodes
                && cluster["status"]["nodes"] == nodes
                && cluster["status"]["ring"]["transition"].is_null()
        })?;
        self.expect_members(nodes)?;
        self.until_whole(nodes, started, &format!("{nodes} nodes were asked for"))
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

    /// Asks to evict a pod, as a drain of its machine does.
    pub(super) fn evict(&self, pod: &str) -> Result<(), Error> {
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", self.namespace);
        let kubectl = self.world.kubectl();
        run_with_input(&mut kubectl.command(&["create", "--raw", &path, "-f", "-"]), &eviction.to_string())
            .map(drop)
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

    /// Starts clients that come through the Service.
    pub(super) fn load(&self, prefix: &str) -> Result<(Door, Load), Error> {
        let (door, store) = self.service()?;
        let load = Load::start(&self.world.runtime, &store, prefix)?;
        self.requests_go_on(&load, "before anything is done")?;
        Ok((door, load))
    }

    /// Waits until so many nodes are a whole ring, by what they say themselves, and tells how long that took.
    pub(super) fn until_whole(&self, nodes: u32, since: Instant, after: &str) -> Result<(), Error> {
        let mut lack = String::new();
        let whole = wait_until("the ring to be whole", SECONDS_MAX, "", || {
            lack = (0..nodes).find_map(|number| self.lack(number)).unwrap_or_default();
            Ok(lack.is_empty())
        });
        whole.map_err(|error| Error::Unexpected(format!("{after}: {error}{lack}")))?;
        self.world
            .progress
            .step(&format!("{after}: the ring is whole {} s later", since.elapsed().as_secs()));
        Ok(())
    }

    fn lack(&self, number: u32) -> Option<String> {
        let pod = format!("{NAME}-{number}");
        let vitals = self
            .world
            .target
            .door(self.namespace, &format!("pod/{pod}"), PEER_PORT)
            .and_then(|door| self.world.runtime.block_on(Vitals::read(door.url())));
        vitals
            .map_or_else(|error| Some(error.to_string()), |vitals| vitals.lack())
            .map(|lack| format!("{pod}: {lack}"))
    }

    /// Stops the clients, checks every write that was acknowledged, by a quorum through one of the nodes and then on each
    /// replica, tells how it went, and checks that no request failed.
    pub(super) fn check(&self, load: Load, nodes: u32, what: &str) -> Result<(), Error> {
        let (keys, mark) = self.world.runtime.block_on(load.finish())?;
        for number in 0..nodes {
            let door = self.world.target.door(self.namespace, &format!("pod/{NAME}-{number}"), HTTP_PORT)?;
            let share = keys.iter().skip(number as usize).step_by(nodes as usize);
            let share: Vec<String> = share.cloned().collect();
            self.world.runtime.block_on(load::check(&Store::new(door.url())?, &share))?;
        }
        let mut late = 0;
        for number in 0..nodes {
            let door = self.world.target.door(self.namespace, &format!("pod/{NAME}-{number}"), HTTP_PORT)?;
            late += self.world.runtime.block_on(load::check_copies(&Store::new(door.url())?, &keys))?;
        }
        self.world.progress.step(&format!(
            "{what}: {} writes acknowledged, all of them on every replica ({late} copies came late); {} reads; {} requests \
             failed, {} repeated, {} connections not opened",
            mark.writes, mark.reads, mark.failed, mark.repeated, mark.unopened,
        ));
        let first = mark.first_failure.unwrap_or_default();
        ensure(mark.failed == 0, || format!("{what}: {} requests failed; the first: {first}", mark.failed))
    }

    /// Checks that exactly so many members are in the ring, those with the lowest numbers.
    fn expect_members(&self, nodes: u32) -> Result<(), Error> {
        let cluster = self.cluster()?;
        let members = cluster["status"]["members"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> = members.iter().filter_map(|member| member["name"].as_str()).collect();
        let expected: Vec<String> = (0..nodes).map(|number| format!("{NAME}-{number}")).collect();
        ensure(names == expected, || format!("the members are {names:?}, not {expected:?}"))
    }
}
