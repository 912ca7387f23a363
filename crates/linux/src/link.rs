//! Network links and what becomes of them.

use ipnet::IpNet;

use crate::address;
use crate::error::{Context, Result};
use crate::netlink::{Attributes, Monitor, Protocol, Reader, Request, Socket, flags, string_from, u32_from};

pub(crate) const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
/// Octets of `struct ifinfomsg`.
const IFINFO: usize = 16;

/// Attributes of `linux/if_link.h`.
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

/// Multicast groups of `linux/rtnetlink.h`: links, addresses and routes of both families.
const GROUPS: [i32; 5] = [1, 5, 7, 9, 11];

/// A link of this network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `dummy`, `tun`, `bridge`, `veth`, …; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// The largest packet in octets.
    pub mtu: u32,
    /// Switched on (`IFF_UP`).
    pub up: bool,
    /// The loopback link.
    pub loopback: bool,
    /// Its own addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
}

/// What changed. It says only where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A link came, went or changed.
    Link {
        /// The link.
        index: u32,
    },
    /// An address came or went.
    Address {
        /// The link.
        index: u32,
    },
    /// A route came or went.
    Route {
        /// The table.
        table: u32,
    },
}

/// All links, in the kernel's order.
pub fn list(socket: &mut Socket) -> Result<Vec<Link>> {
    let mut request = Request::new(RTM_GETLINK, 0);
    request.zeros(IFINFO);
    let links = socket.dump(&mut request, parse).context(|| "list links")?;
    with_addresses(socket, links)
}

/// The link called `name`.
pub fn by_name(socket: &mut Socket, name: &str) -> Result<Option<Link>> {
    let mut request = Request::new(RTM_GETLINK, 0);
    request.zeros(IFINFO).attribute_text(IFLA_IFNAME, name);
    match socket.get(&mut request, parse) {
        Ok(links) => Ok(with_addresses(socket, links)?.into_iter().next()),
        Err(e) if e.errno() == Some(libc::ENODEV) => Ok(None),
        Err(e) => Err(e.context(format!("look up link {name}"))),
    }
}

/// Makes a link of a kind that needs no parameters (`dummy`, `bridge`, `ifb`). Returns whether it was not there yet.
pub fn create(socket: &mut Socket, name: &str, kind: &str) -> Result<bool> {
    let mut request = Request::new(RTM_NEWLINK, flags::CREATE | flags::EXCL);
    request.zeros(IFINFO).attribute_text(IFLA_IFNAME, name).nested(IFLA_LINKINFO, |info| {
        info.attribute_text(IFLA_INFO_KIND, kind);
    });
    match socket.request(&mut request) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Some(libc::EEXIST) => Ok(false),
        Err(e) => Err(e.context(format!("make {kind} link {name}"))),
    }
}

/// Whether the kernel can make links of this kind; makes it load the module. A kernel that cannot gives `EOPNOTSUPP`.
///
/// The MTU asked for is none, so that nothing is made; kernels before 5.6 look at it later and make a link for a moment.
pub fn probe(socket: &mut Socket, kind: &str) -> Result<()> {
    const NAME: &str = "selvedge-probe";
    let mut request = Request::new(RTM_NEWLINK, flags::CREATE | flags::EXCL);
    request.zeros(IFINFO).attribute_text(IFLA_IFNAME, NAME).attribute_u32(IFLA_MTU, u32::MAX);
    request.nested(IFLA_LINKINFO, |info| {
        info.attribute_text(IFLA_INFO_KIND, kind);
    });
    match socket.request(&mut request) {
        Err(e) if matches!(e.errno(), Some(libc::EINVAL | libc::EEXIST)) => Ok(()),
        Err(e) => Err(e.context(format!("make {kind} links"))),
        Ok(()) => delete(socket, NAME).map(drop),
    }
}

/// Removes a link. Returns whether it was there.
pub fn delete(socket: &mut Socket, name: &str) -> Result<bool> {
    let mut request = Request::new(RTM_DELLINK, 0);
    request.zeros(IFINFO).attribute_text(IFLA_IFNAME, name);
    match socket.request(&mut request) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Some(libc::ENODEV) => Ok(false),
        Err(e) => Err(e.context(format!("delete link {name}"))),
    }
}

/// Switches a link on.
pub fn set_up(socket: &mut Socket, index: u32) -> Result<()> {
    let up = libc::IFF_UP as u32;
    socket.request(&mut change(index, up, up)).context(|| format!("switch on link #{index}"))
}

/// Sets a link's largest packet.
pub fn set_mtu(socket: &mut Socket, index: u32, mtu: u32) -> Result<()> {
    let mut request = change(index, 0, 0);
    request.attribute_u32(IFLA_MTU, mtu);
    socket.request(&mut request).context(|| format!("set MTU {mtu} of link #{index}"))
}

/// Watches links, addresses and routes of this network namespace.
pub fn monitor() -> Result<Monitor<Event>> {
    Monitor::open(Protocol::Route, &GROUPS, event)
}

fn change(index: u32, flags: u32, mask: u32) -> Request {
    let mut request = Request::new(RTM_NEWLINK, 0);
    request.zeros(4).u32(index).u32(flags).u32(mask);
    request
}

fn with_addresses(socket: &mut Socket, mut links: Vec<Link>) -> Result<Vec<Link>> {
    for (index, address) in address::list(socket)? {
        if let Some(link) = links.iter_mut().find(|link| link.index == index) {
            link.addresses.push(address);
        }
    }
    Ok(links)
}

fn parse(kind: u16, body: &[u8]) -> Option<Link> {
    if kind != RTM_NEWLINK {
        return None;
    }
    let mut head = Reader(body);
    head.take(4)?;
    let (index, flags, _change) = (head.u32()?, head.u32()?, head.u32()?);
    let attributes = Attributes::after(body, IFINFO);
    let info = Attributes(attributes.find(IFLA_LINKINFO).unwrap_or_default());
    Some(Link {
        index,
        name: string_from(attributes.find(IFLA_IFNAME)?),
        kind: info.find(IFLA_INFO_KIND).map(string_from),
        master: attributes.find(IFLA_MASTER).and_then(u32_from),
        mtu: attributes.find(IFLA_MTU).and_then(u32_from).unwrap_or(0),
        up: flags & libc::IFF_UP as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        addresses: Vec::new(),
    })
}

fn event(kind: u16, body: &[u8]) -> Option<Event> {
    // ifinfomsg and ifaddrmsg both have their index at octet 4; rtmsg has its table there.
    let index = || body.get(4..).and_then(u32_from);
    match kind {
        RTM_NEWLINK | RTM_DELLINK => Some(Event::Link { index: index()? }),
        RTM_NEWADDR | RTM_DELADDR => Some(Event::Address { index: index()? }),
        RTM_NEWROUTE | RTM_DELROUTE => Some(Event::Route { table: crate::route::table_of(body)? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_is_read() {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.zeros(4).u32(7).u32(1).u32(0).attribute_text(IFLA_IFNAME, "selvedge0").attribute_u32(IFLA_MTU, 1400);
        request.nested(IFLA_LINKINFO, |info| {
            info.attribute_text(IFLA_INFO_KIND, "tun");
        });
        let link = parse(RTM_NEWLINK, request.body()).unwrap();
        assert_eq!((link.index, link.name.as_str(), link.kind.as_deref()), (7, "selvedge0", Some("tun")));
        assert_eq!((link.mtu, link.up, link.loopback, link.master), (1400, true, false, None));
        request.attribute_u32(IFLA_MASTER, 3);
        assert_eq!(parse(RTM_NEWLINK, request.body()).unwrap().master, Some(3));
        assert_eq!(parse(RTM_NEWLINK, &request.body()[..15]), None);
        assert_eq!(parse(RTM_DELLINK, request.body()), None);
    }

    #[test]
    fn events_say_where() {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&9u32.to_ne_bytes());
        assert_eq!(event(RTM_DELLINK, &body), Some(Event::Link { index: 9 }));
        assert_eq!(event(RTM_NEWADDR, &body[..8]), Some(Event::Address { index: 9 }));
        let mut request = Request::new(RTM_NEWROUTE, 0);
        request.zeros(12).attribute_u32(15, 70_000);
        assert_eq!(event(RTM_NEWROUTE, request.body()), Some(Event::Route { table: 70_000 }));
        assert_eq!(event(RTM_NEWROUTE, &[0; 3]), None);
        assert_eq!(event(99, &body), None);
    }
}
