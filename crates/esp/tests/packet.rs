//! One Security Association seen from outside: layout, round trips, published packet, replay, garbage.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use selvedge_esp::{HEADROOM, InboundSa, OpenError, OutboundSa, SaError, SealError, Suite, TAILROOM};

const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
const SPI: u32 = 0x0102_0304;

fn keymat(suite: Suite) -> Vec<u8> {
    (0..suite.keymat_len()).map(|i| i as u8 ^ 0x5a).collect()
}

fn ends(suite: Suite) -> (OutboundSa, InboundSa) {
    let keymat = keymat(suite);
    (OutboundSa::new(SPI, suite, &keymat).unwrap(), InboundSa::new(SPI, suite, &keymat).unwrap())
}

fn ipv4(len: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|i| i as u8).collect();
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

fn ipv6(len: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|i| i as u8).collect();
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    packet
}

fn seal(sa: &mut OutboundSa, inner: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xee; HEADROOM + inner.len() + TAILROOM];
    frame[HEADROOM..HEADROOM + inner.len()].copy_from_slice(inner);
    let len = sa.seal(&mut frame, inner.len()).unwrap();
    frame.truncate(len);
    frame
}

fn open(sa: &mut InboundSa, mut packet: Vec<u8>) -> Result<Vec<u8>, OpenError> {
    let (inner, _) = sa.open(&mut packet)?;
    Ok(packet[inner].to_vec())
}

/// Seals an arbitrary payload and trailer as `SPI, sequence`, as a peer with the right key but bad manners would.
fn forge(suite: Suite, sequence: u32, plain: &[u8]) -> Vec<u8> {
    let algorithm = match suite {
        Suite::Aes128Gcm => &AES_128_GCM,
        Suite::Aes256Gcm => &AES_256_GCM,
        Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    let keymat = keymat(suite);
    let (key, salt) = keymat.split_at(keymat.len() - 4);
    let iv = [9; 8];
    let nonce = Nonce::try_assume_unique_for_key(&[salt, &iv].concat()).unwrap();
    let header = [SPI.to_be_bytes(), sequence.to_be_bytes()].concat();
    let mut text = plain.to_vec();
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
    key.seal_in_place_append_tag(nonce, Aad::from(&header), &mut text).unwrap();
    [&header[..], &iv, &text].concat()
}

#[test]
fn the_packet_of_rfc_7634_appendix_a_opens() {
    let keymat: Vec<u8> = (0x80..=0xa3).collect();
    let mut packet = b"\x01\x02\x03\x04\x00\x00\x00\x05\x10\x11\x12\x13\x14\x15\x16\x17\
        \x24\x03\x94\x28\xb9\x7f\x41\x7e\x3c\x13\x75\x3a\x4f\x05\x08\x7b\x67\xc3\x52\xe6\xa7\xfa\xb1\xb9\
        \x82\xd4\x66\xef\x40\x7a\xe5\xc6\x14\xee\x80\x99\xd5\x28\x44\xeb\x61\xaa\x95\xdf\xab\x4c\x02\xf7\
        \x2a\xa7\x1e\x7c\x4c\x4f\x64\xc9\xbe\xfe\x2f\xac\xc6\x38\xe8\xf3\xcb\xec\x16\x3f\xac\x46\x9b\x50\
        \x27\x73\xf6\xfb\x94\xe6\x64\xda\x91\x65\xb8\x28\x29\xf6\x41\xe0\
        \x76\xaa\xa8\x26\x6b\x7f\xb0\xf7\xb1\x1b\x36\x99\x07\xe1\xad\x43"
        .to_vec();
    let mut sa = InboundSa::new(SPI, Suite::ChaCha20Poly1305, &keymat).unwrap();
    let (inner, advanced) = sa.open(&mut packet.clone()).unwrap();
    assert_eq!((inner, advanced), (16..100, true));
    assert_eq!(sa.open(&mut packet), Err(OpenError::Replayed));
}

#[test]
fn every_length_of_both_families_comes_back_aligned_and_whole() {
    for suite in SUITES {
        let (mut out, mut inn) = ends(suite);
        for len in (40..120).chain(1390..1410) {
            for inner in [ipv4(len), ipv6(len)] {
                let packet = seal(&mut out, &inner);
                assert_eq!(packet.len() % 4, 0);
                assert!(packet.len() <= HEADROOM + len + TAILROOM);
                assert_eq!(open(&mut inn, packet).unwrap(), inner);
            }
        }
    }
}

#[test]
fn the_layout_is_that_of_rfc_4303_when_opened_by_the_aead_alone() {
    for (suite, algorithm) in SUITES.into_iter().zip([&AES_128_GCM, &AES_256_GCM, &CHACHA20_POLY1305]) {
        let (mut out, _) = ends(suite);
        seal(&mut out, &ipv4(20));
        let mut packet = seal(&mut out, &ipv6(41));
        let (header, rest) = packet.split_at_mut(8);
        let (iv, text) = rest.split_at_mut(8);
        assert_eq!(header, [1, 2, 3, 4, 0, 0, 0, 2]);
        assert_eq!(iv, [0, 0, 0, 0, 0, 0, 0, 2], "an IV used twice under one key gives the plaintext away");
        let keymat = keymat(suite);
        let (key, salt) = keymat.split_at(keymat.len() - 4);
        let nonce = Nonce::try_assume_unique_for_key(&[salt, iv].concat()).unwrap();
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
        let plain = key.open_in_place(nonce, Aad::from(&*header), text).unwrap();
        assert_eq!(plain[..41], ipv6(41));
        assert_eq!(plain[41..], [1, 1, 41]);
    }
}

#[test]
fn each_packet_is_opened_once_within_the_window_and_only_if_authentic() {
    for suite in SUITES {
        let (mut out, mut inn) = ends(suite);
        let packets: Vec<_> = (0..3000).map(|_| seal(&mut out, &ipv4(40))).collect();
        let nth = |n: usize| packets[n - 1].clone();
        assert!(open(&mut inn, nth(2)).is_ok());
        assert!(open(&mut inn, nth(1)).is_ok());
        assert_eq!(open(&mut inn, nth(1)), Err(OpenError::Replayed));

        let mut forged = nth(3000);
        forged[40] ^= 1;
        assert_eq!(open(&mut inn, forged), Err(OpenError::Unauthentic));
        assert!(open(&mut inn, nth(3)).is_ok(), "an unauthentic packet must not move the window");

        assert!(open(&mut inn, nth(3000)).is_ok());
        assert_eq!(open(&mut inn, nth(4)), Err(OpenError::Replayed), "left of the window");
        assert!(open(&mut inn, nth(1500)).is_ok());
        assert_eq!(open(&mut inn, nth(1500)), Err(OpenError::Replayed));
    }
}

#[test]
fn every_bit_is_authenticated() {
    for suite in SUITES {
        let (mut out, mut inn) = ends(suite);
        let packet = seal(&mut out, &ipv4(40));
        for bit in 32..packet.len() * 8 {
            let mut changed = packet.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = open(&mut inn, changed).unwrap_err();
            assert!(matches!(error, OpenError::Unauthentic | OpenError::Replayed), "bit {bit}: {error}");
        }
        assert!(open(&mut inn, packet).is_ok());
    }
}

#[test]
fn authentic_packets_with_bad_insides_are_refused() {
    let (_, mut inn) = ends(Suite::Aes128Gcm);
    let plain = |inner: &[u8], trailer: &[u8]| [inner, trailer].concat();
    let mut long = ipv4(40);
    long[3] = 41;
    let mut shorter = ipv4(40);
    shorter[3] = 19;
    let mut stub = ipv4(40);
    stub[0] = 0x44;
    let cases = [
        (plain(&ipv4(40), &[1, 2, 2, 41]), OpenError::Malformed),
        (plain(&ipv6(40), &[1, 2, 2, 4]), OpenError::Malformed),
        (plain(&ipv4(40), &[1, 2, 2, 17]), OpenError::Malformed),
        (plain(&ipv4(40), &[43, 4]), OpenError::Malformed),
        (plain(&ipv4(40), &[21, 4]), OpenError::Malformed),
        (plain(&long, &[0, 4]), OpenError::Malformed),
        (plain(&shorter, &[0, 4]), OpenError::Malformed),
        (plain(&stub, &[0, 4]), OpenError::Malformed),
        (plain(&[0; 40], &[0, 4]), OpenError::Malformed),
        (plain(&[], &[0, 4]), OpenError::Malformed),
        (plain(&[], &[0, 59]), OpenError::Dummy),
        (plain(&[7; 30], &[0, 59]), OpenError::Dummy),
    ];
    for (sequence, (plain, error)) in (1..).zip(cases) {
        assert_eq!(open(&mut inn, forge(Suite::Aes128Gcm, sequence, &plain)), Err(error), "case {sequence}");
    }
}

#[test]
fn traffic_flow_padding_is_cut_off() {
    let (_, mut inn) = ends(Suite::Aes256Gcm);
    let mut plain = ipv4(40);
    plain.extend([0xab; 500]);
    plain.extend([1, 2, 2, 4]);
    assert_eq!(open(&mut inn, forge(Suite::Aes256Gcm, 1, &plain)).unwrap(), ipv4(40));
}

#[test]
fn short_foreign_and_unsealable_packets_are_refused() {
    let (mut out, mut inn) = ends(Suite::Aes128Gcm);
    let packet = seal(&mut out, &ipv4(20));
    for len in 0..34 {
        assert_eq!(open(&mut inn, packet[..len].to_vec()), Err(OpenError::Short));
    }
    let mut foreign = packet;
    foreign[0] = 9;
    assert_eq!(open(&mut inn, foreign), Err(OpenError::WrongSpi));

    let mut frame = vec![0; 200];
    assert_eq!(out.seal(&mut frame, 40), Err(SealError::NotIp));
    assert_eq!(out.seal(&mut frame, 0), Err(SealError::NotIp));
    frame[HEADROOM] = 0x45;
    assert_eq!(out.seal(&mut frame, 170), Err(SealError::NoRoom));
    assert_eq!(out.seal(&mut frame, usize::MAX), Err(SealError::NoRoom));
    assert_eq!(out.sequence(), 1, "a refused packet uses no sequence number");
    assert_eq!(OutboundSa::new(255, Suite::Aes128Gcm, &[0; 20]).err(), Some(SaError::ReservedSpi(255)));
}

proptest! {
    #[test]
    fn garbage_never_opens_and_never_panics(
        mut packet in proptest::collection::vec(any::<u8>(), 0..200),
        right_spi: bool,
        suite in 0..3_usize,
    ) {
        let (_, mut inn) = ends(SUITES[suite]);
        if let (true, Some(spi)) = (right_spi, packet.get_mut(..4)) {
            spi.copy_from_slice(&SPI.to_be_bytes());
        }
        prop_assert!(inn.open(&mut packet).is_err());
    }

    #[test]
    fn authentic_garbage_never_panics(
        plain in proptest::collection::vec(any::<u8>(), 2..100),
        version in prop_oneof![Just(0x45), Just(0x4f), Just(0x60), any::<u8>()],
        next in prop_oneof![Just(4), Just(41), Just(59), any::<u8>()],
        pad in prop_oneof![0..4_u8, any::<u8>()],
    ) {
        let mut plain = plain;
        plain[0] = version;
        let end = plain.len();
        plain[end - 2] = pad;
        plain[end - 1] = next;
        let (_, mut inn) = ends(Suite::ChaCha20Poly1305);
        if let Ok(inner) = open(&mut inn, forge(Suite::ChaCha20Poly1305, 1, &plain)) {
            prop_assert!(inner.len() >= 20 && inner.len() + 2 <= plain.len());
        }
    }

    #[test]
    fn any_inner_packet_comes_back(body in proptest::collection::vec(any::<u8>(), 20..1500), suite in 0..3_usize) {
        let (mut out, mut inn) = ends(SUITES[suite]);
        let mut inner = body;
        let len = inner.len() as u16;
        inner[0] = 0x45;
        inner[2..4].copy_from_slice(&len.to_be_bytes());
        let packet = seal(&mut out, &inner);
        prop_assert_eq!(open(&mut inn, packet).unwrap(), inner);
    }
}
