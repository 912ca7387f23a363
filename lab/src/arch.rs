//! Every architecture: matrix, scenarios, memory and a short soak in a kernel of its own, with either datapath and each
//! firewall that it has.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use clap::Args;

use crate::exec;
use crate::guest::Arch;
use crate::suite::{self, Job};

/// Which, and how much.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Architectures; all without any.
    #[arg(long, value_enum, value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Only what shows that both datapaths work.
    #[arg(long)]
    quick: bool,
    /// How many guests run side by side.
    #[arg(long, default_value_t = 2)]
    guests: usize,
}

/// A firewall: what the configuration calls it, and what `iptables` is.
const FIREWALLS: [(&str, &str, &str); 3] =
    [("nftables", "nftables", "nft"), ("iptables-nft", "iptables", "nft"), ("iptables-legacy", "iptables", "legacy")];
const DATAPATHS: [&str; 2] = ["kernel", "user"];

/// Fetches what the guests boot with, runs everything and prints a summary; the exit code.
pub fn run(options: &Options) -> Result<ExitCode> {
    let arches = if options.arch.is_empty() { Arch::ALL.to_vec() } else { options.arch.clone() };
    for arch in &arches {
        print!("{}", exec::run(Command::new("lab/tools/guest-files").arg(arch.to_string()))?);
    }
    if options.guests == 0 {
        bail!("no guest, no test");
    }
    let mut lanes: Vec<Vec<Job>> = (0..options.guests).map(|_| Vec::new()).collect();
    let jobs = arches.into_iter().flat_map(|arch| if options.quick { quick(arch) } else { all(arch) });
    for (number, job) in jobs.enumerate() {
        lanes[number % options.guests].push(job);
    }
    suite::run_lanes(lanes)
}

fn all(arch: Arch) -> Vec<Job> {
    let mut jobs = Vec::new();
    for datapath in DATAPATHS {
        for firewall in FIREWALLS {
            jobs.push(job(arch, "matrix", "matrix", datapath, firewall));
        }
    }
    for (datapath, firewall) in DATAPATHS.into_iter().zip([FIREWALLS[0], FIREWALLS[2]]) {
        jobs.push(job(arch, "scenarios", "scenario all", datapath, firewall));
        jobs.push(job(arch, "memory", "memory", datapath, firewall));
        jobs.push(job(arch, "soak", "soak --changes 100 --seconds 60", datapath, firewall));
    }
    jobs
}

fn quick(arch: Arch) -> Vec<Job> {
    let both = DATAPATHS.into_iter().zip([FIREWALLS[2], FIREWALLS[0]]);
    both.map(|(datapath, firewall)| job(arch, "restart", "scenario agent-killed", datapath, firewall)).collect()
}

fn job(arch: Arch, what: &str, verb: &str, datapath: &str, firewall: (&str, &str, &str)) -> Job {
    let (name, kind, iptables) = firewall;
    Job {
        what: format!("{arch} {what}: {datapath}, {name}"),
        arguments: format!(
            "guest --arch {arch} --iptables {iptables} --timeout 3600 -- {verb} --datapath {datapath} --firewall {kind}"
        ),
    }
}
