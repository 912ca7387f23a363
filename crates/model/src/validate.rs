//! What types cannot say: names that must be usable, networks that must not overlap.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{NodeConfig, Role, Via};
use crate::reader::{ConfigError, Result};

pub(crate) fn check(config: &NodeConfig) -> Result<()> {
    fabric_name("name", &config.name)?;
    let mut greatest = "";
    for (i, peer) in config.peers.iter().enumerate() {
        fabric_name(&format!("peers[{i}].name"), &peer.name)?;
        if peer.name == config.name {
            return Err(ConfigError::new(format!("peers[{i}].name"), format!("\"{}\" is this node itself", peer.name)));
        }
        // Connectors have thousands of peers, in the order of names: among those none can be there twice.
        if peer.name.as_str() > greatest {
            greatest = &peer.name;
        } else if let Some(first) = config.peers[..i].iter().position(|p| p.name == peer.name) {
            let problem = format!("\"{}\" is already peers[{first}]", peer.name);
            return Err(ConfigError::new(format!("peers[{i}].name"), problem));
        }
        if peer.via == Via::Lan && peer.addresses.is_empty() && peer.overlay.is_empty() {
            return Err(ConfigError::new(format!("peers[{i}]"), "via \"lan\" needs addresses or overlay"));
        }
        if peer.via == Via::Tunnel && config.role == Role::Cloud {
            return Err(ConfigError::new(format!("peers[{i}].via"), "a node of role \"cloud\" has no tunnels"));
        }
    }
    if let Some(cni) = &config.cni {
        file_name("cni.network", &cni.network, 64)?;
        file_name("cni.bridge", &cni.bridge, 15)?;
        if config.pod_cidrs.is_empty() {
            return Err(ConfigError::new("podCidrs", "is empty, but a CNI network is asked for"));
        }
    }
    disjoint(config)
}

/// A fabric name becomes a DNS name in a certificate (RFC 1123).
fn fabric_name(place: &str, name: &str) -> Result<()> {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.len() <= 253 && name.contains('.') && name.split('.').all(label) {
        return Ok(());
    }
    Err(ConfigError::new(place, format!("\"{name}\" is not of the form <cluster>.<node>")))
}

fn file_name(place: &str, name: &str, longest: usize) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !name.is_empty() && name.len() <= longest && name.bytes().all(plain) && !name.starts_with('.') {
        return Ok(());
    }
    Err(ConfigError::new(place, format!("\"{name}\" is not a plain name of at most {longest} characters")))
}

/// No network may belong to two ends: replies would go astray, and one could speak for the other.
fn disjoint(config: &NodeConfig) -> Result<()> {
    let mut owners: BTreeMap<(u8, u128), (IpNet, String)> = BTreeMap::new();
    let pods = config.pod_cidrs.iter().enumerate().map(|(i, net)| (*net, format!("podCidrs[{i}]")));
    let offered = config.local.prefixes.iter().enumerate().map(|(i, net)| (*net, format!("local.prefixes[{i}]")));
    // What this node offers mostly is its pods' networks.
    let offered = offered.filter(|(net, _)| !config.pod_cidrs.iter().any(|pods| pods.contains(net)));
    let own = pods.chain(offered);
    let theirs = config.peers.iter().enumerate().flat_map(|(i, peer)| {
        let prefixes =
            peer.prefixes.iter().enumerate().map(move |(j, net)| (*net, format!("peers[{i}].prefixes[{j}]")));
        let addresses = peer
            .node_addresses
            .iter()
            .enumerate()
            .map(move |(j, a)| (IpNet::from(*a), format!("peers[{i}].nodeAddresses[{j}]")));
        prefixes.chain(addresses)
    });
    for (net, place) in own.chain(theirs) {
        let below = owners.range(..=key(net)).next_back().map(|(_, v)| v);
        let above = owners.range(key(net)..).next().map(|(_, v)| v);
        if let Some((other, other_place)) = below.into_iter().chain(above).find(|(other, _)| overlap(*other, net)) {
            return Err(ConfigError::new(place, format!("{net} overlaps {other} of {other_place}")));
        }
        owners.insert(key(net), (net, place));
    }
    Ok(())
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn key(net: IpNet) -> (u8, u128) {
    match net.network() {
        IpAddr::V4(a) => (4, u128::from(u32::from(a))),
        IpAddr::V6(a) => (6, u128::from(a)),
    }
}
