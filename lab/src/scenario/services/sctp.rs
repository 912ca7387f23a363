//! SCTP, where the kernel has it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Shutdown, SocketType, bind, connect, ipproto, listen, shutdown, socket};

use crate::netns::Netns;
use crate::pace;
use crate::server::PORT;
use crate::topology::Place;

/// Says its name to whoever calls, as long as it lives.
pub struct Server {
    listener: Arc<TcpListener>,
    over: Arc<AtomicBool>,
}

/// Checksums of SCTP made by the pod, as long as this lives. What a pod leaves to its link, ESP of the kernel spoils: it
/// writes a sum of the kind that TCP has.
pub struct Sums<'a>(&'a Netns);

impl<'a> Sums<'a> {
    pub fn new(ns: &'a Netns) -> Result<Self> {
        ns.run("ethtool -K eth0 tx-checksum-sctp off").map(|_| Self(ns))
    }
}

impl Drop for Sums<'_> {
    fn drop(&mut self) {
        let _ = self.0.run("ethtool -K eth0 tx-checksum-sctp on");
    }
}

/// Whether the kernel has it; a module is loaded for the first who asks.
pub fn is_there() -> Result<bool> {
    match open([0; 4].into()) {
        Ok(_) => Ok(true),
        Err(Errno::PROTONOSUPPORT) => Ok(false),
        Err(error) => Err(error).context("open a socket of SCTP"),
    }
}

impl Server {
    pub fn start(place: Place<'_>) -> Result<Self> {
        let address = place.address(true)?;
        let listener = place.ns.enter(|| {
            let socket = open(address)?;
            bind(&socket, &SocketAddr::new(address, PORT))?;
            listen(&socket, 8)?;
            // The calls of the standard library take sockets as they are.
            Ok(Arc::new(TcpListener::from(socket)))
        })?;
        let server = Self { listener: Arc::clone(&listener), over: Arc::default() };
        let (over, name) = (Arc::clone(&server.over), place.name.to_owned());
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept()
                && !over.load(Ordering::SeqCst)
            {
                let _ = stream.write_all(name.as_bytes());
            }
        });
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = shutdown(&*self.listener, Shutdown::Both);
    }
}

/// The name of whoever answers.
pub fn who(from: &Netns, to: SocketAddr, deadline: Duration) -> Result<String> {
    from.enter(|| {
        let socket = open(to.ip())?;
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, direction, Some(pace::limit(deadline)))?;
        }
        connect(&socket, &to)?;
        let mut name = String::new();
        TcpStream::from(socket).read_to_string(&mut name)?;
        Ok(name)
    })
    .with_context(|| format!("SCTP to {to}"))
}

fn open(address: IpAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket(family, SocketType::STREAM, Some(ipproto::SCTP))
}
