//! Endpoints on a virtual network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod clocks;
mod collisions;
mod garbage;
mod handshake;
mod harness;
mod idle;
mod pki;
mod rekey;
mod replace;
#[cfg(feature = "crl")]
mod revocation;
mod soak;
