//! Requests no endpoint of ours makes, sealed with the keys of a real IKE SA, and identities of other kinds.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use std::sync::OnceLock;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use webpki::EndEntityCert;
use zeroize::Zeroizing;

use crate::auth;
use crate::child;
use crate::config::{Config, Now, Peer, PeerId, Wall};
use crate::credentials::Credentials;
use crate::crypto::{Aead, Crypto, CryptoError, Group, Prf, PrivateValue, RingCrypto};
use crate::der;
use crate::endpoint::Endpoint;
use crate::error::CertificateFailure;
use crate::event::{Event, PeerState, Role};
use crate::exchange::Due;
use crate::proposal;
use crate::sa::Request;
use crate::ts::TrafficSelector;
use crate::wire::{
    self, Auth, AuthMethod, Chain, Delete, Exchange, Id, Ke, Notify, Payloads, Protocol, Sealed, notify, payload,
};

const NOW: Now = Now { mono: Duration::from_secs(1), wall: Wall::Is(1_800_000_000) };

fn authority() -> &'static CertifiedIssuer<'static, KeyPair> {
    static CA: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    CA.get_or_init(|| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, key()).unwrap()
    })
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn credentials(name: &str) -> Credentials {
    let key = key();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority()).unwrap();
    let trust = vec![authority().der().to_vec()];
    Credentials::new(vec![leaf.der().to_vec()], Zeroizing::new(key.serialize_der()), trust).unwrap()
}

fn ts(net: &str) -> TrafficSelector {
    net.parse::<ipnet::IpNet>().unwrap().into()
}

fn endpoint(own: u32, initiate: bool, crypto: Box<dyn Crypto>) -> Endpoint {
    let name = |number: u32| format!("beijing.node-{number}");
    let other = 3 - own;
    let remote = format!("192.0.2.{other}:500").parse().unwrap();
    let peer = Peer {
        id: PeerId(other),
        name: name(other),
        remotes: if initiate { vec![remote] } else { vec![] },
        initiate,
        metered: false,
        local_ts: vec![ts(&format!("10.{own}.0.0/16"))],
        remote_ts: vec![ts(&format!("10.{other}.0.0/16"))],
    };
    let mut endpoint = Endpoint::new(Config::new(name(own), credentials(&name(own))), crypto);
    endpoint.set_peers(NOW, vec![peer]);
    endpoint
}

/// Carries datagrams between 192.0.2.1 and 192.0.2.2 until there are no more.
fn ferry(a: &mut Endpoint, b: &mut Endpoint) {
    let address = |number: u32, port| format!("192.0.2.{number}:{port}").parse().unwrap();
    loop {
        let from_a = a.poll_transmit();
        if let Some(transmit) = &from_a {
            let port = transmit.local_port;
            b.handle_datagram(NOW, address(2, port), address(1, port), &transmit.payload);
        }
        let from_b = b.poll_transmit();
        if let Some(transmit) = &from_b {
            let port = transmit.local_port;
            a.handle_datagram(NOW, address(1, port), address(2, port), &transmit.payload);
        }
        if from_a.is_none() && from_b.is_none() {
            return;
        }
    }
}

fn joined() -> (Endpoint, Endpoint) {
    let mut a = endpoint(1, true, Box::new(RingCrypto::new()));
    let mut b = endpoint(2, false, Box::new(RingCrypto::new()));
    ferry(&mut a, &mut b);
    for endpoint in [&mut a, &mut b] {
        let up = std::iter::from_fn(|| endpoint.poll_event()).any(|event| matches!(event, Event::PeerUp { .. }));
        assert!(up);
    }
    (a, b)
}

/// Sends a request that is protected with a's keys; what b answers, without header.
fn ask(a: &mut Endpoint, b: &mut Endpoint, exchange: Exchange, first: u8, payloads: &[u8]) -> (u8, Vec<u8>) {
    let (crypto, now) = (RingCrypto::new(), NOW.mono);
    let timing = a.config.timers.retransmit.clone();
    let sa = a.sas.values_mut().next().unwrap();
    let keys = sa.keys.as_ref().unwrap();
    let header = sa.header(exchange, false, sa.exchange.next_id());
    let chain = Chain::raw(first, payloads);
    let request = wire::seal(&crypto, keys.suite.aead, &keys.sk_ei, sa.iv, header, &chain).unwrap();
    sa.iv += 1;
    sa.exchange.sent(now, &timing, timing.budget, request.clone(), Request::Liveness);
    assert_eq!(sa.exchange.due(now, &timing), Due::Nothing);
    sa.exchange.complete();
    b.handle_datagram(NOW, "192.0.2.2:4500".parse().unwrap(), "192.0.2.1:4500".parse().unwrap(), &request);
    let response = b.poll_transmit().expect("an answer").payload;
    let sealed = Sealed::find(response[16], &response).unwrap();
    let opened = wire::open(&crypto, keys.suite.aead, &keys.sk_er, sealed, &response).unwrap();
    opened.into_parts()
}

fn ask_chain(a: &mut Endpoint, b: &mut Endpoint, exchange: Exchange, chain: &Chain) -> (u8, Vec<u8>) {
    ask(a, b, exchange, chain.first(), chain.bytes())
}

/// The only notification of an answer: type and data.
fn error((first, bytes): &(u8, Vec<u8>)) -> (u16, Vec<u8>) {
    let payloads = Payloads::parse(*first, bytes).unwrap();
    let all: Vec<&Notify<'_>> = payloads.notifies().collect();
    assert_eq!((all.len(), payloads.iter().count()), (1, 1), "{payloads:?}");
    (all[0].kind, all[0].data.to_vec())
}

/// A rekey of a's child as a would ask for it, then changed.
struct Rekey {
    spi: Option<u32>,
    groups: Vec<u16>,
    ke: Option<u16>,
    nonce: [u8; 32],
    remote_ts: &'static str,
}

impl Rekey {
    fn of(a: &Endpoint) -> Self {
        let spi = a.sas.values().next().unwrap().children[0].spi_in;
        Self { spi: Some(spi), groups: vec![31, 19], ke: Some(31), nonce: [7; 32], remote_ts: "10.2.0.0/16" }
    }

    fn chain(&self) -> Chain {
        let mut chain = Chain::new();
        if let Some(spi) = self.spi {
            let rekeys = Notify::new(notify::REKEY_SA);
            chain.notification(Notify { protocol: Some(Protocol::Esp), spi: &spi.to_be_bytes(), ..rekeys });
        }
        let mut offer = proposal::offer_esp(&proposal::aeads(false), 0x1234_5678, true);
        offer[0].transforms.retain(|t| t.kind != wire::transform::KE || self.groups.contains(&t.id));
        chain.sa(&offer);
        chain.nonce(&self.nonce);
        if let Some(group) = self.ke {
            let private = RingCrypto::new().generate(Group::from_number(group).unwrap()).unwrap();
            chain.ke(Ke { group, data: private.public() });
        }
        chain.ts(&[ts("10.1.0.0/16")], &[ts(self.remote_ts)]);
        chain
    }

    fn error(&self, a: &mut Endpoint, b: &mut Endpoint) -> (u16, Vec<u8>) {
        error(&ask_chain(a, b, Exchange::CreateChildSa, &self.chain()))
    }
}

#[test]
fn unreadable_requests_are_answered_and_harmless() {
    let (mut a, mut b) = joined();
    let critical = ask(&mut a, &mut b, Exchange::Informational, 99, &[0, 0x80, 0, 4]);
    assert_eq!(error(&critical), (notify::UNSUPPORTED_CRITICAL_PAYLOAD, vec![99]));
    let skipped = ask(&mut a, &mut b, Exchange::Informational, 99, &[0, 0, 0, 4]);
    assert_eq!(skipped, (payload::NONE, vec![]));
    let broken = ask(&mut a, &mut b, Exchange::Informational, payload::DELETE, &[0, 0, 0, 9, 3, 4, 0, 1, 0]);
    assert_eq!(error(&broken).0, notify::INVALID_SYNTAX);
    let again = ask(&mut a, &mut b, Exchange::IkeAuth, payload::NONE, &[]);
    assert_eq!(error(&again).0, notify::INVALID_SYNTAX);
    let alive = ask(&mut a, &mut b, Exchange::Informational, payload::NONE, &[]);
    assert_eq!(alive, (payload::NONE, vec![]));
    assert_eq!(b.poll_event(), None);
}

#[test]
fn a_rekey_that_cannot_be_is_refused_with_its_reason() {
    let (mut a, mut b) = joined();
    let good = Rekey::of(&a);
    let other = Rekey { spi: Some(0xdead_beef), ..Rekey::of(&a) };
    let (first, bytes) = ask_chain(&mut a, &mut b, Exchange::CreateChildSa, &other.chain());
    let payloads = Payloads::parse(first, &bytes).unwrap();
    assert_eq!(payloads.notify(notify::CHILD_SA_NOT_FOUND).unwrap().esp_spi(), Some(0xdead_beef));

    let without_pfs = Rekey { groups: vec![], ke: None, ..Rekey::of(&a) };
    assert_eq!(without_pfs.error(&mut a, &mut b).0, notify::NO_PROPOSAL_CHOSEN);
    let other_group = Rekey { groups: vec![19], ..Rekey::of(&a) };
    assert_eq!(other_group.error(&mut a, &mut b), (notify::INVALID_KE_PAYLOAD, vec![0, 19]));
    let elsewhere = Rekey { remote_ts: "172.16.0.0/12", ..Rekey::of(&a) };
    assert_eq!(elsewhere.error(&mut a, &mut b).0, notify::TS_UNACCEPTABLE);
    let another = Rekey { spi: None, ..Rekey::of(&a) };
    assert_eq!(another.error(&mut a, &mut b).0, notify::NO_ADDITIONAL_SAS);
    assert_eq!(b.poll_event(), None);

    let (first, bytes) = ask_chain(&mut a, &mut b, Exchange::CreateChildSa, &good.chain());
    assert!(Payloads::parse(first, &bytes).unwrap().proposals().is_some());
    assert!(matches!(b.poll_event(), Some(Event::ChildUp { child, .. }) if child.replaces.is_some() && !child.send));
    // What has a successor is not rekeyed again.
    assert_eq!(good.error(&mut a, &mut b).0, notify::TEMPORARY_FAILURE);
}

#[test]
fn deleting_the_unknown_deletes_nothing() {
    let (mut a, mut b) = joined();
    let mut chain = Chain::new();
    chain.delete(&Delete::Esp(vec![0xdead_beef]));
    assert_eq!(ask_chain(&mut a, &mut b, Exchange::Informational, &chain), (payload::NONE, vec![]));
    assert_eq!(b.poll_event(), None);
    let known = a.sas.values().next().unwrap().children[0].spi_in;
    let theirs = b.sas.values().next().unwrap().children[0].spi_in;
    let mut chain = Chain::new();
    chain.delete(&Delete::Esp(vec![0xdead_beef, known]));
    let (first, bytes) = ask_chain(&mut a, &mut b, Exchange::Informational, &chain);
    let mut expected = Chain::new();
    expected.delete(&Delete::Esp(vec![theirs]));
    assert_eq!((first, bytes.as_slice()), (expected.first(), expected.bytes()));
    assert!(matches!(b.poll_event(), Some(Event::ChildRetired { spi_in, .. }) if spi_in == theirs));
}

#[test]
fn a_child_that_the_peer_has_lost_is_made_anew() {
    for asking in [0, 1] {
        let (mut a, mut b) = joined();
        let (x, y) = if asking == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        y.sas.values_mut().next().unwrap().children.clear();
        // The original initiator would notice by itself that it has none.
        y.sas.values_mut().next().unwrap().new_child_at = Duration::MAX;
        x.rekey_child(NOW, PeerId(2 - asking));
        ferry(&mut a, &mut b);
        let child = |endpoint: &Endpoint| {
            let children = &endpoint.sas.values().next().unwrap().children;
            assert_eq!(children.len(), 1);
            (children[0].spi_in, children[0].spi_out)
        };
        let (of_a, of_b) = (child(&a), child(&b));
        assert_eq!(of_a, (of_b.1, of_b.0));
    }
}

/// RFC 7296 section 2.25.2.
#[test]
fn what_gets_in_the_way_of_our_own_request_is_put_off() {
    let (mut a, mut b) = joined();
    let rekey = Rekey::of(&a);
    b.rekey_ike(NOW, PeerId(1));
    b.poll_transmit().unwrap();
    assert_eq!(rekey.error(&mut a, &mut b).0, notify::TEMPORARY_FAILURE);

    let (mut a, mut b) = joined();
    b.rekey_child(NOW, PeerId(1));
    b.poll_transmit().unwrap();
    let answer = ask_chain(&mut a, &mut b, Exchange::CreateChildSa, &ike_rekey([7; 32]));
    assert_eq!(error(&answer).0, notify::TEMPORARY_FAILURE);
}

/// A request to rekey the IKE SA.
fn ike_rekey(nonce: [u8; 32]) -> Chain {
    let mut chain = Chain::new();
    chain.sa(&proposal::offer_ike(false, &[9; 8]));
    chain.nonce(&nonce);
    let private = RingCrypto::new().generate(Group::Curve25519).unwrap();
    chain.ke(Ke { group: 31, data: private.public() });
    chain
}

#[test]
fn a_responder_must_stay_within_the_offer() {
    let a = endpoint(1, true, Box::new(RingCrypto::new()));
    let policy = &a.directory.get(PeerId(2)).unwrap().config;
    let conclude = |local: &str, remote: &str, change: fn(&mut wire::Proposal)| {
        let chosen = proposal::choose_esp(
            &proposal::offer_esp(&proposal::aeads(false), 1000, false),
            &proposal::aeads(false),
            false,
            None,
        )
        .unwrap();
        let mut answer = proposal::answer_esp(&chosen, 2000);
        change(&mut answer[0]);
        let mut chain = Chain::new();
        chain.sa(&answer);
        chain.ts(&[ts(local)], &[ts(remote)]);
        let payloads = Payloads::parse(chain.first(), chain.bytes()).unwrap();
        child::conclude(&payloads, policy, &proposal::aeads(false), false).map(|agreement| agreement.spi_out).ok()
    };
    assert_eq!(conclude("10.1.0.0/16", "10.2.5.0/24", |_| ()), Some(2000));
    assert_eq!(conclude("10.0.0.0/8", "10.2.5.0/24", |_| ()), None);
    assert_eq!(conclude("10.1.0.0/16", "0.0.0.0/0", |_| ()), None);
    assert_eq!(conclude("10.1.0.0/16", "10.2.5.0/24", |answer| answer.spi = vec![0, 0, 0, 255]), None);
    assert_eq!(conclude("10.1.0.0/16", "10.2.5.0/24", |answer| answer.transforms.clear()), None);
}

/// RFC 7296 section 2.8.1: the pair made with the lowest nonce goes, and its initiator is the one to delete it. The
/// fabricated request has the lowest nonce there is, so b's own rekey is what stays.
#[test]
fn the_child_with_the_lowest_nonce_loses() {
    let (mut a, mut b) = joined();
    let old = b.sas.values().next().unwrap().children[0].spi_in;
    let mut theirs = Rekey::of(&a);
    theirs.nonce = [0; 32];
    b.rekey_child(NOW, PeerId(1));
    let held = b.poll_transmit().unwrap();
    ask_chain(&mut a, &mut b, Exchange::CreateChildSa, &theirs.chain());
    assert!(matches!(b.poll_event(), Some(Event::ChildUp { child, .. }) if !child.send && !child.initiator));
    deliver(&mut a, &held.payload);
    ferry(&mut a, &mut b);
    assert!(matches!(b.poll_event(), Some(Event::ChildUp { child, .. }) if child.send && child.initiator));
    assert!(matches!(b.poll_event(), Some(Event::ChildRetired { spi_in, .. }) if spi_in == old));
}

/// RFC 7296 section 2.8.2, as above.
#[test]
fn the_ike_sa_with_the_lowest_nonce_loses() {
    let (mut a, mut b) = joined();
    b.rekey_ike(NOW, PeerId(1));
    let held = b.poll_transmit().unwrap();
    let (first, bytes) = ask_chain(&mut a, &mut b, Exchange::CreateChildSa, &ike_rekey([0; 32]));
    assert!(Payloads::parse(first, &bytes).unwrap().ke().is_some());
    deliver(&mut a, &held.payload);
    ferry(&mut a, &mut b);
    let PeerState::Established(of_a) = a.peers().next().unwrap().state else { panic!("down") };
    let PeerState::Established(of_b) = b.peers().next().unwrap().state else { panic!("down") };
    assert_eq!((of_a.ike_spis, of_a.role, of_b.role), (of_b.ike_spis, Role::Responder, Role::Initiator));
    assert_eq!(b.poll_event(), None);
}

fn deliver(a: &mut Endpoint, message: &[u8]) {
    a.handle_datagram(NOW, "192.0.2.1:4500".parse().unwrap(), "192.0.2.2:4500".parse().unwrap(), message);
}

/// Signs something else than it is asked to.
struct Forger(RingCrypto);

impl Crypto for Forger {
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        self.0.random(out)
    }

    fn generate(&self, group: Group) -> Result<Box<dyn PrivateValue>, CryptoError> {
        self.0.generate(group)
    }

    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        self.0.prf(prf, key, parts)
    }

    fn seal(&self, aead: Aead, key: &[u8], nonce: &[u8; 12], aad: &[u8], out: &mut Vec<u8>) -> Result<(), CryptoError> {
        self.0.seal(aead, key, nonce, aad, out)
    }

    fn open(&self, aead: Aead, key: &[u8], nonce: &[u8; 12], aad: &[u8], out: &mut Vec<u8>) -> Result<(), CryptoError> {
        self.0.open(aead, key, nonce, aad, out)
    }

    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        self.0.sha1(parts)
    }

    fn sign(&self, key_pkcs8: &[u8], message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.0.sign(key_pkcs8, &message[1..])
    }

    fn verifiers(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        self.0.verifiers()
    }
}

#[test]
fn a_certificate_without_its_key_is_worth_nothing() {
    for forging in [1, 2] {
        let crypto = |own| -> Box<dyn Crypto> {
            if own == forging { Box::new(Forger(RingCrypto::new())) } else { Box::new(RingCrypto::new()) }
        };
        let mut a = endpoint(1, true, crypto(1));
        let mut b = endpoint(2, false, crypto(2));
        ferry(&mut a, &mut b);
        let honest = if forging == 1 { &b } else { &a };
        let error = honest.peers().next().unwrap().last_error.unwrap().reason;
        assert_eq!(error, format!("beijing.node-{forging} does not hold the key of its certificate"));
        for endpoint in [&a, &b] {
            assert!(!endpoint.sas.values().any(crate::sa::IkeSa::is_live));
        }
    }
}

#[test]
fn a_certificate_subject_is_an_identity_too() {
    let credentials = credentials("beijing.node-1");
    let certs = [CertificateDer::from(credentials.chain()[0].as_slice())];
    let subject = der::sequence(EndEntityCert::try_from(&certs[0]).unwrap().subject());
    assert_eq!(auth::claimed_names(&Id::Dn(&subject), &certs), ["beijing.node-1"]);
    assert!(auth::claimed_names(&Id::Dn(&subject[..subject.len() - 1]), &certs).is_empty());
    assert!(auth::claimed_names(&Id::Dn(&subject), &[]).is_empty());
    assert!(auth::claimed_names(&Id::Other(1, &[192, 0, 2, 1]), &certs).is_empty());
}

#[test]
fn both_signature_formats_are_verified() {
    let crypto = RingCrypto::new();
    let credentials = credentials("beijing.node-1");
    let certs = [CertificateDer::from(credentials.chain()[0].as_slice())];
    let octets = b"signed octets";
    let mut chain = Chain::new();
    auth::emit_auth(&crypto, &credentials, octets, &mut chain).unwrap();
    let payloads = Payloads::parse(chain.first(), chain.bytes()).unwrap();
    let auth = payloads.auth().unwrap();
    let verify = |auth: &Auth<'_>, octets: &[u8]| {
        auth::verify(&crypto, &credentials, NOW.wall, "beijing.node-1", &certs, auth, octets)
    };
    assert!(verify(auth, octets).is_ok_and(|proof| proof.wall == NOW.wall.seconds() && proof.until > proof.wall));
    let bad = Err(CertificateFailure::BadSignature { of: "beijing.node-1".into() });
    assert_eq!(verify(auth, b"other octets"), bad);
    let raw = raw_signature(auth.value);
    let old = Auth { method: AuthMethod::EcdsaP256Sha256, value: &raw };
    assert_eq!(verify(&old, octets), verify(auth, octets));
    assert_eq!(verify(&old, b"other octets"), bad);
    assert_eq!(verify(&Auth { value: &raw[1..], ..old }, octets), bad);
    assert_eq!(verify(&Auth { method: AuthMethod::Other(2), ..old }, octets), bad);
    assert_eq!(verify(&Auth { method: AuthMethod::Signature(&[0x30, 0]), ..*auth }, octets), bad);
}

/// r and s side by side out of their DER.
fn raw_signature(der: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut rest = &der[2..];
    while let [2, len, tail @ ..] = rest {
        let (number, tail) = tail.split_at((*len).into());
        let mut padded = vec![0; 32_usize.saturating_sub(number.len())];
        padded.extend_from_slice(&number[number.len().saturating_sub(32)..]);
        raw.extend_from_slice(&padded);
        rest = tail;
    }
    raw
}

#[test]
fn an_endpoint_can_be_sent_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Endpoint>();
}
