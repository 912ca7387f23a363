//! Addresses change, peers cannot be reached.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{within, without_loss};
use crate::fabric::Fabric;
use crate::probe;
use crate::table::Report;
use crate::topology::{Lab, Net};

const FLOWS_AGAIN: Duration = Duration::from_secs(3);

const CLOUD: [(&str, &str); 2] = [("edge-1", "cloud-2"), ("cloud-1", "edge-1")];
const EDGES: [(&str, &str); 2] = [("edge-1", "edge-2"), ("edge-2", "edge-1")];

/// The provider gives the router another address; the router gives the edge another address.
pub fn changed(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    report.check("3a", "the router's WAN address changes", || {
        recovery(fabric, &[CLOUD, EDGES].concat(), |fabric| move_router(fabric, "203.0.113.31"))
    });
    // Not to the other edge: its packets keep the router's translation of the old address alive, which occupies the
    // port that it knows.
    report.check("3b", "the edge's own address changes", || {
        recovery(fabric, &CLOUD, |fabric| move_edge(&mut fabric.lab, "192.168.11.77"))
    });
    report.check("3c", "the new address in the manifests", || {
        let address: IpAddr = "192.168.11.77".parse()?;
        without_loss(fabric, ("edge-1", "cloud-2"), |fabric| {
            fabric.manifests.write_nodes(&fabric.lab)?;
            let client = fabric.lab.place(Net::Pod, "cloud-1")?;
            let answered = crate::programs::wait("a pod of the cloud reaches it", Duration::from_secs(30), || {
                probe::ping(client.ns, address, Duration::from_secs(1))
            });
            answered.map(drop)
        })
    });
    report.check("3d", "both change, as when the router is replaced", || {
        recovery(fabric, &[CLOUD, EDGES].concat(), |fabric| {
            move_edge(&mut fabric.lab, "192.168.11.78")?;
            move_router(fabric, "203.0.113.41")
        })
    });
    Ok(())
}

/// The manifests say it too, for the other edges: nobody else could tell them.
fn move_router(fabric: &mut Fabric, address: &str) -> Result<()> {
    fabric.lab.routers[1].set_outside(address)?;
    edge(&mut fabric.lab)?.public = vec![address.parse()?];
    fabric.manifests.write_nodes(&fabric.lab)
}

fn move_edge(lab: &mut Lab, address: &str) -> Result<()> {
    let edge = edge(lab)?;
    let old = edge.addresses[0];
    edge.ns.ip(&format!(
        "address del {old}/24 dev eth0
         address add {address}/24 dev eth0
         route replace default via 192.168.11.1"
    ))?;
    edge.addresses = vec![address.parse()?];
    Ok(())
}

fn edge(lab: &mut Lab) -> Result<&mut crate::node::Node> {
    lab.nodes.iter_mut().find(|node| node.name == "edge-1").context("no edge-1")
}

fn recovery(
    fabric: &mut Fabric,
    ways: &[(&str, &str)],
    event: impl FnOnce(&mut Fabric) -> Result<()>,
) -> Result<String> {
    let streams = ways.iter().map(|(from, to)| fabric.attempts(from, to)).collect::<Result<Vec<_>>>()?;
    event(fabric)?;
    let changed = Instant::now();
    let mut slowest = Duration::ZERO;
    for (stream, (from, to)) in streams.iter().zip(ways) {
        let took = stream.await_recovery(changed, FLOWS_AGAIN * 10).with_context(|| format!("{from} to {to}"))?;
        slowest = slowest.max(took);
        within(took, FLOWS_AGAIN).with_context(|| format!("{from} to {to}"))?;
    }
    within(slowest, FLOWS_AGAIN)
}

/// With edge-2 gone, edge-1's tunnel to the connector comes as fast as with it.
pub fn peer_unreachable(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    report.check("4", "one peer unreachable, the others as fast as ever", || {
        let measure = |fabric: &mut Fabric| -> Result<Duration> {
            fabric.clean("edge-1")?;
            let started = Instant::now();
            fabric.start_program("edge-1")?;
            fabric.await_status("edge-1", "tunnel to the connector", |status| {
                let state = status.peer("beijing.connector")?.state.as_str();
                ensure!(state == "up", "{state}");
                Ok(started.elapsed())
            })
        };
        let with = measure(fabric)?;
        fabric.clean("edge-2")?;
        let without = measure(fabric)?;
        fabric.await_status("edge-1", "state of the peer that is gone", |status| {
            let state = status.peer("beijing.edge-2")?.state.as_str();
            ensure!(state != "up", "{state}");
            Ok(())
        })?;
        fabric.start_program("edge-2")?;
        let text = format!("{:.2} s with it, {:.2} s without", with.as_secs_f64(), without.as_secs_f64());
        ensure!(without <= with * 2 + Duration::from_millis(500), "{text}");
        Ok(text)
    });
    Ok(())
}
