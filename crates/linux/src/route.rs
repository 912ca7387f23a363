//! Routes (`rtnetlink(7)`): setting, removing, listing, and asking which one a packet would take.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::Family;
use crate::error::{Context, Result};
use crate::netlink::{Attributes, Reader, Request, Socket, flags, ip_from, prefix_from, u32_from};

/// `rtm_protocol` of the routes that are ours; `ip route` shows it as `proto 94`.
pub const OURS: u8 = 0x5e;

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
/// Octets of `struct rtmsg`.
const RTMSG: usize = 12;

/// Attributes of `linux/rtnetlink.h`.
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;

const RT_TABLE_COMPAT: u8 = 252;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
const RTN_LOCAL: u8 = 2;
const RTNH_F_ONLINK: u32 = 4;
const RTM_F_CLONED: u32 = 0x200;
/// What the kernel stores for an IPv6 route without a metric.
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// One route. Two with the same destination, table and metric are the same route to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// The routing table's number.
    pub table: u32,
    /// What happens to packets.
    pub kind: Kind,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The outgoing link's index.
    pub dev: Option<u32>,
    /// The own address that new connections use.
    pub src: Option<IpAddr>,
    /// Lower wins; 0 is none.
    pub metric: u32,
    /// The gateway is on the link though no address says so.
    pub onlink: bool,
    /// Who made it, [`OURS`] for us.
    pub protocol: u8,
}

/// What a route does (`rtm_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Sends packets on.
    Unicast = 1,
    /// Drops them without a word.
    Blackhole = 6,
    /// Drops them and says so by ICMP.
    Unreachable = 7,
}

/// Which way the kernel would send a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The own address it would come from.
    pub src: Option<IpAddr>,
    /// The next hop, if it is not the destination itself.
    pub gateway: Option<IpAddr>,
    /// The outgoing link's index.
    pub dev: Option<u32>,
    /// The route's own MTU, if it has one.
    pub mtu: Option<u32>,
    /// The destination is an address of this machine.
    pub local: bool,
}

impl Route {
    /// The form in which [`list`] returns this route: host bits cleared, no link on routes that send nothing, and no
    /// metric on IPv6 routes that have the kernel's default one.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        self.dst = self.dst.trunc();
        if self.kind != Kind::Unicast {
            (self.dev, self.gateway, self.onlink) = (None, None, false);
        }
        if matches!(self.dst, IpNet::V6(_)) && self.metric == IPV6_DEFAULT_METRIC {
            self.metric = 0;
        }
        self
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Unicast => {}
            Kind::Blackhole => f.write_str("blackhole ")?,
            Kind::Unreachable => f.write_str("unreachable ")?,
        }
        write!(f, "{}", self.dst)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(dev) = self.dev {
            write!(f, " dev #{dev}")?;
        }
        if let Some(src) = self.src {
            write!(f, " src {src}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        write!(f, " table {}", self.table)
    }
}

/// Sets a route, in place of one with the same destination, table and metric.
pub fn replace(socket: &mut Socket, route: &Route) -> Result<()> {
    let mut request = encode(RTM_NEWROUTE, flags::CREATE | flags::REPLACE, route);
    socket.request(&mut request).context(|| format!("set route {route}"))
}

/// Removes a route. Returns whether it was there.
pub fn delete(socket: &mut Socket, route: &Route) -> Result<bool> {
    match socket.request(&mut encode(RTM_DELROUTE, 0, route)) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Some(libc::ESRCH) => Ok(false),
        Err(e) => Err(e.context(format!("delete route {route}"))),
    }
}

/// The unicast, blackhole and unreachable routes of a table, in both families. An unknown table is empty.
///
/// A route with several next hops is listed without gateway and link.
pub fn list(socket: &mut Socket, table: u32) -> Result<Vec<Route>> {
    let mut routes = Vec::new();
    for family in [Family::V4, Family::V6] {
        let mut request = Request::new(RTM_GETROUTE, 0);
        request.u8(family.raw()).zeros(RTMSG - 1).attribute_u32(RTA_TABLE, table);
        // Kernels before 4.20 give all tables.
        let found = socket.dump(&mut request, |kind, body| {
            (kind == RTM_NEWROUTE).then(|| decode(body)).flatten().filter(|route| route.table == table)
        });
        match found {
            Ok(found) => routes.extend(found),
            // With strict checks the kernel says so when the table was never used.
            Err(e) if e.errno() == Some(libc::ENOENT) => {}
            // A kernel without IPv6.
            Err(e) if matches!(e.errno(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => {}
            Err(e) => return Err(e.context(format!("list {family} routes of table {table}"))),
        }
    }
    Ok(routes)
}

/// Which way a packet to `dst` would go. Unreachable destinations are errors (`ENETUNREACH`, `EHOSTUNREACH`, …).
pub fn lookup(socket: &mut Socket, dst: IpAddr) -> Result<Path> {
    find(socket, dst, None).context(|| format!("look up route to {dst}"))
}

/// Which way a packet from the own address `src` to `dst` would go.
pub fn lookup_from(socket: &mut Socket, dst: IpAddr, src: IpAddr) -> Result<Path> {
    find(socket, dst, Some(src)).context(|| format!("look up route from {src} to {dst}"))
}

fn find(socket: &mut Socket, dst: IpAddr, src: Option<IpAddr>) -> Result<Path> {
    let family = Family::of(dst);
    let mut request = Request::new(RTM_GETROUTE, 0);
    let src_len = if src.is_some() { family.bits() } else { 0 };
    request.u8(family.raw()).u8(family.bits()).u8(src_len).zeros(RTMSG - 3).attribute_ip(RTA_DST, dst);
    if let Some(src) = src {
        request.attribute_ip(RTA_SRC, src);
    }
    let found = socket.get(&mut request, |kind, body| (kind == RTM_NEWROUTE).then(|| path(body)).flatten())?;
    found.into_iter().next().ok_or_else(|| crate::Error::new("the kernel gave no route"))
}

fn encode(kind: u16, extra: u16, route: &Route) -> Request {
    let scope = match (kind, route.kind, route.gateway) {
        (RTM_DELROUTE, ..) => RT_SCOPE_NOWHERE,
        (_, Kind::Unicast, None) if route.dst.addr().is_ipv4() => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    };
    let mut request = Request::new(kind, extra);
    request
        .u8(Family::of(route.dst.addr()).raw())
        .u8(route.dst.prefix_len())
        .u8(0)
        .u8(0)
        .u8(u8::try_from(route.table).unwrap_or(RT_TABLE_COMPAT))
        .u8(route.protocol)
        .u8(scope)
        .u8(route.kind as u8)
        .u32(if route.onlink { RTNH_F_ONLINK } else { 0 })
        .attribute_u32(RTA_TABLE, route.table)
        .attribute_ip(RTA_DST, route.dst.network());
    if let Some(gateway) = route.gateway {
        request.attribute_ip(RTA_GATEWAY, gateway);
    }
    if let Some(dev) = route.dev {
        request.attribute_u32(RTA_OIF, dev);
    }
    if let Some(src) = route.src {
        request.attribute_ip(RTA_PREFSRC, src);
    }
    if route.metric != 0 {
        request.attribute_u32(RTA_PRIORITY, route.metric);
    }
    request
}

/// `None` for routes of other types, and for copies in the route cache.
fn decode(body: &[u8]) -> Option<Route> {
    let mut head = Reader(body);
    let (family, dst_len, _src_len, _tos) = (head.u8()?, head.u8()?, head.u8()?, head.u8()?);
    let (_table, protocol, _scope, kind, flags) = (head.u8()?, head.u8()?, head.u8()?, head.u8()?, head.u32()?);
    let kind = [Kind::Unicast, Kind::Blackhole, Kind::Unreachable].into_iter().find(|k| *k as u8 == kind)?;
    if flags & RTM_F_CLONED != 0 {
        return None;
    }
    let attributes = Attributes::after(body, RTMSG);
    let number = |kind| attributes.find(kind).and_then(u32_from);
    let route = Route {
        dst: prefix_from(family, attributes.find(RTA_DST), dst_len)?,
        table: table_of(body)?,
        kind,
        gateway: attributes.find(RTA_GATEWAY).and_then(ip_from),
        dev: number(RTA_OIF),
        src: attributes.find(RTA_PREFSRC).and_then(ip_from),
        metric: number(RTA_PRIORITY).unwrap_or(0),
        onlink: flags & RTNH_F_ONLINK != 0,
        protocol,
    };
    Some(route.canonical())
}

/// The table of a route message.
pub(crate) fn table_of(body: &[u8]) -> Option<u32> {
    let short = u32::from(*body.get(4)?);
    Some(Attributes::after(body, RTMSG).find(RTA_TABLE).and_then(u32_from).unwrap_or(short))
}

fn path(body: &[u8]) -> Option<Path> {
    let kind = *body.get(7)?;
    let attributes = Attributes::after(body, RTMSG);
    let metrics = Attributes(attributes.find(RTA_METRICS).unwrap_or_default());
    Some(Path {
        src: attributes.find(RTA_PREFSRC).and_then(ip_from),
        gateway: attributes.find(RTA_GATEWAY).and_then(ip_from),
        dev: attributes.find(RTA_OIF).and_then(u32_from),
        mtu: metrics.find(RTAX_MTU).and_then(u32_from),
        local: kind == RTN_LOCAL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(dst: &str) -> Route {
        Route {
            dst: dst.parse().unwrap(),
            table: 220,
            kind: Kind::Unicast,
            gateway: Some("192.0.2.1".parse().unwrap()),
            dev: Some(7),
            src: Some("10.0.0.1".parse().unwrap()),
            metric: 9,
            onlink: true,
            protocol: OURS,
        }
    }

    #[test]
    fn round_trip() {
        for table in [220, 254, 300, 70_000] {
            let route = Route { table, ..route("10.1.0.0/24") };
            let request = encode(RTM_NEWROUTE, 0, &route);
            assert_eq!(request.body()[4], if table < 256 { table as u8 } else { RT_TABLE_COMPAT });
            assert_eq!(decode(request.body()), Some(route));
        }
        let plain = Route { gateway: None, src: None, metric: 0, onlink: false, ..route("2001:db8::/48") };
        assert_eq!(decode(encode(RTM_NEWROUTE, 0, &plain).body()), Some(plain));
    }

    #[test]
    fn header_octets() {
        let request = encode(RTM_NEWROUTE, 0, &Route { gateway: None, onlink: false, ..route("10.1.0.0/24") });
        assert_eq!(request.body()[..12], [2, 24, 0, 0, 220, 0x5e, 253, 1, 0, 0, 0, 0]);
        let request = encode(RTM_DELROUTE, 0, &route("10.1.0.0/24"));
        assert_eq!(request.body()[6], RT_SCOPE_NOWHERE);
    }

    #[test]
    fn canonical_form_is_what_the_kernel_stores() {
        let odd = Route { kind: Kind::Unreachable, metric: 1024, ..route("2001:db8::5/48") }.canonical();
        assert_eq!((odd.dst.to_string().as_str(), odd.dev, odd.metric), ("2001:db8::/48", None, 0));
        assert_eq!(odd.clone().canonical(), odd);
    }

    #[test]
    fn foreign_and_cut_off_messages_are_ignored() {
        let request = encode(RTM_NEWROUTE, 0, &route("10.1.0.0/24"));
        for len in 0..RTMSG {
            assert_eq!(decode(&request.body()[..len]), None);
        }
        let mut broadcast = request.body().to_vec();
        broadcast[7] = 3;
        assert_eq!(decode(&broadcast), None);
    }
}
