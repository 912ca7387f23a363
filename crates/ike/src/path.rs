//! Between which addresses an IKE SA travels.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::PeerId;
use crate::event::Transmit;

const IKE_PORT: u16 = 500;
const NAT_T_PORT: u16 = 4500;

/// Addresses and what is known about NATs between them (RFC 7296 section 2.23).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) local: Option<IpAddr>,
    pub(crate) local_port: u16,
    pub(crate) remote: SocketAddr,
    pub(crate) nat_local: bool,
    pub(crate) nat_remote: bool,
    /// We made the peer believe in a NAT on our side.
    pub(crate) forced: bool,
}

impl Path {
    /// The path of a call: port 500 talks to port 500, and 4500 to anything else.
    pub(crate) fn calling(local: Option<IpAddr>, remote: SocketAddr) -> Self {
        let local = local.filter(|local| local.is_ipv4() == remote.is_ipv4());
        let local_port = if remote.port() == IKE_PORT { IKE_PORT } else { NAT_T_PORT };
        Self { local, local_port, remote, nat_local: false, nat_remote: false, forced: false }
    }

    /// The path back to where a datagram came from.
    pub(crate) fn answering(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local: Some(local.ip()),
            local_port: local.port(),
            remote,
            nat_local: false,
            nat_remote: false,
            forced: false,
        }
    }

    /// Our address as the peer should see it; `None` while it is unknown.
    pub(crate) fn source(&self) -> Option<SocketAddr> {
        self.local.map(|ip| SocketAddr::new(ip, self.local_port))
    }

    /// Our end of the path; the unspecified address while it is unknown.
    pub(crate) fn local(&self) -> SocketAddr {
        let unspecified = match self.remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(self.local.unwrap_or(unspecified), self.local_port)
    }

    /// ESP must travel in UDP.
    pub(crate) fn encap(&self) -> bool {
        self.nat_local || self.nat_remote || self.forced
    }

    /// Moves to port 4500 at both ends, once a NAT is detected.
    pub(crate) fn float(&mut self) {
        if self.local_port == IKE_PORT {
            self.local_port = NAT_T_PORT;
            self.remote.set_port(NAT_T_PORT);
        }
    }

    /// A datagram on this path.
    pub(crate) fn transmit(&self, peer: Option<PeerId>, payload: Vec<u8>) -> Transmit {
        Transmit {
            peer,
            local: self.local,
            local_port: self.local_port,
            remote: self.remote,
            payload,
            non_esp_marker: self.local_port != IKE_PORT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_markers() {
        let mut path = Path::calling(None, "192.0.2.1:500".parse().unwrap());
        assert_eq!((path.local_port, path.transmit(None, vec![]).non_esp_marker), (500, false));
        path.float();
        assert_eq!((path.local_port, path.remote.port()), (4500, 4500));
        assert!(path.transmit(None, vec![]).non_esp_marker);
        let mut path = Path::calling(None, "192.0.2.1:30500".parse().unwrap());
        path.float();
        assert_eq!((path.local_port, path.remote.port()), (4500, 30500));
        let other_family = Path::calling(Some("::1".parse().unwrap()), "192.0.2.1:500".parse().unwrap());
        assert_eq!(other_family.local, None);
    }
}
