//! Start, stop, join, leave, and the ring that `dev` makes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use quorate_admin::types::Liveness;
use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::load::{Load, verify};
use crate::harness::{CLUSTER, DEADLINE, Setup, TestCluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_loses_nothing_and_tells_the_peers() {
    let mut cluster = TestCluster::start(Setup::default()).await;
    let load = Load::start(&cluster, 8);
    load.progress(100).await;
    cluster.nodes[2].terminate();
    assert!(cluster.nodes[2].ended().await.success());
    let status = cluster.status(0).await.unwrap();
    let left = status.members.members.iter().find(|member| member.name == "node-2").unwrap();
    assert_eq!(left.liveness, Liveness::Left, "it said goodbye, nobody had to find out");
    load.progress(100).await;
    cluster.nodes[2].start();
    cluster.whole().await;
    let written = load.finish().await;
    for through in 0..3 {
        verify(&cluster, through, &written).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_closes_kept_connections_after_an_answer_that_says_so() {
    let mut cluster = TestCluster::start(Setup::default()).await;
    let node = &mut cluster.nodes[2];
    node.kill();
    node.set_flag("--drain-linger", "10m");
    node.start();
    cluster.whole().await;
    let node = &cluster.nodes[2];
    let mut connection = BufReader::new(TcpStream::connect((node.host.as_str(), 7001)).unwrap());
    connection.get_ref().set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(!get_says_close(&mut connection), "a node that goes on keeps its connections");
    node.terminate();
    let deadline = Instant::now() + DEADLINE;
    while !get_says_close(&mut connection) {
        assert!(Instant::now() < deadline, "the node never says goodbye");
    }
    assert_eq!(connection.read(&mut [0]).unwrap(), 0, "and then it closes");
    let mut another = BufReader::new(TcpStream::connect((node.host.as_str(), 7001)).unwrap());
    another.get_ref().set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(get_says_close(&mut another), "who has not heard yet is still served, once");
}

/// Asks for a key that is not there. Whether the answer is the connection's last.
fn get_says_close(connection: &mut BufReader<TcpStream>) -> bool {
    connection.get_mut().write_all(b"HEAD /v1/kv/nothing HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let lines = connection.by_ref().lines().map(|line| line.unwrap().to_ascii_lowercase());
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    assert!(head[0].contains(" 404 "), "{head:?}");
    head.iter().any(|line| line == "connection: close")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_called_down_and_up_again() {
    let mut cluster =
        TestCluster::start(Setup { options: options(&["--detect-after", "2s"]), ..Setup::default() }).await;
    cluster.nodes[1].kill();
    let sees = async |cluster: &TestCluster, liveness| {
        let status = cluster.status(0).await.unwrap();
        status.members.members.iter().any(|member| member.name == "node-1" && member.liveness == liveness)
    };
    eventually("it is called down", || sees(&cluster, Liveness::Down)).await;
    let health = cluster.status(0).await.unwrap().health;
    assert!(
        health.ready && health.partitions_in_full == 0 && health.partitions_at_quorum == health.partitions
    );
    assert_eq!(cluster.metric(0, "quorate_members", "down").await, 1.0);
    cluster.nodes[1].start();
    eventually("it is called up", || sees(&cluster, Liveness::Up)).await;
}

/// What a node must have before an epoch may name it: nothing of it waits for an epoch.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_reach_each_other_before_an_epoch_names_them() {
    let cluster = TestCluster::without_ring(3, Setup::default());
    for index in 0..3 {
        eventually("it reaches both others", || async {
            let Some(status) = cluster.status(index).await else { return false };
            status.members.members.iter().filter(|member| member.is_reached()).count() == 2
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_without_a_ring_are_alive_but_not_ready() {
    let cluster = TestCluster::without_ring(3, Setup::default());
    let get = async |url: String| cluster.http.get(url).send().await.ok();
    let admin = |path: &str| cluster.nodes[1].admin_url(path);
    eventually("it is alive", || async { get(admin("/healthz")).await.is_some() }).await;
    let ready = get(admin("/readyz")).await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().await.unwrap().contains("waiting for the first epoch"));
    let refused = cluster.put(1, "k", "x").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.text().await.unwrap().contains("not_ready"));

    // One push is enough: the others hear of it through gossip.
    for index in 0..3 {
        eventually("it answers and knows the others", || async {
            cluster.status(index).await.is_some_and(|status| status.members.members.len() == 3)
        })
        .await;
    }
    let epoch = cluster.make_ring().await;
    assert_eq!(cluster.admin.epoch(&cluster.nodes[0].peer()).await.unwrap(), Some(epoch));
    cluster.whole().await;
    assert_eq!(get(admin("/readyz")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_another_cluster_is_refused() {
    let mut cluster = TestCluster::start(Setup::default()).await;
    cluster.nodes[0].kill();
    cluster.nodes[0].set_flag("--cluster-id", "00000000-0000-0000-0000-0000000000c2");
    cluster.nodes[0].start();
    assert_eq!(cluster.nodes[0].ended().await.code(), Some(1));
    let said = cluster.nodes[0].log();
    assert!(said.contains(&format!("belongs to cluster {CLUSTER}")), "{said}");
}

#[test]
fn a_wrong_configuration_is_told_all_its_mistakes() {
    let run = Command::new(env!("CARGO_BIN_EXE_quorate-node"))
        .args(["run", "--advertise", "nowhere", "--detect-after", "1ms"])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    let said = String::from_utf8(run.stderr).unwrap();
    for part in [
        "data-dir is missing",
        "cluster-id is missing",
        "secret-file is missing",
        "\"nowhere\"",
        "detect-after",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_is_a_ring_that_one_command_starts_and_ctrl_c_stops() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_ports();
    let mut dev = Command::new(env!("CARGO_BIN_EXE_quorate-node"))
        .args(["dev", "--http-port", &port.to_string(), "--peer-port", &(port + 3).to_string()])
        .args(["--resp-port", &(port + 6).to_string()])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines().map(Result::unwrap);
    let write = lines.find(|line| line.trim_start().starts_with("write")).expect("it says how to write");
    let url = write.split_whitespace().last().unwrap().to_owned();
    let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
    assert_eq!(http.put(&url).body("hello").send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let redis = lines.find(|line| line.trim_start().starts_with("redis")).expect("and how with redis-cli");
    assert!(redis.contains(&format!("redis-cli -p {} GET greeting", port + 6)), "{redis}");
    let other = url.replace(&port.to_string(), &(port + 1).to_string());
    assert_eq!(http.get(other).send().await.unwrap().text().await.unwrap(), "hello");
    kill_process(Pid::from_child(&dev), Signal::INT).unwrap();
    assert!(dev.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its data is thrown away");
}

fn options(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// The first of nine ports that nobody listens on now.
fn free_ports() -> u16 {
    let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    (20_000..30_000).step_by(9).find(|&first| (first..first + 9).all(free)).expect("nine free ports")
}
