//! UDP ports, TUN devices and Unix sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::{fresh_namespace, no_forks, sh, until_local};
use selvedge_linux::netlink::{Protocol, Socket};
use selvedge_linux::poll::{Interest, poll};
use selvedge_linux::tun::{self, Tun};
use selvedge_linux::{BATCH, Batch, Family, Outgoing, UdpPort, link, seqpacket, xfrm};

fn wait(fd: &impl std::os::fd::AsRawFd) {
    let mut interests = [Interest::readable(fd)];
    assert_eq!(poll(&mut interests, Some(Duration::from_secs(10))).unwrap(), 1, "nothing came");
    assert!(interests[0].is_readable());
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn udp_tells_and_uses_own_addresses() {
    fresh_namespace();
    sh("ip addr add 10.0.0.1/32 dev lo; ip addr add 10.0.0.2/32 dev lo");
    sh("ip -6 addr add fd00::1/128 dev lo nodad; ip -6 addr add fd00::2/128 dev lo nodad");
    until_local("fd00::1");
    until_local("fd00::2");
    for (family, near, far) in [(Family::V4, "10.0.0.1", "10.0.0.2"), (Family::V6, "fd00::1", "fd00::2")] {
        let (a, b) = (UdpPort::bind(0, family).unwrap(), UdpPort::bind(4500, family).unwrap());
        assert_eq!(b.port().unwrap(), 4500);
        let mut buffer = [0; 100];
        assert_eq!(b.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        a.send_from(Some(ip(near)), SocketAddr::new(ip(far), 4500), b"hello").unwrap();
        wait(&b);
        let received = b.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..received.len], b"hello");
        assert_eq!((received.local, received.remote), (ip(far), SocketAddr::new(ip(near), a.port().unwrap())));
        assert_eq!(received.segment, None);
        a.send_from(None, SocketAddr::new(ip(far), 4500), &[7; 200]).unwrap();
        wait(&b);
        assert_eq!(b.recv(&mut buffer).unwrap().len, 100);
        let error = a.send_from(Some(ip("203.0.113.1")), SocketAddr::new(ip(far), 4500), b"x");
        assert!(error.is_err() || family == Family::V6, "a foreign source address");
    }
}

#[test]
fn udp_ports_of_both_families_stand_side_by_side() {
    fresh_namespace();
    let _v4 = UdpPort::bind(500, Family::V4).unwrap();
    let _v6 = UdpPort::bind(500, Family::V6).unwrap();
    let error = UdpPort::bind(500, Family::V4).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("bind UDP port 500 (IPv4): ") && text.ends_with("in use (EADDRINUSE)"), "{text}");
}

#[test]
fn udp_batches_keep_order_and_addresses() {
    fresh_namespace();
    let (a, b) = (UdpPort::bind(0, Family::V4).unwrap(), UdpPort::bind(0, Family::V4).unwrap());
    b.set_buffers(1 << 20).unwrap();
    let remote = SocketAddr::new(ip("127.0.0.1"), b.port().unwrap());
    let payloads: Vec<Vec<u8>> = (0..BATCH as u8 + 8).map(|i| vec![i; 10 + usize::from(i)]).collect();
    let outgoing: Vec<_> = payloads
        .iter()
        .map(|payload| Outgoing { local: Some(ip("127.0.0.1")), remote, segment: None, payload })
        .collect();
    assert_eq!(a.send_many(&outgoing).unwrap(), payloads.len());
    assert_eq!(a.send_many(&[]).unwrap(), 0);
    let mut batch = Batch::new(2000);
    let mut seen = Vec::new();
    while seen.len() < payloads.len() {
        wait(&b);
        let count = b.recv_many(&mut batch).unwrap();
        assert_eq!(batch.datagrams().count(), count);
        seen.extend(batch.datagrams().map(|d| {
            assert_eq!((d.local, d.remote.port()), (ip("127.0.0.1"), a.port().unwrap()));
            d.payload.to_vec()
        }));
    }
    assert_eq!(seen, payloads);
    assert_eq!(b.recv_many(&mut batch).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(batch.datagrams().count(), 0);
}

#[test]
fn udp_segments_are_cut_and_joined_by_the_kernel() {
    fresh_namespace();
    let (a, b) = (UdpPort::bind(0, Family::V4).unwrap(), UdpPort::bind(0, Family::V4).unwrap());
    b.set_gro(true).unwrap();
    let remote = SocketAddr::new(ip("127.0.0.1"), b.port().unwrap());
    let payload = vec![9; 2500];
    let joined = Outgoing { local: Some(ip("127.0.0.1")), remote, segment: Some(1000), payload: &payload };
    assert_eq!(a.send_many(&[joined]).unwrap(), 1);
    let mut buffer = vec![0; 65_535];
    wait(&b);
    let received = b.recv(&mut buffer).unwrap();
    assert_eq!((received.len, received.segment), (2500, Some(1000)));
    b.set_gro(false).unwrap();
    assert_eq!(a.send_many(&[joined]).unwrap(), 1);
    let mut lengths = Vec::new();
    while lengths.iter().sum::<usize>() < 2500 {
        wait(&b);
        lengths.push(b.recv(&mut buffer).unwrap().len);
    }
    assert_eq!(lengths, [1000, 1000, 500]);
}

#[test]
fn outer_packets_may_be_fragmented() {
    fresh_namespace();
    sh("ip link set lo mtu 1280");
    let (a, b) = (UdpPort::bind(0, Family::V4).unwrap(), UdpPort::bind(0, Family::V4).unwrap());
    a.send_from(None, SocketAddr::new(ip("127.0.0.1"), b.port().unwrap()), &[1; 3000]).unwrap();
    wait(&b);
    assert_eq!(b.recv(&mut [0; 4000]).unwrap().len, 3000);
}

#[test]
fn ipsec_options_are_taken() {
    fresh_namespace();
    for (family, all) in [(Family::V4, "0.0.0.0/0"), (Family::V6, "::/0")] {
        let port = UdpPort::bind(0, family).unwrap();
        port.set_ipsec_bypass().unwrap();
        let shown = sh("ip xfrm policy");
        for direction in ["in", "out"] {
            let expected = format!("src {all} dst {all} \n\tsocket {direction} priority 0");
            assert!(shown.contains(&expected), "{expected} in\n{shown}");
        }
        assert_eq!(xfrm::list_policies(&mut Socket::open(Protocol::Xfrm).unwrap()).unwrap(), []);
        port.set_udp_encap(true).unwrap();
        port.set_udp_encap(false).unwrap();
    }
}

#[test]
fn tun_carries_packets_and_outlives_its_descriptor() {
    fresh_namespace();
    let device = Tun::open("selvedge0", tun::Options { persist: true, ..Default::default() }).unwrap();
    sh("ip addr add 10.0.0.1/24 dev selvedge0; sysctl -qw net.ipv6.conf.selvedge0.disable_ipv6=1");
    sh("ip link set selvedge0 up");
    let mut buffer = [0; 2000];
    assert_eq!(device.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let port = UdpPort::bind(7000, Family::V4).unwrap();
    port.send_from(None, SocketAddr::new(ip("10.0.0.2"), 7001), b"over the tunnel").unwrap();
    wait(&device);
    let len = device.recv(&mut buffer).unwrap();
    assert_eq!((len, buffer[0], &buffer[12..20]), (20 + 8 + 15, 0x45, &[10, 0, 0, 1, 10, 0, 0, 2][..]));
    // Sent back with addresses and ports swapped; neither checksum changes by that.
    let packet = &mut buffer[..len];
    for i in 0..4 {
        packet.swap(12 + i, 16 + i);
    }
    packet.swap(20, 22);
    packet.swap(21, 23);
    device.send(packet).unwrap();
    wait(&port);
    let mut reply = [0; 100];
    let received = port.recv(&mut reply).unwrap();
    assert_eq!((&reply[..received.len], received.remote.port()), (&b"over the tunnel"[..], 7001));
    let busy = Tun::open("selvedge0", tun::Options::default()).unwrap_err();
    assert_eq!(busy.errno(), Some(libc::EBUSY));
    let guard = no_forks();
    drop(device);
    let mut socket = Socket::open(Protocol::Route).unwrap();
    assert_eq!(link::by_name(&mut socket, "selvedge0").unwrap().unwrap().kind.as_deref(), Some("tun"));
    let again = Tun::open("selvedge0", tun::Options { persist: true, vnet_header: true }).unwrap();
    again.set_offload(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6).unwrap();
    assert!(tun::delete("selvedge0").unwrap());
    assert!(!tun::delete("selvedge0").unwrap());
    let short_lived = Tun::open("selvedge1", tun::Options::default()).unwrap();
    assert!(link::by_name(&mut socket, "selvedge1").unwrap().is_some());
    drop(short_lived);
    assert!(link::by_name(&mut socket, "selvedge1").unwrap().is_none());
    drop(guard);
}

#[test]
fn tun_names_are_checked() {
    for name in ["", "sixteen-octets-x"] {
        assert!(Tun::open(name, tun::Options::default()).is_err(), "{name:?}");
    }
}

fn directory(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("selvedge-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn seqpacket_keeps_messages_apart() {
    let directory = directory("seqpacket");
    let path = directory.join("keeper.sock");
    let _guard = no_forks();
    let listener = seqpacket::Listener::bind(&path).unwrap();
    assert!(listener.accept().unwrap().is_none());
    let client = seqpacket::Connection::connect(&path).unwrap();
    wait(&listener);
    let server = listener.accept().unwrap().unwrap();
    let mut buffer = vec![0; seqpacket::MAX_MESSAGE];
    assert_eq!(server.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    client.send(b"one").unwrap();
    client.send(&vec![2; seqpacket::MAX_MESSAGE]).unwrap();
    client.send(b"three").unwrap();
    assert_eq!(server.recv(&mut buffer).unwrap(), 3);
    assert_eq!(server.recv(&mut buffer).unwrap(), seqpacket::MAX_MESSAGE);
    assert_eq!(server.recv(&mut buffer[..4]).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    assert!(client.send(&vec![0; seqpacket::MAX_MESSAGE + 1]).is_err());
    assert!(client.send(b"").is_err());
    let full = (0..100_000).find_map(|_| server.send(&[1; 1000]).err()).unwrap();
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    drop(server);
    while client.recv(&mut buffer).unwrap() > 0 {}
    assert_eq!(client.send(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn seqpacket_replaces_what_the_dead_left_and_only_that() {
    let directory = directory("stale");
    let path = directory.join("keeper.sock");
    let _guard = no_forks();
    let first = seqpacket::Listener::bind(&path).unwrap();
    let error = seqpacket::Listener::bind(&path).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EADDRINUSE));
    // As if its process had been killed: the file stays, nobody listens.
    let old = directory.join("old.sock");
    std::fs::rename(&path, &old).unwrap();
    drop(first);
    assert!(old.exists());
    std::fs::rename(&old, &path).unwrap();
    assert_eq!(seqpacket::Connection::connect(&path).unwrap_err().errno(), Some(libc::ECONNREFUSED));
    let second = seqpacket::Listener::bind(&path).unwrap();
    drop(second);
    assert!(!path.exists());
    assert!(seqpacket::Listener::bind(directory.join("x".repeat(200))).is_err());
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn poll_times_out_and_skips_empty_places() {
    let port = UdpPort::bind(0, Family::V4).unwrap();
    let mut interests = [Interest::none(), Interest::readable(&port)];
    assert_eq!(poll(&mut interests, Some(Duration::ZERO)).unwrap(), 0);
    interests[1] = interests[1].or_writable();
    assert_eq!(poll(&mut interests, None).unwrap(), 1);
    assert!(interests[1].is_writable() && !interests[1].is_readable() && !interests[0].is_readable());
}
