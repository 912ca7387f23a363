//! A netlink socket for requests.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;
use zeroize::Zeroize;

use super::message::{Attributes, Message, Reader, Request, string_from};
use super::{HEADER, Protocol, flags};
use crate::error::{Context, Error, Result};
use crate::sys;

pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel never sends more than this at once.
pub(super) const BUFFER: usize = 32 * 1024;
/// How often a dump starts again because the table changed while it was read.
const DUMP_ATTEMPTS: usize = 16;

/// Socket options of `linux/netlink.h`.
const NETLINK_CAP_ACK: c_int = 10;
const NETLINK_EXT_ACK: c_int = 11;
const NETLINK_GET_STRICT_CHK: c_int = 12;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A socket that sends a request and waits for the kernel's answer, which is there at once.
///
/// It belongs to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    protocol: Protocol,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket. `EPROTONOSUPPORT` means that the kernel lacks the protocol.
    pub fn open(protocol: Protocol) -> Result<Self> {
        let fd = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol as c_int)
            .context(|| format!("open netlink socket ({protocol:?})"))?;
        // Older kernels lack some of these: then errors say less, and dumps are filtered here.
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK] {
            let on: c_int = 1;
            let _ = sys::set_option(fd.as_fd(), libc::SOL_NETLINK, option, &on);
        }
        Ok(Self { fd, protocol, sequence: 0, buffer: Vec::new() })
    }

    /// Sends a request and waits until the kernel has done it.
    pub(crate) fn request(&mut self, request: &mut Request) -> Result<()> {
        self.get(request, |_, _| None::<()>).map(drop)
    }

    /// Sends a request and returns what `parse` makes of the message type and body of the answers before the
    /// acknowledgement.
    pub(crate) fn get<T>(
        &mut self,
        request: &mut Request,
        mut parse: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        request.add_flags(flags::ACK);
        let mut found = Vec::new();
        self.exchange(request, &mut |kind, body| found.extend(parse(kind, body)))?;
        Ok(found)
    }

    /// Asks for a whole table. Starts again when it changed in between.
    pub(crate) fn dump<T>(
        &mut self,
        request: &mut Request,
        mut parse: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        request.add_flags(flags::DUMP);
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            match self.exchange(request, &mut |kind, body| found.extend(parse(kind, body))) {
                Ok(Outcome::Whole) => return Ok(found),
                Ok(Outcome::Changed) => log::debug!("netlink: the table changed while it was read, again"),
                Err(e) if e.errno() == Some(libc::ENOBUFS) => log::debug!("netlink: answers were lost, again"),
                Err(e) => return Err(e),
            }
        }
        Err(Error::kernel(libc::EAGAIN, Some("the table changes faster than it can be read")))
    }

    fn exchange(&mut self, request: &mut Request, each: &mut dyn FnMut(u16, &[u8])) -> Result<Outcome> {
        self.sequence = self.sequence.wrapping_add(1);
        sys::send(self.fd.as_fd(), request.finish(self.sequence))?;
        self.buffer.resize(BUFFER, 0);
        let mut outcome = Outcome::Whole;
        loop {
            let len = match receive(self.fd.as_fd(), &mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(len) => len,
                Err(e) => {
                    // What is still on its way belongs to no later request.
                    while receive(self.fd.as_fd(), &mut self.buffer, libc::MSG_DONTWAIT).is_ok() {}
                    return Err(e.into());
                }
            };
            let received = self.buffer.get_mut(..len).unwrap_or_default();
            let end = read_answers(received, self.sequence, &mut outcome, each);
            if self.protocol == Protocol::Xfrm {
                // Dumped SAs come with their keys.
                received.zeroize();
            }
            if let Some(result) = end {
                return result.map(|()| outcome);
            }
        }
    }
}

enum Outcome {
    Whole,
    Changed,
}

/// Hands messages of this `sequence` to `each`. `Some` when the answer is complete.
fn read_answers(
    mut bytes: &[u8],
    sequence: u32,
    outcome: &mut Outcome,
    each: &mut dyn FnMut(u16, &[u8]),
) -> Option<Result<()>> {
    while let Some((message, rest)) = Message::split(bytes) {
        bytes = rest;
        if message.sequence != sequence {
            continue;
        }
        if message.flags & flags::DUMP_INTR != 0 {
            *outcome = Outcome::Changed;
        }
        match message.kind {
            NLMSG_ERROR | NLMSG_DONE => return Some(read_end(message)),
            kind => each(kind, message.body),
        }
    }
    None
}

/// The error number, and the kernel's words, out of `NLMSG_ERROR` and `NLMSG_DONE`.
pub(super) fn read_end(message: Message<'_>) -> Result<()> {
    let errno = (Reader(message.body).u32().unwrap_or(0) as i32).wrapping_neg();
    if errno == 0 {
        return Ok(());
    }
    // struct nlmsgerr is the error and the request, of which only the header is there if "capped".
    let skip = match message.kind {
        NLMSG_DONE => 4,
        _ if message.flags & flags::CAPPED != 0 => 4 + HEADER,
        _ => 4 + Reader(message.body.get(4..).unwrap_or_default()).u32().unwrap_or(0) as usize,
    };
    let words = if message.flags & flags::ACK_TLVS != 0 && skip <= message.body.len() {
        Attributes::after(message.body, skip).find(NLMSGERR_ATTR_MSG).map(string_from)
    } else {
        None
    };
    Err(Error::kernel(errno, words.as_deref()))
}

/// Receives one datagram from the kernel; those of other processes are passed over.
pub(super) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8], extra: c_int) -> io::Result<usize> {
    loop {
        // SAFETY: all zero is a valid sockaddr_nl.
        let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut size = std::mem::size_of_val(&from) as libc::socklen_t;
        // SAFETY: the kernel writes at most the given lengths into `buffer` and `from`.
        let len = sys::retry(|| {
            sys::check_size(unsafe {
                libc::recvfrom(
                    fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_TRUNC | extra,
                    (&raw mut from).cast(),
                    &mut size,
                )
            })
        })?;
        if from.nl_pid != 0 {
            continue;
        }
        return if len > buffer.len() { Err(io::Error::from_raw_os_error(libc::EMSGSIZE)) } else { Ok(len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut request = Request::new(kind, flags);
        request.raw(body);
        request.finish(sequence).to_vec()
    }

    fn read(bytes: &[u8]) -> (Option<Result<()>>, bool, Vec<u16>) {
        let (mut outcome, mut kinds) = (Outcome::Whole, Vec::new());
        let end = read_answers(bytes, 5, &mut outcome, &mut |kind, _| kinds.push(kind));
        (end, matches!(outcome, Outcome::Changed), kinds)
    }

    #[test]
    fn foreign_sequences_are_skipped_and_the_end_is_seen() {
        let bytes = [
            message(24, 0, 4, &[]),
            message(2, 0, 4, &(-1i32).to_ne_bytes()),
            message(25, 0, 5, &[1, 2, 3, 4]),
            message(26, flags::DUMP_INTR, 5, &[]),
        ]
        .concat();
        assert_eq!(read(&bytes), (None, true, vec![25, 26]));
        let bytes = [message(3, 0, 5, &0i32.to_ne_bytes()), message(26, 0, 5, &[])].concat();
        assert_eq!(read(&bytes), (Some(Ok(())), false, vec![]));
    }

    #[test]
    fn extended_acknowledgement_is_read_with_and_without_the_request() {
        let mut words = Request::new(0, 0);
        words.attribute_text(NLMSGERR_ATTR_MSG, "Invalid prefix");
        let copied = message(24, 0, 5, &[0; 12]);
        for (extra, request) in [(flags::CAPPED, &copied[..HEADER]), (0, &copied[..])] {
            let body = [&(-libc::EINVAL).to_ne_bytes()[..], request, words.body()].concat();
            let (end, ..) = read(&message(NLMSG_ERROR, extra | flags::ACK_TLVS, 5, &body));
            assert_eq!(end.unwrap().unwrap_err().to_string(), "invalid argument (EINVAL): Invalid prefix");
        }
        let body = [&(-libc::EINVAL).to_ne_bytes()[..], words.body()].concat();
        let (end, ..) = read(&message(NLMSG_DONE, flags::ACK_TLVS, 5, &body));
        assert_eq!(end.unwrap().unwrap_err().to_string(), "invalid argument (EINVAL): Invalid prefix");
    }

    #[test]
    fn cut_off_errors_do_not_panic() {
        for len in 0..28 {
            let body = &[0xf0; 28][..len];
            let (end, ..) = read(&message(NLMSG_ERROR, flags::ACK_TLVS, 5, body));
            assert!(end.is_some());
        }
        let body = (i32::MIN).to_ne_bytes();
        assert!(read(&message(NLMSG_ERROR, 0, 5, &body)).0.unwrap().is_err());
    }
}
