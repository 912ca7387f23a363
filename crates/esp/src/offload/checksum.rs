//! The internet checksum (RFC 1071), over native-order words: the sum of swapped words is the swapped sum.

use std::net::IpAddr;

/// Adds `data`, zero-padded to whole words, to a running sum.
pub(super) fn sum(start: u64, data: &[u8]) -> u64 {
    let mut words = data.chunks_exact(4);
    let total = words
        .by_ref()
        .fold(start, |total, word| total + u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]])));
    let rest = words.remainder();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_ne_bytes(last))
}

/// The sum of the pseudo header of `packet` for its upper-layer part of `len` bytes.
pub(super) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> u64 {
    let mut total = 0;
    for address in [source, destination] {
        total = match address {
            IpAddr::V4(address) => sum(total, &address.octets()),
            IpAddr::V6(address) => sum(total, &address.octets()),
        };
    }
    let mut tail = [0; 8];
    tail[..4].copy_from_slice(&(len as u32).to_be_bytes());
    tail[7] = protocol;
    sum(total, &tail)
}

/// Folds a sum into 16 bits, as the bytes to store; not inverted.
pub(super) fn fold(mut total: u64) -> [u8; 2] {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    (total as u16).to_ne_bytes()
}

/// The checksum to store for a sum.
pub(super) fn finish(total: u64) -> [u8; 2] {
    fold(total).map(|byte| !byte)
}
