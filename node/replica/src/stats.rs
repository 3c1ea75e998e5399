//! What a replica has done, counted since it began.

/// Counters; each only grows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
#[allow(missing_docs)] // The metrics' help says what they are.
pub struct Stats {
    pub writes_forwarded: u64,
    pub parts_acknowledged: u64,
    pub parts_refused: u64,
    pub parts_unreachable: u64,
    pub parts_lost: u64,
    pub hedges: u64,
    pub digest_mismatches: u64,
    pub read_repairs_done: u64,
    pub read_repairs_failed: u64,
    pub sloppy_writes: u64,
    pub sibling_warnings: u64,
    pub clock_ahead: u64,
    pub stale_messages: u64,
    pub gossip_refused: u64,
    pub partitions_healed: u64,
    pub partitions_left: u64,
    pub epochs_refused: u64,
    pub rerouted: u64,
    pub collection_rounds: u64,
    pub collection_rounds_incomplete: u64,
    pub tombstones_cleared: u64,
    pub tombstones_forgotten: u64,
    pub exchanges_finished: u64,
    pub exchanges_failed: u64,
    pub exchange_differing: u64,
    pub exchange_keys_pulled: u64,
    pub exchange_keys_pushed: u64,
    pub exchange_bytes_in: u64,
    pub exchange_bytes_out: u64,
}

impl Stats {
    pub(crate) fn read_repair(&mut self, done: bool) {
        if done {
            self.read_repairs_done += 1;
        } else {
            self.read_repairs_failed += 1;
        }
    }
}
