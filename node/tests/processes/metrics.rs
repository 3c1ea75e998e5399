//! What Prometheus gets to see.

use reqwest::StatusCode;

use crate::harness::{Setup, TestCluster};

/// A key, and a value, that nothing else contains.
const SECRET_WORD: &str = "rumpelstiltskin";

#[tokio::test(flavor = "multi_thread")]
async fn every_promised_series_is_there_and_no_key_is() {
    let cluster = TestCluster::start(Setup::default()).await;
    for through in 0..3 {
        let key = format!("{SECRET_WORD}-{through}");
        assert_eq!(cluster.put(through, &key, SECRET_WORD).await.status(), StatusCode::NO_CONTENT);
        assert_eq!(cluster.get(0, &key).await.status(), StatusCode::OK);
    }
    cluster.get(0, "nothing").await;
    let text = cluster.metrics(0).await;
    for series in [
        "quorate_requests_total{operation=\"get\",outcome=\"ok\",protocol=\"http\"} 3",
        "quorate_requests_total{operation=\"get\",outcome=\"not_found\",protocol=\"http\"} 1",
        "quorate_requests_total{operation=\"put\",outcome=\"ok\",protocol=\"http\"} 1",
        "quorate_request_duration_seconds_bucket{operation=\"put\",protocol=\"http\",le=",
        "quorate_requests_in_progress 0",
        "quorate_resp_connections 0",
        "quorate_replica_acks_total{outcome=\"acknowledged\"}",
        "quorate_fsync_duration_seconds_count",
        "quorate_members{state=\"up\"} 3",
        "quorate_members{state=\"suspect\"} 0",
        "quorate_members{state=\"down\"} 0",
        "quorate_members{state=\"left\"} 0",
        "quorate_epoch 1",
        "quorate_ready 1",
        "quorate_partitions 64",
        "quorate_partitions_at_quorum 64",
        "quorate_partitions_in_full 64",
        "quorate_read_repairs_total{outcome=\"repaired\"}",
        "quorate_storage_writable 1",
        "quorate_claimed 1",
        "quorate_hedged_reads_total",
        "quorate_sloppy_writes_total 0",
        "quorate_anti_entropy_bytes_total{direction=\"in\"}",
        "quorate_tombstones_forgotten_total 0",
        "quorate_peer_latency_seconds{peer=\"node-1\"}",
        "quorate_peer_flaps{peer=\"node-2\"} 0",
        "quorate_build_info{version=",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(text.lines().any(|line| line.starts_with(series)), "no {series} in\n{text}");
    }
    assert!(!text.contains(SECRET_WORD), "a key or a value is in\n{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split([' ', '{']).next().unwrap();
        assert!(name.starts_with("quorate_") || name.starts_with("process_"), "{name}");
        let described = |base: &str| text.contains(&format!("# HELP {base} "));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(described(name) || base.is_some_and(described), "{name} has no help");
    }
}
