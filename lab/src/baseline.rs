//! The laboratory without Selvedge: what works by itself, what must not, and that the instruments see what is there.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::capture::Capture;
use crate::probe::{self, DEADLINE};
use crate::router::{INTERNET, Wan};
use crate::server::PORT;
use crate::snapshot::Snapshot;
use crate::table::Report;
use crate::topology::{Lab, Net};
use crate::traffic::Traffic;

const SHORT: Duration = Duration::from_secs(1);

/// Runs all checks on a laboratory of their own.
pub fn run(report: &mut Report) -> Result<()> {
    let mut lab = Lab::build(None, false)?;
    report.progress("namespaces, links, routers, VXLAN");
    lab.start_cloud_pods()?;
    for (site, node) in lab.nodes.iter().filter(|node| node.name.starts_with("edge-")).enumerate() {
        std::fs::create_dir_all(node.cni_dir())?;
        std::fs::write(node.cni_dir().join("baseline.conflist"), edge_network(site + 1))?;
    }
    lab.start_edge_pods()?;
    report.progress("pods");
    let capture = Capture::start(&lab.wan.ns, Wan::BRIDGE, &lab.dir.join("wan.pcap"))?;
    cloud(report, &lab);
    edges(report, &lab);
    let verdict = capture.stop()?;
    report.check("b9", "the capture sees plain text", || {
        ensure!(!verdict.plain_text(&[]).is_empty(), "no packet with the marker in {}", verdict.summary());
        ensure!(verdict.unexpected(&[]).iter().any(|kind| kind.starts_with("TCP")), "{}", verdict.summary());
        Ok(verdict.summary())
    });
    report.check("b10", "the traffic counter notes what is lost, and when it flows again", || count_losses(&lab));
    report.check("b11", "a snapshot shows what was left and what is gone", || compare_snapshots(&lab));
    report.check("b12", "a pod's address is free again after CNI DEL", || {
        let index = lab.nodes.iter().position(|node| node.name == "edge-1").context("no edge-1")?;
        let node = &mut lab.nodes[index];
        let network = crate::cni::Network::find(&node.cni_dir(), &node.cni_data())?;
        for pod in std::mem::take(&mut node.pods) {
            pod.stop(&node.ns, &network)?;
        }
        let leases = std::fs::read_dir(node.cni_data().join("baseline"))?.flatten();
        let held: Vec<_> = leases.filter(|l| l.file_name().to_string_lossy().starts_with("10.234.")).collect();
        ensure!(held.is_empty(), "still leased: {held:?}");
        Ok(String::new())
    });
    Ok(())
}

fn cloud(report: &mut Report, lab: &Lab) {
    for (number, v4) in [("b1", true), ("b2", false)] {
        let family = if v4 { "IPv4" } else { "IPv6" };
        report.check(number, &format!("cloud pods reach each other by VXLAN, {family}"), || {
            for (from, to) in [("cloud-1", "cloud-2"), ("cloud-2", "cloud-1")] {
                let (from, to) = (lab.place(Net::Pod, from)?, lab.place(Net::Pod, to)?);
                let target = SocketAddr::new(to.address(v4)?, PORT);
                for answer in [probe::who_tcp(from.ns, target, DEADLINE)?, probe::who_udp(from.ns, target, DEADLINE)?] {
                    ensure!(answer.name == to.name, "{} answered instead of {}", answer.name, to.name);
                    ensure!(answer.client.ip() == from.address(v4)?, "source became {}", answer.client);
                }
                probe::ping(from.ns, to.address(v4)?, DEADLINE)?;
                let mtu = if v4 { 1450 } else { 1430 };
                probe::ping_sized(from.ns, to.address(v4)?, mtu, DEADLINE)?;
                probe::bulk_tcp(from.ns, target, 1 << 20, DEADLINE)?;
            }
            Ok(String::new())
        });
    }
    report.check("b3", "master's host network reaches cloud pods", || {
        let (from, to) = (lab.place(Net::Host, "master")?, lab.place(Net::Pod, "cloud-2")?);
        let answer = probe::who_tcp(from.ns, SocketAddr::new(to.address(true)?, PORT), DEADLINE)?;
        ensure!(answer.name == to.name, "{} answered", answer.name);
        Ok(format!("seen as {}", answer.client.ip()))
    });
}

fn edges(report: &mut Report, lab: &Lab) {
    report.check("b4", "edge hosts reach the internet as their router", || {
        for (edge, router) in [("edge-1", "203.0.113.21"), ("edge-2", "203.0.113.22")] {
            let from = lab.place(Net::Host, edge)?;
            let answer = probe::who_tcp(from.ns, SocketAddr::new(INTERNET.parse()?, PORT), DEADLINE)?;
            ensure!(answer.client.ip() == router.parse::<IpAddr>()?, "{edge} seen as {}", answer.client);
        }
        Ok(String::new())
    });
    report.check("b5", "pods of one edge reach each other", || {
        let (from, to) = (lab.pod("edge-1", 0)?, lab.pod("edge-1", 1)?);
        for v4 in [true, false] {
            let answer = probe::who_tcp(from.ns, SocketAddr::new(to.address(v4)?, PORT), DEADLINE)?;
            ensure!(answer.name == to.name, "{} answered", answer.name);
        }
        Ok(String::new())
    });
    report.check("b6", "edge pods do not reach cloud pods, nor the reverse", || {
        for (from, to) in [("edge-1", "cloud-1"), ("cloud-2", "edge-1"), ("edge-1", "edge-2")] {
            let (a, b) = (lab.place(Net::Pod, from)?, lab.place(Net::Pod, to)?);
            if let Ok(answer) = probe::who_tcp(a.ns, SocketAddr::new(b.address(true)?, PORT), SHORT) {
                bail!("{from} to {to}: {} answered", answer.name);
            }
        }
        Ok(String::new())
    });
    report.check("b7", "the routers let nothing in that was not asked for", || {
        let outside = SocketAddr::new("203.0.113.21".parse()?, PORT);
        match probe::who_tcp(&lab.wan.ns, outside, SHORT) {
            Ok(answer) => bail!("{} answered", answer.name),
            Err(_) => Ok(String::new()),
        }
    });
    report.check("b8", "two edges that call each other's UDP port 4500 meet", || punch(lab));
}

/// Both send until both have heard; the first datagram of the earlier one is unsolicited at the other's router.
fn punch(lab: &Lab) -> Result<String> {
    let call = |edge: &str, peer: &'static str| {
        lab.node(edge)?.ns.enter(|| {
            let socket = std::net::UdpSocket::bind(("0.0.0.0", 4500))?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            let mut buffer = [0; 64];
            let mut heard = None;
            let start = Instant::now();
            while start.elapsed() < DEADLINE {
                socket.send_to(if heard.is_some() { b"heard" } else { b"hello" }, (peer, 4500))?;
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let first = *heard.get_or_insert(from);
                    if &buffer[..length] == b"heard" {
                        socket.send_to(b"heard", (peer, 4500))?;
                        return Ok(first);
                    }
                }
            }
            bail!("{edge} heard {heard:?}, and not that it was heard")
        })
    };
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(|| call("edge-2", "203.0.113.21"));
        (call("edge-1", "203.0.113.22"), other.join())
    });
    let two = two.map_err(|_| anyhow::anyhow!("the thread of edge-2 panicked"))?;
    let (one, two) = (one?, two?);
    ensure!(one.port() == 4500 && two.port() == 4500, "ports were not kept: {one}, {two}");
    Ok(format!("{one}, {two}"))
}

fn count_losses(lab: &Lab) -> Result<String> {
    let (from, to) = (lab.place(Net::Pod, "cloud-1")?, lab.place(Net::Pod, "cloud-2")?);
    let node = &lab.node("cloud-1")?.ns;
    let traffic = Traffic::start(from.ns, to.address(true)?, Duration::from_millis(10))?;
    traffic.await_replies(10)?;
    node.ip("route replace blackhole 10.244.2.0/24 metric 0 table 7\nrule add priority 7 lookup 7")?;
    let cut = Instant::now();
    let silent = traffic.await_recovery(cut, Duration::from_millis(300));
    ensure!(silent.is_err(), "answered by a cut network");
    node.ip("rule del priority 7 lookup 7\nroute flush table 7")?;
    let joined = Instant::now();
    let recovery = traffic.await_recovery(joined, DEADLINE)?;
    traffic.await_replies(10)?;
    let (sent, lost) = traffic.stop()?;
    ensure!(lost >= 10, "{lost} of {sent} lost within 300 ms of silence");
    Ok(format!("{lost} of {sent} lost, again after {:.0} ms", recovery.as_secs_f64() * 1000.0))
}

fn compare_snapshots(lab: &Lab) -> Result<String> {
    let node = lab.node("edge-1")?;
    let folder = node.dir.join("snapshot");
    std::fs::create_dir_all(&folder)?;
    let before = Snapshot::take(&node.ns, &[&folder])?;
    ensure!(before.difference(&Snapshot::take(&node.ns, &[&folder])?).is_empty(), "differs from itself");
    node.ns.ip("rule add priority 7 lookup 7\nroute add 192.0.2.0/24 dev eth0 table 7\nlink add left type bridge")?;
    lab.iptables.load(&node.ns, "*mangle\n:LEFT - [0:0]\n-A LEFT -j ACCEPT\nCOMMIT\n")?;
    std::fs::write(folder.join("left"), "left\n")?;
    let difference = before.difference(&Snapshot::take(&node.ns, &[&folder])?);
    for word in ["in rules: 7:", "in routes: 192.0.2.0/24", "left:", "-A LEFT", "snapshot/left: left"] {
        ensure!(difference.iter().any(|line| line.contains(word)), "{word:?} is not in {difference:#?}");
    }
    lab.iptables.load(&node.ns, "*mangle\n-F LEFT\n-X LEFT\nCOMMIT\n")?;
    std::fs::remove_file(folder.join("left"))?;
    node.ns.ip("rule del priority 7 lookup 7\nroute flush table 7\nlink del left")?;
    let difference = before.difference(&Snapshot::take(&node.ns, &[&folder])?);
    ensure!(difference.is_empty(), "after removal: {difference:#?}");
    Ok(String::new())
}

/// A network of the shape that the agent writes.
fn edge_network(site: usize) -> String {
    json!({
        "cniVersion": "0.3.1",
        "name": "baseline",
        "plugins": [
            {
                "type": "bridge", "bridge": "br-baseline", "isDefaultGateway": true, "forceAddress": true,
                "hairpinMode": true, "mtu": 1400,
                "ipam": {"type": "host-local", "ranges": [
                    [{"subnet": format!("10.234.{site}.0/24")}], [{"subnet": format!("fd00:234:0:{site}::/64")}],
                ]},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}},
        ],
    })
    .to_string()
}
