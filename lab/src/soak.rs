//! Traffic and changes of the configuration for a long time: memory must not grow.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::flat::{CLOUD_POD, EDGE, Flat};
use crate::manifests::{Datapath, Firewall, replace};
use crate::memory::Weight;
use crate::pace;
use crate::probe;
use crate::programs::wait;
use crate::server::{PORT, Server};
use crate::table::Report;
use crate::traffic::Traffic;

const TUNNELS: u8 = 3;
const SERVICES: u8 = 20;
/// What agent and keeper together may have more at the end, in bytes.
const GROWTH: u64 = 256 << 10;
/// Every so many changes one is of a peer, and one transfer is made.
const PEER_EVERY: u32 = 10;
const STEP: Duration = Duration::from_secs(30);

/// How long and how much.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How ESP is done.
    #[arg(long, value_enum, default_value = "auto")]
    datapath: Datapath,
    /// What the firewall rules are written for.
    #[arg(long, value_enum, default_value = "auto")]
    firewall: Firewall,
    /// Changes of the configuration.
    #[arg(long, default_value_t = 10_000)]
    changes: u32,
    /// Seconds over which they are spread.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut report = Report::new();
    let Options { changes, seconds, .. } = *options;
    report.title(&format!("{changes} changes of the configuration in {seconds} s, under traffic"));
    let mut flat = Flat::start(TUNNELS, SERVICES, options.datapath, options.firewall)?;
    flat.start_pod()?;
    let cloud = IpAddr::from(CLOUD_POD);
    let server = Server::start(&flat.node("cloud-1")?.ns, "cloud", "cloud-1", &[cloud])?;
    let mut changer = Changer::new(&flat)?;
    transfer(&flat)?;
    let before = Weight::when_calm(&flat.node(EDGE)?.ns)?;
    let status = flat.status(EDGE)?;
    report.progress(&format!("tunnels stand: datapath {}, firewall {}", status.datapath, status.firewall));
    println!("  {:<24} {:>9} {:>9} {:>9}", "KiB", "RSS", "PSS", "anonymous");
    println!("  {:<24} {}", "before", before.sum());
    let traffic = Traffic::start(&flat.node(EDGE)?.pods[0].ns, cloud, pace::limit(Duration::from_millis(10)))?;
    let start = Instant::now();
    let duration = Duration::from_secs(seconds);
    report.check("k1", "every change in force, every transfer whole", || {
        for number in 1..=changes {
            changer.change(&mut flat, number).with_context(|| format!("change {number}"))?;
            if number.is_multiple_of(PEER_EVERY) {
                transfer(&flat).with_context(|| format!("after change {number}"))?;
            }
            if number.is_multiple_of(changes.div_ceil(10)) {
                println!("  {:<24} {}", format!("after {number}"), Weight::of(&flat.node(EDGE)?.ns)?.sum());
            }
            let due = duration.mul_f64(f64::from(number) / f64::from(changes));
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        Ok(format!("in {:.0} s", start.elapsed().as_secs_f64()))
    });
    report.check("k2", "no packet of the stream lost", || {
        let (sent, lost) = traffic.stop()?;
        ensure!(lost == 0, "{lost} of {sent} lost");
        Ok(format!("{sent} packets"))
    });
    changer.restore(&mut flat)?;
    let after = Weight::when_calm(&flat.node(EDGE)?.ns)?;
    println!("  {:<24} {}", "after", after.sum());
    report.check("k3", "agent and keeper: at most 256 KiB more", || {
        let grown = after.sum().rss.saturating_sub(before.sum().rss);
        ensure!(grown <= GROWTH, "{} KiB more", grown / 1024);
        Ok(format!("{} KiB more", grown / 1024))
    });
    drop(server);
    Ok(report.finish())
}

/// Writes the configuration of [`EDGE`] anew, each time with one thing more or less.
struct Changer {
    full: Value,
    now: Value,
}

impl Changer {
    fn new(flat: &Flat) -> Result<Self> {
        let full: Value = serde_json::from_str(&std::fs::read_to_string(flat.folders(EDGE)?.config)?)?;
        Ok(Self { now: full.clone(), full })
    }

    /// One change: a Service more or less; at times a peer.
    fn change(&mut self, flat: &mut Flat, number: u32) -> Result<()> {
        if number.is_multiple_of(PEER_EVERY) {
            toggle(&mut self.now["peers"], &self.full["peers"], |peer| peer["name"] == "beijing.edge-2")?;
        } else {
            let name = format!("service-{}", number % u32::from(SERVICES));
            let (now, full) = (&mut self.now["services"]["list"], &self.full["services"]["list"]);
            toggle(now, full, |service| service["name"] == name.as_str())?;
        }
        self.put(flat)
    }

    /// As it was at first.
    fn restore(&mut self, flat: &mut Flat) -> Result<()> {
        let generation = self.now["generation"].clone();
        self.now = self.full.clone();
        self.now["generation"] = generation;
        self.put(flat)
    }

    fn put(&mut self, flat: &mut Flat) -> Result<()> {
        let generation = self.now["generation"].as_u64().context("no generation")? + 1;
        self.now["generation"] = generation.into();
        let peers = self.now["peers"].as_array().map_or(0, Vec::len);
        replace(&flat.folders(EDGE)?.config, &serde_json::to_string(&self.now)?)?;
        wait("the change is in force", STEP, || {
            flat.programs.values_mut().try_for_each(crate::programs::Program::check)?;
            let status = flat.status(EDGE)?;
            if let Some(error) = &status.config.error {
                bail!("{error}");
            }
            ensure!(status.config.generation == generation, "generation {}", status.config.generation);
            let up = status.tunnels().filter(|peer| peer.state == "up").count();
            ensure!(up == peers, "{up} of {peers} tunnels are up");
            Ok(())
        })
    }
}

/// Takes an element out of the list, or puts the one of the full list back.
fn toggle(now: &mut Value, full: &Value, is_it: impl Fn(&Value) -> bool) -> Result<()> {
    let list = now.as_array_mut().context("no list")?;
    match list.iter().position(&is_it) {
        Some(index) => drop(list.remove(index)),
        None => {
            list.push(full.as_array().and_then(|full| full.iter().find(|v| is_it(v))).context("not in it")?.clone())
        }
    }
    Ok(())
}

fn transfer(flat: &Flat) -> Result<()> {
    let pod = flat.node(EDGE)?.pods.first().context("no pod")?;
    probe::bulk_tcp(&pod.ns, SocketAddr::new(CLOUD_POD.into(), PORT), 1 << 16, STEP).map(drop)
}
