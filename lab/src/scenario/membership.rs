//! Who has a tunnel to whom changes while everything runs.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Lossless, within};
use crate::fabric::Fabric;
use crate::probe;
use crate::table::Report;
use crate::topology::Net;

const SECONDS: Duration = Duration::from_secs(5);

/// The tunnel between the edges goes on both sides, and comes again; those to the cloud feel nothing.
pub fn community_changed(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    let ends = [("edge-1", "beijing.edge-2"), ("edge-2", "beijing.edge-1")];
    report.check("10a", "edge-2 leaves the community", || {
        let traffic = Lossless::start(fabric, ("edge-1", "cloud-2"))?;
        fabric.manifests.write_community(&["beijing.edge-1"])?;
        let changed = Instant::now();
        for (node, peer) in ends {
            fabric.await_status(node, "no tunnel to the other edge", |status| {
                ensure!(status.peer(peer).is_err(), "{peer} is still a peer");
                Ok(())
            })?;
        }
        let took = within(changed.elapsed(), SECONDS)?;
        let (from, to) = (fabric.lab.place(Net::Pod, "edge-1")?, fabric.lab.place(Net::Pod, "edge-2")?);
        ensure!(probe::ping(from.ns, to.address(true)?, Duration::from_secs(1)).is_err(), "still reached");
        Ok(format!("{took}; {}", traffic.stop()?))
    });
    report.check("10b", "edge-2 returns", || {
        let traffic = Lossless::start(fabric, ("edge-1", "cloud-2"))?;
        fabric.manifests.write_community(&["beijing.edge-1", "beijing.edge-2"])?;
        let changed = Instant::now();
        for (node, peer) in ends {
            fabric.await_status(node, "tunnel to the other edge", |status| {
                let state = status.peer(peer)?.state.as_str();
                ensure!(state == "up", "{state}");
                Ok(())
            })?;
        }
        fabric.traffic("edge-2", "edge-1")?;
        let took = within(changed.elapsed(), SECONDS)?;
        Ok(format!("{took}; {}", traffic.stop()?))
    });
    Ok(())
}
