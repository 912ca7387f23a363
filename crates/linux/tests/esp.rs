//! What needs a kernel with ESP, in user-mode Linux, which has one whatever the machine has.
//!
//! The one test that is not ignored boots it (Debian's `user-mode-linux`) with this machine's files, read-only, and
//! runs the ignored ones there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{fresh_namespace, sh, until_local};
use selvedge_linux::netlink::{Monitor, Notice, Protocol, Socket};
use selvedge_linux::poll::{Interest, poll};
use selvedge_linux::xfrm::{self, Action, Aead, Algorithm, Direction, Encap, Event, Limits, Policy, Sa, Template};
use selvedge_linux::{Family, UdpPort, link, netfilter, netns};

const REQID: u32 = 0x5e00_0001;

/// Mounts what a program expects and lets the kernel load modules from where Debian puts them.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/run RUST_BACKTRACE=0
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs run /run
mkdir -p /run/modules/lib/modules
ln -s /usr/lib/uml/modules/$(uname -r) /run/modules/lib/modules/
printf '#!/bin/sh\nexec /sbin/modprobe -d /run/modules "$@"\n' >/run/modprobe
chmod +x /run/modprobe; echo /run/modprobe >/proc/sys/kernel/modprobe
/run/modprobe -a tun ipv6
ip link set lo up
( @PROGRAM@ --ignored --test-threads=1 ) </dev/null 2>&1
echo "@@exit $?"
echo o >/proc/sysrq-trigger
sleep 60
"#;

#[test]
fn on_a_kernel_with_esp() {
    let directory = std::env::temp_dir().join(format!("selvedge-uml-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let init = directory.join("init");
    let program = std::env::current_exe().unwrap();
    std::fs::write(&init, INIT.replace("@PROGRAM@", program.to_str().unwrap())).unwrap();
    sh(&format!("chmod +x {}", init.display()));
    // `timeout` ends the whole process group: user-mode Linux is several processes.
    let output = Command::new("timeout")
        .args(["-k", "5", "300", "linux.uml", "mem=256M", "rootfstype=hostfs", "rootflags=/", "ro"])
        .arg(format!("init={}", init.display()))
        .arg(format!("uml_dir={}", directory.display()))
        .args(["con=null", "con0=null,fd:1", "quiet"])
        .stdin(Stdio::null())
        .output()
        .expect("coreutils are installed");
    std::fs::remove_dir_all(directory).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("@@exit 0"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(" 0 failed") && !text.contains("\nrunning 0 tests"), "{text}");
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn sa(src: &str, dst: &str, spi: u32) -> Sa {
    Sa {
        src: ip(src),
        dst: ip(dst),
        spi,
        reqid: REQID,
        aead: Aead { algorithm: Algorithm::ChaCha20Poly1305, key: vec![spi as u8; 36].into() },
        encap: None,
        replay_window: 1024,
        limits: Limits::default(),
    }
}

#[test]
#[ignore = "runs in user-mode Linux"]
fn sas_are_added_listed_updated_and_deleted() {
    fresh_namespace();
    let mut socket = Socket::open(Protocol::Xfrm).unwrap();
    let aes = |len: usize| Aead { algorithm: Algorithm::AesGcm, key: vec![7; len].into() };
    let limits = Limits {
        soft_bytes: Some(1 << 40),
        hard_bytes: Some(1 << 41),
        soft_packets: Some(1 << 31),
        hard_packets: Some((1 << 32) - 1),
        soft_seconds: Some(3000),
        hard_seconds: Some(3600),
    };
    let all = [
        sa("192.0.2.1", "192.0.2.2", 0xc000_0001),
        Sa { aead: aes(20), replay_window: 32, ..sa("192.0.2.1", "192.0.2.2", 0xc000_0002) },
        Sa { aead: aes(36), replay_window: 4096, limits, ..sa("2001:db8::1", "2001:db8::2", 0xc000_0003) },
        Sa {
            encap: Some(Encap { sport: 4500, dport: 61_000 }),
            reqid: REQID + 1,
            replay_window: 0,
            ..sa("192.0.2.2", "192.0.2.1", 0xc000_0004)
        },
    ];
    for sa in &all {
        xfrm::add_sa(&mut socket, sa).unwrap();
        assert_eq!(xfrm::add_sa(&mut socket, sa).unwrap_err().errno(), Some(libc::EEXIST));
        let info = xfrm::get_sa(&mut socket, sa.dst, sa.spi).unwrap().unwrap();
        assert_eq!((info.src, info.dst, info.spi, info.reqid), (sa.src, sa.dst, sa.spi, sa.reqid));
        assert_eq!((info.encap, info.replay_window, info.limits), (sa.encap, sa.replay_window, sa.limits));
        assert_eq!(info.algorithm.as_deref(), Some(sa.aead.algorithm.name()));
        assert_eq!((info.packets, info.first_used), (0, 0));
        assert!(info.added > 0);
    }
    assert_eq!(xfrm::list_sas(&mut socket).unwrap().len(), 4);
    let shown = sh("ip xfrm state");
    for part in [
        "proto esp spi 0xc0000001 reqid 1577058305 mode tunnel\n\treplay-window 0 flag af-unspec",
        "anti-replay esn context:\n\t seq-hi 0x0, seq 0x0, oseq-hi 0x0, oseq 0x0\n\t replay_window 1024, bitmap-length 32",
        "proto esp spi 0xc0000002 reqid 1577058305 mode tunnel\n\treplay-window 32 flag af-unspec",
        "encap type espinudp sport 4500 dport 61000 addr 0.0.0.0",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let moved = Sa { encap: Some(Encap { sport: 4500, dport: 62_000 }), limits, ..all[3].clone() };
    xfrm::update_sa(&mut socket, &moved).unwrap();
    let info = xfrm::get_sa(&mut socket, moved.dst, moved.spi).unwrap().unwrap();
    assert_eq!((info.encap, info.limits), (moved.encap, moved.limits));
    assert_eq!(xfrm::flush_sas(&mut socket, REQID..=REQID).unwrap(), 3);
    assert_eq!(xfrm::list_sas(&mut socket).unwrap().len(), 1);
    assert!(xfrm::delete_sa(&mut socket, moved.dst, moved.spi).unwrap());
    assert!(!xfrm::delete_sa(&mut socket, moved.dst, moved.spi).unwrap());
    assert_eq!(xfrm::get_sa(&mut socket, moved.dst, moved.spi).unwrap(), None);
    let wrong = Sa { aead: aes(5), ..all[0].clone() };
    let error = xfrm::add_sa(&mut socket, &wrong).unwrap_err().to_string();
    assert!(error.starts_with("add SA 0xc0000001 to 192.0.2.2: "), "{error}");
}

/// One end of a tunnel between the namespaces `near` and `far`, 192.0.2.1 and 192.0.2.2; inside 10.x.0.1 and fd00:x::1.
struct End {
    socket: Socket,
    events: Monitor<Event>,
    ports: Vec<UdpPort>,
}

impl End {
    /// `x` is 1 or 2. With `peer_port`, ESP is in UDP between the own port 4500 and that one.
    fn new(name: &str, x: u8, peer_port: Option<u16>) -> Self {
        let y = 3 - x;
        netns::enter(name).unwrap();
        sh(&format!(
            "ip link set lo up; ip addr add 192.0.2.{x}/24 dev eth0; ip link set eth0 up; ip link add pod type dummy
             ip addr add 10.{x}.0.1/24 dev pod; ip addr add fd00:{x}::1/64 dev pod nodad; ip link set pod up"
        ));
        until_local(&format!("fd00:{x}::1"));
        sh(&format!(
            "ip route add 10.{y}.0.0/24 dev eth0 src 10.{x}.0.1
             ip route add fd00:{y}::/64 dev eth0 src fd00:{x}::1"
        ));
        let mut end =
            Self { socket: Socket::open(Protocol::Xfrm).unwrap(), events: xfrm::monitor().unwrap(), ports: Vec::new() };
        if peer_port.is_some() {
            let port = UdpPort::bind(4500, Family::V4).unwrap();
            port.set_udp_encap(true).unwrap();
            port.set_ipsec_bypass().unwrap();
            end.ports.push(port);
        }
        let outer = |x: u8| format!("192.0.2.{x}");
        let [outbound, inbound] = encaps(peer_port);
        for (from, to, encap) in [(x, y, outbound), (y, x, inbound)] {
            let sa = Sa { encap, ..sa(&outer(from), &outer(to), 0xc000_0000 + u32::from(from)) };
            xfrm::add_sa(&mut end.socket, &sa).unwrap();
        }
        for (inner, from, to, direction) in [
            ("10.@.0.0/24", x, y, Direction::Out),
            ("10.@.0.0/24", y, x, Direction::In),
            ("fd00:@::/64", x, y, Direction::Out),
            ("fd00:@::/64", y, x, Direction::In),
        ] {
            let prefix = |x: u8| inner.replace('@', &x.to_string()).parse().unwrap();
            let template = Template { src: ip(&outer(from)), dst: ip(&outer(to)), reqid: REQID };
            let policy = Policy {
                src: prefix(from),
                dst: prefix(to),
                direction,
                priority: 1000,
                action: Action::Allow,
                template: Some(template),
            };
            xfrm::update_policy(&mut end.socket, &policy).unwrap();
        }
        end
    }

    fn event(&mut self) -> Event {
        loop {
            match self.events.take().unwrap() {
                Some(Notice::Event(event)) => return event,
                Some(Notice::Lost) => {}
                None => {
                    let ready = poll(&mut [Interest::readable(&self.events)], Some(Duration::from_secs(20))).unwrap();
                    assert_eq!(ready, 1, "no event");
                }
            }
        }
    }
}

/// The ports outbound and inbound, 4500 being the own one.
fn encaps(peer_port: Option<u16>) -> [Option<Encap>; 2] {
    let outbound = peer_port.map(|peer| Encap { sport: 4500, dport: peer });
    [outbound, outbound.map(|e| Encap { sport: e.dport, dport: e.sport })]
}

/// Makes the two namespaces, joined by a link; leaves the thread outside.
fn pair(test: &str) -> (String, String) {
    let (near, far) = (format!("{test}-near"), format!("{test}-far"));
    netns::create(&near).unwrap();
    netns::create(&far).unwrap();
    sh(&format!("ip link add eth0 netns {near} type veth peer name eth0 netns {far}"));
    (near, far)
}

#[test]
#[ignore = "runs in user-mode Linux"]
fn one_sa_carries_both_families() {
    fresh_namespace();
    let (near, far) = pair("both");
    let mut far = End::new(&far, 2, None);
    let mut near = End::new(&near, 1, None);
    sh("ping -c2 -i0.2 -W5 10.2.0.1; ping -c2 -i0.2 -W5 fd00:2::1");
    for end in [&mut near, &mut far] {
        for (spi, dst) in [(0xc000_0001, "192.0.2.2"), (0xc000_0002, "192.0.2.1")] {
            let info = xfrm::get_sa(&mut end.socket, ip(dst), spi).unwrap().unwrap();
            assert_eq!((info.packets, info.errors), (4, xfrm::Errors::default()));
            assert!(info.bytes > 0 && info.first_used > 0);
        }
    }
    // In clear from the other end's prefix: refused and counted.
    let out = only_out(&mut near);
    assert!(xfrm::delete_policy(&mut near.socket, &out).unwrap());
    let refused = || ["XfrmInTmplMismatch", "XfrmInNoPols"].iter().map(|n| xfrm::stats().unwrap()[*n]).sum::<u64>();
    netns::enter("both-far").unwrap();
    let before = refused();
    netns::enter("both-near").unwrap();
    sh("! ping -c1 -W1 10.2.0.1 >/dev/null");
    netns::enter("both-far").unwrap();
    assert!(refused() > before);
}

/// The outbound IPv4 policy of an end.
fn only_out(end: &mut End) -> Policy {
    let policies = xfrm::list_policies(&mut end.socket).unwrap();
    policies.into_iter().find(|p| p.direction == Direction::Out && p.dst.addr().is_ipv4()).unwrap()
}

#[test]
#[ignore = "runs in user-mode Linux"]
fn esp_in_udp_tells_a_moved_peer() {
    fresh_namespace();
    let (near, far) = pair("udp");
    // The far end expects port 4501, as if a NAT had given the near one another port since.
    let mut far = End::new(&far, 2, Some(4501));
    let near = End::new(&near, 1, Some(4500));
    sh("! ping -c1 -W1 10.2.0.1 >/dev/null");
    let expected = Event::Mapping {
        spi: 0xc000_0001,
        reqid: REQID,
        old: SocketAddr::new(ip("192.0.2.1"), 4501),
        new: SocketAddr::new(ip("192.0.2.1"), 4500),
    };
    assert_eq!(far.event(), expected);
    netns::enter("udp-far").unwrap();
    let [outbound, inbound] = encaps(Some(4500));
    for sa in [
        Sa { encap: inbound, ..sa("192.0.2.1", "192.0.2.2", 0xc000_0001) },
        Sa { encap: outbound, ..sa("192.0.2.2", "192.0.2.1", 0xc000_0002) },
    ] {
        xfrm::update_sa(&mut far.socket, &sa).unwrap();
    }
    netns::enter("udp-near").unwrap();
    sh("ping -c2 -i0.2 -W5 10.2.0.1");
    assert_eq!(near.ports.len(), 1);
}

#[test]
#[ignore = "runs in user-mode Linux"]
fn limits_are_told_and_kept() {
    fresh_namespace();
    let (near, far) = pair("limits");
    let _far = End::new(&far, 2, None);
    let mut near = End::new(&near, 1, None);
    let limits = Limits { soft_packets: Some(2), hard_packets: Some(4), ..Limits::default() };
    xfrm::update_sa(&mut near.socket, &Sa { limits, ..sa("192.0.2.1", "192.0.2.2", 0xc000_0001) }).unwrap();
    sh("ping -c6 -i0.2 -W1 10.2.0.1 >/dev/null || true");
    for hard in [false, true] {
        let expected = Event::Expire { dst: ip("192.0.2.2"), spi: 0xc000_0001, reqid: REQID, hard };
        assert_eq!(near.event(), expected);
    }
    assert_eq!(xfrm::get_sa(&mut near.socket, ip("192.0.2.2"), 0xc000_0001).unwrap(), None);
}

#[test]
#[ignore = "runs in user-mode Linux"]
fn probe_finds_everything_and_leaves_nothing() {
    fresh_namespace();
    let support = xfrm::probe();
    assert_eq!(support.usable(), Ok(()));
    assert_eq!((support.aes_gcm, support.chacha20_poly1305, support.ipv6), (Ok(()), Ok(()), Ok(())));
    assert_eq!(sh("ip xfrm state"), "");
}

#[test]
#[ignore = "runs in user-mode Linux"]
fn firewall_without_nft_nat_falls_back_to_legacy() {
    fresh_namespace();
    let reason = netfilter::probe_nft().unwrap_err();
    assert!(reason.to_string().contains("nft -c -f -"), "{reason}");
    for tool in [Family::V4, Family::V6].map(|family| netfilter::probe_iptables(family).unwrap()) {
        assert!(format!("{tool:?}").contains("legacy"), "{tool:?}");
        tool.restore("*nat\n:SELVEDGE-T - [0:0]\n-A SELVEDGE-T -j MASQUERADE\nCOMMIT\n").unwrap();
        assert!(tool.save("nat").unwrap().contains("-A SELVEDGE-T -j MASQUERADE"));
    }
    netfilter::probe_ipset().unwrap();
}

#[test]
#[ignore = "runs in user-mode Linux"]
fn dummy_link() {
    fresh_namespace();
    let mut socket = Socket::open(Protocol::Route).unwrap();
    assert!(link::create(&mut socket, "selvedge-dns", "dummy").unwrap());
    assert_eq!(link::by_name(&mut socket, "selvedge-dns").unwrap().unwrap().kind.as_deref(), Some("dummy"));
    assert!(link::delete(&mut socket, "selvedge-dns").unwrap());
}
