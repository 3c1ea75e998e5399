//! Flags, environment and file, as a real start reads them.

use crate::harness::{CLUSTER, Setup, TestCluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn flags_win_over_the_environment_and_that_over_the_file() {
    let mut cluster = TestCluster::without_ring(1, Setup::default());
    let (id, peer) = (CLUSTER.to_string(), cluster.nodes[0].peer());
    let http = peer.replace(":5000", ":7001");
    let (file, secret) = (cluster.dir.path().join("node.yaml"), cluster.dir.path().join("secret"));
    let (data, secret) = (cluster.nodes[0].dir.display().to_string(), secret.display().to_string());
    let yaml = format!(
        "name: from-file\nzone: from-file\nadvertise: {peer}\nsecretFile: {secret}\nseeds: [\"{peer}\"]\n\
         clusterId: {id}\nsegmentSize: 1Mi\nfreeSpaceReserve: 4Mi\ndrainLinger: 0s\nconflicts: last-write-wins\n"
    );
    std::fs::write(&file, yaml).unwrap();
    eventually("the node runs", || async { cluster.status(0).await.is_some() }).await;
    let first = cluster.status(0).await.unwrap().identity.start;
    cluster.nodes[0].kill();
    cluster.nodes[0].configure(
        &["run", "--name", "from-flag"],
        &[
            ("QUORATE_CONFIG", &file.display().to_string()),
            ("QUORATE_DATA_DIR", &data),
            ("QUORATE_PEER_LISTEN", &peer),
            ("QUORATE_HTTP_LISTEN", &http),
            ("QUORATE_NAME", "from-environment"),
            ("QUORATE_ZONE", "from-environment"),
            ("QUORATE_LOG_FORMAT", "json"),
        ],
    );
    cluster.nodes[0].start();
    eventually("the node runs", || async { cluster.status(0).await.is_some() }).await;
    let identity = cluster.status(0).await.unwrap().identity;
    assert_eq!(identity.name, "from-flag");
    assert_eq!(identity.zone.as_deref(), Some("from-environment"));
    assert_eq!(identity.address, peer, "the file's");
    assert!(identity.start > first, "the same disk");
    let log = cluster.nodes[0].log();
    let last = log.lines().last().unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(last).is_ok(), "no JSON: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_an_unknown_key_starts_nothing() {
    let mut cluster = TestCluster::without_ring(1, Setup::default());
    let file = cluster.dir.path().join("node.yaml");
    std::fs::write(&file, "dataDirectory: /tmp\n").unwrap();
    cluster.nodes[0].kill();
    cluster.nodes[0].configure(&["run", "--config", &file.display().to_string()], &[]);
    cluster.nodes[0].start();
    assert_eq!(cluster.nodes[0].ended().await.code(), Some(2), "as for every wrong configuration");
    let said = cluster.nodes[0].log();
    assert!(said.contains("dataDirectory") && said.contains("dataDir"), "{said}");
}
