//! What the node tells Prometheus. No key and no client is ever a label: label values are bounded.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use quorate_admin::types::{Health, StorageState};
use quorate_replica::MemberStatus;
use quorate_storage::{Observer, Usage};

use crate::status::Status;

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
    pub(crate) refused_connections: IntCounterVec,
    pub(crate) users_reloads: IntCounterVec,
    pub(crate) resp_connections: IntGauge,
    members: IntGaugeVec,
    epoch: IntGauge,
    epoch_oldest: IntGauge,
    partitions_unretired: IntGauge,
    partitions_syncing: IntGauge,
    partitions_leaving: IntGauge,
    ring_change_remaining: IntGauge,
    ready: IntGauge,
    partitions: IntGauge,
    partitions_at_quorum: IntGauge,
    partitions_in_full: IntGauge,
    keys: IntGauge,
    log_bytes: IntGauge,
    dead_bytes: IntGauge,
    free_bytes: IntGauge,
    storage_writable: IntGauge,
    claimed: IntGauge,
    operations: IntGauge,
    hints_owed: IntGauge,
    hint_bytes: IntGauge,
    hints_oldest: Gauge,
    peer_latency: GaugeVec,
    peer_skew: GaugeVec,
    peer_synced: GaugeVec,
    peer_flaps: GaugeVec,
    fsync_seconds: Histogram,
    group_writes: Histogram,
    /// What the replica counts, in the order of [`COUNTED`].
    counted: Vec<IntCounter>,
}

/// A count that the replica keeps: the series, and where it stands.
struct Counted {
    name: &'static str,
    help: &'static str,
    label: Option<(&'static str, &'static str)>,
    read: fn(&Status) -> u64,
}

const fn counted(
    name: &'static str,
    help: &'static str,
    label: Option<(&'static str, &'static str)>,
    read: fn(&Status) -> u64,
) -> Counted {
    Counted { name, help, label, read }
}

const ACKS: &str = "quorate_replica_acks_total";
const ACKS_HELP: &str = "Replies of owners to this coordinator's writes, by outcome.";
const REPAIRS: &str = "quorate_read_repairs_total";
const REPAIRS_HELP: &str = "Owners that replied to a read with less, and were brought up to date or not.";

const EXCHANGES: &str = "quorate_anti_entropy_exchanges_total";
const EXCHANGES_HELP: &str = "Comparisons of all that is shared with another owner, by outcome.";
const SYNC_KEYS: &str = "quorate_anti_entropy_keys_total";
const SYNC_KEYS_HELP: &str = "Keys that anti-entropy moved, by direction.";
const SYNC_BYTES: &str = "quorate_anti_entropy_bytes_total";
const SYNC_BYTES_HELP: &str = "Bytes of sets that anti-entropy moved, by direction.";

const HINTS: &str = "quorate_hints_total";
const HINTS_HELP: &str = "Hints by what became of them: found at the start, stored, delivered and so on.";

/// One line a count.
#[rustfmt::skip]
const COUNTED: &[Counted] = &[
    counted("quorate_forwarded_writes_total", "Writes handed to an owner to coordinate.", None, |s| s.stats.writes_forwarded),
    counted(ACKS, ACKS_HELP, Some(("outcome", "acknowledged")), |s| s.stats.parts_acknowledged),
    counted(ACKS, ACKS_HELP, Some(("outcome", "refused")), |s| s.stats.parts_refused),
    counted(ACKS, ACKS_HELP, Some(("outcome", "unreachable")), |s| s.stats.parts_unreachable),
    counted(ACKS, ACKS_HELP, Some(("outcome", "lost")), |s| s.stats.parts_lost),
    counted(REPAIRS, REPAIRS_HELP, Some(("outcome", "repaired")), |s| s.stats.read_repairs_done),
    counted(REPAIRS, REPAIRS_HELP, Some(("outcome", "failed")), |s| s.stats.read_repairs_failed),
    counted("quorate_hedged_reads_total", "Reads that asked one more owner because another was slow.", None, |s| s.stats.hedges),
    counted("quorate_digest_mismatches_total", "Reads whose owners did not agree.", None, |s| s.stats.digest_mismatches),
    counted("quorate_sloppy_writes_total", "Writes that were acknowledged with the help of hints.", None, |s| s.stats.sloppy_writes),
    counted("quorate_sibling_warnings_total", "Writes that left a key with many concurrent values.", None, |s| s.stats.sibling_warnings),
    counted("quorate_clock_ahead_total", "Stamps of other nodes that were too far in the future to be believed.", None, |s| s.stats.clock_ahead),
    counted("quorate_stale_messages_total", "Messages that were too old to be taken.", None, |s| s.stats.stale_messages),
    counted("quorate_gossip_refused_total", "Gossip that made no sense.", None, |s| s.stats.gossip_refused),
    counted(EXCHANGES, EXCHANGES_HELP, Some(("outcome", "finished")), |s| s.stats.exchanges_finished),
    counted(EXCHANGES, EXCHANGES_HELP, Some(("outcome", "failed")), |s| s.stats.exchanges_failed),
    counted("quorate_anti_entropy_differing_keys_total", "Keys in which this node and another owner differed.", None, |s| s.stats.exchange_differing),
    counted(SYNC_KEYS, SYNC_KEYS_HELP, Some(("direction", "in")), |s| s.stats.exchange_keys_pulled),
    counted(SYNC_KEYS, SYNC_KEYS_HELP, Some(("direction", "out")), |s| s.stats.exchange_keys_pushed),
    counted(SYNC_BYTES, SYNC_BYTES_HELP, Some(("direction", "in")), |s| s.stats.exchange_bytes_in),
    counted(SYNC_BYTES, SYNC_BYTES_HELP, Some(("direction", "out")), |s| s.stats.exchange_bytes_out),
    counted("quorate_partitions_left_total", "Partitions that this node lost and began to delete, since every new owner was proven to have them.", None, |s| s.stats.partitions_left),
    counted("quorate_requests_rerouted_total", "Requests that a replica refused because the ring changes, and that were routed again.", None, |s| s.stats.rerouted),
    counted("quorate_partitions_healed_total", "Partitions that got back from other owners what rotted here.", None, |s| s.stats.partitions_healed),
    counted(HINTS, HINTS_HELP, Some(("event", "recovered")), |s| s.hints.recovered),
    counted(HINTS, HINTS_HELP, Some(("event", "stored")), |s| s.hints.written),
    counted(HINTS, HINTS_HELP, Some(("event", "delivered")), |s| s.hints.delivered),
    counted(HINTS, HINTS_HELP, Some(("event", "superseded")), |s| s.hints.superseded),
    counted(HINTS, HINTS_HELP, Some(("event", "handed_over")), |s| s.hints.handed_over),
    counted(HINTS, HINTS_HELP, Some(("event", "lost")), |s| s.hints.lost),
    counted(HINTS, HINTS_HELP, Some(("event", "refused")), |s| s.hints.refused),
    counted("quorate_collection_rounds_total", "Times that this node asked all owners whether tombstones may go.", None, |s| s.stats.collection_rounds),
    counted("quorate_collection_rounds_incomplete_total", "Those in which somebody did not answer.", None, |s| s.stats.collection_rounds_incomplete),
    counted("quorate_tombstones_cleared_total", "Tombstones that all owners were told may go.", None, |s| s.stats.tombstones_cleared),
    counted("quorate_tombstones_forgotten_total", "Tombstones that went from this node.", None, |s| s.stats.tombstones_forgotten),
];

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
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(r, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let by_peer = |name: &str, help: &str| register(r, GaugeVec::new(Opts::new(name, help), &["peer"]));
        let seconds = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        let sizes = |name: &str, help: &str| {
            HistogramOpts::new(name, help)
                .buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0])
        };
        let metrics = Self {
            requests: counters(
                "quorate_requests_total",
                "Client requests by protocol, operation and outcome.",
                &["protocol", "operation", "outcome"],
            ),
            request_seconds: register(
                r,
                HistogramVec::new(
                    seconds("quorate_request_duration_seconds", "Time to answer a client request."),
                    &["protocol", "operation"],
                ),
            ),
            requests_in_progress: gauge(
                "quorate_requests_in_progress",
                "Client requests that are being worked on.",
            ),
            refused_connections: counters(
                "quorate_refused_connections_total",
                "Connections closed because of what came over them, by listener.",
                &["listener"],
            ),
            users_reloads: counters(
                "quorate_users_reloads_total",
                "Times that the file of users was read and had changed, or could not be used.",
                &["outcome"],
            ),
            resp_connections: gauge("quorate_resp_connections", "Connections of Redis clients."),
            members: register(
                r,
                IntGaugeVec::new(
                    Opts::new("quorate_members", "Nodes by what this node believes of them."),
                    &["state"],
                ),
            ),
            epoch: gauge("quorate_epoch", "The number of the ring's newest epoch, 0 for none."),
            epoch_oldest: gauge(
                "quorate_epoch_oldest_live",
                "The number of the oldest epoch that is live: less than the newest while the ring changes.",
            ),
            partitions_unretired: gauge(
                "quorate_partitions_unretired",
                "Partitions of which an older epoch is live too, so that their writes go to the owners of both.",
            ),
            partitions_syncing: gauge(
                "quorate_partitions_syncing",
                "Partitions that this node gains and does not have in full yet.",
            ),
            partitions_leaving: gauge(
                "quorate_partitions_leaving",
                "Partitions that this node lost and keeps until their new owners are proven to have them.",
            ),
            ring_change_remaining: gauge(
                "quorate_ring_change_remaining_seconds",
                "How long the partitions that this node gains will take, if they come like those before.",
            ),
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
            claimed: gauge(
                "quorate_claimed",
                "Whether a majority of members confirmed that this disk did not go back in time.",
            ),
            operations: gauge(
                "quorate_operations_in_progress",
                "Operations, calls to peers and repairs that this node works on.",
            ),
            hints_owed: gauge("quorate_hints_owed", "Hints that this node keeps for others."),
            hint_bytes: gauge("quorate_hint_bytes", "Bytes of the hints that this node keeps for others."),
            hints_oldest: register(
                r,
                Gauge::new(
                    "quorate_hints_oldest_timestamp_seconds",
                    "When the oldest hint that this node keeps was stored, 0 for none.",
                ),
            ),
            peer_latency: by_peer("quorate_peer_latency_seconds", "Smoothed time until a peer answers."),
            peer_skew: by_peer(
                "quorate_peer_clock_skew_seconds",
                "How far a peer's clock is ahead of this node's; negative when it is behind.",
            ),
            peer_synced: by_peer(
                "quorate_peer_last_full_sync_timestamp_seconds",
                "When all that is shared with a peer was last found, or made, equal.",
            ),
            peer_flaps: by_peer("quorate_peer_flaps", "How often a peer was down and came back."),
            counted: COUNTED
                .iter()
                .map(|Counted { name, help, label, .. }| {
                    let opts = Opts::new(*name, *help);
                    let opts =
                        label.iter().fold(opts, |opts, (label, value)| opts.const_label(*label, *value));
                    register(r, IntCounter::with_opts(opts))
                })
                .collect(),
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
        for listener in ["http", "resp", "admin", "peer"] {
            metrics.refused_connections.with_label_values(&[listener]);
        }
        let build = Opts::new("quorate_build_info", "The program's version; always 1.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        register(r, IntGauge::with_opts(build)).set(1);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("the process collector's names are its own");
        Arc::new(Self { registry, ..metrics })
    }

    /// Takes over what the replica and the storage say of themselves.
    pub(crate) fn update(&self, status: &Status, health: &Health, usage: &Usage) {
        for (series, Counted { read, .. }) in self.counted.iter().zip(COUNTED) {
            // Two readings may come in any order; a counter never falls.
            series.inc_by(read(status).saturating_sub(series.get()));
        }
        self.ready.set(health.ready.into());
        self.claimed.set(status.claimed.into());
        self.operations.set(status.in_progress as i64);
        self.epoch.set(status.epoch.as_ref().map_or(0, |epoch| epoch.number() as i64));
        self.epoch_oldest.set(status.ring.oldest as i64);
        self.partitions_unretired.set(status.ring.unretired as i64);
        self.partitions_syncing.set(status.ring.syncing as i64);
        self.partitions_leaving.set(status.ring.leaving as i64);
        let remaining = status.ring.remaining.unwrap_or_default();
        self.ring_change_remaining.set(i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX));
        self.partitions.set(health.partitions.into());
        self.partitions_at_quorum.set(health.partitions_at_quorum.into());
        self.partitions_in_full.set(health.partitions_in_full.into());
        self.keys.set(usage.keys as i64);
        self.log_bytes.set(usage.log_bytes as i64);
        self.dead_bytes.set(usage.dead_bytes as i64);
        self.free_bytes.set(usage.free_bytes as i64);
        self.storage_writable.set((health.storage == StorageState::Writable).into());
        for (state, count) in status.counts() {
            self.members.with_label_values(&[state]).set(count);
        }
        let owed = || status.owed.values();
        let oldest_unix_ms = owed().filter_map(|owed| owed.oldest_unix_ms).min().unwrap_or(0);
        self.hints_owed.set(owed().map(|owed| owed.hints).sum::<u64>() as i64);
        self.hint_bytes.set(owed().map(|owed| owed.bytes).sum::<u64>() as i64);
        self.hints_oldest.set(oldest_unix_ms as f64 / 1000.0);
        self.update_peers(&status.members);
    }

    fn update_peers(&self, members: &[MemberStatus]) {
        let all = [&self.peer_latency, &self.peer_skew, &self.peer_synced, &self.peer_flaps];
        all.iter().for_each(|series| series.reset()); // Those that are gone have none.
        for MemberStatus { view, latency, last_full_sync_unix_ms, .. } in members {
            let name = view.node.name.as_str();
            let set = |series: &GaugeVec, value: Option<f64>| {
                if let Some(value) = value {
                    series.with_label_values(&[name]).set(value);
                }
            };
            set(&self.peer_latency, latency.map(|latency| latency.as_secs_f64()));
            set(&self.peer_skew, view.skew_ms.map(|ms| ms as f64 / 1000.0));
            set(&self.peer_synced, last_full_sync_unix_ms.map(|ms| ms as f64 / 1000.0));
            set(&self.peer_flaps, Some(f64::from(view.flaps)));
        }
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
