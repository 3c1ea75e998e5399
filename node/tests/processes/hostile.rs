//! What a node meets besides good clients: garbage, strangers, a full disk.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use quorate_admin::types::StorageState;
use reqwest::StatusCode;

use crate::harness::{DEADLINE, SECRET, Setup, TestCluster, eventually};

/// Bytes that a node may grow by while it is sent garbage.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// Bytes that a node may hold while clients ask for more than they fetch: the room for replies, their encodings,
/// and what is on its way.
const ANSWERS_BYTES_MAX: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn garbage_closes_the_connection_and_nothing_else() {
    let mut cluster = TestCluster::start(Setup::default()).await;
    let host = cluster.nodes[0].host.clone();
    let before = cluster.nodes[0].resident_bytes();
    let huge_frame = [b"QRT\x02", &u32::MAX.to_le_bytes()[..], &[0xff; 1000]].concat();
    let garbage: [&[u8]; 6] = [
        &[0xff; 4096],
        b"QUIT\r\n",
        &huge_frame,
        b"QRT\x02\x05\x00\x00\x00abcde",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for port in [5000, 7001, 7002] {
        for bytes in garbage.iter().cycle().take(200) {
            let mut stream = TcpStream::connect((host.as_str(), port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let _ = stream.write_all(bytes); // It may close before it has read all.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            // Closed, with or without an error answer; a connection left open would time out here.
            match stream.read_to_end(&mut Vec::new()) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
            }
        }
    }
    assert!(cluster.nodes[0].is_running());
    let growth = cluster.nodes[0].resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes");
    assert!(cluster.metric(0, "quorate_refused_connections_total", "peer").await >= 100.0);
    let log = cluster.nodes[0].log();
    assert!(log.contains("closed a peer connection") && !log.contains("panicked"));
    assert_eq!(cluster.put(0, "k", "x").await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_does_not_hold_a_connection() {
    let cluster = TestCluster::start(Setup::default()).await;
    let host = cluster.nodes[0].host.clone();
    let open = |port: u16, said: &[u8]| {
        let mut stream = TcpStream::connect((host.as_str(), port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(said).unwrap();
        stream
    };
    // Nothing, what may become HTTP/2, half a head; and a good client that keeps its connection for later.
    let request = b"GET /v1/kv/k HTTP/1.1\r\nHost: x\r\n\r\n";
    let said: [&[u8]; 4] = [b"", b"PRI * HTTP/2.0\r\n", b"GET /v1/kv/k HT", request];
    let streams = [7001, 5000].into_iter().flat_map(|port| said.map(|said| open(port, said)));
    let redis: [&[u8]; 3] = [b"", b"PING", b"*2\r\n$3\r\nGET\r\n$10\r\nk"];
    for mut stream in streams.chain(redis.map(|said| open(7002, said))).collect::<Vec<_>>() {
        // A connection that is held would time out here.
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    for listener in ["http", "resp", "admin", "peer"] {
        let refused = cluster.metric(0, "quorate_refused_connections_total", listener).await;
        assert_eq!(refused, 0.0, "{listener}: falling silent is no offence");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_fetches_are_bounded() {
    const VALUE_BYTES: usize = 4 << 20;
    let cluster = TestCluster::start(Setup::default()).await;
    for _ in 0..3 {
        assert_eq!(cluster.put(0, "k", vec![7; VALUE_BYTES]).await.status(), StatusCode::NO_CONTENT);
    }
    let read = || async {
        let request = cluster.http.get(cluster.nodes[0].kv("k")).header("accept", "application/json");
        request.send().await.unwrap()
    };
    let mut held = Vec::new();
    eventually("reads are told to come back", || {
        // A client that asks, and does not fetch what it asked for.
        let mut stream = TcpStream::connect((cluster.nodes[0].host.as_str(), 7001)).unwrap();
        stream.write_all(b"GET /v1/kv/k HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n").unwrap();
        held.push(stream);
        async {
            let answer = read().await;
            answer.status() == StatusCode::SERVICE_UNAVAILABLE
                && answer.text().await.unwrap().contains("busy")
        }
    })
    .await;
    assert!(cluster.nodes[0].resident_bytes() < ANSWERS_BYTES_MAX);
    drop(held);
    eventually("reads are answered again", || async {
        read().await.status() == StatusCode::MULTIPLE_CHOICES
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_secret_only_health_and_metrics_answer() {
    let cluster = TestCluster::start(Setup::default()).await;
    let http = &cluster.http;
    for path in ["/v1/status", "/v1/identity", "/v1/members", "/v1/health", "/v1/epoch", "/v1/nothing", "/"] {
        let url = cluster.nodes[0].admin_url(path);
        assert_eq!(http.get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{path}");
        let wrong = http.get(&url).bearer_auth("wrong").send().await.unwrap();
        assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED, "{path}");
        let right = http.get(&url).bearer_auth(SECRET).send().await.unwrap().status();
        let known = path.starts_with("/v1/") && path != "/v1/nothing";
        assert_eq!(right, if known { StatusCode::OK } else { StatusCode::NOT_FOUND }, "{path}");
    }
    let push = http.put(cluster.nodes[0].admin_url("/v1/epoch")).body("{}").send().await.unwrap();
    assert_eq!(push.status(), StatusCode::UNAUTHORIZED);
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = http.get(cluster.nodes[0].admin_url(path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_secret_stays_outside() {
    let mut cluster = TestCluster::start(Setup::default()).await;
    cluster.nodes[2].kill();
    std::fs::write(cluster.dir.path().join("secret"), "another-secret-than-the-others").unwrap();
    cluster.nodes[2].start();
    eventually("it is turned away", || async {
        cluster.nodes[0].log().contains("does not know this cluster's secret")
    })
    .await;
    std::fs::write(cluster.dir.path().join("secret"), SECRET).unwrap();
    cluster.nodes[2].kill();
    cluster.nodes[2].start();
    cluster.whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_contradicts_the_known_one_is_refused() {
    let cluster = TestCluster::start(Setup::default()).await;
    let address = cluster.nodes[0].peer();
    let known = cluster.admin.epoch(&address).await.unwrap().unwrap();
    let mut other = serde_json::to_value(&known).unwrap();
    other["members"][0]["name"] = "somebody-else".into();
    let other = serde_json::from_value(other).unwrap();
    assert!(cluster.admin.push_epoch(&address, &other).await.unwrap_err().is_epoch_conflict());
    assert_eq!(cluster.admin.push_epoch(&address, &known).await.unwrap(), known.mark());
    let url = cluster.nodes[0].admin_url("/v1/epoch");
    let broken = cluster.http.put(url).bearer_auth(SECRET).body("{\"schema\": 1}").send().await.unwrap();
    assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_reads_on_and_recovers_by_itself() {
    // A file system of its own for each node, in a mount namespace that ends with the process.
    let cluster = TestCluster::start(Setup { disk_mib: Some(48), ..Setup::default() }).await;
    let start = cluster.status(0).await.unwrap().identity.start;
    let ballast = |index: usize| cluster.nodes[index].inside().join("lost+found");
    assert_eq!(cluster.put(0, "before", "kept").await.status(), StatusCode::NO_CONTENT);
    for index in 0..3 {
        // Written until the file system says no: really full, the reserve included.
        let mut file = std::fs::File::create(ballast(index)).unwrap();
        while file.write_all(&[0; 64 * 1024]).is_ok() {}
    }
    eventually("writes are refused as storage_full", || async {
        let answer = cluster.put(0, "refused", "x").await;
        answer.status() == StatusCode::INSUFFICIENT_STORAGE
            && answer.text().await.unwrap().contains("storage_full")
    })
    .await;
    let answer = cluster.get(1, "before").await;
    assert_eq!((answer.status(), answer.text().await.unwrap()), (StatusCode::OK, "kept".to_owned()));
    assert_eq!(cluster.status(0).await.unwrap().health.storage, StorageState::Full);
    for index in 0..3 {
        std::fs::remove_file(ballast(index)).unwrap();
    }
    eventually("writes are taken again", || async {
        cluster.put(0, "after", "x").await.status() == StatusCode::NO_CONTENT
    })
    .await;
    assert_eq!(cluster.status(0).await.unwrap().identity.start, start, "without a restart");
    assert_eq!(cluster.get(2, "before").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_full_disk_of_three_is_no_outage() {
    let cluster = TestCluster::start(Setup { disk_mib: Some(48), ..Setup::default() }).await;
    let mut file = std::fs::File::create(cluster.nodes[0].inside().join("lost+found")).unwrap();
    while file.write_all(&[0; 64 * 1024]).is_ok() {}
    eventually("the first node's storage is full", || async {
        cluster.put(0, "probe", "x").await;
        cluster.status(0).await.unwrap().health.storage == StorageState::Full
    })
    .await;
    for number in 0..30 {
        let answer = cluster.put(0, &format!("k{number}"), "x").await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT, "the two others are a quorum");
    }
}
