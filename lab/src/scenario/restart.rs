//! Programs end and come back.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{within, without_loss};
use crate::fabric::Fabric;
use crate::table::Report;

const BACK: Duration = Duration::from_secs(5);

/// The data plane outlives the agent; so does the connector's.
pub fn agent_killed(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    for (number, node, pair) in [("1a", "edge-1", ("edge-1", "cloud-2")), ("1b", "cloud-1", ("edge-2", "cloud-2"))] {
        report.check(number, &format!("program of {node} killed, traffic goes on"), || {
            without_loss(fabric, pair, |fabric| {
                let dead = fabric.traffic(pair.0, pair.1)?;
                fabric.kill(node)?;
                dead.await_replies(100)?;
                fabric.start_program(node)?;
                fabric.await_status(node, "status after the restart", |status| {
                    anyhow::ensure!(status.peers.iter().all(|p| p.via != "tunnel" || p.state == "up"), "not up");
                    Ok(())
                })?;
                dead.await_replies(100)
            })
        });
    }
    Ok(())
}

/// All edges are back within five seconds, with and without what the old process left behind.
pub fn connector_restarted(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    for (number, what, clean) in
        [("2a", "connector killed and started", false), ("2b", "connector cleaned and started", true)]
    {
        report.check(number, &format!("{what}: all tunnels back"), || {
            let streams = [fabric.traffic("edge-1", "cloud-2")?, fabric.traffic("edge-2", "cloud-1")?];
            if clean {
                fabric.clean("cloud-1")?;
            } else {
                fabric.kill("cloud-1")?;
            }
            let started = Instant::now();
            fabric.start_program("cloud-1")?;
            let mut slowest = Duration::ZERO;
            for stream in &streams {
                slowest = slowest.max(stream.await_recovery(started, BACK * 2)?);
            }
            fabric.await_status("cloud-1", "tunnels of the connector", |status| {
                let up = status.peers.iter().filter(|p| p.via == "tunnel" && p.state == "up").count();
                anyhow::ensure!(up == 2, "{up} of 2 up");
                Ok(())
            })?;
            within(slowest.max(started.elapsed()), BACK)
        });
    }
    Ok(())
}
