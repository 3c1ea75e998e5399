//! INV-ACK under `kill -9`: every acknowledged write is there afterwards, read through every node.

use reqwest::StatusCode;

use crate::harness::load::{Load, verify};
use crate::harness::{Setup, TestCluster, eventually};

const WRITERS: usize = 8;
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
async fn a_read_repairs_the_replica_that_missed_a_write() {
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
    eventually("the read repairs it", || async {
        assert_eq!(cluster.get(0, "k").await.status(), StatusCode::OK);
        let mut repaired = 0.0;
        for index in 0..3 {
            repaired += cluster.metric(index, "quorate_read_repairs_total", "repaired").await;
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
