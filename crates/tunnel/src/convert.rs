//! The words of one crate in those of another.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use selvedge_ike::{self as ike, Child, Credentials, PeerId, TrafficSelector};
use selvedge_model::NodeConfig;

use crate::abilities::Abilities;
use crate::cpu;
use crate::keeper::Mode;
use crate::keeper::message::Install;

/// Neighbouring networks are joined: a message holds 255 selectors, and a cloud may have more nodes.
pub(crate) fn selectors(networks: impl Iterator<Item = IpNet>) -> Vec<TrafficSelector> {
    let mut joined = IpNet::aggregate(&networks.collect());
    joined.sort();
    joined.into_iter().map(TrafficSelector::from).collect()
}

pub(crate) fn ike_config(
    config: &NodeConfig,
    credentials: Credentials,
    mode: Mode,
    abilities: &Abilities,
) -> ike::Config {
    let mut ike = ike::Config::new(config.name.clone(), credentials);
    // User-space ESP exists in UDP only.
    ike.force_encap = mode == Mode::User;
    ike.prefer_chacha = !cpu::has_aes();
    ike.esp_aeads.clone_from(&abilities.suites);
    // The keeper sends them, so that mappings live while this program restarts.
    ike.timers.nat_keepalive = Duration::ZERO;
    ike.metered.nat_keepalive = Duration::ZERO;
    ike
}

/// Where a peer is called, in order: nowhere that its ESP could not follow.
pub(crate) fn remotes(addresses: &[IpAddr], port: u16, abilities: &Abilities) -> Vec<SocketAddr> {
    let mut addresses = addresses.to_vec();
    if !abilities.ipv6 {
        addresses.retain(IpAddr::is_ipv4);
    } else if !abilities.ipv6_encap {
        // Good for peers without a NAT between that do not ask for UDP.
        addresses.sort_by_key(IpAddr::is_ipv6);
    }
    addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

pub(crate) fn cipher(suite: ike::EspSuite) -> &'static str {
    match suite {
        ike::EspSuite::Aes128Gcm => "AES-128-GCM",
        ike::EspSuite::Aes256Gcm => "AES-256-GCM",
        ike::EspSuite::ChaCha20Poly1305 => "ChaCha20-Poly1305",
    }
}

pub(crate) fn install(id: PeerId, child: &Child) -> Install {
    Install {
        peer: id.0,
        spi_in: child.spi_in,
        spi_out: child.spi_out,
        suite: match child.suite {
            ike::EspSuite::Aes128Gcm => selvedge_esp::Suite::Aes128Gcm,
            ike::EspSuite::Aes256Gcm => selvedge_esp::Suite::Aes256Gcm,
            ike::EspSuite::ChaCha20Poly1305 => selvedge_esp::Suite::ChaCha20Poly1305,
        },
        key_in: child.key_in.clone(),
        key_out: child.key_out.clone(),
        local: child.local,
        remote: child.remote,
        send: child.send,
    }
}
