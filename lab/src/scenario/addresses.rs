//! Addresses change, peers cannot be reached.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::within;
use crate::fabric::Fabric;
use crate::table::Report;

const FLOWS_AGAIN: Duration = Duration::from_secs(3);

/// The provider gives the router another address; the router gives the edge another address.
pub fn changed(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    report.check("3a", "the router's WAN address changes", || {
        recovery(fabric, |fabric| fabric.lab.routers[1].set_outside("203.0.113.31"))
    });
    report.check("3b", "the edge's own address changes", || {
        recovery(fabric, |fabric| {
            fabric.lab.node("edge-1")?.ns.ip("address del 192.168.11.2/24 dev eth0
                 address add 192.168.11.77/24 dev eth0
                 route replace default via 192.168.11.1")
        })
    });
    Ok(())
}

fn recovery(fabric: &mut Fabric, event: impl FnOnce(&Fabric) -> Result<()>) -> Result<String> {
    let streams = [fabric.traffic("edge-1", "cloud-2")?, fabric.traffic("cloud-1", "edge-1")?];
    event(fabric)?;
    let changed = Instant::now();
    let mut slowest = Duration::ZERO;
    for stream in &streams {
        slowest = slowest.max(stream.await_recovery(changed, Duration::from_secs(20))?);
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
                let peer = status.peers.iter().find(|peer| peer.name == "beijing.connector");
                ensure!(peer.is_some_and(|peer| peer.state == "up"), "{peer:?}");
                Ok(started.elapsed())
            })
        };
        let with = measure(fabric)?;
        fabric.clean("edge-2")?;
        let without = measure(fabric)?;
        fabric.await_status("edge-1", "state of the peer that is gone", |status| {
            let peer = status.peers.iter().find(|peer| peer.name == "beijing.edge-2");
            ensure!(peer.is_some_and(|peer| peer.state != "up"), "{peer:?}");
            Ok(())
        })?;
        let text = format!("{:.2} s with it, {:.2} s without", with.as_secs_f64(), without.as_secs_f64());
        ensure!(without <= with * 2 + Duration::from_millis(500), "{text}");
        Ok(text)
    });
    Ok(())
}
