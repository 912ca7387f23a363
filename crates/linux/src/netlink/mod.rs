//! Netlink: requests with their answers, dumps and notifications, as far as routes, links and xfrm need them.
//!
//! Integers are in native order, as netlink wants, unless a function says network order.

mod message;
mod monitor;
mod socket;

pub(crate) use message::{Attributes, Reader, Request, ip_from, prefix_from, string_from, u32_from, u64_from};
pub use monitor::{Monitor, Notice};
pub use socket::Socket;

/// The netlink families used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Protocol {
    /// Routes, rules, links, addresses (`NETLINK_ROUTE`).
    Route = libc::NETLINK_ROUTE,
    /// IPsec (`NETLINK_XFRM`).
    Xfrm = libc::NETLINK_XFRM,
    /// nftables, tracked connections and what rules report (`NETLINK_NETFILTER`).
    Netfilter = libc::NETLINK_NETFILTER,
}

/// Octets of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

/// Flags of requests and messages.
pub(crate) mod flags {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP_INTR: u16 = 0x10;
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const DUMP: u16 = 0x300;
    /// In an answer: the request was not copied into it.
    pub(crate) const CAPPED: u16 = 0x100;
    /// In an answer: attributes follow.
    pub(crate) const ACK_TLVS: u16 = 0x200;
}
