//! The WAN and the routers between it and the sites.

use anyhow::Result;

use crate::iptables::Iptables;
use crate::netns::{Netns, join};
use crate::server::Server;

/// The "internet" host, beyond the WAN.
pub const INTERNET: &str = "198.51.100.1";

/// The gateway in the network of the cloud's nodes, itself none of them.
pub const CLOUD_GATEWAY: &str = "172.16.0.1";

/// The network that all sites hang on: a bridge, its gateway, and the internet behind it.
#[derive(Debug)]
pub struct Wan {
    /// Where a capture sees every packet between sites, on [`Wan::BRIDGE`].
    pub ns: Netns,
    _internet: Server,
}

impl Wan {
    /// The bridge that every packet between two sites crosses.
    pub const BRIDGE: &str = "wan";

    /// Makes 203.0.113.0/24 and 2001:db8::/64 with the gateway at .1.
    pub fn create() -> Result<Self> {
        let ns = Netns::create("wan")?;
        // A bridge that snoops joins groups of its own, and IGMP stands on the wire.
        ns.ip(&format!(
            "link add wan type bridge mcast_snooping 0
             link set wan up
             address add 203.0.113.1/24 dev wan
             address add 2001:db8::1/64 dev wan
             address add {INTERNET}/32 dev lo"
        ))?;
        do_not_filter_bridge(&ns)?;
        let internet = Server::start(&ns, "internet", "internet", &[INTERNET.parse()?])?;
        Ok(Self { ns, _internet: internet })
    }

    /// Plugs a cable: `device` in the namespace, a bridge port named `port` here.
    pub fn attach(&self, ns: &Netns, device: &str, port: &str) -> Result<()> {
        plug(&self.ns, Self::BRIDGE, ns, device, port)
    }

    /// A port whose other end is in the hands of a program (tap).
    pub fn attach_tap(&self, port: &str) -> Result<()> {
        self.ns.ip(&format!(
            "tuntap add dev {port} mode tap
             link set dev {port} master {} up",
            Self::BRIDGE
        ))
    }
}

/// What a link does to packets, for `tc qdisc … netem`.
#[derive(Clone, Debug, Default)]
pub struct LinkQuality {
    /// One-way delay in milliseconds.
    pub delay_ms: u32,
    /// Share of packets lost, in percent.
    pub loss_percent: f32,
}

/// A home router (or the cloud's gateway): a bridge inside, one address outside, address translation, and nothing
/// comes in that was not asked for.
#[derive(Debug)]
pub struct Router {
    /// Where `router-1` or `lan` lives; its bridge is named `lan0`, its uplink `wan0`.
    pub ns: Netns,
}

impl Router {
    /// The device towards the WAN.
    pub const UPLINK: &str = "wan0";

    /// `inside` is the gateway's address with its prefix length; `outside` the address within 203.0.113.0/24.
    pub fn create(name: &str, inside: &[&str], outside: &str, wan: &Wan, iptables: Iptables) -> Result<Self> {
        let uplink = Self::UPLINK;
        let ns = Netns::create(name)?;
        wan.attach(&ns, uplink, name)?;
        ns.sysctl(&[("net/ipv4/ip_forward", "1")])?;
        let addresses: String = inside.iter().map(|a| format!("address add {a} dev lan0\n")).collect();
        ns.ip(&format!(
            "link add lan0 type bridge mcast_snooping 0
             link set lan0 up
             {addresses}
             link set {uplink} up"
        ))?;
        do_not_filter_bridge(&ns)?;
        let router = Self { ns };
        router.set_outside(outside)?;
        // DROP within INPUT keeps an unsolicited packet's conntrack entry unconfirmed, so that it cannot occupy the
        // port that the site's own outgoing packets are mapped to.
        iptables.load(
            &router.ns,
            &format!(
                "*filter
-A INPUT -i {uplink} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i {uplink} -j DROP
-A FORWARD -i {uplink} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i {uplink} -j DROP
COMMIT
*nat
-A POSTROUTING -o {uplink} -j MASQUERADE
COMMIT
"
            ),
        )?;
        Ok(router)
    }

    /// Gives the uplink this address and no other, as a provider does overnight.
    pub fn set_outside(&self, address: &str) -> Result<()> {
        let uplink = Self::UPLINK;
        self.ns.ip(&format!(
            "address flush dev {uplink} scope global
             address add {address}/24 dev {uplink}
             route replace default via 203.0.113.1"
        ))
    }

    /// Plugs a node into the inner bridge.
    pub fn attach(&self, ns: &Netns, device: &str, port: &str) -> Result<()> {
        plug(&self.ns, "lan0", ns, device, port)
    }

    /// Makes the uplink slow or lossy towards the WAN.
    pub fn degrade(&self, quality: &LinkQuality) -> Result<()> {
        degrade(&self.ns, Self::UPLINK, quality)
    }
}

/// Makes a device of the namespace slow or lossy in the direction of sending.
pub fn degrade(ns: &Netns, device: &str, quality: &LinkQuality) -> Result<()> {
    let LinkQuality { delay_ms, loss_percent } = quality;
    ns.run(&format!("tc qdisc replace dev {device} root netem delay {delay_ms}ms loss {loss_percent}%")).map(drop)
}

fn plug(bridge: &Netns, device: &str, ns: &Netns, outer: &str, port: &str) -> Result<()> {
    join(ns, outer, bridge, port)?;
    bridge.ip(&format!("link set dev {port} master {device} up"))
}

/// A switch does not look at what it forwards.
fn do_not_filter_bridge(ns: &Netns) -> Result<()> {
    for key in ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"] {
        if ns.has_sysctl(key)? {
            ns.sysctl(&[(key, "0")])?;
        }
    }
    Ok(())
}
