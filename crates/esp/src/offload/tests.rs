use super::vnet::{self, Work};
use super::*;
use proptest::prelude::*;

/// A TCP packet with right checksums, from nothing but its fields.
fn tcp(v6: bool, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let start = if v6 { 40 } else { 20 };
    let mut packet = vec![0; start + 32];
    packet.extend(payload);
    let (len, tcp_len) = (packet.len() as u16, packet.len() - start);
    if v6 {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        packet[6..8].copy_from_slice(&[6, 64]);
        packet[8..40].copy_from_slice(&[0xfd; 32]);
    } else {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[6..10].copy_from_slice(&[0x40, 0, 64, 6]);
        packet[12..20].copy_from_slice(&[10, 1, 0, 1, 10, 2, 0, 1]);
        let sum = checksum::finish(checksum::sum(0, &packet[..20]));
        packet[10..12].copy_from_slice(&sum);
    }
    packet[start..start + 4].copy_from_slice(&[0x13, 0x88, 0x1f, 0x90]);
    packet[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
    packet[start + 12..start + 16].copy_from_slice(&[0x80, flags, 1, 2]);
    packet[start + 20..start + 32].copy_from_slice(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    finish_tcp(&mut packet, start, tcp_len);
    packet
}

fn finish_tcp(packet: &mut [u8], start: usize, tcp_len: usize) {
    packet[start + 16..start + 18].fill(0);
    let addresses = if start == 20 { 12..20 } else { 8..40 };
    let mut text = [&packet[addresses], &[0, 6], &(tcp_len as u16).to_be_bytes(), &packet[start..]].concat();
    text.resize(text.len().next_multiple_of(2), 0);
    let sum: u32 = text.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    packet[start + 16..start + 18].copy_from_slice(&(!folded as u16).to_be_bytes());
}

/// As the kernel hands over a large packet: one header, all the payload, only the pseudo header summed.
fn large(v6: bool, sequence: u32, flags: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let start = if v6 { 40 } else { 20 };
    let mut packet = tcp(v6, sequence, flags, payload);
    let (source, destination) = (crate::source(&packet).unwrap(), crate::destination(&packet).unwrap());
    let pseudo = checksum::fold(checksum::pseudo_header(source, destination, 6, packet.len() - start));
    packet[start + 16..start + 18].copy_from_slice(&pseudo);
    [&vnet::emit(Work::Tcp { v6, start, size }, start + 32)[..], &packet].concat()
}

fn segments(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(frame).unwrap();
    let mut all = Vec::new();
    while let Some(len) = segments.next_len() {
        let mut out = vec![0xee; len + 7];
        assert_eq!(segments.write_next(&mut out[..len - 1]), None);
        assert_eq!(segments.write_next(&mut out), Some(len));
        out.truncate(len);
        all.push(out);
    }
    all
}

fn join(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut coalescer =
        Coalescer::new(|pieces: &[std::io::IoSlice<'_>]| frames.push(pieces.iter().flat_map(|p| p.to_vec()).collect()));
    packets.iter().for_each(|packet| coalescer.push(packet));
    coalescer.flush();
    frames
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn the_checksum_is_that_of_rfc_1071() {
    let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(checksum::fold(checksum::sum(0, &data)), [0xdd, 0xf2]);
    assert_eq!(checksum::finish(checksum::sum(0, &data)), [0x22, 0x0d]);
    assert_eq!(checksum::fold(checksum::sum(0, &[1, 2, 3])), [4, 2]);
    // The header of RFC 7634 appendix A, checksum e778.
    let header = [0x45, 0, 0, 0x54, 0xa6, 0xf2, 0, 0, 0x40, 1, 0, 0, 0xc6, 0x33, 0x64, 5, 0xc0, 0, 2, 5];
    assert_eq!(checksum::finish(checksum::sum(0, &header)), [0xe7, 0x78]);
}

#[test]
fn a_large_packet_is_cut_into_what_the_sender_would_have_sent() {
    for v6 in [false, true] {
        let payload = bytes(3500);
        let cut = segments(&large(v6, u32::MAX - 999, ACK | PSH | FIN | CWR, &payload, 1000));
        let flags = [ACK | CWR, ACK, ACK, ACK | PSH | FIN];
        assert_eq!(cut.len(), 4);
        for (i, (packet, flags)) in cut.iter().zip(flags).enumerate() {
            let part = &payload[i * 1000..(i * 1000 + 1000).min(3500)];
            let mut expected = tcp(v6, (u32::MAX - 999).wrapping_add(i as u32 * 1000), flags, part);
            if !v6 {
                expected[5] = i as u8;
                expected[10..12].fill(0);
                let sum = checksum::finish(checksum::sum(0, &expected[..20]));
                expected[10..12].copy_from_slice(&sum);
            }
            assert_eq!(packet, &expected, "segment {i}");
        }
    }
}

#[test]
fn a_missing_checksum_is_filled_in_and_a_whole_packet_left_alone() {
    let packet = tcp(false, 1, ACK, &bytes(33));
    let mut frame = large(false, 1, ACK, &bytes(33), 1);
    frame[..VNET_HEADER].copy_from_slice(&vnet::emit(Work::Checksum { start: 20, offset: 16 }, 0));
    assert_eq!(segments(&frame), std::slice::from_ref(&packet));
    let frame = [&[0; VNET_HEADER][..], &packet].concat();
    assert_eq!(segments(&frame), [packet]);
}

#[test]
fn a_udp_checksum_of_zero_becomes_ones() {
    let mut packet = vec![0x45; 1];
    packet.resize(28, 0);
    packet[20..28].copy_from_slice(&[0, 0, 0, 0, 0, 8, 0xff, 0xf7]);
    let frame = [&vnet::emit(Work::Checksum { start: 20, offset: 6 }, 0)[..], &packet].concat();
    assert_eq!(segments(&frame)[0][26..28], [0xff, 0xff]);
}

#[test]
fn what_was_not_offered_or_makes_no_sense_is_refused() {
    let good = large(false, 1, ACK, &bytes(100), 10);
    assert!(Segments::new(&good).is_some());
    let with = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        frame
    };
    let word = |at: usize, value: u16| {
        let mut frame = good.clone();
        frame[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        frame
    };
    for (name, frame) in [
        ("no frame", Vec::new()),
        ("short header", good[..9].to_vec()),
        ("no packet", good[..10].to_vec()),
        ("no payload", good[..10 + 52].to_vec()),
        ("UDP GSO", with(1, 5)),
        ("no checksum wanted", with(0, 0)),
        ("segments of nothing", word(4, 0)),
        ("TCP header in the IP header", word(6, 16)),
        ("TCP header not where the IP header ends", {
            let mut frame = word(6, 24);
            frame[10 + 24 + 12] = 0x50;
            frame
        }),
        ("TCP header behind the end", word(6, 200)),
        ("another version", with(10, 0x65)),
        ("short TCP header", with(10 + 32, 0x40)),
    ] {
        assert!(Segments::new(&frame).is_none(), "{name}");
    }
    let mut checksum = good.clone();
    checksum[..VNET_HEADER].copy_from_slice(&vnet::emit(Work::Checksum { start: 20, offset: 131 }, 0));
    assert!(Segments::new(&checksum).is_none());
}

#[test]
fn segments_are_joined_into_the_large_packet_they_came_from() {
    for v6 in [false, true] {
        for (len, flags) in [(20_000, ACK), (20_001, ACK | PSH), (2001, ACK), (1000, ACK)] {
            let frame = large(v6, 77, flags, &bytes(len), 1000);
            let joined = join(&segments(&frame));
            if len > 1000 {
                assert_eq!(joined, [frame], "{len}");
            } else {
                assert_eq!(joined, [[&[0; VNET_HEADER][..], &tcp(v6, 77, flags, &bytes(len))].concat()]);
            }
        }
    }
}

#[test]
fn only_what_one_frame_can_express_is_joined() {
    let base = |v6, nth: u32| tcp(v6, 1 + nth * 100, ACK, &bytes(100));
    type Change = fn(&mut Vec<u8>, usize);
    let changes: &[(&str, Change)] = &[
        ("sequence gap", |p, t| p[t + 7] ^= 1),
        ("source port", |p, t| p[t] ^= 1),
        ("acknowledgement", |p, t| p[t + 11] ^= 1),
        ("window", |p, t| p[t + 14] ^= 1),
        ("urgent", |p, t| p[t + 18] ^= 1),
        ("timestamp", |p, t| p[t + 26] ^= 1),
        ("RST", |p, t| p[t + 13] |= 4),
        ("FIN", |p, t| p[t + 13] |= FIN),
        ("CWR", |p, t| p[t + 13] |= CWR),
        ("address", |p, t| p[t - 1] ^= 1),
        ("traffic class", |p, _| p[1] ^= 0x10),
    ];
    for v6 in [false, true] {
        let start = if v6 { 40 } else { 20 };
        assert_eq!(join(&[base(v6, 0), base(v6, 1)]).len(), 1);
        for (name, change) in changes {
            let mut second = base(v6, 1);
            change(&mut second, start);
            if !v6 {
                second[10..12].fill(0);
                let sum = checksum::finish(checksum::sum(0, &second[..20]));
                second[10..12].copy_from_slice(&sum);
            }
            let tcp_len = second.len() - start;
            finish_tcp(&mut second, start, tcp_len);
            let joined = join(&[base(v6, 0), second.clone()]);
            let alone = |packet: &[u8]| [&[0; VNET_HEADER][..], packet].concat();
            assert_eq!(joined, [alone(&base(v6, 0)), alone(&second)], "{name}");
        }
    }
}

#[test]
fn damaged_segments_stay_alone_and_damaged() {
    for nth in 0..3 {
        let mut packets: Vec<_> = (0..3).map(|nth| tcp(false, 1 + nth * 100, ACK, &bytes(100))).collect();
        packets[nth][80] ^= 1;
        let frames = join(&packets);
        assert!(frames.contains(&[&[0; VNET_HEADER][..], &packets[nth]].concat()), "{nth}");
    }
    let mut packets: Vec<_> = (0..2).map(|nth| tcp(false, 1 + nth * 100, ACK, &bytes(100))).collect();
    packets[1][10] ^= 1;
    assert_eq!(join(&packets).len(), 2, "an IP header with a wrong checksum");
}

#[test]
fn a_short_or_pushed_segment_is_the_last_and_a_longer_one_begins_anew() {
    let at = |sequence, len, flags| tcp(false, sequence, flags, &bytes(len));
    assert_eq!(join(&[at(1, 100, ACK), at(101, 50, ACK), at(151, 50, ACK)]).len(), 2);
    assert_eq!(join(&[at(1, 100, ACK), at(101, 100, ACK | PSH), at(201, 100, ACK)]).len(), 2);
    assert_eq!(join(&[at(1, 100, ACK | PSH), at(101, 100, ACK)]).len(), 2);
    assert_eq!(join(&[at(1, 100, ACK), at(101, 101, ACK)]).len(), 2);
    assert_eq!(join(&[at(1, 0, ACK), at(1, 100, ACK), at(101, 0, ACK)]).len(), 3, "pure acknowledgements");
}

#[test]
fn fragments_and_renumbered_packets_are_not_joined() {
    let fix = |mut packet: Vec<u8>| {
        packet[10..12].fill(0);
        let sum = checksum::finish(checksum::sum(0, &packet[..20]));
        packet[10..12].copy_from_slice(&sum);
        packet
    };
    let numbered = |nth: u32, id: u8, flags: u8| {
        let mut packet = tcp(false, 1 + nth * 100, ACK, &bytes(100));
        (packet[5], packet[6]) = (id, flags);
        fix(packet)
    };
    assert_eq!(join(&[numbered(0, 1, 0), numbered(1, 2, 0), numbered(2, 3, 0)]).len(), 1);
    assert_eq!(join(&[numbered(0, 1, 0), numbered(1, 3, 0)]).len(), 2);
    assert_eq!(join(&[numbered(0, 9, 0x40), numbered(1, 9, 0x40)]).len(), 1);
    assert_eq!(join(&[numbered(0, 1, 0x20), numbered(1, 2, 0x20)]).len(), 2);
}

#[test]
fn a_frame_never_outgrows_an_ip_packet() {
    let packets: Vec<_> = (0..200).map(|nth| tcp(true, 1 + nth * 1380, ACK, &bytes(1380))).collect();
    let frames = join(&packets);
    assert!(frames.iter().all(|frame| frame.len() <= VNET_HEADER + 65_535));
    assert_eq!(frames.iter().map(|frame| segments(frame).len()).sum::<usize>(), 200);
    let small: Vec<_> = (0..200).map(|nth| tcp(true, 1 + nth * 10, ACK, &bytes(10))).collect();
    assert_eq!(join(&small).len(), 4);
}

proptest! {
    #[test]
    fn cutting_and_joining_keep_every_byte(
        v6: bool,
        len in 1..30_000_usize,
        size in 100..2000_usize,
        sequence: u32,
    ) {
        let payload = bytes(len);
        let cut = segments(&large(v6, sequence, ACK, &payload, size));
        let again: Vec<_> = join(&cut).iter().flat_map(|frame| segments(frame)).collect();
        prop_assert_eq!(cut, again);
    }

    #[test]
    fn garbage_frames_never_panic(
        mut frame in proptest::collection::vec(any::<u8>(), 0..200),
        gso in prop_oneof![Just(0), Just(1), Just(4), any::<u8>()],
        first in prop_oneof![Just(0x45), Just(0x60), any::<u8>()],
    ) {
        if let [_, kind, _, _, _, _, _, high, _, _, byte, ..] = &mut frame[..] {
            (*kind, *byte, *high) = (gso, first, 0);
        }
        if let Some(mut segments) = Segments::new(&frame) {
            let mut out = [0; 300];
            while segments.next_len().is_some() {
                prop_assert!(segments.write_next(&mut out).is_some());
            }
        }
    }

    #[test]
    fn garbage_packets_pass_unchanged(
        packets in proptest::collection::vec(
            (prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()], proptest::collection::vec(any::<u8>(), 0..120)),
            0..10,
        ),
    ) {
        let packets: Vec<_> = packets.into_iter().map(|(first, mut rest)| {
            rest.insert(0, first);
            if first == 0x45 && rest.len() > 20 {
                let len = rest.len() as u16;
                rest[2..4].copy_from_slice(&len.to_be_bytes());
                rest[6..10].copy_from_slice(&[0, 0, 64, 6]);
            }
            rest
        }).collect();
        let expected: Vec<_> = packets.iter().map(|packet| [&[0; VNET_HEADER][..], packet].concat()).collect();
        prop_assert_eq!(join(&packets), expected);
    }
}
