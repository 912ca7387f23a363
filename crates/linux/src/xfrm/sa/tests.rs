use super::*;

fn sa() -> Sa {
    Sa {
        src: "192.0.2.1".parse().unwrap(),
        dst: "192.0.2.2".parse().unwrap(),
        spi: 0xc123_4567,
        reqid: 0x5e00_0001,
        aead: Aead { algorithm: Algorithm::AesGcm, key: Zeroizing::new((0..20).collect()) },
        encap: Some(Encap { sport: 4500, dport: 62_000 }),
        replay_window: 1024,
        limits: Limits { soft_packets: Some(1 << 31), hard_seconds: Some(3600), ..Limits::default() },
    }
}

#[test]
fn fields_are_where_the_header_has_them() {
    let request = encode(XFRM_MSG_NEWSA, &sa()).unwrap();
    let body = request.body();
    // Offsets as the C compiler gives them on a 64-bit machine, ARM EABI and MIPS o32.
    assert_eq!(body[56..60], [192, 0, 2, 2]);
    assert_eq!(body[72..77], [0xc1, 0x23, 0x45, 0x67, 50]);
    assert_eq!(body[80..84], [192, 0, 2, 1]);
    assert_eq!(body[96..104], [0xff; 8]);
    assert_eq!(body[112..120], (1u64 << 31).to_ne_bytes());
    assert_eq!(body[136..144], 3600u64.to_ne_bytes());
    assert_eq!(body[208..212], 0x5e00_0001u32.to_ne_bytes());
    assert_eq!(body[212..214], 2u16.to_ne_bytes());
    assert_eq!(body[214..224], [1, 0, 32, 0, 0, 0, 0, 0, 0, 0]);
    let attributes = Attributes::after(body, SA_INFO);
    let aead = attributes.find(XFRMA_ALG_AEAD).unwrap();
    assert_eq!((aead.len(), string_from(&aead[..64]).as_str()), (92, "rfc4106(gcm(aes))"));
    assert_eq!(aead[64..68], 160u32.to_ne_bytes());
    assert_eq!(aead[68..72], 128u32.to_ne_bytes());
    assert_eq!(aead[72..], (0..20).collect::<Vec<u8>>());
    let encap = attributes.find(XFRMA_ENCAP).unwrap();
    assert_eq!((encap.len(), &encap[2..6]), (24, &[0x11, 0x94, 0xf2, 0x30][..]));
    let replay = attributes.find(XFRMA_REPLAY_ESN_VAL).unwrap();
    assert_eq!((replay.len(), &replay[..4]), (24 + 128, &32u32.to_ne_bytes()[..]));
    assert_eq!(replay[20..24], 1024u32.to_ne_bytes());
}

#[test]
fn round_trip() {
    let read = |sa: &Sa| decode(XFRM_MSG_NEWSA, encode(XFRM_MSG_NEWSA, sa).unwrap().body()).unwrap();
    let info = read(&sa());
    assert_eq!((info.src, info.dst, info.spi, info.reqid), (sa().src, sa().dst, sa().spi, sa().reqid));
    assert_eq!((info.encap, info.replay_window, info.limits), (sa().encap, 1024, sa().limits));
    assert_eq!(info.algorithm.as_deref(), Some("rfc4106(gcm(aes))"));
    let small = Sa {
        src: "2001:db8::1".parse().unwrap(),
        dst: "2001:db8::2".parse().unwrap(),
        replay_window: 32,
        encap: None,
        ..sa()
    };
    let info = read(&small);
    assert_eq!((info.dst, info.encap, info.replay_window), (small.dst, None, 32));
}

#[test]
fn impossible_ones_are_refused() {
    let mixed = Sa { src: "2001:db8::1".parse().unwrap(), ..sa() };
    assert!(encode(XFRM_MSG_NEWSA, &mixed).is_err());
    assert!(encode(XFRM_MSG_NEWSA, &Sa { replay_window: 4097, ..sa() }).is_err());
}

#[test]
fn keys_do_not_show() {
    let shown = format!("{:?}", sa());
    assert!(shown.contains("AesGcm(160 bits)"), "{shown}");
}

#[test]
fn cut_off_and_foreign_messages_are_ignored() {
    let request = encode(XFRM_MSG_NEWSA, &sa()).unwrap();
    for len in 0..SA_INFO {
        assert_eq!(decode(XFRM_MSG_NEWSA, &request.body()[..len]), None);
    }
    let mut other = request.body().to_vec();
    other[76] = 51;
    assert_eq!(decode(XFRM_MSG_NEWSA, &other), None);
}

#[test]
fn id_of_an_sa() {
    let request = name(XFRM_MSG_DELSA, "192.0.2.2".parse().unwrap(), 0x0102_0304);
    assert_eq!(request.body()[16..], [&[1, 2, 3, 4][..], &2u16.to_ne_bytes(), &[50, 0]].concat());
}
