//! ESP packets from strangers, and inner packets from a peer that has the keys but no manners.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use selvedge_esp::{HEADROOM, Install, OutboundSa, PeerPrefixes, SaTable, Suite, TAILROOM};

const KEY: [u8; 36] = [7; 36];

fuzz_target!(|bytes: &[u8]| {
    let local: SocketAddr = "192.0.2.1:4500".parse().expect("address");
    let remote: SocketAddr = "192.0.2.2:4500".parse().expect("address");
    let mut table = SaTable::default();
    table.set_peers(&[PeerPrefixes { id: 1, prefixes: vec!["10.2.0.0/24".parse().expect("network")] }]);
    let install = Install {
        peer: 1,
        spi_in: 0x1000,
        spi_out: 0x2000,
        suite: Suite::ChaCha20Poly1305,
        key_in: &KEY,
        key_out: &KEY,
        local,
        remote,
        send: true,
    };
    table.install(Duration::ZERO, &install).expect("install");
    let mut packet = bytes.to_vec();
    let _ = table.open(Duration::ZERO, remote, &mut packet);
    let _ = table.route(bytes);

    let mut sender = OutboundSa::new(0x1000, Suite::ChaCha20Poly1305, &KEY).expect("SA");
    let mut frame = vec![0; HEADROOM + bytes.len() + TAILROOM];
    frame[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
    if let Ok(len) = sender.seal(&mut frame, bytes.len()) {
        if let Ok(opened) = table.open(Duration::ZERO, remote, &mut frame[..len]) {
            assert!(opened.inner.len() <= bytes.len());
        }
    }
});
