//! The laboratory of Selvedge: sites, NAT routers, cloud and edge nodes as network namespaces of one machine, with the
//! real programs, CNI plugins and firewalls in them, and checks of what goes through.
//!
//! Needs root. It never touches the network of the machine itself.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod arch;
mod baseline;
mod bench;
mod capture;
mod cni;
mod demo;
mod exec;
mod extra;
mod fabric;
mod flat;
mod guest;
mod idle;
mod interop;
mod iptables;
mod kube;
mod manifests;
mod matrix;
mod memory;
mod netns;
mod node;
mod odd;
mod pace;
mod pair;
mod pod;
mod probe;
mod process;
mod programs;
mod router;
mod scenario;
mod server;
mod snapshot;
mod soak;
mod suite;
mod table;
mod topology;
mod trace;
mod traffic;
mod vxlan;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::fabric::Options;
use crate::table::Report;

#[derive(Debug, Parser)]
#[command(version, about = "The network-namespace laboratory of Selvedge")]
struct Arguments {
    /// Multiply every time limit, for machines that are emulated; results show it.
    #[arg(long, default_value_t = 1)]
    slower: u32,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check the laboratory itself, without Selvedge.
    Baseline,
    /// Show it: the whole laboratory from nothing, the 48 rows, and a capture between the sites.
    Demo(Options),
    /// The 48 rows and more.
    Matrix {
        #[command(flatten)]
        options: Options,
        /// Only these of the 48 rows, such as 1,5-8, and none of the others.
        #[arg(long)]
        rows: Option<String>,
    },
    /// What the fabric has to survive.
    #[command(after_help = format!("Scenarios:\n{}", scenario::list()))]
    Scenario {
        /// Name of one, or `all`.
        name: String,
        #[command(flatten)]
        options: Options,
    },
    /// Matrix and scenarios in all datapaths and firewalls, with one summary.
    Test,
    /// Run another command of this program inside a real kernel that has ESP: user-mode Linux, or of another
    /// architecture under QEMU.
    ///
    /// Examples: selvedge-lab guest -- matrix --datapath kernel;
    /// selvedge-lab guest --arch mipsel -- scenario all
    Guest {
        #[command(flatten)]
        options: guest::Options,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        arguments: Vec<String>,
    },
    /// What quiet tunnels cost: bytes on the wire in a day, wake-ups, memory.
    Idle {
        #[command(flatten)]
        options: Options,
        /// How long to measure.
        #[arg(long, default_value_t = 1.0)]
        hours: f64,
        /// Instead of the laboratory one program with so many tunnels, such as 10,100: wake-ups and memory only.
        #[arg(long, value_delimiter = ',')]
        tunnels: Vec<usize>,
    },
    /// Kernels, tools and settings that lack something: what the agent does instead, and what `doctor` says.
    OddKernels {
        /// Run the rows of one boot on this kernel.
        #[arg(long, hide = true)]
        inside: Option<usize>,
        /// Only the rows whose description holds this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// The same programs on every architecture that gateways have, each in a kernel of its own under QEMU.
    Arch(arch::Options),
    /// An edge of another architecture under QEMU and a connector of this machine, on one wire.
    Pair(pair::Options),
    /// The edge's end of `pair`, in the guest.
    #[command(hide = true)]
    FarEdge,
    /// Key with strongSwan: both roles, certificates, a NAT, rekeys in each direction, refusals.
    Interop,
    /// Memory of an idle edge with many tunnels and Services.
    Memory(memory::Options),
    /// Traffic and changes of the configuration for an hour, memory before and after.
    Soak(soak::Options),
    /// Beside others, in one run.
    #[command(subcommand)]
    Bench(bench::Verb),
    /// A real Kubernetes: for people, and for the tests of what talks to it.
    #[command(subcommand)]
    Kube(kube::Verb),
    /// Remove what killed runs left behind.
    Clean,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    pace::set(arguments.slower);
    match clean_up_on_signals().and_then(|()| run(arguments.verb)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("selvedge-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Baseline => {
            let mut report = Report::new();
            baseline::run(&mut report)?;
            Ok(report.finish())
        }
        Verb::Demo(options) => demo::run(&options),
        Verb::Matrix { options, rows } => demo::matrix(&options, rows.as_deref()),
        Verb::Scenario { name, options } => scenario::run(&name, &options),
        Verb::Test => suite::run(),
        Verb::Guest { options, arguments } => guest::run(&options, &arguments),
        Verb::Idle { options, hours, tunnels } => idle::run(&options, hours, &tunnels),
        Verb::OddKernels { inside: None, only } => odd::run(&only),
        Verb::OddKernels { inside: Some(boot), only } => odd::run_inside(boot, &only),
        Verb::Interop => interop::run(),
        Verb::Arch(options) => arch::run(&options),
        Verb::Pair(options) => pair::run(&options),
        Verb::FarEdge => pair::far_edge(),
        Verb::Memory(options) => memory::run(&options),
        Verb::Soak(options) => soak::run(&options),
        Verb::Bench(verb) => bench::run(&verb),
        Verb::Kube(verb) => kube::run(&verb),
        Verb::Clean => {
            for name in netns::remove_leftovers() {
                println!("removed {name}");
            }
            kube::remove_leftovers();
            topology::remove_leftovers();
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn clean_up_on_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            suite::stop();
            guest::stop();
            netns::stop();
            kube::stop();
            let _ = std::fs::remove_dir_all(topology::run_dir(std::process::id()));
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Arguments::command().debug_assert();
    }
}
