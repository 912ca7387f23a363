//! UDP ports for IKE and for ESP in UDP: they tell which own address a datagram came to, and answer from it.

mod batch;
mod knock;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use libc::{IPPROTO_IP, IPPROTO_IPV6, SOL_SOCKET, c_int};

use crate::error::{Context, Result};
use crate::{Family, sockaddr, sys};

pub use batch::{BATCH, Batch, Datagram, Outgoing};
pub use knock::Knock;

/// `UDP_ENCAP` and `UDP_ENCAP_ESPINUDP` of `linux/udp.h`.
const UDP_ENCAP: c_int = 100;
const UDP_ENCAP_ESPINUDP: c_int = 2;

/// A non-blocking UDP socket bound to one port on all own addresses of one family.
#[derive(Debug)]
pub struct UdpPort {
    fd: OwnedFd,
    family: Family,
    /// The own address of every datagram, if it is bound to one.
    local: Option<IpAddr>,
}

/// Where a datagram came from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Octets received.
    pub len: usize,
    /// The sender.
    pub remote: SocketAddr,
    /// The own address it was sent to.
    pub local: IpAddr,
    /// Set when the kernel joined several datagrams (after [`UdpPort::set_gro`]): all have this size, the last may
    /// be shorter.
    pub segment: Option<u16>,
}

impl UdpPort {
    /// Binds `port` (0: any free one) on every address of `family`. An IPv6 port takes no IPv4.
    ///
    /// Outer packets go without "don't fragment": a tunnel packet that is larger than some link on
    /// the way is then fragmented rather than lost where ICMP is filtered. The inner MTU is what
    /// keeps packets small; this is the safety net below it.
    pub fn bind(port: u16, family: Family) -> Result<Self> {
        let any = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self::open(SocketAddr::new(any, port)).context(|| format!("bind UDP port {port} ({family})"))
    }

    fn open(address: SocketAddr) -> io::Result<Self> {
        let (on, family): (c_int, _) = (1, Family::of(address.ip()));
        let fd = sys::socket(sockaddr::domain(address), libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0)?;
        match family {
            Family::V4 => {
                sys::set_option(fd.as_fd(), IPPROTO_IP, libc::IP_PKTINFO, &on)?;
                sys::set_option(fd.as_fd(), IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_DONT)?;
            }
            Family::V6 => {
                sys::set_option(fd.as_fd(), IPPROTO_IPV6, libc::IPV6_V6ONLY, &on)?;
                sys::set_option(fd.as_fd(), IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &on)?;
                sys::set_option(fd.as_fd(), IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &libc::IPV6_PMTUDISC_DONT)?;
            }
        }
        sockaddr::bind(fd.as_fd(), address)?;
        Ok(Self { fd, family, local: None })
    }

    /// Binds one address, which may come and go.
    pub fn bind_to(address: SocketAddr) -> Result<Self> {
        let open = || -> io::Result<Self> {
            let on: c_int = 1;
            let fd = sys::socket(sockaddr::domain(address), libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0)?;
            sys::set_option(fd.as_fd(), IPPROTO_IP, libc::IP_FREEBIND, &on)?;
            sockaddr::bind(fd.as_fd(), address)?;
            Ok(Self { fd, family: Family::of(address.ip()), local: Some(address.ip()) })
        };
        open().context(|| format!("bind UDP {address}"))
    }

    /// The bound port.
    pub fn port(&self) -> Result<u16> {
        let read = || -> io::Result<u16> {
            // SAFETY: all zero is a valid sockaddr_storage.
            let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
            let mut len = std::mem::size_of_val(&address) as libc::socklen_t;
            // SAFETY: the kernel writes at most `len` bytes into `address`.
            sys::check(unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut address).cast(), &mut len) })?;
            sockaddr::decode(&address).map(|a| a.port()).ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        read().context(|| "read the bound UDP port")
    }

    /// The family it is bound for.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Sets both socket buffers, beyond `net.core.*mem_max` where we may.
    pub fn set_buffers(&self, bytes: usize) -> Result<()> {
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            sys::set_option(self.fd.as_fd(), SOL_SOCKET, force, &bytes)
                .or_else(|_| sys::set_option(self.fd.as_fd(), SOL_SOCKET, plain, &bytes))
                .context(|| "set UDP buffer size")?;
        }
        Ok(())
    }

    /// Lets the kernel take ESP packets (RFC 3948) from this port for xfrm; `false` hands all to the reader again.
    ///
    /// Decapsulation lasts as long as the socket is open. IPv6 needs Linux 5.8.
    pub fn set_udp_encap(&self, on: bool) -> Result<()> {
        let kind = if on { UDP_ENCAP_ESPINUDP } else { 0 };
        sys::set_option(self.fd.as_fd(), libc::IPPROTO_UDP, UDP_ENCAP, &kind)
            .context(|| format!("set ESP in UDP on the {} port", self.family))
    }

    /// Exempts this socket from all xfrm policies in both directions, so that IKE is never encrypted by its own
    /// tunnels nor refused for coming in clear.
    pub fn set_ipsec_bypass(&self) -> Result<()> {
        let (level, name) = match self.family {
            Family::V4 => (IPPROTO_IP, libc::IP_XFRM_POLICY),
            Family::V6 => (IPPROTO_IPV6, libc::IPV6_XFRM_POLICY),
        };
        for direction in [crate::xfrm::Direction::In, crate::xfrm::Direction::Out] {
            let policy: [u8; crate::xfrm::POLICY_INFO_LEN] = crate::xfrm::bypass_policy(self.family, direction);
            sys::set_option(self.fd.as_fd(), level, name, &policy)
                .context(|| format!("exempt the {} UDP port from IPsec", self.family))?;
        }
        Ok(())
    }

    /// Lets the kernel join datagrams of one sender (UDP GRO, Linux 5.0); buffers must then hold 65,535 octets.
    pub fn set_gro(&self, on: bool) -> Result<()> {
        sys::set_option(self.fd.as_fd(), libc::IPPROTO_UDP, batch::UDP_GRO, &c_int::from(on)).context(|| "set UDP GRO")
    }

    /// Takes one datagram; `WouldBlock` when there is none. What does not fit into `buffer` is cut off.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut found = None;
        let size = buffer.len();
        batch::receive::<1>(self, buffer, size, |_, received| found = Some(received))?;
        found.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Sends one datagram from `local` (`None`: the kernel chooses).
    pub fn send_from(&self, local: Option<IpAddr>, remote: SocketAddr, payload: &[u8]) -> io::Result<()> {
        self.send_many(&[Outgoing { local, remote, segment: None, payload }]).map(drop)
    }

    /// Takes as many datagrams as are there and fit into `batch`; `WouldBlock` when there is none.
    pub fn recv_many(&self, batch: &mut Batch) -> io::Result<usize> {
        batch.fill(self)
    }

    /// Sends datagrams in order and returns how many the kernel took; an error only if the first one failed.
    pub fn send_many(&self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        batch::send(self, datagrams)
    }
}

impl AsRawFd for UdpPort {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for UdpPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
