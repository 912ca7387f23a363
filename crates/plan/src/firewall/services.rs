//! Which endpoints serve which cluster IP on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use selvedge_model::{NodeConfig, ServicePort};

use super::{Frontend, Service};
use crate::facts::Family;

/// Longest name shown; comments in nft end at 128 bytes, in iptables at 256.
const MAX_NAME: usize = 120;

/// Every port of every Service. Of two Services that claim the same address and port the first is served.
pub(super) fn services(config: &NodeConfig) -> BTreeMap<Frontend, Service> {
    let mut services = BTreeMap::new();
    for service in config.services.list.iter().filter(|service| service.is_proxied()) {
        for address in &service.cluster_ips {
            for port in &service.ports {
                let frontend = Frontend { address: *address, protocol: port.protocol, port: port.port };
                let label = if port.name.is_empty() { port.port.to_string() } else { port.name.clone() };
                services.entry(frontend).or_insert_with(|| Service {
                    name: plain(&format!("{}/{}:{label}", service.namespace, service.name)),
                    endpoints: endpoints(port, (*address).into(), &config.node),
                });
            }
        }
    }
    services
}

/// The addresses of all endpoints in use.
pub(super) fn addresses(services: &BTreeMap<Frontend, Service>) -> BTreeSet<IpAddr> {
    services.values().flat_map(|s| s.endpoints.iter().map(SocketAddr::ip)).collect()
}

/// Those on this node if there are any, else all; in an order that does not depend on the configuration's.
fn endpoints(port: &ServicePort, family: Family, node: &str) -> Vec<SocketAddr> {
    let all = || port.endpoints.iter().filter(|e| Family::from(e.address) == family);
    let here: BTreeSet<SocketAddr> =
        all().filter(|e| !node.is_empty() && e.node == node).map(|e| SocketAddr::new(e.address, e.port)).collect();
    let chosen = if here.is_empty() { all().map(|e| SocketAddr::new(e.address, e.port)).collect() } else { here };
    chosen.into_iter().collect()
}

/// Without anything that could end a quoted string or a line in a firewall's text.
fn plain(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-._/:".contains(c) { c } else { '?' };
    name.chars().map(keep).take(MAX_NAME).collect()
}
