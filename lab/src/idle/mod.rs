//! What quiet tunnels cost: bytes on the wire by what they are for, wake-ups and memory of the programs.

mod process;
mod wire;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::bench;
use crate::fabric::{Fabric, Options};
use crate::router::Router;
use crate::table::Report;
use crate::topology::RunDir;
pub use process::Usage;
use wire::{Kind, Meter, Seen};

/// What a tunnel may cost in a day, both ways, with IP and UDP headers.
const DAILY: usize = 1_000_000;
/// The same if it is metered.
const DAILY_METERED: usize = 100_000;
/// How often a node may be woken in a second, by all the programs of Selvedge together.
const WAKE_UPS: f64 = 1.0;

const DAY: f64 = 24.0 * 3600.0;

/// Sets up the laboratory, leaves it alone and reports. With `tunnels` it is one program with so many of them instead.
pub fn run(options: &Options, hours: f64, tunnels: &[usize]) -> Result<ExitCode> {
    let mut report = Report::new();
    let time = Duration::from_secs_f64(hours * 3600.0);
    if !tunnels.is_empty() {
        many(&mut report, tunnels, time)?;
        return Ok(report.finish());
    }
    report.title("Setting up");
    let fabric = Fabric::start(options, &report)?;
    report.title(&format!("Nothing to do for {:.0} s", time.as_secs_f64()));
    measure(&mut report, &fabric, time, options.metered)?;
    Ok(report.finish())
}

/// The agent with up to ten tunnels, the connector with more: that is for information.
fn many(report: &mut Report, tunnels: &[usize], time: Duration) -> Result<()> {
    let dir = RunDir::create(false)?;
    for count in tunnels {
        let edge = *count <= 10;
        let program = if edge { "selvedge-agent" } else { "selvedge-connector" };
        report.title(&format!("Nothing to do for {:.0} s", time.as_secs_f64()));
        report.check("p", &format!("{program}, {count} tunnels: wake-ups and memory"), || {
            let [before, after] = bench::ike::idle(&format!("i{count}"), program, *count, time, &dir)?;
            wake_ups(&before, &after, time.as_secs_f64(), if edge { WAKE_UPS } else { f64::INFINITY })
        });
    }
    Ok(())
}

/// Measures at the WAN side of the edges' routers and in the programs of the nodes that have tunnels.
pub fn measure(report: &mut Report, fabric: &Fabric, time: Duration, metered: bool) -> Result<()> {
    let routers: Vec<&Router> = fabric.lab.routers.iter().skip(1).collect();
    let meters = routers.iter().map(|router| Meter::start(&router.ns, Router::UPLINK)).collect::<Result<Vec<_>>>()?;
    let nodes = ["edge-1", "edge-2", "cloud-1"];
    let usages = || nodes.iter().map(|name| Usage::of(&fabric.lab.node(name)?.ns)).collect::<Result<Vec<_>>>();
    // What the start left to be done is done after this.
    std::thread::sleep(Duration::from_secs(10).min(time));
    let bytes: Vec<Seen> = meters.iter().map(Meter::seen).collect();
    let (before, start) = (usages()?, Instant::now());
    std::thread::sleep(time);
    let (after, took) = (usages()?, start.elapsed().as_secs_f64());
    for ((site, meter), before) in (1..).zip(&meters).zip(bytes) {
        for (remote, kinds) in wire::difference(&before, &meter.seen()) {
            let what = format!("router-{site}: a day of the tunnel with {remote}");
            report.row(&format!("w{site}"), &what, start.elapsed(), &budget(&kinds, took, metered));
        }
    }
    for ((name, before), after) in nodes.iter().zip(before).zip(after) {
        report.row(
            "p",
            &format!("{name}: wake-ups and memory"),
            start.elapsed(),
            &wake_ups(&before, &after, took, WAKE_UPS),
        );
    }
    Ok(())
}

fn budget(kinds: &BTreeMap<Kind, wire::Count>, took: f64, metered: bool) -> Result<String> {
    let daily = |bytes: usize| (bytes as f64 * DAY / took) as usize;
    let total: usize = kinds.values().map(|count| count.bytes).sum();
    let parts: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| {
            format!("{kind} {} ({} packets, {} bytes seen)", daily(count.bytes), count.packets, count.bytes)
        })
        .collect();
    let text = format!("{} bytes: {}", daily(total), parts.join(", "));
    let limit = if metered { DAILY_METERED } else { DAILY };
    ensure!(total > 0, "nothing was seen, the tunnel may be dead");
    ensure!(daily(total) <= limit, "{text}; may be {limit}");
    Ok(text)
}

fn wake_ups(before: &[Usage], after: &[Usage], took: f64, limit: f64) -> Result<String> {
    let mut sum = 0.0;
    let mut parts = Vec::new();
    for (before, after) in before.iter().zip(after) {
        ensure!(before.pid == after.pid, "{} was started anew", after.what);
        let rate = (after.wake_ups - before.wake_ups) as f64 / took;
        sum += rate;
        parts.push(format!("{} {rate:.2}/s, RSS {} KiB", after.what, after.rss_kib));
    }
    let text = format!("{sum:.2}/s: {}", parts.join("; "));
    ensure!(!parts.is_empty(), "no program runs");
    ensure!(sum <= limit, "{text}; may be {limit}/s");
    Ok(text)
}
