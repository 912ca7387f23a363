//! What the server counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the feed; clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(super) connections: Gauge,
    pub(super) refused_connections: Counter,
    pub(super) sent: Counter,
    pub(super) unchanged: Counter,
    pub(super) enrolled: Counter,
    pub(super) refused_tokens: Counter,
    pub(super) renewed: Counter,
    pub(super) refused_names: Counter,
}

impl Metrics {
    /// Names them all `feed_…`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("feed_connections", "Nodes that are connected", self.connections.clone());
        let counters = [
            ("feed_refused_connections", "Connections beyond a limit or without TLS", &self.refused_connections),
            ("feed_configurations_sent", "Configurations sent", &self.sent),
            ("feed_configurations_unchanged", "Waits that ended without a change", &self.unchanged),
            ("feed_enrolled", "First certificates", &self.enrolled),
            ("feed_refused_tokens", "Tokens that were not good", &self.refused_tokens),
            ("feed_renewed", "Certificates renewed", &self.renewed),
            ("feed_refused_names", "Requests of names that are revoked or unknown", &self.refused_names),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
    }
}
