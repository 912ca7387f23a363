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
    /// What time limits are multiplied by in the guests: one slow processor does the work of all nodes.
    #[arg(long, default_value_t = 3)]
    slower: u32,
}

/// A firewall: its name here, what the configuration calls it, and what `iptables` is.
const FIREWALLS: [(&str, &str, &str); 3] =
    [("nftables", "nftables", "nft"), ("iptables-nft", "iptables", "nft"), ("iptables-legacy", "iptables", "legacy")];
const DATAPATHS: [&str; 2] = ["kernel", "user"];
/// Seconds after which a guest is given up; what else this machine does makes guests slow.
const TIMEOUT: u32 = 4 * 60 * 60;
/// The same in a guest that goes by this machine's time, and is slower the more else this machine does.
const PAIR_SLOWER: u32 = 8;

/// Fetches what the guests boot with, runs everything and prints a summary; the exit code.
pub fn run(options: &Options) -> Result<ExitCode> {
    let arches = if options.arch.is_empty() { Arch::ALL.to_vec() } else { options.arch.clone() };
    for arch in &arches {
        print!("{}", exec::run(Command::new("lab/tools/guest-files").arg(arch.to_string()))?);
    }
    if options.guests == 0 {
        bail!("no guest, no test");
    }
    println!("time limits in the guests: x {} for the emulator", options.slower);
    let mut lanes: Vec<Vec<Job>> = (0..options.guests).map(|_| Vec::new()).collect();
    let jobs = arches.into_iter().flat_map(|arch| if options.quick { quick(arch) } else { all(arch) });
    for (number, Part { arch, what, verb, datapath, firewall: (name, kind, iptables) }) in jobs.enumerate() {
        let slower = if matches!(verb, Verb::Pair) { PAIR_SLOWER } else { options.slower };
        let guest = format!("--arch {arch} --iptables {iptables} --slower {slower} --timeout {TIMEOUT}");
        let how = format!("--datapath {datapath} --firewall {kind}");
        lanes[number % options.guests].push(Job {
            what: format!("{arch} {what}: {datapath}, {name}"),
            arguments: match verb {
                Verb::Inside(verb) => format!("guest {guest} -- {verb} {how}"),
                Verb::Pair => format!("pair {guest} {how}"),
            },
        });
    }
    suite::run_lanes(lanes)
}

/// One run in one guest.
struct Part {
    arch: Arch,
    what: &'static str,
    verb: Verb,
    datapath: &'static str,
    firewall: (&'static str, &'static str, &'static str),
}

enum Verb {
    /// This command in the guest.
    Inside(&'static str),
    /// The guest is one end, this machine the other.
    Pair,
}

fn all(arch: Arch) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut part = |what, verb, datapath, firewall| parts.push(Part { arch, what, verb, datapath, firewall });
    if arch == Arch::Mips {
        // Only the order of bytes differs, which shows where two orders meet; and guest-mips brings no nft.
        DATAPATHS.into_iter().for_each(|datapath| part("pair", Verb::Pair, datapath, FIREWALLS[2]));
        return parts;
    }
    for datapath in DATAPATHS {
        for firewall in FIREWALLS {
            part("matrix", Verb::Inside("matrix"), datapath, firewall);
        }
    }
    for (datapath, firewall) in DATAPATHS.into_iter().zip([FIREWALLS[0], FIREWALLS[2]]) {
        part("scenarios", Verb::Inside("scenario all"), datapath, firewall);
        part("memory", Verb::Inside("memory"), datapath, firewall);
        part("soak", Verb::Inside("soak --changes 100 --seconds 60"), datapath, firewall);
        part("pair", Verb::Pair, datapath, firewall);
    }
    parts
}

fn quick(arch: Arch) -> Vec<Part> {
    if arch == Arch::Mips {
        return all(arch);
    }
    let parts = DATAPATHS.into_iter().zip([FIREWALLS[2], FIREWALLS[0]]).map(|(datapath, firewall)| Part {
        arch,
        what: "restart",
        verb: Verb::Inside("scenario agent-killed"),
        datapath,
        firewall,
    });
    parts.collect()
}
