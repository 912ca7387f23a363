//! Asking the network whether a port can be reached.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use libc::{IPPROTO_IP, IPPROTO_IPV6};

use crate::error::Result;
use crate::sys;

/// A datagram under way.
#[derive(Debug)]
pub struct Knock(io::Result<UdpSocket>);

impl Knock {
    /// Sends `payload`.
    pub fn send(remote: SocketAddr, payload: &[u8]) -> Self {
        let send = || {
            let (any, level, name) = match remote {
                SocketAddr::V4(_) => (IpAddr::from([0; 4]), IPPROTO_IP, libc::IP_RECVERR),
                SocketAddr::V6(_) => (IpAddr::from([0_u16; 8]), IPPROTO_IPV6, libc::IPV6_RECVERR),
            };
            let socket = UdpSocket::bind((any, 0))?;
            // Without it a socket is told of closed ports only.
            sys::set_option(socket.as_fd(), level, name, &1_i32)?;
            socket.connect(remote)?;
            socket.send(payload)?;
            Ok(socket)
        };
        Self(send())
    }

    /// Waits for what the network says: an ICMP error is an error (`ECONNREFUSED`: the port is closed; `EHOSTUNREACH`, …:
    /// there is no way), an answer or silence is none.
    pub fn answer(self, patience: Duration) -> Result<()> {
        let socket = self.0?;
        socket.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        match socket.recv(&mut [0; 16]) {
            Err(e) if !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Err(e.into()),
            _ => Ok(()),
        }
    }
}
