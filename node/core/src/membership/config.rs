//! How fast: every interval follows from how soon a crash shall be noticed.

use std::time::Duration;

/// The shortest and the longest detection that can be asked for.
const DETECT_AFTER_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

/// The pace of the protocol.
///
/// A crash is noticed within `detect_after` at the 99th percentile in clusters of up to twenty nodes: a few
/// probe intervals until somebody probes the dead node, one until that probe has failed, four to seven of
/// suspicion. Larger clusters take longer, with the logarithm of their size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// The longest wait between two tries to reach the seeds while no other node is known.
    pub(super) detect_after: Duration,
    /// One probe each.
    pub(super) probe_interval: Duration,
    /// How long the direct answer may take before helpers are asked.
    pub(super) probe_timeout: Duration,
    /// How long a helper waits before it says that there was no answer.
    pub(super) relay_timeout: Duration,
    /// Between two rounds of gossip, while there are news.
    pub(super) gossip_interval: Duration,
    /// How long a node may stay suspect when enough others suspect it too.
    pub(super) suspicion_min: Duration,
    /// How long when nobody else does.
    pub(super) suspicion_max: Duration,
    /// Between two exchanges of whole views, in a small cluster.
    pub(super) exchange_interval: Duration,
    /// Between two tries to reach a node that is down.
    pub(super) revive_interval: Duration,
    /// The longest wait between two tries to reach seeds that are no members.
    pub(super) seeds_interval: Duration,
}

impl Config {
    /// The pace at which a crash is noticed within this time; out of range (100 ms to an hour), the nearest
    /// bound.
    pub fn new(detect_after: Duration) -> Self {
        let detect_after = detect_after.clamp(DETECT_AFTER_RANGE.0, DETECT_AFTER_RANGE.1);
        let interval = detect_after / 12;
        Self {
            detect_after,
            probe_interval: interval,
            probe_timeout: interval * 3 / 10,
            relay_timeout: interval * 4 / 10,
            gossip_interval: interval / 2,
            suspicion_min: interval * 4,
            suspicion_max: interval * 7,
            exchange_interval: detect_after * 3,
            revive_interval: detect_after,
            seeds_interval: detect_after * 6,
        }
    }

    /// Whole views grow with the cluster, so that they are exchanged less often: doubled at 64 nodes, tripled
    /// at 128, and so on.
    pub(super) fn exchange_interval(&self, nodes: usize) -> Duration {
        self.exchange_interval * (nodes / 32).max(1).ilog2().saturating_add(1)
    }
}

impl Default for Config {
    /// Crashes are noticed within 5 seconds.
    fn default() -> Self {
        Self::new(Duration::from_secs(5))
    }
}
