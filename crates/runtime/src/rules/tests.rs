//! With the real tools, in a namespace of its own. As root.

use std::net::UdpSocket;
use std::process::Command;

use selvedge_linux::netns;
use selvedge_model::{FirewallBackend, NodeConfig};
use selvedge_plan::{Backend, Facts, Plan};

use super::*;
use crate::firewall::Tools;

const CLUSTER_IP: &str = "10.96.0.53:53";

fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A cloud node whose DNS Service is served by this address of it; `None`: by nobody.
fn ruleset(firewall: &Firewall, endpoint: Option<&str>) -> Ruleset {
    let endpoint = endpoint.map(|address| format!(r#"{{"address": "{address}", "port": 53}}"#)).unwrap_or_default();
    let config = format!(
        r#"{{"version": 1, "generation": 1, "name": "a.c", "node": "c", "role": "cloud", "podCidrs": [],
        "local": {{"prefixes": []}}, "peers": [], "services": {{"mode": "kernel", "cidrs": ["10.96.0.0/16"], "list": [
        {{"namespace": "d", "name": "dns", "clusterIps": ["10.96.0.53"], "ports": [
        {{"protocol": "udp", "port": 53, "endpoints": [{endpoint}]}}]}}]}}}}"#
    );
    let facts = Facts { firewall: firewall.backend(), ..Facts::default() };
    Plan::new(&NodeConfig::parse(&config).unwrap(), &facts).ruleset
}

/// A namespace with two servers, each of which answers by its address.
fn setup(wanted: FirewallBackend) -> (Firewall, [UdpSocket; 2]) {
    netns::unshare().unwrap();
    sh("ip link set lo up; ip addr add 10.0.0.1/32 dev lo; ip addr add 10.0.0.2/32 dev lo; \
        ip link add world type veth peer name beyond; ip link set beyond up; ip link set world arp off up; ip route add default dev world src 10.0.0.1");
    let firewall = Firewall::choose(wanted, &mut Tools::default()).unwrap();
    (firewall, ["10.0.0.1:53", "10.0.0.2:53"].map(|address| UdpSocket::bind(address).unwrap()))
}

/// Whether the server hears what the client sends to the Service.
fn reaches(client: &UdpSocket, server: &UdpSocket) -> bool {
    server.set_nonblocking(true).unwrap();
    client.send_to(b"?", CLUSTER_IP).unwrap();
    // On the loopback a packet is there when the call is over.
    server.recv(&mut [0; 8]).is_ok()
}

fn local() -> BTreeSet<IpAddr> {
    BTreeSet::new()
}

fn a_client_that_never_closes_its_socket_goes_on(wanted: FirewallBackend) {
    let (firewall, [one, two]) = setup(wanted);
    let mut rules = Rules::default();
    let client = UdpSocket::bind("10.0.0.1:0").unwrap();
    // Before anybody serves it.
    client.send_to(b"?", CLUSTER_IP).unwrap();
    assert!(rules.bring(&firewall, ruleset(&firewall, Some("10.0.0.1")), &local()).unwrap());
    assert!(reaches(&client, &one));
    assert!(rules.bring(&firewall, ruleset(&firewall, Some("10.0.0.2")), &local()).unwrap());
    assert!(reaches(&client, &two) && !reaches(&client, &one));
    assert_eq!(rules.notes().collect::<Vec<_>>(), Vec::<String>::new());
    // Another one may still be on its way back.
    assert!(rules.bring(&firewall, ruleset(&firewall, None), &local()).unwrap());
    assert!(client.send_to(b"?", CLUSTER_IP).is_err() || !reaches(&client, &two));
}

#[test]
fn a_udp_client_goes_on_with_nftables() {
    a_client_that_never_closes_its_socket_goes_on(FirewallBackend::Nftables);
}

#[test]
fn a_udp_client_goes_on_with_iptables() {
    a_client_that_never_closes_its_socket_goes_on(FirewallBackend::Iptables);
}

fn only_strangers_make_it_look(wanted: FirewallBackend, stranger: &str, undo: &str) {
    let (firewall, _servers) = setup(wanted);
    assert_eq!(firewall.backend() == Backend::Nftables, wanted == FirewallBackend::Nftables);
    let mut rules = Rules::default();
    let wanted = || ruleset(&firewall, Some("10.0.0.1"));
    assert!(rules.bring(&firewall, wanted(), &local()).unwrap());
    // Perhaps once more: it wrote more than one transaction.
    rules.doubt(&firewall);
    assert!(!rules.bring(&firewall, wanted(), &local()).unwrap());
    rules.doubt(&firewall);
    assert!(rules.ruleset().is_some(), "nobody touched anything");
    sh(stranger);
    rules.doubt(&firewall);
    assert!(rules.ruleset().is_none(), "{stranger}");
    assert!(!rules.bring(&firewall, wanted(), &local()).unwrap());
    sh(undo);
    rules.doubt(&firewall);
    assert!(rules.bring(&firewall, wanted(), &local()).unwrap(), "{undo}");
    // Whoever begins anew finds it as it is.
    assert!(!Rules::default().bring(&firewall, wanted(), &local()).unwrap());
}

#[test]
fn only_strangers_make_it_look_at_nftables() {
    only_strangers_make_it_look(FirewallBackend::Nftables, "nft add table ip other", "nft delete table inet selvedge");
}

#[test]
fn only_strangers_make_it_look_at_iptables() {
    let (add, remove) = ("iptables -A INPUT -j ACCEPT", "iptables -t nat -D PREROUTING -j SELVEDGE-SERVICES");
    only_strangers_make_it_look(FirewallBackend::Iptables, add, remove);
}

#[test]
fn a_change_that_fails_is_made_good() {
    let (firewall, [one, two]) = setup(FirewallBackend::Nftables);
    let mut rules = Rules::default();
    rules.bring(&firewall, ruleset(&firewall, Some("10.0.0.1")), &local()).unwrap();
    let client = UdpSocket::bind("10.0.0.1:0").unwrap();
    assert!(reaches(&client, &one));
    sh("nft delete table inet selvedge");
    assert!(rules.bring(&firewall, ruleset(&firewall, Some("10.0.0.2")), &local()).unwrap());
    assert!(reaches(&client, &two));
}
