//! Whatever strangers send, an endpoint neither panics nor grows nor lets them in.
//!
//! The input is cut into datagrams: two bytes of length and port choice, then the datagram.
#![no_main]

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use selvedge_ike::{Config, Credentials, Endpoint, Event, Now, Peer, PeerId, RingCrypto, TrafficSelector, Wall};

static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| {
    let ca_key = rcgen::KeyPair::generate().expect("key");
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("CA");
    let key = rcgen::KeyPair::generate().expect("key");
    let leaf = rcgen::CertificateParams::new(vec!["x.here".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)).expect("certificate");
    let pem = |text: String| text.into_bytes();
    Credentials::from_pem(&pem(leaf.pem()), &pem(key.serialize_pem()), &pem(ca_certificate.pem())).expect("credentials")
});

fuzz_target!(|input: &[u8]| {
    let mut endpoint = Endpoint::new(Config::new("x.here", CREDENTIALS.clone()), Box::new(RingCrypto::new()));
    let remote: SocketAddr = "192.0.2.2:4500".parse().expect("address");
    let net = |text: &str| vec![TrafficSelector::from(text.parse::<selvedge_model::IpNet>().expect("network"))];
    let mut now = Now { mono: Duration::ZERO, wall: Wall::Is(1_800_000_000) };
    endpoint.set_peers(
        now,
        vec![Peer {
            id: PeerId(1),
            name: "x.there".to_owned(),
            remotes: vec![remote],
            initiate: true,
            metered: false,
            local_ts: net("10.1.0.0/24"),
            remote_ts: net("10.2.0.0/24"),
        }],
    );
    let mut rest = input;
    while let [length, port, tail @ ..] = rest {
        let (datagram, next) = tail.split_at(tail.len().min(usize::from(*length) * 2));
        rest = next;
        let local = SocketAddr::new([192, 0, 2, 1].into(), if port & 1 == 0 { 4500 } else { 500 });
        endpoint.handle_datagram(now, local, remote, datagram);
        now.mono += Duration::from_millis(u64::from(*port) * 16);
        endpoint.handle_timeout(now);
        while endpoint.poll_transmit().is_some() {}
        while let Some(event) = endpoint.poll_event() {
            assert!(!matches!(event, Event::ChildUp { .. } | Event::PeerUp { .. }), "a stranger was let in");
        }
    }
    assert!(endpoint.ike_sas() <= 2001);
});
