//! What the node tells Prometheus. No key and no client is ever a label: label values are bounded.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use quorate_storage::Observer;

/// Latency buckets in seconds: 50 µs to 10 s.
const BUCKETS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0,
];

/// Every series of the node.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: IntCounterVec,
    pub(crate) request_seconds: HistogramVec,
    pub(crate) requests_in_progress: IntGauge,
    pub(crate) replica_acks: IntCounterVec,
    pub(crate) read_repairs: IntCounterVec,
    pub(crate) forwarded: IntCounter,
    pub(crate) refused_connections: IntCounterVec,
    pub(crate) clock_ahead: IntCounter,
    pub(crate) sibling_warnings: IntCounter,
    pub(crate) members: IntGaugeVec,
    pub(crate) epoch: IntGauge,
    pub(crate) ready: IntGauge,
    pub(crate) partitions: IntGauge,
    pub(crate) partitions_at_quorum: IntGauge,
    pub(crate) partitions_in_full: IntGauge,
    pub(crate) keys: IntGauge,
    pub(crate) log_bytes: IntGauge,
    pub(crate) dead_bytes: IntGauge,
    pub(crate) free_bytes: IntGauge,
    pub(crate) storage_writable: IntGauge,
    fsync_seconds: Histogram,
    group_writes: Histogram,
}

/// Makes a series and registers it. Names are fixed here, so a clash is a defect that the first start shows.
fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let collector = made.expect("the names and labels below are valid");
    registry.register(Box::new(collector.clone())).expect("each name below is used once");
    collector
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        let registry = Registry::new();
        let r = &registry;
        let gauge = |name: &str, help: &str| register(r, IntGauge::new(name, help));
        let counter = |name: &str, help: &str| register(r, IntCounter::new(name, help));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(r, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let seconds = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        let sizes = |name: &str, help: &str| {
            HistogramOpts::new(name, help)
                .buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0])
        };
        let metrics = Self {
            requests: counters(
                "quorate_requests_total",
                "Client requests by operation and outcome.",
                &["operation", "outcome"],
            ),
            request_seconds: register(
                r,
                HistogramVec::new(
                    seconds("quorate_request_duration_seconds", "Time to answer a client request."),
                    &["operation"],
                ),
            ),
            requests_in_progress: gauge(
                "quorate_requests_in_progress",
                "Client requests that are being worked on.",
            ),
            replica_acks: counters(
                "quorate_replica_acks_total",
                "Replies of owners to this coordinator's writes, by outcome.",
                &["outcome"],
            ),
            read_repairs: counters(
                "quorate_read_repairs_total",
                "Sets sent to owners that replied to a read with less, by outcome.",
                &["outcome"],
            ),
            forwarded: counter("quorate_forwarded_writes_total", "Writes handed to an owner to coordinate."),
            refused_connections: counters(
                "quorate_refused_connections_total",
                "Connections closed because of what came over them, by listener.",
                &["listener"],
            ),
            clock_ahead: counter(
                "quorate_clock_ahead_total",
                "Stamps of other nodes that were too far in the future to be believed.",
            ),
            sibling_warnings: counter(
                "quorate_sibling_warnings_total",
                "Writes that left a key with many concurrent values.",
            ),
            members: register(
                r,
                IntGaugeVec::new(
                    Opts::new("quorate_members", "Nodes by what this node believes of them."),
                    &["state"],
                ),
            ),
            epoch: gauge("quorate_epoch", "The number of the ring's epoch, 0 for none."),
            ready: gauge("quorate_ready", "Whether the ring serves through this node."),
            partitions: gauge("quorate_partitions", "Partitions of the ring."),
            partitions_at_quorum: gauge(
                "quorate_partitions_at_quorum",
                "Partitions of which a read and a write quorum of owners is up, as this node sees them.",
            ),
            partitions_in_full: gauge(
                "quorate_partitions_in_full",
                "Partitions of which every owner is up, as this node sees them.",
            ),
            keys: gauge("quorate_keys", "Keys stored on this node, tombstones included."),
            log_bytes: gauge("quorate_log_bytes", "Bytes of this node's log."),
            dead_bytes: gauge(
                "quorate_log_dead_bytes",
                "Bytes of the log that newer records made superfluous.",
            ),
            free_bytes: gauge("quorate_disk_free_bytes", "Free bytes on this node's disk."),
            storage_writable: gauge("quorate_storage_writable", "Whether this node's storage takes writes."),
            fsync_seconds: register(
                r,
                Histogram::with_opts(seconds(
                    "quorate_fsync_duration_seconds",
                    "Time to sync one group of writes.",
                )),
            ),
            group_writes: register(
                r,
                Histogram::with_opts(sizes("quorate_group_writes", "Writes that shared one sync.")),
            ),
            registry: Registry::new(),
        };
        // A series that appears with its first event has no rate for it: what alerts watch is there from the start.
        for outcome in ["acknowledged", "refused", "unreachable", "lost", "timeout"] {
            metrics.replica_acks.with_label_values(&[outcome]);
        }
        for outcome in ["repaired", "failed"] {
            metrics.read_repairs.with_label_values(&[outcome]);
        }
        for listener in ["http", "admin", "peer"] {
            metrics.refused_connections.with_label_values(&[listener]);
        }
        let build = Opts::new("quorate_build_info", "The program's version; always 1.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        register(r, IntGauge::with_opts(build)).set(1);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("the process collector's names are its own");
        Arc::new(Self { registry, ..metrics })
    }

    /// The exposition text.
    pub(crate) fn encode(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Observer for Metrics {
    fn synced(&self, took: Duration) {
        self.fsync_seconds.observe(took.as_secs_f64());
    }

    fn group(&self, writes: usize, _bytes: usize) {
        self.group_writes.observe(writes as f64);
    }
}
