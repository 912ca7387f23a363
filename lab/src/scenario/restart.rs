//! Programs end and come back.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Lossless, within};
use crate::fabric::Fabric;
use crate::table::Report;

const BACK: Duration = Duration::from_secs(5);

/// The data plane outlives the agent; so does the connector's.
pub fn killed(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    for (number, node, pair) in [("1a", "edge-1", ("edge-1", "cloud-2")), ("1b", "cloud-1", ("edge-2", "cloud-2"))] {
        report.check(number, &format!("program of {node} killed, traffic goes on"), || {
            let traffic = Lossless::start(fabric, pair)?;
            fabric.kill(node)?;
            traffic.goes_on()?;
            fabric.start_program(node)?;
            fabric.await_keyed(node)?;
            traffic.stop()
        });
    }
    report.check("1c", "program and keeper of edge-1 gone, as with a container, and started: traffic is back", || {
        let stream = fabric.traffic("edge-1", "cloud-2")?;
        fabric.kill("edge-1")?;
        fabric.kill_keeper("edge-1")?;
        let ended = Instant::now();
        fabric.start_program("edge-1")?;
        let gap = stream.await_recovery(ended, BACK)?;
        fabric.await_keyed("edge-1")?;
        within(gap, BACK)
    });
    Ok(())
}

/// All edges are back within five seconds, with and without what the old process left behind.
pub fn connector_restarted(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    type Way = fn(&mut Fabric, &str) -> Result<()>;
    let ways: [(&str, &str, Way); 3] = [
        ("2a", "killed", Fabric::kill),
        ("2b", "cleaned", Fabric::clean),
        ("2c", "stopped and cleaned", Fabric::stop_and_clean),
    ];
    for (number, what, end) in ways {
        report.check(number, &format!("connector {what} and started: all tunnels back"), || {
            let streams = [fabric.traffic("edge-1", "cloud-2")?, fabric.traffic("edge-2", "cloud-1")?];
            end(fabric, "cloud-1")?;
            let started = Instant::now();
            fabric.start_program("cloud-1")?;
            for stream in &streams {
                stream.await_recovery(started, BACK * 2)?;
            }
            fabric.await_keyed("cloud-1")?;
            within(started.elapsed(), BACK)
        });
    }
    Ok(())
}
