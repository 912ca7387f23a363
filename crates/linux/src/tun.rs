//! TUN devices: IP packets to and from a file descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::error::{Context, Error, Result};
use crate::netlink::{Protocol, Socket};
use crate::sys;

/// What [`Tun::open`] asks of the device.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The device stays, with its addresses and routes, when the descriptor is closed.
    pub persist: bool,
    /// Every packet has a `virtio_net_hdr` of [`VNET_HEADER`] octets before it, which offloads need.
    pub vnet_header: bool,
}

/// Octets of `struct virtio_net_hdr`, as in `linux/virtio_net.h`; its integers are in native order.
pub const VNET_HEADER: usize = 10;

/// An open, non-blocking TUN device without packet information (`IFF_TUN | IFF_NO_PI`).
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
}

impl Tun {
    /// Opens the device `name`, making it if it is not there. The name may be 1 to 15 octets long.
    ///
    /// A device that another process holds open gives `EBUSY`.
    pub fn open(name: &str, options: Options) -> Result<Self> {
        let open = || -> Result<Self> {
            let file = std::fs::File::options()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")
                .context(|| "/dev/net/tun")?;
            let fd = OwnedFd::from(file);
            if name.is_empty() || name.len() >= libc::IFNAMSIZ {
                return Err(Error::new("a device name has 1 to 15 octets"));
            }
            // SAFETY: all zero is a valid ifreq.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *to = from as libc::c_char;
            }
            let vnet_header = if options.vnet_header { libc::IFF_VNET_HDR } else { 0 };
            request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | vnet_header) as libc::c_short;
            // SAFETY: TUNSETIFF reads and writes one ifreq.
            sys::check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
            let persist = libc::c_ulong::from(options.persist);
            // SAFETY: TUNSETPERSIST takes an integer.
            sys::check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST, persist) })?;
            Ok(Self { fd })
        };
        open().context(|| format!("open TUN device {name}"))
    }

    /// Tells the kernel which unfinished packets we accept: a sum of `libc::TUN_F_CSUM`, `TUN_F_TSO4`, ….
    pub fn set_offload(&self, features: libc::c_uint) -> Result<()> {
        // SAFETY: TUNSETOFFLOAD takes an integer.
        sys::check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(features)) })
            .context(|| "set TUN offload")?;
        Ok(())
    }

    /// Reads one packet; `WouldBlock` when there is none.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::read(self.fd.as_fd(), buffer)
    }

    /// Writes one packet into the kernel.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        sys::write(self.fd.as_fd(), packet).map(drop)
    }
}

/// Whether TUN devices can be made: `ENOENT` without the node in `/dev`, `ENODEV` or `ENXIO` without the driver behind
/// it, `EPERM` where a container may not. Opening the node makes the kernel load the module.
pub fn probe() -> Result<()> {
    let node = std::fs::File::options().read(true).write(true).open("/dev/net/tun");
    node.map(drop).context(|| "/dev/net/tun")
}

/// Removes a device, whoever holds it open. Returns whether it was there.
pub fn delete(name: &str) -> Result<bool> {
    crate::link::delete(&mut Socket::open(Protocol::Route)?, name)
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
