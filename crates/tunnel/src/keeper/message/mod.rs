//! What keeper and client say to each other: one message a datagram, its kind in the first byte.
//!
//! [`Request::Hello`], [`Request::Stop`] and the version in [`Welcome`] never change, so that a client of any version
//! can send a keeper of any other away.

mod parts;
mod report;
mod request;
mod wire;

pub use report::{Ike, PortState, Report, Welcome};
pub use request::{Install, Keepalive, Request, SendIke};
pub use wire::Malformed;

/// Version of the protocol.
pub const VERSION: u16 = 2;

/// The most of one list that goes into a message: at 180 bytes an item below what the socket takes.
const PART: usize = 300;

#[cfg(test)]
mod tests;
