//! `struct virtio_net_hdr` of `linux/virtio_net.h`.

/// Bytes in front of each packet of a TUN device opened with `IFF_VNET_HDR`.
pub const VNET_HEADER: usize = 10;

/// What the device may hand over unfinished: `TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6` of `linux/if_tun.h`.
pub const FEATURES: u32 = 0x01 | 0x02 | 0x04;

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// What is left to do on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing.
    None,
    /// The checksum from `start` to the end, into the field `offset` behind `start` that holds the pseudo header's.
    Checksum { start: usize, offset: usize },
    /// Cutting into TCP segments of `size` bytes of payload; the TCP header is at `start`.
    Tcp { v6: bool, start: usize, size: usize },
}

/// Splits a frame into what is left to do and the packet; `None` for what was not offered in [`FEATURES`].
pub(super) fn parse(frame: &[u8]) -> Option<(Work, &[u8])> {
    let (header, packet) = frame.split_first_chunk::<VNET_HEADER>()?;
    let field = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (flags, gso) = (header[0], header[1] & !GSO_ECN);
    let (size, start, offset) = (field(4), field(6), field(8));
    let work = match gso {
        0 if flags & NEEDS_CSUM == 0 => Work::None,
        0 => Work::Checksum { start, offset },
        GSO_TCPV4 | GSO_TCPV6 if flags & NEEDS_CSUM != 0 && size > 0 => Work::Tcp { v6: gso == GSO_TCPV6, start, size },
        _ => return None,
    };
    Some((work, packet))
}

/// The header of a packet that asks for `work`.
pub(super) fn emit(work: Work, header_len: usize) -> [u8; VNET_HEADER] {
    let (flags, gso, size, start, offset) = match work {
        Work::None => return [0; VNET_HEADER],
        Work::Checksum { start, offset } => (NEEDS_CSUM, 0, 0, start, offset),
        Work::Tcp { v6, start, size } => {
            (NEEDS_CSUM, if v6 { GSO_TCPV6 } else { GSO_TCPV4 }, size, start, super::TCP_CHECKSUM)
        }
    };
    let mut header = [0; VNET_HEADER];
    header[0] = flags;
    header[1] = gso;
    for (at, value) in [(2, header_len), (4, size), (6, start), (8, offset)] {
        header[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
    }
    header
}
