//! What a client may reach, and by which names.

use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_model::{NodeConfig, Via};

use super::talk::{Code, Host};

/// Addresses tried for one name.
const MAX_TRIES: usize = 4;

/// Where `host` is. Nothing outside the fabric is.
///
/// Names are those of nodes with a tunnel to this one (`edge-2`, `beijing.edge-2`) and those of Services
/// (`web.default`, `web.default.svc.cluster.local`).
pub(super) fn find(config: &NodeConfig, host: &Host) -> Result<Vec<IpAddr>, Code> {
    let (name, literal) = match host {
        Host::Address(address) => (String::new(), Some(*address)),
        Host::Name(name) => {
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            let literal = name.parse().ok();
            (name, literal)
        }
    };
    let mut found: Vec<IpAddr> = match literal {
        Some(address) => vec![address],
        None => node(config, &name).or_else(|| service(config, &name)).unwrap_or_default(),
    };
    found.retain(|address| is_inside(config, *address));
    found.truncate(MAX_TRIES);
    if found.is_empty() { Err(Code::NotAllowed) } else { Ok(found) }
}

/// Names of nodes and their addresses. The connector is a whole cloud: its own name is nobody's.
pub(super) fn nodes(config: &NodeConfig) -> impl Iterator<Item = (&str, &[IpAddr])> {
    let tunnels = config.peers.iter().filter(|peer| peer.via == Via::Tunnel && !peer.node_addresses.is_empty());
    let named = tunnels.map(|peer| (peer.name.as_str(), peer.node_addresses.as_slice()));
    named.filter(|(name, _)| node_part(name) != "connector")
}

/// `edge-2` of `beijing.edge-2`.
pub(super) fn node_part(fabric_name: &str) -> &str {
    fabric_name.split_once('.').map_or(fabric_name, |(_, node)| node)
}

fn node(config: &NodeConfig, name: &str) -> Option<Vec<IpAddr>> {
    let whole = nodes(config).find(|(known, _)| *known == name);
    let found = whole.or_else(|| nodes(config).find(|(known, _)| node_part(known) == name));
    found.map(|(_, addresses)| addresses.to_vec())
}

fn service(config: &NodeConfig, name: &str) -> Option<Vec<IpAddr>> {
    let mut labels = name.splitn(3, '.');
    let (service, namespace, rest) = (labels.next()?, labels.next()?, labels.next());
    if rest.is_some_and(|rest| rest != "svc" && !rest.starts_with("svc.")) {
        return None;
    }
    let known = config.services.list.iter().find(|known| known.name == service && known.namespace == namespace)?;
    if !known.cluster_ips.is_empty() {
        return Some(known.cluster_ips.clone());
    }
    let endpoints = known.ports.iter().flat_map(|port| port.endpoints.iter().map(|endpoint| endpoint.address));
    Some(endpoints.collect())
}

/// Pods, Services and nodes, of this node and of its peers.
fn is_inside(config: &NodeConfig, address: IpAddr) -> bool {
    let own = config.pod_cidrs.iter().chain(&config.services.cidrs).copied().chain(config.local.networks());
    let mut fabric = own.chain(config.peers.iter().flat_map(|peer| peer.networks()));
    fabric.any(|net: IpNet| net.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"version": 1, "generation": 1, "name": "dev.edge-1", "node": "edge-1", "role": "edge",
        "podCidrs": ["10.234.0.0/24"],
        "local": {"prefixes": ["10.234.0.0/24"], "nodeAddresses": ["192.168.11.2"]},
        "peers": [
            {"name": "dev.connector", "via": "tunnel", "addresses": ["203.0.113.10"], "port": 4500, "initiate": true,
             "prefixes": ["10.244.0.0/16", "10.96.0.0/16"], "nodeAddresses": ["172.16.0.10"]},
            {"name": "dev.edge-2", "via": "tunnel", "addresses": [], "port": 4500, "initiate": false,
             "prefixes": ["10.234.1.0/24"], "nodeAddresses": ["192.168.12.2"]}],
        "services": {"mode": "kernel", "balance": "random", "cidrs": ["10.96.0.0/16"], "list": [
            {"namespace": "default", "name": "web", "clusterIps": ["10.96.0.7"], "ports": []}]},
        "datapath": "auto", "firewall": "auto"}"#;

    fn look(host: &str) -> Result<String, Code> {
        let host = match host.strip_prefix('@') {
            Some(address) => Host::Address(address.parse().unwrap()),
            None => Host::Name(host.to_owned()),
        };
        let found = find(&NodeConfig::parse(CONFIG).unwrap(), &host)?;
        Ok(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn nodes_services_and_addresses_are_found() {
        for (host, address) in [
            ("edge-2", "192.168.12.2"),
            ("dev.edge-2.", "192.168.12.2"),
            ("EDGE-2", "192.168.12.2"),
            ("web.default", "10.96.0.7"),
            ("web.default.svc", "10.96.0.7"),
            ("web.default.svc.cluster.local", "10.96.0.7"),
            ("10.244.3.4", "10.244.3.4"),
            ("@10.234.1.9", "10.234.1.9"),
            ("@172.16.0.10", "172.16.0.10"),
            ("@192.168.11.2", "192.168.11.2"),
        ] {
            assert_eq!(look(host).as_deref(), Ok(address), "{host}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for host in [
            "",
            "edge-3",
            "connector",
            "dev.connector",
            "web",
            "web.other",
            "web.default.pod",
            "localhost",
            "127.0.0.1",
            "@127.0.0.1",
            "@8.8.8.8",
            "@203.0.113.10",
            "@169.254.169.254",
            "@::1",
            "@::ffff:10.244.0.1",
            "example.com",
        ] {
            assert_eq!(look(host), Err(Code::NotAllowed), "{host}");
        }
    }
}
