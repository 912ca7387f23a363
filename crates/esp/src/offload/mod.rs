//! Large packets at the TUN device: cutting what the kernel hands over unsegmented (TSO) and joining what it may take
//! in one piece (GRO), so that system calls and the network stack are paid once for some forty packets.
//!
//! A frame of a TUN device opened with `IFF_VNET_HDR` is a [`VNET_HEADER`]-byte `struct virtio_net_hdr`
//! (`linux/virtio_net.h`, integers in native order) and an IP packet of up to 65,535 bytes.

mod checksum;
mod coalesce;
mod segment;
mod vnet;

pub use coalesce::Coalescer;
pub use segment::Segments;
pub use vnet::{FEATURES, VNET_HEADER};

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: usize = 16;
const TCP_HEADER: usize = 20;
const PROTOCOL_TCP: u8 = 6;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

#[cfg(test)]
mod tests;
