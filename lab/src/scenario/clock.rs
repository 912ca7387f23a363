//! Nodes that do not know what time it is.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::credentials::{Authority, DAY, now};
use crate::fabric::Fabric;
use crate::programs::{self, Folders};
use crate::table::Report;

const EDGE: &str = "edge-1";
const EDGE_NAME: &str = "beijing.edge-1";
const CONNECTOR: &str = "cloud-1";
const HOUR: i64 = 60 * 60;

const EPOCH: &str = "1970-01-01 00:00:20";
const DEAD_BATTERY: &str = "2099-01-01 00:00:00";

/// The certificates of the other side, by then renewed, teach a node without a clock how late it is; what has expired
/// is refused as soon as that is certain.
pub fn unset(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    if !programs::takes_libraries("selvedge-agent")? {
        report.progress("left out: nothing can stand between static programs and the clock");
        return Ok(());
    }
    let authority = Authority::of_operator(fabric);
    let dir = fabric.lab.dir.join("clock");
    let old = authority.issue(&dir.join("old"), EDGE_NAME, -20 * DAY, 10 * DAY)?;
    for (number, what, time) in [
        ("12a", "an edge boots in 1970", EPOCH),
        ("12b", "an edge boots with a clock from a dead battery", DEAD_BATTERY),
    ] {
        report.check(number, what, || {
            fabric.clean(EDGE)?;
            let mut folders = with_clock(fabric, EDGE, time)?;
            folders.credentials.clone_from(&old);
            fabric.start_program_with(EDGE, &folders)?;
            fabric.await_keyed(EDGE)?;
            fabric.await_status(EDGE, "the time it has learnt from the connector", |status| {
                ensure!(!status.clock.set, "somebody vouches for the clock");
                // The operator dates certificates back by a day.
                let behind = now().abs_diff(status.clock.time);
                ensure!(behind < 2 * DAY.unsigned_abs(), "{behind} s off");
                Ok(format!("tunnels up, {} h behind", behind / 3600))
            })
        });
    }
    report.check("12c", "what it has learnt is kept over a boot", || {
        let kept = std::fs::read_to_string(fabric.folders(fabric.lab.node(EDGE)?).state.join("clock"))?;
        let behind = now().abs_diff(kept.trim().parse().context("the file")?);
        ensure!(behind < 2 * DAY.unsigned_abs(), "{behind} s off");
        fabric.kill(EDGE)?;
        // Its own certificate must not be what tells it.
        let mut folders = with_clock(fabric, EDGE, EPOCH)?;
        folders.credentials.clone_from(&old);
        fabric.start_program_with(EDGE, &folders)?;
        fabric.await_keyed(EDGE)?;
        Ok(format!("{} h behind", behind / 3600))
    });
    fabric.clean(EDGE)?;
    report.check("12d", "a connector without a clock refuses who has expired", || {
        fabric.clean(CONNECTOR)?;
        let folders = with_clock(fabric, CONNECTOR, EPOCH)?;
        fabric.start_program_with(CONNECTOR, &folders)?;
        let expired = authority.issue(&dir.join("expired"), EDGE_NAME, -40 * DAY, -10 * DAY)?;
        let mut folders = fabric.folders(fabric.lab.node(EDGE)?);
        folders.credentials = expired;
        fabric.start_program_with(EDGE, &folders)?;
        refused(fabric)
    });
    report.check("12e", "who has expired since is let in, and goes when the clock is set", || {
        fabric.clean(EDGE)?;
        let expired = authority.issue(&dir.join("expired-since"), EDGE_NAME, -40 * DAY, -HOUR)?;
        let mut folders = fabric.folders(fabric.lab.node(EDGE)?);
        folders.credentials = expired;
        fabric.start_program_with(EDGE, &folders)?;
        let state = |fabric: &Fabric, wanted: &str| {
            fabric.await_status(CONNECTOR, "the tunnel of the edge", |status| {
                let peer = status.peer(EDGE_NAME)?;
                ensure!(peer.state == wanted, "it is {}", peer.state);
                Ok(peer.last_error.clone())
            })
        };
        state(fabric, "up")?;
        let today = utc(now())?;
        std::fs::write(clock_file(fabric, CONNECTOR)?, today)?;
        let reason = state(fabric, "down").or_else(|_| state(fabric, "connecting"))?.context("no reason given")?;
        ensure!(reason.contains("expired"), "{reason}");
        Ok(reason)
    });
    for node in [EDGE, CONNECTOR] {
        fabric.clean(node)?;
        fabric.start_program(node)?;
    }
    Ok(())
}

fn refused(fabric: &Fabric) -> Result<String> {
    fabric.await_status(CONNECTOR, "why the caller is refused", |status| {
        let refusal = status.refused.iter().find(|r| r.claimed.as_deref() == Some(EDGE_NAME));
        let reason = refusal.context("nobody was refused")?.reason.clone();
        ensure!(reason.contains("expired"), "{reason}");
        Ok(reason)
    })
}

/// A node's folders, with a clock that stands at `time`.
fn with_clock(fabric: &Fabric, node: &str, time: &str) -> Result<Folders> {
    let clock = clock_file(fabric, node)?;
    std::fs::write(&clock, time)?;
    let mut folders = fabric.folders(fabric.lab.node(node)?);
    folders.clock = Some(clock);
    Ok(folders)
}

fn clock_file(fabric: &Fabric, node: &str) -> Result<PathBuf> {
    Ok(fabric.lab.node(node)?.dir.join("clock"))
}

fn utc(seconds: u64) -> Result<String> {
    let at = format!("@{seconds}");
    crate::exec::run(std::process::Command::new("date").args(["-u", "-d", &at, "+%Y-%m-%d %H:%M:%S"]))
}
