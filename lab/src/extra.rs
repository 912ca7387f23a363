//! Rows of our own: UDP, IPv6, packet sizes, addresses, Services, and what stands on the wire.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::capture::{Capture, Verdict};
use crate::fabric::Fabric;
use crate::kube::cloud::PUBLIC;
use crate::manifests::{SERVICE_PORT, Service};
use crate::probe::{self, DEADLINE};
use crate::router::INTERNET;
use crate::server::PORT;
use crate::table::Report;
use crate::topology::{Lab, Net, Place};

/// MTU of the edges' pods and of the way through a tunnel.
const TUNNEL_MTU: usize = 1400;
/// MTU of the cloud's pods.
const CLOUD_MTU: usize = 1450;

/// Pairs of nodes whose pods talk through one tunnel, through tunnel and VXLAN, and between edges; both ways.
const PAIRS: [(&str, &str); 6] = [
    ("edge-1", "cloud-1"),
    ("cloud-1", "edge-1"),
    ("edge-2", "cloud-2"),
    ("cloud-2", "edge-2"),
    ("edge-1", "edge-2"),
    ("edge-2", "edge-1"),
];

/// Runs all of them.
pub fn run(report: &mut Report, fabric: &Fabric) {
    let lab = &fabric.lab;
    pairs(report, lab);
    services(report, lab);
    report.check("x8", "edge pod to the internet as its node", || internet(lab));
}

/// Whether only sealed packets crossed the WAN, the internet rows and the way to the API server apart.
pub fn sealed(verdict: &Verdict) -> Result<String> {
    let internet = [INTERNET, PUBLIC];
    let plain = verdict.plain_text(&internet);
    ensure!(plain.is_empty(), "{} packets with plain text on the WAN, first: {}", plain.len(), plain[0]);
    let unexpected = verdict.unexpected(&internet);
    ensure!(unexpected.is_empty(), "on the WAN besides ESP and IKE: {unexpected:?}");
    Ok(verdict.summary())
}

/// As [`sealed`], and there was a tunnel at all.
pub fn judge(verdict: &Verdict) -> Result<String> {
    let summary = sealed(verdict)?;
    ensure!(
        ["UDP 4500", "ESP"].iter().any(|kind| verdict.kinds.contains_key(*kind)),
        "no tunnel on the WAN: {summary}"
    );
    Ok(summary)
}

fn pairs(report: &mut Report, lab: &Lab) {
    each_pair(report, lab, "x1", "TCP over IPv6, source kept", |from, to| who(from, to, false, probe::who_tcp));
    each_pair(report, lab, "x2", "TCP over IPv4, source kept", |from, to| who(from, to, true, probe::who_tcp));
    each_pair(report, lab, "x3", "UDP over IPv4, source kept", |from, to| who(from, to, true, probe::who_udp));
    each_pair(report, lab, "x4", "UDP over IPv6, source kept", |from, to| who(from, to, false, probe::who_udp));
    each_pair(report, lab, "x5", "IPv4 packets around the MTU, DF set", |from, to| sizes(from, to, true));
    each_pair(report, lab, "x6", "IPv6 packets around the MTU", |from, to| sizes(from, to, false));
    each_pair(report, lab, "x7", "1 MB each way, compared", |from, to| {
        for v4 in [true, false] {
            probe::bulk_tcp(from.ns, SocketAddr::new(to.address(v4)?, PORT), 1 << 20, DEADLINE * 4)?;
        }
        Ok(())
    });
}

fn each_pair(
    report: &mut Report,
    lab: &Lab,
    number: &str,
    what: &str,
    check: impl Fn(Place<'_>, Place<'_>) -> Result<()>,
) {
    for (index, (from, to)) in PAIRS.iter().enumerate() {
        let letter = char::from(b'a' + u8::try_from(index).unwrap_or_default());
        report.check(&format!("{number}{letter}"), &format!("pod  {from:<8} -> pod  {to}"), || {
            check(lab.place(Net::Pod, from)?, lab.place(Net::Pod, to)?)?;
            Ok(what.to_owned())
        });
    }
}

fn who(
    from: Place<'_>,
    to: Place<'_>,
    v4: bool,
    ask: fn(&crate::netns::Netns, SocketAddr, Duration) -> Result<crate::server::Answer>,
) -> Result<()> {
    let answer = ask(from.ns, SocketAddr::new(to.address(v4)?, PORT), DEADLINE)?;
    ensure!(answer.name == to.name, "{} answered instead of {}", answer.name, to.name);
    ensure!(answer.client.ip() == from.address(v4)?, "{} was seen as {}", from.name, answer.client.ip());
    Ok(())
}

/// Up to the tunnel's MTU everything passes; above it the sender is told so at once, instead of waiting for nothing.
fn sizes(from: Place<'_>, to: Place<'_>, v4: bool) -> Result<()> {
    let address = to.address(v4)?;
    for size in [1280, TUNNEL_MTU - 1, TUNNEL_MTU] {
        probe::ping_sized(from.ns, address, size, DEADLINE)?;
    }
    for size in [TUNNEL_MTU + 1, CLOUD_MTU] {
        match probe::ping_sized(from.ns, address, size, DEADLINE) {
            Ok(_) => bail!("{size} bytes passed a way of {TUNNEL_MTU}"),
            Err(error) => {
                let said = format!("{error:#}").to_lowercase();
                ensure!(said.contains("mtu"), "{size} bytes vanished without a word: {said}");
            }
        }
    }
    Ok(())
}

fn services(report: &mut Report, lab: &Lab) {
    for (number, client, name, v4, udp) in [
        ("s1", "edge-1", "cloud-pod", false, false),
        ("s2", "cloud-2", "edge-pod", false, false),
        ("s3", "edge-1", "cloud-pod", true, true),
        ("s4", "cloud-1", "edge-pod", true, true),
        ("s5", "edge-2", "edge-1-pod", false, true),
    ] {
        let what = format!("pod  {client:<8} -> Service {name}");
        report.check(number, &what, || {
            let ask = if udp { probe::who_udp } else { probe::who_tcp };
            let service = Service::named(name)?;
            let to = SocketAddr::new(service.cluster_ip(v4), SERVICE_PORT);
            let answer = ask(lab.place(Net::Pod, client)?.ns, to, DEADLINE)?;
            ensure!(service.nodes.contains(&answer.node.as_str()), "{} answered", answer.name);
            Ok(format!("{} over IPv{}", if udp { "UDP" } else { "TCP" }, if v4 { 4 } else { 6 }))
        });
    }
    report.check("s6", "endpoints on the client's own node come first", || {
        for (node, pod) in [("edge-1", 1), ("edge-2", 1)] {
            let names = askers(lab.pod(node, pod)?, "edge-pod", 12)?;
            ensure!(names.iter().all(|name| name.ends_with(node)), "from {node}: {names:?}");
        }
        Ok(String::new())
    });
    report.check("s7", "without one of its own, all endpoints take turns", || {
        let names = askers(lab.place(Net::Pod, "cloud-1")?, "edge-pod", 40)?;
        ensure!(names.len() == 2, "only {names:?}");
        Ok(String::new())
    });
    report.check("s8", "a pod reaches itself by its Service", || {
        let names = askers(lab.place(Net::Pod, "edge-1")?, "edge-1-pod", 2)?;
        ensure!(names.iter().all(|name| name == "pod-edge-1"), "{names:?}");
        Ok(String::new())
    });
    report.check("s9", "a Service without endpoints refuses at once", || {
        let to = SocketAddr::new(Service::named("nothing")?.cluster_ip(true), SERVICE_PORT);
        for client in [lab.place(Net::Pod, "edge-1")?, lab.place(Net::Host, "edge-1")?] {
            match probe::who_tcp(client.ns, to, DEADLINE) {
                Ok(answer) => bail!("{} answered {}", answer.name, client.name),
                Err(error) => {
                    ensure!(format!("{error:#}").contains("refused"), "{}: {error:#}", client.name);
                }
            }
        }
        Ok(String::new())
    });
}

fn askers(client: Place<'_>, service: &str, times: usize) -> Result<BTreeSet<String>> {
    let to = SocketAddr::new(Service::named(service)?.cluster_ip(true), SERVICE_PORT);
    (0..times).map(|_| Ok(probe::who_tcp(client.ns, to, DEADLINE)?.name)).collect()
}

/// The internet sees the router; before the router the packets carry the node's address, not the pod's.
fn internet(lab: &Lab) -> Result<String> {
    let target = SocketAddr::new(INTERNET.parse()?, PORT);
    for (site, node) in ["edge-1", "edge-2"].into_iter().enumerate() {
        let router = &lab.routers[site + 1];
        let capture = Capture::start(&router.ns, "lan0", &lab.dir.join(format!("{node}-lan.pcap")))?;
        let answer = probe::who_tcp(lab.place(Net::Pod, node)?.ns, target, DEADLINE)?;
        let verdict = capture.stop()?;
        let public = lab.node(node)?.public.first().copied();
        ensure!(Some(answer.client.ip()) == public, "{node}'s pod was seen as {}", answer.client.ip());
        let own: IpAddr = lab.place(Net::Host, node)?.address(true)?;
        let sent = verdict.kinds.keys().any(|kind| *kind == format!("TCP {own} > {INTERNET}"));
        ensure!(sent, "{node} did not send from {own}: {:?}", verdict.kinds);
    }
    Ok(String::new())
}
