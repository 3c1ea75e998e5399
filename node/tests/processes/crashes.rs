//! INV-ACK under `kill -9`: every acknowledged write is there afterwards, read through every node.

use std::path::Path;
use std::time::Duration;

use quorate_core::NodeId;
use quorate_core::ring::Replication;
use reqwest::StatusCode;

use crate::harness::load::{Load, verify};
use crate::harness::{Setup, TestCluster, eventually};

const WRITERS: usize = 8;
/// How often one node is killed while it is alone.
const KILLS: usize = 300;
/// The longest time that it lives in between, its start included.
const LIFE_MAX: Duration = Duration::from_millis(250);
/// Acknowledged writes before and after each blow.
const PROGRESS: usize = 100;

async fn verify_through_all(cluster: &TestCluster, written: &[crate::harness::load::Written]) {
    for through in 0..cluster.nodes.len() {
        verify(cluster, through, written).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_killed_under_load() {
    let mut cluster = TestCluster::start(Setup::default()).await;
    let load = Load::start(&cluster, WRITERS);
    load.progress(PROGRESS).await;
    cluster.nodes[0].kill();
    load.progress(PROGRESS).await; // Two of three serve on.
    cluster.nodes[0].start();
    cluster.whole().await;
    load.progress(PROGRESS).await;
    let written = load.finish().await;
    verify_through_all(&cluster, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_killed_under_load() {
    let mut cluster = TestCluster::start(Setup::default()).await;
    let load = Load::start(&cluster, WRITERS);
    load.progress(PROGRESS).await;
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    // One of three is no quorum. Until the others are called down a write may end as indeterminate; then it is
    // refused before anything is written.
    eventually("writes are refused", || async {
        cluster.put(0, "probe", "x").await.status() == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    let refused: serde_json::Value = cluster.put(0, "refused", "x").await.json().await.unwrap();
    assert_eq!(refused["error"]["code"], "unavailable", "{refused}");
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.whole().await;
    load.progress(PROGRESS).await;
    let written = load.finish().await;
    verify_through_all(&cluster, &written).await;
    assert_eq!(cluster.get(0, "refused").await.status(), StatusCode::NOT_FOUND, "refused means not written");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_at_once_under_load() {
    let mut cluster = TestCluster::start(Setup::default()).await;
    let load = Load::start(&cluster, WRITERS);
    for _ in 0..3 {
        load.progress(PROGRESS).await;
        cluster.nodes.iter_mut().for_each(|node| node.kill());
        cluster.nodes.iter_mut().for_each(|node| node.start());
        cluster.whole().await;
    }
    load.progress(PROGRESS).await;
    let written = load.finish().await;
    verify_through_all(&cluster, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_missed_a_write_is_brought_up_to_date() {
    let mut cluster = TestCluster::start(Setup::default()).await;
    assert_eq!(cluster.put(0, "k", "old").await.status(), StatusCode::NO_CONTENT);
    cluster.nodes[2].kill();
    let seen = cluster.get(0, "k").await.headers()["quorate-context"].clone();
    let write = cluster.http.put(cluster.nodes[0].kv("k")).header("quorate-context", seen).body("new");
    eventually("a write without the third", || async {
        write.try_clone().unwrap().send().await.unwrap().status() == StatusCode::NO_CONTENT
    })
    .await;
    cluster.nodes[2].start();
    cluster.whole().await;
    // By the read, unless the comparison that follows a node's return was faster.
    eventually("it is repaired", || async {
        assert_eq!(cluster.get(0, "k").await.status(), StatusCode::OK);
        let mut repaired = 0.0;
        for index in 0..3 {
            repaired += cluster.metric(index, "quorate_read_repairs_total", "repaired").await;
            repaired += cluster.metric(index, "quorate_anti_entropy_keys_total", "in").await;
        }
        repaired >= 1.0
    })
    .await;
    // Now the repaired one and one other are enough to read the new value, whoever is asked.
    cluster.nodes[0].kill();
    for through in [1, 2] {
        eventually("the new value without the first", || async {
            let answer = cluster.get(through, "k").await;
            answer.status() == StatusCode::OK && answer.text().await.unwrap() == "new"
        })
        .await;
    }
}

/// Nobody else has a copy: what the log loses is lost. It is killed while it serves, while it recovers, and before.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_hundreds_of_times_keeps_every_acknowledged_write() {
    let mut cluster = TestCluster::without_ring(1, Setup::default());
    cluster.make_ring_of(Replication { factor: 1, read_quorum: 1, write_quorum: 1 }).await;
    cluster.whole().await;
    let load = Load::start(&cluster, WRITERS / 2);
    load.progress(PROGRESS).await;
    for kill in 0..KILLS {
        let life = LIFE_MAX.mul_f64(rand::random());
        tokio::time::sleep(life).await; // The moment is what is random here, nothing is waited for.
        cluster.nodes[0].kill();
        cluster.nodes[0].start();
        if kill % 10 == 0 {
            load.progress(PROGRESS).await;
        }
    }
    cluster.whole().await;
    load.progress(PROGRESS).await;
    let written = load.finish().await;
    assert!(
        written.iter().map(|writer| writer.keys.len()).sum::<usize>() > KILLS,
        "hardly anything was written"
    );
    verify(&cluster, 0, &written).await;
}

/// How far `node`'s log reached at least, as another node has it on its disk.
fn remembered_position(of: &Path, node: NodeId) -> Option<u64> {
    let text = std::fs::read_to_string(of.join("starts.json")).ok()?;
    let starts: serde_json::Value = serde_json::from_str(&text).ok()?;
    starts[node.to_string()]["position"].as_u64()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// INV-AMNESIA: a backup of the whole disk, put back while the node's peers know later data of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_put_back_to_an_earlier_state_becomes_a_new_node() {
    let mut cluster = TestCluster::start(Setup::default()).await;
    let node = cluster.status(2).await.unwrap().identity.node_id;
    cluster.put(0, "before", "x").await;
    cluster.nodes[2].kill();
    let (disk, backup) = (cluster.nodes[2].dir.clone(), cluster.dir.path().join("backup"));
    copy(&disk, &backup);
    cluster.nodes[2].start();
    cluster.whole().await;
    // What it said when it claimed its start is where the backup ends.
    let witnesses = [cluster.nodes[0].dir.clone(), cluster.nodes[1].dir.clone()];
    let remembered =
        || witnesses.iter().map(|witness| remembered_position(witness, node)).collect::<Vec<_>>();
    let ends = remembered();
    let load = Load::start(&cluster, WRITERS);
    eventually("both others have on disk that it went on", || async {
        load.progress(1).await;
        remembered().iter().zip(&ends).all(|(now, then)| now.is_some() && now > then)
    })
    .await;
    cluster.nodes[2].kill();
    std::fs::remove_dir_all(&disk).unwrap();
    copy(&backup, &disk);
    cluster.nodes[2].start();
    assert_eq!(cluster.nodes[2].ended().await.code(), Some(1), "it must not speak for its node again");
    let said = cluster.nodes[2].log();
    assert!(said.contains("this disk went back in time") && said.contains(&node.to_string()), "{said}");
    let aside =
        std::fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.starts_with("gone-")).count(), 1);

    cluster.nodes[2].start();
    eventually("it is another node", || async {
        cluster.status(2).await.is_some_and(|status| status.identity.node_id != node)
    })
    .await;
    let written = load.finish().await;
    verify(&cluster, 0, &written).await;
    assert_eq!(cluster.get(1, "before").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sloppy_quorum_writes_on_with_hints_and_delivers_them() {
    let options = ["--quorum", "sloppy", "--detect-after", "2s"].map(str::to_owned).to_vec();
    let mut cluster = TestCluster::without_ring(4, Setup { options, ..Setup::default() });
    cluster.make_ring().await;
    cluster.whole().await;
    cluster.nodes[3].kill();
    let urls: Vec<_> =
        (0..20).map(|key| format!("{}?w=all", cluster.nodes[0].kv(&format!("k{key}")))).collect();
    let mut sloppy = 0;
    for url in &urls {
        eventually("all replicas, or who stands in for them", || async {
            cluster.http.put(url).body("x").send().await.unwrap().status() == StatusCode::NO_CONTENT
        })
        .await;
        let again = cluster.http.put(url).body("x").send().await.unwrap();
        let quorum = again.headers()["quorate-quorum"].to_str().unwrap();
        assert_eq!(quorum == "sloppy", again.headers().contains_key("quorate-hints"));
        sloppy += usize::from(quorum == "sloppy");
    }
    assert!(sloppy > 0, "of 20 keys some belong to the node that is away");
    cluster.nodes[3].start();
    cluster.whole().await;
    eventually("every hint is delivered", || async {
        let (mut delivered, mut owed) = (0.0, 0.0);
        for index in 0..3 {
            delivered += cluster.metric(index, "quorate_hints_total", "delivered").await;
            owed += cluster.metric(index, "quorate_hints_owed", "").await;
        }
        delivered > 0.0 && owed == 0.0
    })
    .await;
}
