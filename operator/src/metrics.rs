//! What the operator counts. Labels have few values: no object's name is one.

use prometheus::{
    Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// A pass reads some ten objects and asks the nodes.
const DURATION_BUCKETS_SECONDS: [f64; 8] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// The operator's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Passes by outcome: `ok`, or the phase that failed.
    pub reconciles: IntCounterVec,
    /// How long a pass takes.
    pub duration: Histogram,
    /// Writes to the API server, by kind and verb.
    pub writes: IntCounterVec,
    /// Whether this replica leads.
    pub leader: IntGauge,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let reconciles = IntCounterVec::new(
            Opts::new("quorate_operator_reconciles_total", "Passes over a KVCluster, by outcome."),
            &["outcome"],
        )?;
        let duration = Histogram::with_opts(
            HistogramOpts::new(
                "quorate_operator_reconcile_duration_seconds",
                "How long a pass over a KVCluster takes.",
            )
            .buckets(DURATION_BUCKETS_SECONDS.to_vec()),
        )?;
        let writes = IntCounterVec::new(
            Opts::new("quorate_operator_api_writes_total", "Writes to the API server, by kind and verb."),
            &["kind", "verb"],
        )?;
        let leader =
            IntGauge::new("quorate_operator_leader", "1 on the replica that leads, 0 on the others.")?;
        let build = IntGaugeVec::new(
            Opts::new("quorate_operator_build_info", "Always 1; the version is a label."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        registry.register(Box::new(build))?;
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self { registry, reconciles, duration, writes, leader })
    }

    /// The text that Prometheus scrapes.
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn every_metric_has_the_prefix_and_shows_up() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciles.with_label_values(&["ok"]).inc();
        metrics.writes.with_label_values(&["StatefulSet", "apply"]).inc();
        let text = metrics.text().unwrap();
        for name in
            ["reconciles_total", "reconcile_duration_seconds", "api_writes_total", "leader", "build_info"]
        {
            assert!(text.contains(&format!("# TYPE quorate_operator_{name} ")), "{name}");
        }
    }
}
