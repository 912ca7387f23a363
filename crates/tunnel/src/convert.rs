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
    let of = |v4: bool| addresses.iter().filter(move |address| address.is_ipv4() == v4);
    let chosen: Vec<&IpAddr> = match (abilities.ipv6, abilities.ipv6_encap) {
        (false, _) => of(true).collect(),
        // The others are good for peers without a NAT between that do not ask for UDP.
        (true, false) => of(true).chain(of(false)).collect(),
        (true, true) => addresses.iter().collect(),
    };
    chosen.into_iter().map(|address| SocketAddr::new(*address, port)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_called_where_esp_can_follow() {
        let addresses: Vec<IpAddr> =
            ["2001:db8::1", "192.0.2.1", "192.0.2.2"].iter().map(|a| a.parse().unwrap()).collect();
        let called = |ipv6, ipv6_encap| {
            let abilities = Abilities { ipv6, ipv6_encap, ..Abilities::user() };
            remotes(&addresses, 4500, &abilities).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(called(true, true), "[2001:db8::1]:4500 192.0.2.1:4500 192.0.2.2:4500");
        assert_eq!(called(true, false), "192.0.2.1:4500 192.0.2.2:4500 [2001:db8::1]:4500");
        assert_eq!(called(false, false), "192.0.2.1:4500 192.0.2.2:4500");
    }
}
