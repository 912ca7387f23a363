//! How much memory the programs of an edge and of a connector keep when nothing happens.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::flat::{EDGE, Flat};
use crate::manifests::{Datapath, Firewall};
use crate::netns::Netns;
use crate::process::{self, Memory};
use crate::table::Report;

/// What a gateway may spend on the agent and its keeper together.
const BUDGET: u64 = 4 << 20;
/// Everything is calm when nothing has changed for so long.
const CALM: u32 = 5;

/// How large the fabric is to be.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How ESP is done.
    #[arg(long, value_enum, default_value = "auto")]
    datapath: Datapath,
    /// What the firewall rules are written for.
    #[arg(long, value_enum, default_value = "auto")]
    firewall: Firewall,
    /// Tunnels of an edge.
    #[arg(long, default_value_t = 10)]
    tunnels: u8,
    /// Services of the cluster.
    #[arg(long, default_value_t = 100)]
    services: u8,
}

/// Memory of the program of a node and of its keeper.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    /// The program itself.
    pub program: Memory,
    /// What holds its sockets and user-space tunnels.
    pub keeper: Memory,
    /// Bytes that both hold, what they share counted once.
    pub once: u64,
}

impl Weight {
    /// Of the program that runs in a node's namespace, now.
    pub fn of(ns: &Netns) -> Result<Self> {
        let (mut program, mut keeper) = (None, None);
        let mut pids = Vec::new();
        for pid in ns.processes()? {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            match line.split(|byte| *byte == 0).nth(1) {
                Some(b"keeper") => {
                    keeper = Some(process::memory(&[pid])?);
                    pids.push(pid);
                }
                Some(b"run") if line.windows(9).any(|part| part == b"--run-dir") => {
                    program = Some(process::memory(&[pid])?);
                    pids.push(pid);
                }
                _ => {}
            }
        }
        let (program, keeper) = (program.context("no program runs")?, keeper.context("no keeper runs")?);
        Ok(Self { program, keeper, once: process::resident_once(&pids)? })
    }

    /// Both together.
    pub fn sum(&self) -> Memory {
        self.program + self.keeper
    }

    /// What it is when it stays the same for a while.
    pub fn when_calm(ns: &Netns) -> Result<Self> {
        let mut last = Self::of(ns)?;
        let mut calm = 0;
        while calm < CALM {
            std::thread::sleep(Duration::from_secs(1));
            let now = Self::of(ns)?;
            calm = if now.sum().rss == last.sum().rss { calm + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }
}

/// Sets it up, waits until it is calm, and weighs.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut report = Report::new();
    let Options { tunnels, services, .. } = *options;
    report.title(&format!("Memory of an idle edge with {tunnels} tunnels and {services} Services"));
    let flat = Flat::start(tunnels, services, options.datapath, options.firewall)?;
    let status = flat.status(EDGE)?;
    report.progress(&format!("tunnels stand: datapath {}, firewall {}", status.datapath, status.firewall));
    println!("  {:<24} {:>9} {:>9} {:>9}", "KiB", "RSS", "PSS", "anonymous");
    for (number, node) in [("m1", EDGE), ("m2", "cloud-1")] {
        let weight = Weight::when_calm(&flat.node(node)?.ns)?;
        for (what, memory) in [("program", weight.program), ("keeper", weight.keeper), ("together", weight.sum())] {
            println!("  {:<24} {memory}", format!("{node} {what}"));
        }
        if node == EDGE {
            report.check(number, "an edge's agent and keeper: at most 4 MiB, shared pages counted once", || {
                ensure!(weight.once <= BUDGET, "{} KiB resident", weight.once / 1024);
                Ok(format!("{} KiB resident", weight.once / 1024))
            });
        }
    }
    Ok(report.finish())
}
