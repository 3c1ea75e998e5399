//! Counts requests by command and outcome. The series of what goes well are looked up once.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use prometheus::{Histogram, IntCounter};
use quorate_wire::resp::table::{COMMANDS, Entry};

use crate::metrics::Metrics;

const PROTOCOL: &str = "resp";
/// The outcome of what goes well.
pub(super) const OK: &str = "ok";
/// What an unknown command is counted as.
const UNKNOWN: &str = "unknown";

/// The series of one command.
#[derive(Default)]
struct Meter {
    ok: OnceLock<IntCounter>,
    seconds: OnceLock<Histogram>,
}

pub(super) struct Meters {
    metrics: Arc<Metrics>,
    meters: BTreeMap<&'static str, Meter>,
}

impl Meters {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let names = COMMANDS.iter().map(|entry| entry.name).chain([UNKNOWN]);
        Self { metrics, meters: names.map(|name| (name, Meter::default())).collect() }
    }

    /// Counts a request from now on.
    pub(super) fn begin(&self, entry: Option<&'static Entry>) -> Counted<'_> {
        self.metrics.requests_in_progress.inc();
        let operation = entry.map_or(UNKNOWN, |entry| entry.name);
        Counted { meters: self, operation, began: Instant::now(), outcome: "cancelled" }
    }
}

/// A request that is counted when it is done, or when its client hung up before: then this is dropped half-way.
pub(super) struct Counted<'a> {
    meters: &'a Meters,
    operation: &'static str,
    began: Instant,
    pub(super) outcome: &'static str,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let Self { meters: Meters { metrics, meters }, operation, began, outcome } = *self;
        metrics.requests_in_progress.dec();
        let Some(Meter { ok, seconds }) = meters.get(operation) else { return };
        let counter = |outcome| metrics.requests.with_label_values(&[PROTOCOL, operation, outcome]);
        match outcome {
            OK => ok.get_or_init(|| counter(OK)).inc(),
            outcome => counter(outcome).inc(),
        }
        let seconds =
            seconds.get_or_init(|| metrics.request_seconds.with_label_values(&[PROTOCOL, operation]));
        seconds.observe(began.elapsed().as_secs_f64());
    }
}
