//! The UDP ports: two numbers, each on IPv4 and IPv6.

use super::message::{Keepalive, PortState, SendIke};
use super::{Mode, Options};
use selvedge_linux::netlink::{Protocol, Socket};
use selvedge_linux::{Error, Family, Result, UdpPort, process};
use std::io;
use std::net::SocketAddr;

/// Bytes of a socket's buffers: they hold a burst while the other direction is served or the client restarts. A burst of
/// fast senders fills more than 4 MB; on a small gateway a flood must not take its memory.
const SOCKET_BUFFERS: std::ops::RangeInclusive<u64> = 1 << 20..=8 << 20;

/// The part of the machine's memory that such a buffer may take.
const MEMORY_SHARE: u64 = 64;

pub(super) struct Port {
    pub(super) number: u16,
    /// IKE comes behind a marker here, and ESP without.
    pub(super) encap: bool,
    /// The kernel cuts one large datagram into many (UDP GSO).
    pub(super) gso: bool,
    pub(super) socket: UdpPort,
}

pub(super) struct Ports {
    pub(super) open: Vec<Port>,
    pub(super) states: Vec<PortState>,
}

impl Ports {
    /// Binds all that can be bound; the states tell what could not.
    pub(super) fn bind(options: &Options) -> Self {
        // Socket policies are refused (EINVAL) until xfrm_user is loaded, which this asks for.
        let _xfrm = Socket::open(Protocol::Xfrm);
        let mut ports = Ports { open: Vec::new(), states: Vec::new() };
        for (number, encap) in [(options.ike_port, false), (options.encap_port, true)] {
            for family in [Family::V4, Family::V6] {
                let bound = UdpPort::bind(number, family);
                if bound.as_ref().is_err_and(Error::is_unsupported) {
                    // A kernel without IPv6 has no port to be had.
                    continue;
                }
                let problem = match &bound {
                    Ok(socket) => prepare(socket, encap, options.mode).err(),
                    Err(error) => Some(error.clone()),
                };
                let (v6, problem) = (family == Family::V6, problem.map(|error| error.to_string()));
                ports.states.push(PortState { port: number, v6, bound: bound.is_ok(), problem });
                if let Ok(socket) = bound {
                    // A kernel older than GSO ignores the request and sends the large datagram as it is; GRO came
                    // later and says whether it is there.
                    let gso = encap && options.mode == Mode::User && socket.set_gro(true).is_ok();
                    ports.open.push(Port { number, encap, gso, socket });
                }
            }
        }
        ports
    }

    /// The port that carries ESP to `remote`; index into `open`.
    pub(super) fn encap_towards(&self, remote: SocketAddr) -> Option<usize> {
        let family = Family::of(remote.ip());
        self.open.iter().position(|port| port.encap && port.socket.family() == family)
    }

    pub(super) fn send_ike(&self, ike: &SendIke) -> io::Result<()> {
        let family = Family::of(ike.remote.ip());
        let port = self.open.iter().find(|port| port.number == ike.local_port && port.socket.family() == family);
        let socket = &port.ok_or(io::ErrorKind::AddrNotAvailable)?.socket;
        match ike.marker {
            true => socket.send_from(ike.local, ike.remote, &[&[0; 4], &ike.payload[..]].concat()),
            false => socket.send_from(ike.local, ike.remote, &ike.payload),
        }
    }

    pub(super) fn send_keepalive(&self, keepalive: &Keepalive) -> io::Result<()> {
        let port = self.encap_towards(keepalive.remote).ok_or(io::ErrorKind::AddrNotAvailable)?;
        self.open[port].socket.send_from(keepalive.local, keepalive.remote, &[0xff])
    }
}

fn prepare(socket: &UdpPort, encap: bool, mode: Mode) -> Result<()> {
    let share = process::total_memory().unwrap_or(0) * 1024 / MEMORY_SHARE;
    let bytes = share.clamp(*SOCKET_BUFFERS.start(), *SOCKET_BUFFERS.end());
    socket.set_buffers(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    match (mode, socket.set_ipsec_bypass()) {
        (Mode::Kernel, bypass) => {
            bypass?;
            if encap { socket.set_udp_encap(true) } else { Ok(()) }
        }
        // A kernel without xfrm has no policies to be exempt from.
        (Mode::User, _) => Ok(()),
    }
}
