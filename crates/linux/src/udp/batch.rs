//! Many datagrams in one system call.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use libc::c_int;

use super::{Received, UdpPort};
use crate::{sockaddr, sys};

/// The most datagrams one call moves.
pub const BATCH: usize = 32;

/// `UDP_SEGMENT` and `UDP_GRO` of `linux/udp.h`.
const UDP_SEGMENT: c_int = 103;
pub(super) const UDP_GRO: c_int = 104;

/// Receive buffers for [`BATCH`] datagrams, allocated once.
#[derive(Debug)]
pub struct Batch {
    storage: Vec<u8>,
    size: usize,
    /// Which buffer holds what.
    filled: Vec<(usize, Received)>,
}

/// One received datagram (or, with `segment`, several of one sender in a row).
#[derive(Debug)]
pub struct Datagram<'a> {
    /// The sender.
    pub remote: SocketAddr,
    /// The own address it was sent to.
    pub local: IpAddr,
    /// See [`Received::segment`].
    pub segment: Option<u16>,
    /// What was received; may be changed in place.
    pub payload: &'a mut [u8],
}

/// One datagram to send.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The own address to send from; `None`: the kernel chooses.
    pub local: Option<IpAddr>,
    /// The receiver.
    pub remote: SocketAddr,
    /// The kernel cuts `payload` into datagrams of this size (UDP GSO, Linux 4.18); the last may be shorter.
    pub segment: Option<u16>,
    /// The octets.
    pub payload: &'a [u8],
}

/// Room for a packet-info and a segment-size control message.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 96]);

const EMPTY: Control = Control([0; 96]);

impl Batch {
    /// Buffers for datagrams of up to `size` octets; what is longer is cut off.
    pub fn new(size: usize) -> Self {
        Self { storage: vec![0; size * BATCH], size, filled: Vec::with_capacity(BATCH) }
    }

    /// What the last [`UdpPort::recv_many`] brought, in order of arrival.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let mut filled = self.filled.iter().peekable();
        self.storage.chunks_exact_mut(self.size.max(1)).enumerate().filter_map(move |(index, chunk)| {
            let (_, received) = filled.next_if(|(i, _)| *i == index)?;
            let Received { len, remote, local, segment } = *received;
            Some(Datagram { remote, local, segment, payload: chunk.get_mut(..len)? })
        })
    }

    pub(super) fn fill(&mut self, port: &UdpPort) -> io::Result<usize> {
        self.filled.clear();
        let filled = &mut self.filled;
        receive::<BATCH>(port, &mut self.storage, self.size, |index, received| filled.push((index, received)))?;
        Ok(self.filled.len())
    }
}

/// Receives up to `N` datagrams into consecutive parts of `storage`, `size` octets each.
pub(super) fn receive<const N: usize>(
    port: &UdpPort,
    storage: &mut [u8],
    size: usize,
    mut each: impl FnMut(usize, Received),
) -> io::Result<()> {
    assert!(storage.len() >= N * size, "{N} buffers of {size}");
    // SAFETY: all zero is valid for these C structures (null pointers and zero lengths).
    let (mut names, mut vectors, mut headers): ([libc::sockaddr_storage; N], [libc::iovec; N], [libc::mmsghdr; N]) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
    let mut controls = [EMPTY; N];
    let base = storage.as_mut_ptr();
    for i in 0..N {
        // SAFETY: the assertion above keeps every part inside `storage`.
        vectors[i] = libc::iovec { iov_base: unsafe { base.add(i * size) }.cast(), iov_len: size };
        let header = &mut headers[i].msg_hdr;
        header.msg_name = (&raw mut names[i]).cast();
        header.msg_namelen = std::mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        header.msg_iov = &raw mut vectors[i];
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut controls[i]).cast();
        header.msg_controllen = std::mem::size_of::<Control>() as _;
    }
    // SAFETY: `headers` holds `N` messages whose names, vectors and control buffers live until the call is over.
    // The system call is used because musl's binding has no recvmmsg.
    let count = sys::retry(|| {
        sys::check_size(unsafe {
            libc::syscall(
                libc::SYS_recvmmsg,
                port.as_raw_fd(),
                headers.as_mut_ptr(),
                N as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut::<libc::timespec>(),
            )
        } as libc::ssize_t)
    })?;
    for (i, header) in headers.iter().enumerate().take(count) {
        let len = (header.msg_len as usize).min(size);
        let (local, segment) = read_control(&header.msg_hdr);
        if let (Some(remote), Some(local)) = (sockaddr::decode(&names[i]), local.or(port.local)) {
            each(i, Received { len, remote, local, segment });
        }
    }
    Ok(())
}

/// The own address and the segment size out of a received message's control part.
fn read_control(header: &libc::msghdr) -> (Option<IpAddr>, Option<u16>) {
    let (mut local, mut segment) = (None, None);
    // SAFETY: the kernel filled `msg_control` with well-formed control messages of `msg_controllen` octets, which
    // the CMSG functions walk within; data is read unaligned, in the size the kernel gives that type.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = message.as_ref() {
            let data = libc::CMSG_DATA(message);
            match (head.cmsg_level, head.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = data.cast::<libc::in_pktinfo>().read_unaligned();
                    local = Some(IpAddr::V4(sockaddr::ipv4(info.ipi_addr)));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    local = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                (libc::IPPROTO_UDP, UDP_GRO) => {
                    segment = u16::try_from(data.cast::<c_int>().read_unaligned()).ok().filter(|s| *s > 0);
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    (local, segment)
}

pub(super) fn send(port: &UdpPort, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
    match datagrams {
        [] => Ok(0),
        [_] => send_some::<1>(port, datagrams),
        _ => {
            let mut sent = 0;
            for part in datagrams.chunks(BATCH) {
                match send_some::<BATCH>(port, part) {
                    Ok(count) => sent += count,
                    Err(e) if sent == 0 => return Err(e),
                    Err(_) => break,
                }
                if sent % BATCH != 0 {
                    break;
                }
            }
            Ok(sent)
        }
    }
}

fn send_some<const N: usize>(port: &UdpPort, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
    // SAFETY: all zero is valid for these C structures (null pointers and zero lengths).
    let (mut names, mut vectors, mut headers): ([libc::sockaddr_storage; N], [libc::iovec; N], [libc::mmsghdr; N]) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
    let mut controls = [EMPTY; N];
    let mut count = 0;
    for (i, datagram) in datagrams.iter().enumerate().take(N) {
        let (name, len) = sockaddr::encode(datagram.remote);
        names[i] = name;
        vectors[i] =
            libc::iovec { iov_base: datagram.payload.as_ptr().cast_mut().cast(), iov_len: datagram.payload.len() };
        let header = &mut headers[i].msg_hdr;
        header.msg_name = (&raw mut names[i]).cast();
        header.msg_namelen = len;
        header.msg_iov = &raw mut vectors[i];
        header.msg_iovlen = 1;
        write_control(header, &mut controls[i], datagram);
        count += 1;
    }
    // SAFETY: `headers` holds `count` messages whose names, vectors and control buffers live until the call is over;
    // the kernel only reads the payloads.
    sys::retry(|| {
        sys::check_size(unsafe {
            libc::syscall(
                libc::SYS_sendmmsg,
                port.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        } as libc::ssize_t)
    })
}

/// Puts the own address and the segment size into `control` and `header`.
fn write_control(header: &mut libc::msghdr, control: &mut Control, datagram: &Outgoing<'_>) {
    let mut used = 0;
    match datagram.local {
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: sockaddr::in_addr(ip),
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used += put_control(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(ip)) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            used += put_control(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if let Some(segment) = datagram.segment {
        used += put_control(control, used, libc::IPPROTO_UDP, UDP_SEGMENT, segment);
    }
    if used > 0 {
        header.msg_control = (&raw mut *control).cast();
        header.msg_controllen = used as _;
    }
}

/// Writes one control message at `at` and returns the room it takes.
fn put_control<T: Copy>(control: &mut Control, at: usize, level: c_int, kind: c_int, data: T) -> usize {
    let size = std::mem::size_of::<T>() as libc::c_uint;
    // SAFETY: computes sizes only.
    let (space, len) = unsafe { (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size)) };
    assert!(at + space <= control.0.len(), "two control messages fit");
    // SAFETY: all zero is a valid cmsghdr.
    let mut head: libc::cmsghdr = unsafe { std::mem::zeroed() };
    head.cmsg_len = len as _;
    head.cmsg_level = level;
    head.cmsg_type = kind;
    // SAFETY: `space` octets from `at` are inside `control`; CMSG_DATA only adds the header's length.
    unsafe {
        let place = control.0.as_mut_ptr().add(at).cast::<libc::cmsghdr>();
        place.write_unaligned(head);
        libc::CMSG_DATA(place).cast::<T>().write_unaligned(data);
    }
    space
}
