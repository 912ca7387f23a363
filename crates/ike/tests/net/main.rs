//! Endpoints on a virtual network.

mod certificates;
mod collisions;
mod garbage;
mod handshake;
mod harness;
mod pki;
mod rekey;
mod replace;
mod soak;
