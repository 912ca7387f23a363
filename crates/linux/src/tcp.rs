//! TCP without waiting, for loops that wait for many things at once, and signs of life where nobody speaks for long.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use crate::error::{Context, Result};
use crate::{sockaddr, sys};

/// Listens at one address, which may come and go; so many connections wait to be taken. Nothing waits here.
pub fn listen(address: SocketAddr, backlog: u16) -> Result<TcpListener> {
    let open = || -> io::Result<TcpListener> {
        let on: libc::c_int = 1;
        let fd = sys::socket(sockaddr::domain(address), libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
        // Connections of an earlier program may still be on their way out.
        sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
        sys::set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_FREEBIND, &on)?;
        if address.is_ipv6() {
            sys::set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &on)?;
        }
        sockaddr::bind(fd.as_fd(), address)?;
        // SAFETY: takes no pointers.
        sys::check(unsafe { libc::listen(fd.as_raw_fd(), backlog.into()) })?;
        Ok(fd.into())
    };
    open().context(|| format!("listen at TCP {address}"))
}

/// Begins to connect: the stream can be written once it is there, or fails then. Nothing waits.
pub fn connect(remote: SocketAddr) -> io::Result<TcpStream> {
    let fd = sys::socket(sockaddr::domain(remote), libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
    let (address, len) = sockaddr::encode(remote);
    // SAFETY: `address` is a socket address of `len` bytes.
    match sys::check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), len) }) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(fd.into()),
    }
}

/// Has the kernel ask the other end for a sign of life after `idle` of silence, and every `pause` from then on; after
/// so many `tries` the connection is broken. Times in full seconds.
pub fn keep_alive(stream: impl AsFd, idle: Duration, pause: Duration, tries: u8) -> Result<()> {
    let seconds = |time: Duration| libc::c_int::try_from(time.as_secs()).unwrap_or(libc::c_int::MAX);
    let set = |level, name, value: libc::c_int| sys::set_option(stream.as_fd(), level, name, &value);
    set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
        .and_then(|()| set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds(idle)))
        .and_then(|()| set(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds(pause)))
        .and_then(|()| set(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, tries.into()))
        .context(|| "keep a TCP connection alive".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::poll::{Interest, poll};

    #[test]
    fn a_connection_is_there_when_it_can_be_written() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), 8).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut caller = connect(listener.local_addr().unwrap()).unwrap();
        poll(&mut [Interest::readable(&listener)], None).unwrap();
        let (mut called, _) = listener.accept().unwrap();
        poll(&mut [Interest::readable(&caller).or_writable()], None).unwrap();
        caller.write_all(b"x").unwrap();
        called.set_nonblocking(false).unwrap();
        let mut octet = [0];
        called.read_exact(&mut octet).unwrap();
        assert_eq!(octet, *b"x");
    }

    #[test]
    fn an_address_that_is_not_here_yet() {
        assert!(listen("192.0.2.1:0".parse().unwrap(), 8).is_ok());
        assert!(listen("[2001:db8::1]:0".parse().unwrap(), 8).is_ok());
        assert!(crate::UdpPort::bind_to("[2001:db8::1]:0".parse().unwrap()).is_ok());
    }
}
