//! The process that holds sockets, TUN device and user-space Security Associations, so that traffic flows on while
//! the program that keys the tunnels is stopped, killed or replaced.
//!
//! ```text
//!   agent or connector (Client) ── SOCK_SEQPACKET <run-dir>/keeper.sock ──► keeper ── UDP 500, 4500
//!        keys, peers, IKE datagrams                                           └────── TUN (user mode)
//! ```
//!
//! With ESP in the kernel it keeps the UDP encapsulation sockets open, without which the kernel decapsulates nothing,
//! and relays IKE. With ESP in user space it also carries every packet. It decides nothing: it knows no IKE, no
//! configuration and no routes, and it never replaces a key or an address on its own.
//!
//! There is one client at a time; a new one takes the place of the old. While there is none, IKE waits in the socket
//! buffers (and, where ESP comes to the same socket, in a short queue).

mod client;
mod datapath;
mod keepalive;
pub mod message;
mod options;
mod outbox;
mod ports;
mod server;
mod session;

pub use client::{Client, ClientError, runs, stop};
pub use options::{Mode, Options};
pub use server::run;
