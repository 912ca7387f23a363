//! Counters and gauges for Prometheus.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// In 32 bits, which is what all processors have atomics for. A time fits in it until 2106.
type Number = Gauge<u32, AtomicU32>;

/// All that is counted. Clones count into the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// 1 while this operator is the one that writes.
    pub(crate) leader: Number,
    /// Nodes with a configuration, by role.
    pub(crate) nodes: Family<Role, Number>,
    /// What is wrong with objects, by severity.
    pub(crate) problems: Family<Severity, Number>,
    /// Length of the longest configuration, in bytes.
    pub(crate) longest: Number,
    /// When the first certificate is to be renewed, in seconds since 1970.
    pub(crate) renewal: Number,
    passes: Histogram,
    compilations: Histogram,
    writes: Family<Write, Counter>,
    failures: Family<Write, Counter>,
    watch_failures: Family<Watched, Counter>,
}

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Verb {
    /// Created, or changed.
    Apply,
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    kind: &'static str,
    verb: Verb,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Watched {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Role {
    pub(crate) role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Severity {
    pub(crate) severity: &'static str,
}

const SECONDS: [f64; 10] = [0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            leader: Gauge::default(),
            nodes: Family::default(),
            problems: Family::default(),
            longest: Gauge::default(),
            renewal: Gauge::default(),
            passes: Histogram::new(SECONDS),
            compilations: Histogram::new(SECONDS),
            writes: Family::default(),
            failures: Family::default(),
            watch_failures: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("selvedge_operator");
        registry.register("leader", "1 while this operator is the one that writes", metrics.leader.clone());
        registry.register("nodes", "Nodes with a configuration", metrics.nodes.clone());
        registry.register("problems", "What is wrong with objects", metrics.problems.clone());
        registry.register(
            "longest_configuration_bytes",
            "Length of the longest configuration",
            metrics.longest.clone(),
        );
        registry.register(
            "next_renewal_timestamp_seconds",
            "When the first certificate is to be renewed",
            metrics.renewal.clone(),
        );
        registry.register("pass_seconds", "Time of a pass, writes included", metrics.passes.clone());
        registry.register("compile_seconds", "Time to compile all configurations", metrics.compilations.clone());
        registry.register("writes", "Objects written", metrics.writes.clone());
        registry.register("write_failures", "Writes that failed", metrics.failures.clone());
        registry.register(
            "watch_failures",
            "Lists and watches that failed or were torn",
            metrics.watch_failures.clone(),
        );
        metrics
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.passes.observe(time.as_secs_f64());
    }

    pub(crate) fn compiled(&self, time: Duration) {
        self.compilations.observe(time.as_secs_f64());
    }

    pub(crate) fn written(&self, kind: &'static str, verb: Verb, success: bool) {
        let counter = if success { &self.writes } else { &self.failures };
        counter.get_or_create(&Write { kind, verb }).inc();
    }

    pub(crate) fn watch_failed(&self, kind: &'static str) {
        self.watch_failures.get_or_create(&Watched { kind }).inc();
    }
}

/// As Prometheus reads it.
pub(super) fn encode(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    text::encode(&mut text, registry)?;
    Ok(text)
}
