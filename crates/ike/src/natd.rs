//! NAT detection (RFC 7296 section 2.23).

use std::net::{IpAddr, SocketAddr};

use crate::crypto::Crypto;
use crate::wire::{Chain, Payloads, notify};

/// The hash of an address as both ends must see it if no NAT is between them.
pub(crate) fn hash(crypto: &dyn Crypto, spi_i: u64, spi_r: u64, address: SocketAddr) -> [u8; 20] {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    crypto.sha1(&[&spi_i.to_be_bytes(), &spi_r.to_be_bytes(), &ip, &address.port().to_be_bytes()])
}

/// Appends both notifications. Without `source` (unknown, or to be taken for behind a NAT) a hash that fits no address
/// is sent.
pub(crate) fn emit(
    crypto: &dyn Crypto,
    spi_i: u64,
    spi_r: u64,
    source: Option<SocketAddr>,
    destination: SocketAddr,
    chain: &mut Chain,
) {
    let source = match source {
        Some(source) => hash(crypto, spi_i, spi_r, source),
        None => hash(crypto, spi_i, !spi_r, destination),
    };
    chain.notify(notify::NAT_DETECTION_SOURCE_IP, &source);
    chain.notify(notify::NAT_DETECTION_DESTINATION_IP, &hash(crypto, spi_i, spi_r, destination));
}

/// Which end is behind a NAT: (we, the peer). A peer that sends no notifications does not support NAT traversal.
pub(crate) fn detect(
    crypto: &dyn Crypto,
    spi_i: u64,
    spi_r: u64,
    payloads: &Payloads<'_>,
    local: SocketAddr,
    remote: SocketAddr,
) -> (bool, bool) {
    let differs = |kind: u16, address: SocketAddr| {
        let expected = hash(crypto, spi_i, spi_r, address);
        let mut hashes = payloads.notifies().filter(|notify| notify.kind == kind).map(|notify| notify.data).peekable();
        hashes.peek().is_some() && !hashes.any(|hash| hash == expected)
    };
    (differs(notify::NAT_DETECTION_DESTINATION_IP, local), differs(notify::NAT_DETECTION_SOURCE_IP, remote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RingCrypto;

    #[test]
    fn rewritten_addresses_are_noticed_on_their_side() {
        let crypto = RingCrypto::new();
        let a: SocketAddr = "10.0.0.2:500".parse().unwrap();
        let b: SocketAddr = "[2001:db8::1]:500".parse().unwrap();
        let nat: SocketAddr = "192.0.2.1:1024".parse().unwrap();
        let seen = |source, local, remote| {
            let mut chain = Chain::new();
            emit(&crypto, 1, 2, source, b, &mut chain);
            let payloads = Payloads::parse(chain.first(), chain.bytes()).unwrap();
            detect(&crypto, 1, 2, &payloads, local, remote)
        };
        assert_eq!(seen(Some(a), b, a), (false, false));
        assert_eq!(seen(Some(a), b, nat), (false, true));
        assert_eq!(seen(Some(a), nat, a), (true, false));
        assert_eq!(seen(None, b, a), (false, true));
        assert_eq!(detect(&crypto, 1, 2, &Payloads::default(), a, b), (false, false));
    }
}
