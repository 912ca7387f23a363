//! Who is let in, and what both ends are told.

use selvedge_ike::{CredentialError, Credentials, Event};
use zeroize::Zeroizing;

use crate::harness::Net;
use crate::pki::{Ca, ca, key};

fn two(edge: Credentials, connector: Credentials) -> (Net, usize, usize) {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    net.configure(a, |config| config.credentials = edge);
    net.configure(b, |config| config.credentials = connector);
    net.call(a, b, "192.0.2.10:500");
    net.run(std::time::Duration::from_millis(500));
    (net, a, b)
}

fn good(name: &str) -> Credentials {
    ca().credentials(name, ca())
}

/// The responder refuses the initiator with `reason`, and the initiator hears that it was refused.
fn assert_refused_by_responder(mut net: Net, a: usize, b: usize, reason: &str) {
    assert_eq!(net.last_error(b, a), reason);
    assert_eq!(net.last_error(a, b), "beijing.connector refused our certificate (AUTHENTICATION_FAILED)");
    let refused = net.count(b, |event| {
        matches!(event, Event::Refused { claimed, reason: said, .. } if claimed.as_deref() == Some("beijing.edge-1") && said == reason)
    });
    assert!(refused > 0);
    assert_unsettled(&mut net, a, b);
}

fn assert_unsettled(net: &mut Net, a: usize, b: usize) {
    assert!(net.established(a, b).is_none() && net.established(b, a).is_none());
    assert!(net.live(a, b).is_empty() && net.live(b, a).is_empty());
}

#[test]
fn the_caller_has_another_ca() {
    let other = Ca::new();
    let (net, a, b) = two(other.credentials("beijing.edge-1", ca()), good("beijing.connector"));
    assert_refused_by_responder(net, a, b, "certificate of beijing.edge-1 is signed by another CA");
}

#[test]
fn the_caller_has_expired() {
    let (net, a, b) = two(ca().issue("beijing.edge-1", ca(), 1975..2026), good("beijing.connector"));
    assert_refused_by_responder(net, a, b, "certificate of beijing.edge-1 expired at 2026-01-01 00:00:00 UTC");
}

#[test]
fn the_caller_has_another_name() {
    let (net, a, b) = two(good("beijing.edge-9"), good("beijing.connector"));
    assert_refused_by_responder(net, a, b, "certificate is for beijing.edge-9, expected beijing.edge-1");
}

#[test]
fn the_caller_is_unknown() {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    let of_a = net.peer(a, b, &["192.0.2.10:500"]);
    net.set_peers(a, vec![of_a]);
    net.run_secs(1);
    let reason = "beijing.edge-1 is not a peer of ours";
    assert!(net.count(b, |event| matches!(event, Event::Refused { reason: said, .. } if said == reason)) > 0);
    assert_eq!(net.last_error(a, b), "beijing.connector refused our certificate (AUTHENTICATION_FAILED)");
    net.set_peers(a, vec![]);
    net.run_secs(60);
    assert_eq!(net.nodes[b].endpoint.as_ref().unwrap().ike_sas(), 0);
}

/// The initiator refuses the responder with `reason`, and the responder hears that it was refused.
fn assert_refused_by_initiator(mut net: Net, a: usize, b: usize, reason: &str) {
    assert_eq!(net.last_error(a, b), reason);
    assert_eq!(net.last_error(b, a), "beijing.edge-1 refused our certificate (AUTHENTICATION_FAILED)");
    assert_unsettled(&mut net, a, b);
}

#[test]
fn the_called_has_another_ca() {
    let other = Ca::new();
    let (net, a, b) = two(good("beijing.edge-1"), other.credentials("beijing.connector", ca()));
    assert_refused_by_initiator(net, a, b, "certificate of beijing.connector is signed by another CA");
}

#[test]
fn the_called_has_expired() {
    let (net, a, b) = two(good("beijing.edge-1"), ca().issue("beijing.connector", ca(), 1975..2026));
    assert_refused_by_initiator(net, a, b, "certificate of beijing.connector expired at 2026-01-01 00:00:00 UTC");
}

#[test]
fn the_called_has_another_name() {
    let (net, a, b) = two(good("beijing.edge-1"), good("beijing.edge-9"));
    assert_refused_by_initiator(net, a, b, "certificate is for beijing.edge-9, expected beijing.connector");
}

#[test]
fn somebody_else_answers() {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    let c = net.add("beijing.edge-9", "192.0.2.9");
    net.call(a, c, "192.0.2.9:500");
    let of_a = net.peer(a, b, &["192.0.2.9:500"]);
    net.set_peers(a, vec![of_a]);
    net.run_secs(1);
    assert_eq!(net.last_error(a, b), "beijing.edge-9 answered, expected beijing.connector");
}

#[test]
fn a_clock_in_1970_is_named() {
    let (mut net, a, b) = two(good("beijing.edge-1"), good("beijing.connector"));
    net.assert_joined(a, b);
    let of_a = net.nodes[a].peers.clone();
    net.set_peers(a, vec![]);
    net.run_secs(20);
    let now = selvedge_ike::Now { mono: net.now, wall: selvedge_ike::Wall::Is(100) };
    let mut endpoint =
        selvedge_ike::Endpoint::new(net.nodes[a].config.clone(), Box::new(selvedge_ike::RingCrypto::new()));
    endpoint.set_peers(now, of_a);
    let request = endpoint.poll_transmit().unwrap();
    let (local, remote) = ("192.0.2.1:500".parse().unwrap(), "192.0.2.10:500".parse().unwrap());
    let reply = |net: &mut Net, bytes: &[u8]| {
        let now = net.now();
        net.endpoint(b).handle_datagram(now, remote, local, bytes);
        net.endpoint(b).poll_transmit().unwrap().payload
    };
    let answer = reply(&mut net, &request.payload);
    endpoint.handle_datagram(now, local, remote, &answer);
    let request = endpoint.poll_transmit().unwrap();
    let answer = reply(&mut net, &request.payload);
    endpoint.handle_datagram(now, local, remote, &answer);
    let error = endpoint.peers().next().unwrap().last_error.unwrap();
    assert_eq!(
        error.reason,
        "certificate of beijing.connector is not valid before 1975-01-01 00:00:00 UTC; is the clock right?"
    );
    assert_eq!(error.wall, 100);
}

#[test]
fn a_renewed_certificate_is_used_for_what_is_made_from_then_on() {
    let (mut net, a, b) = two(good("beijing.edge-1"), good("beijing.connector"));
    net.assert_settled(a, b);
    let packets = net.ike_packets;
    net.configure(b, |config| config.credentials = good("beijing.connector"));
    net.run_secs(1);
    assert_eq!(net.ike_packets, packets);
    net.act(b, |endpoint, now| endpoint.rekey_ike(now, crate::harness::id(a)));
    net.run_secs(12);
    net.assert_settled(a, b);
    net.restart(a);
    net.run_secs(1);
    net.assert_settled(a, b);
}

#[test]
fn credentials_are_checked_before_use() {
    let credentials = |key: Vec<u8>, trust: Vec<Vec<u8>>| {
        let leaf = rcgen::CertificateParams::new(vec!["x".into()]).unwrap().self_signed(&crate::pki::key()).unwrap();
        Credentials::new(vec![leaf.der().to_vec()], Zeroizing::new(key), trust).map(|_| ())
    };
    assert_eq!(credentials(key().serialize_der(), vec![ca().der()]), Err(CredentialError::Mismatch));
    assert_eq!(credentials(vec![1, 2, 3], vec![ca().der()]), Err(CredentialError::Key));
    let none = Credentials::new(vec![], Zeroizing::new(vec![]), vec![]).map(|_| ());
    assert_eq!(none, Err(CredentialError::NoCertificate));
    let own = key();
    let leaf = rcgen::CertificateParams::new(vec!["x".into()]).unwrap().self_signed(&own).unwrap();
    let with = |trust: Vec<Vec<u8>>| {
        Credentials::new(vec![leaf.der().to_vec()], Zeroizing::new(own.serialize_der()), trust).map(|_| ())
    };
    assert_eq!(with(vec![]), Err(CredentialError::NoTrust));
    assert!(matches!(with(vec![vec![0x30, 0]]), Err(CredentialError::Unreadable(_))));
    assert_eq!(with(vec![ca().der()]), Ok(()));
    let shown = format!("{:?}", good("beijing.edge-1"));
    assert_eq!(shown, "Credentials { chain: 1, trust: 1, .. }");
}
