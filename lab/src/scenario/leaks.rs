//! What must not get out, and what must not get in.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::within;
use crate::capture::Capture;
use crate::extra;
use crate::fabric::Fabric;
use crate::manifests::{SERVICE_PORT, Service};
use crate::netns::kill;
use crate::probe;
use crate::programs::Status;
use crate::router::{CLOUD_GATEWAY, INTERNET, Wan};
use crate::server::PORT;
use crate::table::Report;
use crate::topology::Net;

/// Nobody needs to answer.
const SHORT: Duration = Duration::from_millis(200);
const BACK: Duration = Duration::from_secs(5);

const EVERYBODY: [&str; 4] = ["edge-1", "edge-2", "cloud-1", "cloud-2"];

/// Whatever is missing, nothing leaves in clear; and it comes back when that does.
pub fn tunnel_down(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    let kernel = fabric.status("edge-1")?.datapath == "kernel";
    for (number, node) in [("8a", "cloud-1"), ("8b", "edge-1")] {
        report.check(number, &format!("every process of {node} killed"), || {
            sealed(fabric, &EVERYBODY, |fabric| {
                fabric.kill(node)?;
                fabric.lab.node(node)?.ns.processes()?.into_iter().for_each(|pid| kill(pid, Signal::KILL));
                Ok(String::new())
            })
        });
        report.check(number, &format!("{node} started again: tunnels back"), || {
            recovery(fabric, |fabric| fabric.start_program(node))
        });
    }
    report.check("8c", "the connector uninstalled", || {
        let capture = start_capture(fabric)?;
        fabric.stop_and_clean("cloud-1")?;
        call_everything(fabric, &["edge-1", "edge-2"])?;
        let mut verdict = capture.stop()?;
        // What the cloud still answers is not the fabric's concern any more.
        verdict.ignore_from(&[
            "172.16.0.",
            "10.244.",
            "203.0.113.2:",
            "203.0.113.10",
            "fd00:172:",
            "fd00:244:",
            "2001:db8:",
        ]);
        Ok(format!("on the wire {}", extra::sealed(&verdict)?))
    });
    report.check("8c", "the connector installed again: tunnels back", || {
        recovery(fabric, |fabric| fabric.start_program("cloud-1"))
    });
    for (number, node) in [("8d", "edge-1"), ("8e", "cloud-1")] {
        let mut check = |what: &str, event: fn(&Fabric, &str) -> Result<()>| {
            report.check(number, what, || sealed(fabric, &EVERYBODY, |fabric| recovery(fabric, |f| event(f, node))));
        };
        check(&format!("keeper of {node} killed under its program"), Fabric::kill_keeper);
        check(&format!("device of {node} deleted by hand"), |f, node| f.lab.node(node)?.ns.ip("link delete selvedge0"));
        if kernel {
            check(&format!("SAs of {node} deleted by hand"), |f, node| f.lab.node(node)?.ns.ip("xfrm state flush"));
        }
    }
    Ok(())
}

/// Traffic between edges, and edge and cloud, flows again within the limit.
fn recovery(fabric: &mut Fabric, event: impl FnOnce(&mut Fabric) -> Result<()>) -> Result<String> {
    event(fabric)?;
    let start = Instant::now();
    let mut said = String::new();
    for (from, to) in [("edge-1", "cloud-1"), ("cloud-2", "edge-1"), ("edge-2", "cloud-2"), ("edge-1", "edge-2")] {
        fabric.traffic(from, to)?;
        said = within(start.elapsed(), BACK).with_context(|| format!("{from} to {to}"))?;
    }
    Ok(format!("traffic again after {said}"))
}

/// Does it, has these nodes and their pods call everything on the other side, and looks at the wire.
fn sealed(fabric: &mut Fabric, callers: &[&str], event: impl FnOnce(&mut Fabric) -> Result<String>) -> Result<String> {
    let capture = start_capture(fabric)?;
    let said = event(fabric)?;
    call_everything(fabric, callers)?;
    let seen = extra::sealed(&capture.stop()?)?;
    Ok(format!("{said}{}on the wire {seen}", if said.is_empty() { "" } else { "; " }))
}

fn start_capture(fabric: &Fabric) -> Result<Capture> {
    Capture::start(&fabric.lab.wan.ns, Wan::BRIDGE, &fabric.lab.dir.join("down.pcap"))
}

/// From pods and hosts to pods, from pods to hosts and Services, between edges and from side to side. Host to host is
/// not the fabric's concern.
fn call_everything(fabric: &Fabric, callers: &[&str]) -> Result<()> {
    let lab = &fabric.lab;
    let mut calls = Vec::new();
    for from in callers {
        for to in EVERYBODY.iter().filter(|to| **to != *from && (from.starts_with("edge") || to.starts_with("edge"))) {
            for (client, server) in [(Net::Pod, Net::Pod), (Net::Pod, Net::Host), (Net::Host, Net::Pod)] {
                // Of the cloud only the connector has a way to the hosts of edges.
                if (*from, server) == ("cloud-2", Net::Host) {
                    continue;
                }
                let (client, server) = (lab.place(client, from)?, lab.place(server, to)?);
                calls.extend(server.addresses.iter().map(|a| (client.ns, SocketAddr::new(*a, PORT))));
            }
        }
        let side = if from.starts_with("edge") { "cloud-pod" } else { "edge-pod" };
        for net in [Net::Pod, Net::Host] {
            let service = SocketAddr::new(Service::named(side)?.cluster_ip(true), SERVICE_PORT);
            calls.push((lab.place(net, from)?.ns, service));
        }
    }
    std::thread::scope(|scope| {
        for (ns, to) in calls {
            scope.spawn(move || probe::who_tcp(ns, to, SHORT));
            scope.spawn(move || probe::who_udp(ns, to, SHORT));
        }
    });
    Ok(())
}

/// An edge that lies about its networks: what it sends from addresses that the connector does not know for it does not
/// arrive, and is counted there.
pub fn foreign_source(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    const LIES: [(&str, &str, &str); 2] = [("9a", "nobody's", "10.99.9.9"), ("9b", "another edge's", "10.234.1.99")];
    let mut folders = fabric.folders(fabric.lab.node("edge-1")?);
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&folders.config)?)?;
    for (_, _, address) in LIES {
        let net = format!("{}.0/24", &address[..address.rfind('.').unwrap_or_default()]);
        for place in ["/podCidrs", "/local/prefixes"] {
            let list = config.pointer_mut(place).and_then(Value::as_array_mut).context(place)?;
            list.push(json!(net));
        }
        fabric.lab.node("edge-1")?.ns.ip(&format!("address add {address}/32 dev lo"))?;
    }
    let peers = config["peers"].as_array_mut().context("peers")?;
    peers.retain(|peer| peer["name"] == "beijing.connector");
    let offered = peers[0]["prefixes"].as_array_mut().context("prefixes of the connector")?;
    offered.extend([INTERNET, CLOUD_GATEWAY].map(|host| json!(format!("{host}/32"))));
    folders.config = fabric.lab.dir.join("lies.json");
    std::fs::write(&folders.config, config.to_string())?;
    fabric.kill("edge-1")?;
    fabric.start_program_with("edge-1", &folders)?;
    fabric.await_keyed("edge-1")?;
    for (number, whose, address) in LIES {
        report.check(number, &format!("source is {whose}: dropped and counted"), || dropped(fabric, address));
    }
    for (_, _, address) in LIES {
        fabric.lab.node("edge-1")?.ns.ip(&format!("address delete {address}/32 dev lo"))?;
    }
    report.check("9c", "beyond the networks that the connector offers: not forwarded", || not_a_router(fabric));
    fabric.kill("edge-1")?;
    fabric.start_program("edge-1")
}

/// What this edge takes for networks of the connector: the internet, and a neighbour of the cloud's nodes.
fn not_a_router(fabric: &Fabric) -> Result<String> {
    let lab = &fabric.lab;
    let pod = lab.place(Net::Pod, "edge-1")?;
    let from = pod.address(true)?;
    let gateway = lab.routers.first().context("no gateway of the cloud")?;
    for (to, ns, device) in [(INTERNET, &lab.wan.ns, Wan::BRIDGE), (CLOUD_GATEWAY, &gateway.ns, "lan0")] {
        let capture = Capture::start(ns, device, &lab.dir.join("router.pcap"))?;
        let _ = pod.ns.run(&format!("ping -n -c 5 -i 0.01 -W 1 {to}"));
        let verdict = capture.stop()?;
        let arrived: Vec<&String> = verdict.kinds.keys().filter(|kind| kind.contains(&from.to_string())).collect();
        ensure!(arrived.is_empty(), "forwarded: {arrived:?}");
    }
    Ok(String::new())
}

fn dropped(fabric: &Fabric, from: &str) -> Result<String> {
    const PACKETS: u64 = 20;
    let lab = &fabric.lab;
    let target = lab.place(Net::Pod, "cloud-1")?;
    let address = target.address(true)?;
    let edge = &lab.node("edge-1")?.ns;
    let before = counted(&fabric.status("cloud-1")?)?;
    let capture = Capture::start(target.ns, "eth0", &lab.dir.join("foreign.pcap"))?;
    // All are lost, as ping says by its exit code.
    let _ = edge.run(&format!("ping -n -c {PACKETS} -i 0.01 -W 1 -I {from} {address}"));
    let verdict = capture.stop()?;
    let arrived: Vec<&String> = verdict.kinds.keys().filter(|kind| kind.contains(from)).collect();
    ensure!(arrived.is_empty(), "arrived: {arrived:?}");
    fabric.await_status("cloud-1", "dropped packets are counted", |status| {
        let count = counted(status)? - before;
        ensure!(count >= PACKETS, "{count} of {PACKETS} counted");
        Ok(format!("{count} counted by the connector"))
    })
}

/// By peer in user space; the kernel counts for all together.
fn counted(status: &Status) -> Result<u64> {
    let kernel = status.drops.iter().filter(|drop| drop.reason.contains("source outside"));
    Ok(status.peer("beijing.edge-1")?.dropped_in + kernel.map(|drop| drop.packets).sum::<u64>())
}
