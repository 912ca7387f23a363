//! Notifications from the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use libc::c_int;

use super::Protocol;
use super::flags;
use super::message::{Message, Request};
use super::socket::{BUFFER, NLMSG_ERROR, read_end, receive};
use crate::error::{Context, Result};
use crate::sys;

/// Room for bursts, such as thousands of SAs that expire together.
const RECEIVE_BUFFER: c_int = 1024 * 1024;

/// Of the requests of a monitor; what nobody asked for has none.
const OWN_SEQUENCE: u32 = 1;

/// A non-blocking stream of notifications of type `T`.
#[derive(Debug)]
pub struct Monitor<T> {
    fd: OwnedFd,
    parse: fn(u16, &[u8]) -> Option<T>,
    buffer: Vec<u8>,
    /// The part of `buffer` that is received and not yet read.
    unread: std::ops::Range<usize>,
}

/// What a [`Monitor`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice<T> {
    /// One notification.
    Event(T),
    /// Notifications came faster than they were read, and some are lost: read the state itself again.
    Lost,
}

impl<T> Monitor<T> {
    /// Subscribes to multicast groups by number (`RTNLGRP_*`, `XFRMNLGRP_*`).
    pub(crate) fn open(protocol: Protocol, groups: &[c_int], parse: fn(u16, &[u8]) -> Option<T>) -> Result<Self> {
        let open = || -> io::Result<OwnedFd> {
            let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
            let fd = sys::socket(libc::AF_NETLINK, kind, protocol as c_int)?;
            let _ = sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER);
            // SAFETY: all zero is a valid sockaddr_nl.
            let mut any: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
            any.nl_family = libc::AF_NETLINK as libc::sa_family_t;
            let size = std::mem::size_of_val(&any) as libc::socklen_t;
            // Without a port of its own, a socket gets no notification of what nobody asked for.
            // SAFETY: `any` is a socket address of `size` bytes.
            sys::check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const any).cast(), size) })?;
            for group in groups {
                sys::set_option(fd.as_fd(), libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)?;
            }
            Ok(fd)
        };
        let fd = open().context(|| format!("watch the kernel's {protocol:?} notifications"))?;
        Ok(Self { fd, parse, buffer: Vec::new(), unread: 0..0 })
    }

    /// Asks the kernel for something that belongs to this very socket, and waits until that is done. Notifications that
    /// are there already are passed over.
    pub(crate) fn request(&self, request: &mut Request) -> Result<()> {
        request.add_flags(flags::ACK);
        sys::send(self.fd.as_fd(), request.finish(OWN_SEQUENCE))?;
        let mut buffer = vec![0; BUFFER];
        loop {
            // The kernel answers before it returns from the request.
            let len = receive(self.fd.as_fd(), &mut buffer, libc::MSG_DONTWAIT)?;
            let mut bytes = buffer.get(..len).unwrap_or_default();
            while let Some((message, rest)) = Message::split(bytes) {
                bytes = rest;
                if message.kind == NLMSG_ERROR && message.sequence == OWN_SEQUENCE {
                    return read_end(message);
                }
            }
        }
    }

    /// The next notification; `None` when there is none now.
    pub fn take(&mut self) -> Result<Option<Notice<T>>> {
        loop {
            while let Some((message, rest)) = self.buffer.get(self.unread.clone()).and_then(Message::split) {
                self.unread.start = self.unread.end - rest.len();
                if let Some(event) = (self.parse)(message.kind, message.body) {
                    return Ok(Some(Notice::Event(event)));
                }
            }
            self.buffer.resize(BUFFER, 0);
            match receive(self.fd.as_fd(), &mut self.buffer, 0) {
                Ok(len) => self.unread = 0..len,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.unread = 0..0;
                    return Ok(None);
                }
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::EMSGSIZE)) => {
                    self.unread = 0..0;
                    return Ok(Some(Notice::Lost));
                }
                Err(e) => return Err(e).context(|| "read the kernel's notifications"),
            }
        }
    }
}

impl<T> AsRawFd for Monitor<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl<T> AsFd for Monitor<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
