//! What must not get out, and what must not get in.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::capture::Capture;
use crate::exec;
use crate::extra;
use crate::fabric::Fabric;
use crate::manifests::{SERVICE_PORT, Service};
use crate::netns::kill;
use crate::probe;
use crate::router::Wan;
use crate::server::PORT;
use crate::table::Report;
use crate::topology::Net;

const SHORT: Duration = Duration::from_millis(200);

/// With the connector gone, and then with every process of the edge gone, nothing leaves in clear.
pub fn tunnel_down(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    report.check("8a", "connector uninstalled: nothing in clear", || {
        let capture = Capture::start(&fabric.lab.wan.ns, Wan::BRIDGE, &fabric.lab.dir.join("down.pcap"))?;
        fabric.clean("cloud-1")?;
        call_everything(fabric)?;
        extra::sealed(&capture.stop()?)
    });
    report.check("8b", "all programs of the edge killed: nothing in clear", || {
        fabric.kill("edge-1")?;
        let pids =
            exec::run(std::process::Command::new("ip").args(["netns", "pids", fabric.lab.node("edge-1")?.ns.name()]))?;
        pids.split_whitespace().filter_map(|pid| pid.parse().ok()).for_each(|pid| kill(pid, Signal::KILL));
        let capture = Capture::start(&fabric.lab.wan.ns, Wan::BRIDGE, &fabric.lab.dir.join("dead.pcap"))?;
        call_everything(fabric)?;
        extra::sealed(&capture.stop()?)
    });
    Ok(())
}

/// From pods and hosts of the edge to pods, hosts and Services of the cloud, and back; none needs to answer.
fn call_everything(fabric: &Fabric) -> Result<()> {
    let lab = &fabric.lab;
    let service = Service::named("cloud-pod")?.cluster_ip(true);
    for net in [Net::Pod, Net::Host] {
        for (from, to) in [("edge-1", "cloud-1"), ("edge-1", "cloud-2"), ("cloud-1", "edge-1"), ("cloud-2", "edge-1")] {
            let (from, to) = (lab.place(net, from)?, lab.place(Net::Pod, to)?);
            for v4 in [true, false] {
                let target = SocketAddr::new(to.address(v4)?, PORT);
                let _ = probe::who_tcp(from.ns, target, SHORT);
                let _ = probe::who_udp(from.ns, target, SHORT);
            }
        }
        let _ = probe::who_tcp(lab.place(net, "edge-1")?.ns, SocketAddr::new(service, SERVICE_PORT), SHORT);
    }
    Ok(())
}

/// Root on edge-1 sends from an address that is not its to use; it must not arrive, and it is counted.
pub fn foreign_source(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    const FOREIGN: &str = "10.99.9.9";
    report.check("9", "foreign source in a tunnel: dropped and counted", || {
        let lab = &fabric.lab;
        let edge = &lab.node("edge-1")?.ns;
        let target = lab.place(Net::Pod, "cloud-1")?;
        edge.ip(&format!("address add {FOREIGN}/32 dev lo"))?;
        let capture = Capture::start(target.ns, "eth0", &lab.dir.join("foreign.pcap"))?;
        let address = target.address(true)?;
        // All are lost, as ping says by its exit code.
        let _ = edge.run(&format!("ping -n -c 20 -i 0.01 -W 1 -I {FOREIGN} {address}"));
        let verdict = capture.stop()?;
        let arrived: Vec<&String> = verdict.kinds.keys().filter(|kind| kind.contains(FOREIGN)).collect();
        ensure!(arrived.is_empty(), "arrived: {arrived:?}");
        fabric.await_status("cloud-1", "dropped packets are counted", |status| {
            let peer = status.peers.iter().find(|peer| peer.name == "beijing.edge-1").context("no such peer")?;
            ensure!(peer.dropped_in > 0, "none counted");
            Ok(format!("{} counted by the connector", peer.dropped_in))
        })
    });
    Ok(())
}
