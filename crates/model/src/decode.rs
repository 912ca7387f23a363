//! JSON text to [`NodeConfig`].

#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "services")]
mod services;

use miniserde::json::{self, Value};

#[cfg(feature = "services")]
use self::services::services;
use crate::config::*;
use crate::reader::{ConfigError, Reader, Result};
use crate::services::ServiceMode;
#[cfg(not(feature = "services"))]
use crate::services::Services;
use crate::{MAX_CONFIG_BYTES, SCHEMA_VERSION, syntax, validate};

impl NodeConfig {
    /// Reads and checks a configuration. Unknown fields are ignored; a missing or impossible one is an error that
    /// names it.
    pub fn parse(text: &str) -> Result<NodeConfig> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::new("configuration", format!("is longer than {MAX_CONFIG_BYTES} bytes")));
        }
        // The check comes first: it bounds the nesting, which the parser does not.
        syntax::check(text)?;
        let value: Value = json::from_str(text)
            .map_err(|_| ConfigError::new("configuration", "holds a number or text beyond range"))?;
        let root = Reader::root(&value);
        let version = root.field("version")?;
        let found = version.integer(0, u64::MAX)?;
        if found != SCHEMA_VERSION {
            return version.error(format!("is {found}, this program reads version {SCHEMA_VERSION}"));
        }
        let config = NodeConfig {
            version: found,
            generation: root.field("generation")?.integer(0, u64::MAX)?,
            name: root.field("name")?.string()?,
            node: root.field("node")?.string()?,
            role: root.field("role")?.word(&ROLES)?,
            pod_cidrs: root.field("podCidrs")?.list(Reader::prefix)?,
            local: local(&root.field("local")?)?,
            peers: root.field("peers")?.list(peer)?,
            services: root.optional("services")?.as_ref().map(services).transpose()?.unwrap_or_default(),
            #[cfg(feature = "dns")]
            dns: root.optional("dns")?.as_ref().map(dns::dns).transpose()?,
            cni: root.optional("cni")?.as_ref().map(cni).transpose()?,
            datapath: word_or_default(&root, "datapath", &DATAPATHS)?,
            firewall: word_or_default(&root, "firewall", &FIREWALLS)?,
            metered: flag(&root, "metered")?,
            #[cfg(feature = "gateway")]
            gateway: root.optional("gateway")?.as_ref().map(crate::gateway::gateway).transpose()?,
            #[cfg(not(feature = "gateway"))]
            gateway: root.optional("gateway")?.map(drop),
        };
        validate::check(&config)?;
        Ok(config)
    }
}

const ROLES: [(&str, Role); 3] = [("edge", Role::Edge), ("connector", Role::Connector), ("cloud", Role::Cloud)];
const VIAS: [(&str, Via); 2] = [("tunnel", Via::Tunnel), ("lan", Via::Lan)];
const MODES: [(&str, ServiceMode); 2] = [("off", ServiceMode::Off), ("kernel", ServiceMode::Kernel)];
const DATAPATHS: [(&str, DatapathMode); 3] =
    [("auto", DatapathMode::Auto), ("kernel", DatapathMode::Kernel), ("user", DatapathMode::User)];
const FIREWALLS: [(&str, FirewallBackend); 3] =
    [("auto", FirewallBackend::Auto), ("iptables", FirewallBackend::Iptables), ("nftables", FirewallBackend::Nftables)];

fn word_or_default<T: Copy + Default>(root: &Reader<'_>, name: &str, words: &[(&str, T)]) -> Result<T> {
    root.optional(name)?.map_or_else(|| Ok(T::default()), |r| r.word(words))
}

fn flag(r: &Reader<'_>, name: &str) -> Result<bool> {
    r.optional(name)?.map_or(Ok(false), |flag| flag.bool())
}

fn local(r: &Reader<'_>) -> Result<LocalSide> {
    Ok(LocalSide {
        prefixes: r.field("prefixes")?.list(Reader::prefix)?,
        node_addresses: r.list_or_empty("nodeAddresses", Reader::address)?,
    })
}

fn peer(r: &Reader<'_>) -> Result<Peer> {
    Ok(Peer {
        name: r.field("name")?.string()?,
        via: r.field("via")?.word(&VIAS)?,
        addresses: r.list_or_empty("addresses", Reader::address)?,
        port: r.optional("port")?.map_or(Ok(4500), |p| p.port())?,
        initiate: flag(r, "initiate")?,
        metered: flag(r, "metered")?,
        prefixes: r.field("prefixes")?.list(Reader::prefix)?,
        node_addresses: r.list_or_empty("nodeAddresses", Reader::address)?,
        overlay: r.list_or_empty("overlay", Reader::prefix)?,
    })
}

/// A node that serves none only routes their networks.
#[cfg(not(feature = "services"))]
fn services(r: &Reader<'_>) -> Result<Services> {
    let (mode, cidrs) = (word_or_default(r, "mode", &MODES)?, r.list_or_empty("cidrs", Reader::prefix)?);
    Ok(Services { mode, cidrs, ..Services::default() })
}

fn cni(r: &Reader<'_>) -> Result<Cni> {
    Ok(Cni {
        version: r.field("version")?.string()?,
        network: r.field("network")?.string()?,
        bridge: r.field("bridge")?.string()?,
        mtu: r.field("mtu")?.integer(1280, 65535)?.try_into().or_else(|_| r.error("mtu is out of range"))?,
        hairpin: r.optional("hairpin")?.map_or(Ok(true), |h| h.bool())?,
    })
}
