//! Connections that the kernel tracks: reading and forgetting them.

use std::net::{IpAddr, SocketAddr};

use crate::Family;
use crate::error::{Context, Result};
use crate::netfilter::request;
use crate::netlink::{Attributes, Protocol, Reader, Socket, ip_from};

/// `NFNL_SUBSYS_CTNETLINK`, in the upper octet of the message type.
const CTNETLINK: u16 = 1 << 8;
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
/// Source and destination of either family follow one another.
const CTA_IP_SRC: [u16; 2] = [1, 3];
const CTA_IP_DST: [u16; 2] = [2, 4];
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// What the client called.
    pub called: SocketAddr,
    /// Who is to answer: after a translation of the destination somebody else.
    pub answers: SocketAddr,
    /// Something came back.
    pub answered: bool,
    /// As the kernel gave it, to give it back.
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
    family: Family,
}

/// The kernel's table of connections.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens it. A kernel without `nf_conntrack_netlink` fails at the first question.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// The connections of an IP protocol (17: UDP) that `keep` wants.
    pub fn find(
        &mut self,
        family: Family,
        protocol: u8,
        mut keep: impl FnMut(&Connection) -> bool,
    ) -> Result<Vec<Connection>> {
        let read = |_, body: &[u8]| read(body, family, protocol).filter(|connection| keep(connection));
        self.socket.dump(&mut request(GET, family.raw()), read).context(|| "read the tracked connections")
    }

    /// Forgets one: its next packet begins another. One that is gone already is no error.
    pub fn forget(&mut self, connection: &Connection) -> Result<()> {
        let mut request = request(DELETE, connection.family.raw());
        request.nested(CTA_TUPLE_ORIG, |r| {
            r.raw(&connection.original);
        });
        if let Some(zone) = &connection.zone {
            request.attribute(CTA_ZONE, zone);
        }
        match self.socket.request(&mut request) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            other => other.context(|| format!("forget the connection to {}", connection.called)),
        }
    }
}

fn read(body: &[u8], family: Family, protocol: u8) -> Option<Connection> {
    let attributes = Attributes::after(body, 4);
    let original = attributes.find(CTA_TUPLE_ORIG)?;
    let (number, _, called) = tuple(original)?;
    if number != protocol {
        return None;
    }
    let (_, answers, _) = tuple(attributes.find(CTA_TUPLE_REPLY)?)?;
    const SEEN_REPLY: u32 = 2;
    let status = Reader(attributes.find(CTA_STATUS).unwrap_or_default()).u32_be().unwrap_or(SEEN_REPLY);
    let answered = status & SEEN_REPLY != 0;
    let zone = attributes.find(CTA_ZONE).map(<[u8]>::to_vec);
    Some(Connection { called, answers, answered, original: original.to_vec(), zone, family })
}

/// Protocol, source and destination; of protocols without ports nothing.
fn tuple(value: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let attributes = Attributes(value);
    let ips = Attributes(attributes.find(CTA_TUPLE_IP)?);
    let ip = |kinds: [u16; 2]| -> Option<IpAddr> { kinds.iter().find_map(|kind| ips.find(*kind)).and_then(ip_from) };
    let parts = Attributes(attributes.find(CTA_TUPLE_PROTO)?);
    let port = |kind| Reader(parts.find(kind)?).u16_be();
    let source = SocketAddr::new(ip(CTA_IP_SRC)?, port(CTA_PROTO_SRC_PORT)?);
    let destination = SocketAddr::new(ip(CTA_IP_DST)?, port(CTA_PROTO_DST_PORT)?);
    Some((Reader(parts.find(CTA_PROTO_NUM)?).u8()?, source, destination))
}
