//! Linux as the programs on a gateway need it: netlink (routes, links, IPsec), sockets, TUN, firewall tools, namespaces
//! and small files. The only crate with system calls and `unsafe`; it does what it is told, and must not decide
//! anything, read configuration or keep state.
//!
//! Everything here blocks only as long as the kernel works on the request, except [`poll`] and the firewall tools.
//! What can be waited for ([`UdpPort`], [`tun::Tun`], [`seqpacket`], [`netlink::Monitor`], [`watch::Watch`], [`timer::Timer`]) is
//! non-blocking and gives its descriptor by `AsRawFd`.

#![allow(unsafe_code)]

pub mod address;
pub mod capabilities;
pub mod clock;
pub mod conntrack;
mod error;
mod family;
pub mod file;
pub mod landlock;
pub mod link;
pub mod netfilter;
pub mod netlink;
pub mod netns;
pub mod nflog;
pub mod poll;
pub mod process;
pub mod route;
pub mod rule;
pub mod seqpacket;
mod sockaddr;
mod sys;
pub mod sysctl;
pub mod tcp;
pub mod timer;
pub mod tun;
mod udp;
pub mod user;
pub mod watch;
pub mod xfrm;

pub use error::{Context, Error, Result};
pub use family::Family;
pub use udp::{BATCH, Batch, Datagram, Knock, Outgoing, Received, UdpPort};
