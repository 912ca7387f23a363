//! Clocks that are not set. The right time is in January 2027.

use selvedge_ike::{Credentials, Event, Wall};

use crate::harness::Net;
use crate::pki::{Ca, ca};

/// 2026-01-01.
const BUILT: u64 = 1_767_225_600;
/// 2026-07-01: what a gateway that was off for half a year may know for certain.
const LAST_SEEN: Wall = Wall::AtLeast(1_782_864_000);
/// 2027-01-01.
const RENEWED: u64 = 1_798_761_600;

fn good(name: &str) -> Credentials {
    ca().credentials(name, ca())
}

/// An edge with this clock that calls a connector, and what follows.
fn call(wall: Wall, edge: Credentials, connector: Credentials) -> (Net, usize, usize) {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    net.nodes[a].wall = Some(wall);
    net.configure(a, |config| config.credentials = edge);
    net.configure(b, |config| config.credentials = connector);
    net.call(a, b, "192.0.2.10:500");
    net.run(std::time::Duration::from_millis(500));
    (net, a, b)
}

fn later(net: &Net, node: usize) -> Vec<u64> {
    let walls = net.nodes[node].events.iter().filter_map(|event| match event {
        Event::Later { wall } => Some(*wall),
        _ => None,
    });
    walls.collect()
}

#[test]
fn an_unset_clock_learns_from_a_certificate_that_was_renewed_since() {
    let renewed = ca().issue("beijing.connector", ca(), 2027..4000);
    let (net, a, b) = call(LAST_SEEN, good("beijing.edge-1"), renewed);
    net.assert_settled(a, b);
    assert_eq!(later(&net, a), [RENEWED]);
    assert!(later(&net, b).is_empty());
}

#[test]
fn an_unset_clock_of_the_responder_learns_too() {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    net.configure(a, |config| config.credentials = ca().issue("beijing.edge-1", ca(), 2027..4000));
    net.nodes[b].wall = Some(LAST_SEEN);
    net.call(a, b, "192.0.2.10:500");
    net.run_secs(1);
    net.assert_settled(a, b);
    assert_eq!(later(&net, b), [RENEWED]);
}

#[test]
fn nothing_is_learnt_from_what_is_known() {
    let (net, a, b) = call(LAST_SEEN, good("beijing.edge-1"), good("beijing.connector"));
    net.assert_settled(a, b);
    assert!(later(&net, a).is_empty());
}

#[test]
fn a_set_clock_before_the_certificate_refuses() {
    let renewed = ca().issue("beijing.connector", ca(), 2027..4000);
    let (net, a, b) = call(Wall::Is(BUILT), good("beijing.edge-1"), renewed);
    let reason = "certificate of beijing.connector is not valid before 2027-01-01 00:00:00 UTC; is the clock right?";
    assert_eq!(net.last_error(a, b), reason);
    assert!(later(&net, a).is_empty());
}

#[test]
fn what_has_expired_before_the_time_that_is_certain_is_refused() {
    let expired = ca().issue("beijing.connector", ca(), 2025..2026);
    let (net, a, b) = call(LAST_SEEN, good("beijing.edge-1"), expired);
    assert_eq!(net.last_error(a, b), "certificate of beijing.connector expired at 2026-01-01 00:00:00 UTC");
}

#[test]
fn when_the_time_is_learnt_what_has_expired_meanwhile_is_refused() {
    let (mut net, a, b) =
        call(Wall::AtLeast(BUILT), good("beijing.edge-1"), ca().issue("beijing.connector", ca(), 2026..2027));
    // Nothing tells the edge that this has expired.
    net.assert_settled(a, b);
    net.nodes[a].wall = Some(Wall::AtLeast(RENEWED + 1));
    net.restart(a);
    net.run_secs(1);
    assert_eq!(net.last_error(a, b), "certificate of beijing.connector expired at 2027-01-01 00:00:00 UTC");
}

#[test]
fn strangers_teach_nothing() {
    let other = Ca::new();
    let (net, a, b) = call(LAST_SEEN, good("beijing.edge-1"), other.issue("beijing.connector", ca(), 3000..4000));
    assert_eq!(net.last_error(a, b), "certificate of beijing.connector is signed by another CA");
    assert!(later(&net, a).is_empty());
}

#[test]
fn a_peer_with_anothers_name_teaches_nothing() {
    let (net, a, b) = call(LAST_SEEN, good("beijing.edge-1"), ca().issue("beijing.edge-9", ca(), 3000..4000));
    assert_eq!(net.last_error(a, b), "certificate is for beijing.edge-9, expected beijing.connector");
    assert!(later(&net, a).is_empty());
}

/// 2028-01-01.
const END: u64 = 1_830_297_600;
const HOUR: u64 = 3600;

/// Both ends joined, the connector by a certificate that ends in 2028; then the edge's clock says `wall`.
fn joined_until(wall: u64) -> (Net, usize, usize) {
    let ends = ca().issue("beijing.connector", ca(), 2020..2028);
    let (mut net, a, b) = call(Wall::Is(END - 100 * HOUR), good("beijing.edge-1"), ends);
    net.assert_settled(a, b);
    net.nodes[a].wall = Some(Wall::Is(wall));
    net.traffic = true;
    (net, a, b)
}

#[test]
fn a_peer_proves_itself_anew_before_its_certificate_ends() {
    let (mut net, a, b) = joined_until(END - HOUR);
    net.configure(b, |config| config.credentials = good("beijing.connector"));
    let before = net.established(a, b).unwrap().since;
    net.act(a, selvedge_ike::Endpoint::handle_clock);
    net.run_secs(30);
    net.assert_settled(a, b);
    assert!(net.established(a, b).unwrap().since > before);
    assert_eq!(net.nodes[a].esp_lost + net.nodes[b].esp_lost, 0);
    net.nodes[a].wall = Some(Wall::Is(END + HOUR));
    let packets = net.ike_packets;
    net.act(a, selvedge_ike::Endpoint::handle_clock);
    assert_eq!(net.ike_packets, packets);
}

#[test]
fn a_certificate_that_does_not_end_soon_is_left_alone() {
    let (mut net, a, b) = joined_until(END - 3 * HOUR);
    // A successor is authenticated by the same certificate.
    net.act(a, |endpoint, now| endpoint.rekey_ike(now, crate::harness::id(b)));
    net.run_secs(30);
    let packets = net.ike_packets;
    net.act(a, selvedge_ike::Endpoint::handle_clock);
    assert_eq!(net.ike_packets, packets);
}

#[test]
fn a_peer_that_has_no_better_certificate_stays_until_the_end_and_then_goes() {
    let (mut net, a, b) = joined_until(END - HOUR);
    net.act(a, selvedge_ike::Endpoint::handle_clock);
    net.run_secs(30);
    net.assert_settled(a, b);
    net.nodes[a].wall = Some(Wall::Is(END + 1));
    net.act(a, selvedge_ike::Endpoint::handle_clock);
    net.run_secs(30);
    assert_eq!(net.last_error(a, b), "certificate of beijing.connector expired at 2028-01-01 00:00:00 UTC");
    assert!(net.established(a, b).is_none() && net.live(a, b).is_empty() && net.live(b, a).is_empty());
}

#[test]
fn a_peer_that_does_not_answer_goes_too_when_its_certificate_has_ended() {
    let (mut net, a, b) = joined_until(END + 1);
    let edge = net.nodes[a].ip;
    net.filter = Some(Box::new(move |packet| packet.from.ip() == edge || packet.ike().is_none()));
    net.act(a, selvedge_ike::Endpoint::handle_clock);
    net.run_secs(200);
    assert!(net.established(a, b).is_none() && net.live(a, b).is_empty());
}
