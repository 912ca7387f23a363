//! What rules of nftables report, in a namespace with a Service whose endpoints do not do their duty.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use common::{fresh_namespace, sh, until_local};
use selvedge_linux::netlink::{Monitor, Notice};
use selvedge_linux::nflog::{self, Report};
use selvedge_linux::poll::{Interest, poll};

const GROUP: u16 = 24_095;

const RULES: &str = "
table inet test {
    chain to { type nat hook output priority -100;
        ip daddr 10.96.0.1 meta l4proto tcp dnat ip to 10.0.0.1:81;
        ip daddr 10.96.0.2 meta l4proto tcp dnat ip to 10.0.0.9:80;
        ip daddr 10.96.0.4 meta l4proto tcp dnat ip to 10.0.0.1:83;
        ip daddr 10.96.0.3 meta l4proto udp dnat ip to 10.0.0.1:82;
        ip6 daddr fd96::1 meta l4proto tcp dnat ip6 to [2001:db8::1]:81; }
    chain answers {
        ct direction reply tcp flags & (rst | ack) == rst | ack log group 24095;
        ct state related log group 24095; }
    chain calls { ct state new ct status confirmed log group 24095; jump answers; }
    chain out { type filter hook output priority -1; ct status & (dnat | assured) == dnat jump calls; }
    chain in { type filter hook input priority -1; ct status & (dnat | assured) == dnat jump answers; }
}";

/// Waits for this report. An answer from this very host is seen a second time, when it has its other address again.
/// Waits for a report of this endpoint; whether it is an error of ICMP.
fn until(monitor: &mut Monitor<Report>, address: &str, protocol: u8, port: u16) -> bool {
    let expected = (address.parse().unwrap(), protocol, port);
    loop {
        match monitor.take().unwrap() {
            Some(Notice::Event(Report { address, protocol, port, refused }))
                if (address, protocol, port) == expected =>
            {
                return refused;
            }
            Some(Notice::Event(other)) => assert_ne!(other.port, 83, "it did its duty"),
            Some(Notice::Lost) => unreachable!("nothing is lost of a few packets"),
            None => {
                let ready = poll(&mut [Interest::readable(monitor)], Some(Duration::from_secs(10))).unwrap();
                assert!(ready > 0, "{expected:?} was not reported");
            }
        }
    }
}

#[test]
fn those_that_refuse_and_those_that_are_silent_are_reported() {
    fresh_namespace();
    sh(
        "ip link set lo up && ip link add eth0 type veth peer name peer0 && ip link set peer0 up && ip link set eth0 up",
    );
    sh("ip addr add 10.0.0.1/24 dev eth0 && ip addr add 2001:db8::1/64 dev eth0 nodad");
    sh("ip route add 10.96.0.0/16 dev eth0 && ip route add fd96::/64 dev eth0");
    until_local("2001:db8::1");
    sh(&format!("nft -f - <<'END'\n{RULES}\nEND"));
    let mut monitor = nflog::monitor(GROUP).unwrap();
    let busy = nflog::monitor(GROUP).unwrap_err();
    assert_eq!(busy.errno(), Some(libc::EPERM), "{busy}");

    let call = |to: &str| TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(5));
    let _listener = TcpListener::bind("10.0.0.1:83").unwrap();
    assert!(call("10.96.0.4:80").is_ok());
    assert!(call("10.96.0.1:80").is_err());
    assert!(!until(&mut monitor, "10.0.0.1", 6, 81));
    assert!(call("[fd96::1]:80").is_err());
    until(&mut monitor, "2001:db8::1", 6, 81);
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    udp.send_to(b"?", "10.96.0.3:53").unwrap();
    assert!(until(&mut monitor, "10.0.0.1", 17, 82));
    let silent = std::thread::spawn(|| {
        let to = "10.96.0.2:80".parse().unwrap();
        TcpStream::connect_timeout(&to, Duration::from_secs(5)).is_err()
    });
    until(&mut monitor, "10.0.0.9", 6, 80);
    assert!(silent.join().unwrap());
}
