//! Certificates that count no longer, and authorities that follow one another.

use std::time::Duration;

use selvedge_ike::{Credentials, Event};

use crate::harness::Net;
use crate::pki::Ca;

/// Certificate and key, and how they are used with whom to trust and what was revoked.
struct Own(String, String);

impl Own {
    fn new(ca: &Ca, name: &str, serial: u8) -> Self {
        let (chain, key) = ca.numbered(name, serial);
        Self(chain, key)
    }

    fn trusting(&self, trust: &[&str]) -> Credentials {
        Credentials::from_pem(self.0.as_bytes(), self.1.as_bytes(), trust.concat().as_bytes()).unwrap()
    }
}

/// Two edges with tunnels to a connector and traffic in them.
struct Three {
    net: Net,
    ca: Ca,
    edges: [usize; 2],
    connector: usize,
    own: Own,
}

impl Three {
    fn new() -> Self {
        let ca = Ca::named("first");
        let mut net = Net::new(1);
        let edges = [net.add("beijing.edge-1", "192.0.2.1"), net.add("beijing.edge-2", "192.0.2.2")];
        let connector = net.add("beijing.connector", "192.0.2.10");
        for (edge, serial) in edges.into_iter().zip(1..) {
            let own = Own::new(&ca, &net.nodes[edge].name, serial).trusting(&[&ca.pem()]);
            net.configure(edge, |config| config.credentials = own);
            net.call(edge, connector, "192.0.2.10:500");
        }
        let own = Own::new(&ca, "beijing.connector", 9);
        let credentials = own.trusting(&[&ca.pem()]);
        net.configure(connector, |config| config.credentials = credentials);
        net.run_secs(5);
        let three = Self { net, ca, edges, connector, own };
        three.net.assert_joined(three.edges[0], connector);
        three.net.assert_joined(three.edges[1], connector);
        three
    }

    fn revoke(&mut self, serials: &[u8]) {
        let credentials = self.own.trusting(&[&self.ca.pem(), &self.ca.revoke(serials)]);
        self.net.configure(self.connector, |config| config.credentials = credentials);
    }
}

#[test]
fn whoever_is_revoked_is_let_go_at_once_and_not_let_in_again() {
    let mut three = Three::new();
    let ([one, two], connector) = (three.edges, three.connector);
    let since = three.net.established(two, connector).unwrap().since;
    three.net.traffic = true;
    three.revoke(&[1]);
    // What was under way on the network arrives.
    three.net.run(Duration::from_millis(500));
    let net = &mut three.net;
    assert!(net.established(connector, one).is_none() && net.live(connector, one).is_empty());
    assert!(net.live(one, connector).is_empty(), "it is told");
    net.run_secs(300);
    assert!(net.established(connector, one).is_none() && net.live(connector, one).is_empty());
    let reason = "certificate of beijing.edge-1 was revoked";
    assert_eq!(net.last_error(connector, one), reason);
    assert_eq!(net.last_error(one, connector), "beijing.connector refused our certificate (AUTHENTICATION_FAILED)");
    assert!(net.count(connector, |event| matches!(event, Event::Refused { reason: said, .. } if said == reason)) > 0);
    net.assert_joined(two, connector);
    assert_eq!(net.established(two, connector).unwrap().since, since, "the other one is not touched");
    assert_eq!(net.nodes[two].esp_lost, 0);
}

#[test]
fn a_revoked_responder_is_refused() {
    let mut three = Three::new();
    let ([one, _], connector) = (three.edges, three.connector);
    let own = Own::new(&three.ca, "beijing.edge-1", 1).trusting(&[&three.ca.pem(), &three.ca.revoke(&[9])]);
    three.net.configure(one, |config| config.credentials = own);
    three.net.run_secs(60);
    let reason = "certificate of beijing.connector was revoked";
    assert_eq!(three.net.last_error(one, connector), reason);
    assert!(three.net.live(one, connector).is_empty());
}

#[test]
fn a_new_certificate_of_a_revoked_name_is_accepted() {
    let mut three = Three::new();
    let ([one, _], connector) = (three.edges, three.connector);
    three.revoke(&[1]);
    three.net.run_secs(5);
    let own = Own::new(&three.ca, "beijing.edge-1", 3).trusting(&[&three.ca.pem()]);
    three.net.configure(one, |config| config.credentials = own);
    three.net.run_secs(120);
    three.net.assert_joined(one, connector);
}

#[test]
fn rekeying_does_not_forget_which_certificate_it_was() {
    let mut three = Three::new();
    let ([one, _], connector) = (three.edges, three.connector);
    three.net.act(one, |endpoint, now| endpoint.rekey_ike(now, crate::harness::id(connector)));
    three.net.run_secs(30);
    three.net.assert_joined(one, connector);
    three.revoke(&[1]);
    three.net.run(Duration::from_millis(500));
    assert!(three.net.live(connector, one).is_empty());
}

/// Nobody loses a packet while one authority follows another, whatever the order in which the nodes hear of it.
#[test]
fn authorities_change_while_traffic_flows() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut three = Three::new();
        let (edges, connector) = (three.edges, three.connector);
        let nodes = [edges[0], edges[1], connector];
        let next = Ca::named("second");
        let (old_pem, next_pem) = (three.ca.pem(), next.pem());
        let names: Vec<String> = nodes.iter().map(|node| three.net.nodes[*node].name.clone()).collect();
        let old: Vec<Own> = names.iter().zip(20..).map(|(name, serial)| Own::new(&three.ca, name, serial)).collect();
        let new: Vec<Own> = names.iter().zip(30..).map(|(name, serial)| Own::new(&next, name, serial)).collect();
        three.net.traffic = true;
        let phases: [(&[Own], &[&str]); 3] =
            [(&old, &[&old_pem, &next_pem]), (&new, &[&next_pem, &old_pem]), (&new, &[&next_pem])];
        for (own, trust) in phases {
            for node in order {
                let credentials = own[node].trusting(trust);
                three.net.configure(nodes[node], |config| config.credentials = credentials);
                three.net.run_secs(7);
                // Whoever begins anew meanwhile is let in, too.
                three.net.act(edges[0], |endpoint, now| endpoint.handle_suspicion(now, crate::harness::id(connector)));
                three.net.run_secs(20);
                three.net.assert_joined(edges[0], connector);
                three.net.assert_joined(edges[1], connector);
            }
        }
        assert_eq!(nodes.iter().map(|node| three.net.nodes[*node].esp_lost).sum::<u32>(), 0, "{order:?}");
        // Everybody has proved itself by the new authority, though nothing had come to its end.
        for edge in edges {
            let since = three.net.established(connector, edge).unwrap().since;
            assert!(since > Duration::from_secs(60), "{order:?}: {since:?}");
        }
    }
}

#[test]
fn who_has_nothing_by_an_authority_that_is_trusted_goes() {
    let mut three = Three::new();
    let ([one, two], connector) = (three.edges, three.connector);
    let next = Ca::named("second");
    let edge = Own::new(&next, "beijing.edge-2", 2).trusting(&[&next.pem(), &three.ca.pem()]);
    three.net.configure(two, |config| config.credentials = edge);
    let own = Own::new(&next, "beijing.connector", 9).trusting(&[&next.pem()]);
    three.net.configure(connector, |config| config.credentials = own);
    three.net.run_secs(120);
    three.net.assert_joined(two, connector);
    assert!(three.net.live(connector, one).is_empty());
}
