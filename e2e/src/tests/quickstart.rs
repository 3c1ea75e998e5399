//! The main job: a KVCluster becomes a ring that keeps every acknowledged write, whichever pod goes away.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::{World, namespace};
use crate::error::{Doing as _, Error, ensure};
use crate::load::{self, Load};
use crate::product::{self, condition};
use crate::run::wait_until;
use crate::store::Store;
use crate::target::{Door, Target};
use crate::up::{HTTP_PORT, RESP_PORT};

/// Two namespaces, each with a KVCluster of the same name.
const NAMESPACES: [&str; 2] = ["e2e-quickstart", "e2e-quickstart-2"];

/// The name of both.
const NAME: &str = "demo";

/// Who may do what in the second of them: everybody may read, and write what the tests write there.
const USERS: &str = r#"users:
  default: {read: [""], write: [neighbour, by-a-redis-client]}
  admin: {password: battery-staple, write: [""]}
"#;

/// How many keys are written through the Service before anything is done to the cluster.
const KEYS: usize = 1000;

/// How many requests of the clients make "goes on".
const PROGRESS_REQUESTS_MIN: u64 = 200;

/// How long a replaced pod, or the operator, may take.
const SECONDS_MAX: Duration = Duration::from_secs(180);

/// Objects that the operator made for a KVCluster. Their versions stay while nothing is done to them.
const OWNED: &str =
    "statefulsets,services,poddisruptionbudgets,serviceaccounts,secrets,networkpolicies,configmaps";

pub(super) fn run(world: &World) -> Result<(), Error> {
    for namespace in NAMESPACES {
        namespace::make(&world.kubectl(), namespace)?;
    }
    world.kubectl().apply(&kvcluster(NAMESPACES[0], json!({})).to_string())?;
    world.kubectl().apply(&users().to_string())?;
    let more = json!({"protocols": {"resp": {"enabled": true}}, "users": {"secretName": "demo-users"}});
    world.kubectl().apply(&kvcluster(NAMESPACES[1], more).to_string())?;
    for namespace in NAMESPACES {
        product::wait_ready(&world.kubectl(), namespace, NAME, &world.progress)?;
    }
    zones(world)?;
    let keys = written_and_read_everywhere(world)?;
    side_by_side(world, &keys)?;
    written_by_a_redis_client(world)?;
    rights(world)?;
    pod_deleted_under_load(world)?;
    operator_deleted(world)?;
    change_refused(world)?;
    every_key_everywhere(world, NAMESPACES[0], &keys)?;
    world.target.helm(&world.progress)?.test(product::RELEASE, product::NAMESPACE)?;
    NAMESPACES.iter().try_for_each(|namespace| namespace::remove(&world.kubectl(), namespace))
}

/// A KVCluster with these fields of the spec more than the least.
fn kvcluster(namespace: &str, more: Value) -> Value {
    let mut cluster = json!({
        "apiVersion": "quorate.dev/v1alpha1",
        "kind": "KVCluster",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {
            "nodes": 3,
            "storage": {"size": "1Gi", "onDelete": "Delete"},
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        },
    });
    if let (Some(spec), Value::Object(more)) = (cluster["spec"].as_object_mut(), more) {
        spec.extend(more);
    }
    cluster
}

fn users() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "demo-users", "namespace": NAMESPACES[1]},
        "stringData": {"users.yaml": USERS},
    })
}

/// The three nodes are in three zones, and the ring knows it.
fn zones(world: &World) -> Result<(), Error> {
    let cluster = read(world, &format!("kvcluster/{NAME}"))?;
    let members = cluster["status"]["members"].as_array().cloned().unwrap_or_default();
    let mut zones: Vec<&str> = members.iter().filter_map(|member| member["zone"].as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    ensure(members.len() == 3 && zones.len() == 3, || {
        format!("three members in three zones, not {members:?}")
    })
}

fn written_and_read_everywhere(world: &World) -> Result<Vec<String>, Error> {
    let (door, store) = service(world, NAMESPACES[0])?;
    let keys = world.runtime.block_on(load::write(&store, "quickstart", KEYS))?;
    drop(door);
    every_key_everywhere(world, NAMESPACES[0], &keys)?;
    world.progress.step(&format!("{KEYS} keys written through the Service and read through every node"));
    Ok(keys)
}

/// Through each node itself, not through the Service, which would pick one.
fn every_key_everywhere(world: &World, namespace: &str, keys: &[String]) -> Result<(), Error> {
    for number in 0..3 {
        let door = world.target.door(namespace, &format!("pod/{NAME}-{number}"), HTTP_PORT)?;
        world.runtime.block_on(load::check(&Store::new(door.url())?, keys))?;
    }
    Ok(())
}

/// The second cluster of the same name knows nothing of the first one's keys, and is another cluster.
fn side_by_side(world: &World, keys: &[String]) -> Result<(), Error> {
    let (_door, store) = service(world, NAMESPACES[1])?;
    let foreign = keys.first().map_or("", String::as_str);
    let values = world.runtime.block_on(store.get(foreign))?;
    ensure(values.is_empty(), || {
        format!("{foreign} of {} is in {}: {values:?}", NAMESPACES[0], NAMESPACES[1])
    })?;
    let own = world.runtime.block_on(load::write(&store, "neighbour", 50))?;
    every_key_everywhere(world, NAMESPACES[1], &own)?;
    let id = |namespace: &str| -> Result<Value, Error> {
        let cluster = world.kubectl().get(&["--namespace", namespace, "kvcluster", NAME])?;
        Ok(cluster["status"]["ring"]["clusterId"].clone())
    };
    let (one, other) = (id(NAMESPACES[0])?, id(NAMESPACES[1])?);
    ensure(one.is_string() && one != other, || format!("two clusters, one identity: {one} and {other}"))
}

/// The second cluster serves Redis clients too, and what one of them writes is there for everybody.
fn written_by_a_redis_client(world: &World) -> Result<(), Error> {
    let door = world.target.door(NAMESPACES[1], &format!("service/{NAME}"), RESP_PORT)?;
    let key = "by-a-redis-client".to_owned();
    let value = load::value_of(&key);
    let request = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len());
    let mut answer = [0; 5];
    let asked = TcpStream::connect(door.url().trim_start_matches("http://")).and_then(|mut stream| {
        stream.set_read_timeout(Some(SECONDS_MAX))?;
        stream.write_all(request.as_bytes())?;
        stream.read_exact(&mut answer)
    });
    asked.doing(|| format!("writing {key} as Redis clients do"))?;
    ensure(&answer == b"+OK\r\n", || format!("SET was answered {:?}", String::from_utf8_lossy(&answer)))?;
    every_key_everywhere(world, NAMESPACES[1], &[key])
}

/// The second cluster has users: whoever says no name may not write everything, and one with a password may.
fn rights(world: &World) -> Result<(), Error> {
    let (_door, store) = service(world, NAMESPACES[1])?;
    let admin = store.as_user("admin", "battery-staple");
    let put = |store: &Store| world.runtime.block_on(store.put("of-the-admin", "1"));
    for (store, refusal) in [(&store, "forbidden"), (&store.as_user("admin", "guessed"), "unauthorized")] {
        match put(store) {
            Ok(()) => return Err(Error::Unexpected(format!("a write that is {refusal} was acknowledged"))),
            Err(error) => ensure(error.to_string().contains(refusal), || format!("{error}, not {refusal}"))?,
        }
    }
    put(&admin)
}

/// A pod is deleted while clients write: writes and reads go on, and every acknowledged write is in every node.
fn pod_deleted_under_load(world: &World) -> Result<(), Error> {
    // A forwarded port leads to one pod for good, and must not lead to the one that goes.
    let entrance = match world.target {
        Target::BuiltIn(_) => format!("service/{NAME}"),
        Target::Context(_) => format!("pod/{NAME}-0"),
    };
    let door = world.target.door(NAMESPACES[0], &entrance, HTTP_PORT)?;
    let store = Store::new(door.url())?;
    let load = Load::start(&world.runtime, &store, "load")?;
    requests_go_on(&load, "before the pod is deleted")?;
    let pod = format!("pod/{NAME}-1");
    let before = read(world, &pod)?["metadata"]["uid"].clone();
    world.kubectl().run(&["--namespace", NAMESPACES[0], "delete", &pod, "--wait=false"])?;
    let gone = || Ok(read(world, &pod).map_or(true, |now| now["metadata"]["uid"] != before));
    wait_until(&format!("{pod} to go"), SECONDS_MAX, "it may not stop", gone)?;
    requests_go_on(&load, "while the pod is gone")?;
    let back =
        || Ok(read(world, &pod).is_ok_and(|now| now["metadata"]["uid"] != before && pod_is_ready(&now)));
    wait_until(&format!("{pod} to be ready again"), SECONDS_MAX, "see its log", back)?;
    product::wait_ready(&world.kubectl(), NAMESPACES[0], NAME, &world.progress)?;
    requests_go_on(&load, "after the pod is back")?;
    let (keys, mark) = world.runtime.block_on(load.finish())?;
    every_key_everywhere(world, NAMESPACES[0], &keys)?;
    world.progress.step(&format!(
        "a pod deleted under load: {} writes acknowledged, none lost; {} reads; {} requests failed",
        mark.writes, mark.reads, mark.failed
    ));
    let first = mark.first_failure.unwrap_or_default();
    ensure(mark.failed == 0, || format!("{} requests failed; the first: {first}", mark.failed))
}

/// From now on, so many more writes are acknowledged and reads answered.
fn requests_go_on(load: &Load, when: &str) -> Result<(), Error> {
    let start = load.mark();
    let hint = format!("they stand still {when}");
    wait_until(&format!("writes and reads {when}"), SECONDS_MAX, &hint, || {
        let now = load.mark();
        Ok(now.writes >= start.writes + PROGRESS_REQUESTS_MIN
            && now.reads >= start.reads + PROGRESS_REQUESTS_MIN)
    })
}

/// The operator's pods are deleted: others come and find nothing to do.
fn operator_deleted(world: &World) -> Result<(), Error> {
    let versions = versions(world)?;
    let kubectl = world.kubectl();
    let selector = "--selector=app.kubernetes.io/name=quorate-operator";
    let pods = ["--namespace", product::NAMESPACE, "pods", selector];
    let uids = |list: &Value| -> Vec<String> {
        list["items"].as_array().into_iter().flatten().map(|pod| pod["metadata"]["uid"].to_string()).collect()
    };
    let before = uids(&kubectl.get(&pods)?);
    ensure(!before.is_empty(), || "the operator has no pods".to_owned())?;
    kubectl.run(&["--namespace", product::NAMESPACE, "delete", "pods", selector, "--wait=true"])?;
    wait_until("the operator to be back", SECONDS_MAX, "see its pods", || {
        let list = kubectl.get(&pods)?;
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let fresh = uids(&list).iter().all(|uid| !before.contains(uid));
        Ok(fresh && all.len() == before.len() && all.iter().all(pod_is_ready))
    })?;
    new_leader_reconciles(world)?;
    let after = self::versions(world)?;
    ensure(versions == after, || format!("a new operator changed something:\n{versions:#?}\n{after:#?}"))?;
    world.progress.step("the operator's pods deleted: nothing changed");
    Ok(())
}

/// The new leader is known to work when it answers a change: it reports about the newest spec.
fn new_leader_reconciles(world: &World) -> Result<(), Error> {
    pause(world, true)?;
    wait_until("the new operator to report the pause", SECONDS_MAX, "see its log", || {
        Ok(read(world, &format!("kvcluster/{NAME}"))?["status"]["phase"] == "Paused")
    })?;
    pause(world, false)?;
    product::wait_ready(&world.kubectl(), NAMESPACES[0], NAME, &world.progress)
}

fn pause(world: &World, paused: bool) -> Result<(), Error> {
    let patch = json!({"spec": {"paused": paused}}).to_string();
    patch_kvcluster(world, &patch)
}

/// A change of the quorums, which are fixed for the life of a ring, is refused by the status and not half made.
fn change_refused(world: &World) -> Result<(), Error> {
    let before = versions(world)?;
    patch_kvcluster(world, r#"{"spec": {"replication": {"readQuorum": 1, "writeQuorum": 3}}}"#)?;
    let object = format!("kvcluster/{NAME}");
    wait_until("the status to refuse the change", SECONDS_MAX, "see the KVCluster", || {
        let cluster = read(world, &object)?;
        Ok(cluster["status"]["phase"] == "Refused"
            && cluster["status"]["observedGeneration"] == cluster["metadata"]["generation"])
    })?;
    let cluster = read(world, &object)?;
    let says = |kind: &str| {
        condition(&cluster, kind).and_then(|found| found["message"].as_str()).unwrap_or("").to_owned()
    };
    let sentences = [says("Ready"), says("Progressing"), says("Degraded")].join(" ");
    ensure(sentences.contains("readQuorum"), || {
        format!("no condition says why: {}", cluster["status"]["conditions"])
    })?;
    ensure(cluster["status"]["readyNodes"] == 3, || {
        format!("three nodes serve on, not {}", cluster["status"])
    })?;
    let after = versions(world)?;
    ensure(before == after, || format!("a refused change was made in part:\n{before:#?}\n{after:#?}"))?;
    patch_kvcluster(world, r#"{"spec": {"replication": {"readQuorum": 2, "writeQuorum": 2}}}"#)?;
    product::wait_ready(&world.kubectl(), NAMESPACES[0], NAME, &world.progress)
}

fn patch_kvcluster(world: &World, patch: &str) -> Result<(), Error> {
    let arguments =
        ["--namespace", NAMESPACES[0], "patch", "kvcluster", NAME, "--type=merge", "--patch", patch];
    world.kubectl().run(&arguments).map(drop)
}

/// What everything of the KVCluster is: names, incarnations and versions, its pods included. What Kubernetes itself
/// writes into a status must not count, so for what has a generation that is the version.
fn versions(world: &World) -> Result<Vec<String>, Error> {
    let selector = format!("--selector=app.kubernetes.io/instance={NAME}");
    let mut all = Vec::new();
    for kinds in [OWNED, "pods"] {
        let list = world.kubectl().get(&["--namespace", NAMESPACES[0], kinds, &selector])?;
        all.extend(list["items"].as_array().into_iter().flatten().map(version));
    }
    all.sort();
    ensure(all.len() > 3, || format!("the operator's objects cannot be found: {all:?}"))?;
    Ok(all)
}

fn version(object: &Value) -> String {
    let metadata = &object["metadata"];
    let version = match object["kind"].as_str() {
        Some("Pod") => &Value::Null,
        _ if metadata["generation"].is_number() => &metadata["generation"],
        _ => &metadata["resourceVersion"],
    };
    format!("{} {} {} {version}", object["kind"], metadata["name"], metadata["uid"])
}

fn read(world: &World, object: &str) -> Result<Value, Error> {
    world.kubectl().get(&["--namespace", NAMESPACES[0], object])
}

fn service(world: &World, namespace: &str) -> Result<(Door, Store), Error> {
    let door = world.target.door(namespace, &format!("service/{NAME}"), HTTP_PORT)?;
    let store = Store::new(door.url())?;
    Ok((door, store))
}

fn pod_is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
}
