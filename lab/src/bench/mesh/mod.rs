//! Traffic to a Service: one whose endpoint is on the client's node, and one whose endpoint is on another node.

mod measure;
mod proxy;
mod site;
mod web;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use super::credentials::Authority;
use super::report::{Spread, Table, median};
use super::tunnels::{load, machine};
use crate::process;
use crate::table::Report;
use crate::topology::RunDir;
use measure::{Turn, turn};
use proxy::{Cluster, Kind, Proxy};
use site::{WHERE, Where};

/// What is measured, and for how long.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How often each has its turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each run of iperf3, of wrk and of new connections.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// EdgeMesh's agent; its module is in no registry, so it must be built from its repository.
    #[arg(long)]
    edgemesh: Option<PathBuf>,
    /// Write the result to docs/benchmarks-services.md, too.
    #[arg(long)]
    write: bool,
    /// Leave configurations and logs behind.
    #[arg(long)]
    keep: bool,
}

/// Measures everything, prints and perhaps writes it. Fails only if something did not run.
pub fn run(options: &Options) -> Result<ExitCode> {
    let progress = Report::new();
    let dir = RunDir::create(options.keep)?;
    let authority = Authority::new()?;
    let mut kinds = vec![Kind::Direct, Kind::Selvedge("nftables"), Kind::Selvedge("iptables")];
    let mut skipped = Vec::new();
    let mut cluster = match Cluster::start(&dir) {
        Ok(cluster) => {
            kinds.extend([Kind::KubeProxy("nftables"), Kind::KubeProxy("iptables")]);
            kinds.extend(options.edgemesh.clone().map(Kind::EdgeMesh));
            Some(cluster)
        }
        Err(error) => {
            skipped.push(format!("kube-proxy and EdgeMesh: {error:#}"));
            None
        }
    };
    if options.edgemesh.is_none() {
        skipped.push("EdgeMesh: --edgemesh names no program".to_owned());
    }
    progress.title("Proxies");
    let mut lines: Vec<(Proxy, [Vec<Turn>; 2])> = Vec::new();
    for kind in kinds {
        let title = kind.title();
        match Proxy::start(kind, cluster.as_mut(), &authority, &dir) {
            Ok(proxy) => {
                progress.progress(&format!("up: {title}"));
                lines.push((proxy, Default::default()));
            }
            Err(error) => skipped.push(format!("{title}: {error:#}")),
        }
    }
    let mut loads = Vec::new();
    for round in 1..=options.rounds {
        // Another begins each round.
        let first = (round * 2) % lines.len();
        for index in (first..lines.len()).chain(0..first) {
            let (proxy, turns) = &mut lines[index];
            for place in WHERE {
                loads.push(load());
                let title = format!("{}, {}", proxy.kind.title(), place.name());
                let to = proxy.kind.target(place);
                let one = turn(&proxy.site.client, to, options.seconds, &proxy.pids).context(title.clone())?;
                progress.progress(&format!("round {round}, {title}: {:.0} Mbit/s, {:.0} µs", one.mbit, one.trip));
                turns[place as usize].push(one);
            }
        }
    }
    let mut text = head(options, &loads);
    for (place, title) in WHERE.into_iter().zip(["On the client's node", "On another node"]) {
        let _ = write!(text, "\n## {title}\n\n{}", table(&lines, place)?.markdown());
    }
    for line in &skipped {
        let _ = write!(text, "\nSKIPPED {line}\n");
    }
    println!("\n{text}");
    if options.write {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks-services.md");
        std::fs::write(path, text).with_context(|| format!("write {path}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A column: its heading, its value, its decimals.
type Column = (&'static str, fn(&Turn) -> f64, usize);

const COLUMNS: [Column; 5] = [
    ("iperf3, Mbit/s", |turn| turn.mbit, 0),
    ("wrk, requests/s", |turn| turn.requests, 0),
    ("new connections/s", |turn| turn.connections, 0),
    ("UDP round trip, µs", |turn| turn.trip, 0),
    ("4 MB, ms", |turn| turn.transfer, 1),
];

fn table(lines: &[(Proxy, [Vec<Turn>; 2])], place: Where) -> Result<Table> {
    let mut headings = vec!["proxy"];
    headings.extend(COLUMNS.iter().flat_map(|(heading, ..)| [*heading, "÷ direct"]));
    headings.extend(["CPU s/Gbit", "RSS, MB"]);
    let mut table = Table::new(&headings);
    let direct = lines.first().map(|(_, turns)| &turns[place as usize]);
    for (proxy, turns) in lines {
        let turns = &turns[place as usize];
        let lock = if place == Where::Remote && proxy.kind.encrypts() { ", encrypted" } else { "" };
        let mut cells = vec![proxy.kind.title() + lock];
        for (_, value, decimals) in COLUMNS {
            let values = |turns: &Vec<Turn>| turns.iter().map(value).collect::<Vec<f64>>();
            let spread = Spread::of(&values(turns));
            cells.push(spread.text(decimals));
            cells.push(format!("{:.2}", spread.median / direct.map_or(f64::NAN, |turns| median(&values(turns)))));
        }
        if proxy.pids.is_empty() {
            cells.extend(["-".to_owned(), "-".to_owned()]);
        } else {
            cells.push(format!("{:.2}", median(&turns.iter().map(|turn| turn.cpu).collect::<Vec<_>>())));
            // Of both nodes.
            cells.push(format!("{:.1}", process::memory(&proxy.pids)?.rss as f64 / 2e6));
        }
        table.push(cells);
    }
    Ok(table)
}

fn head(options: &Options, loads: &[f64]) -> String {
    format!(
        "# Services beside others\n\nMade by `selvedge-lab bench mesh` (`make bench-mesh`); every number comes from one run on one \
         machine, and only the ratios mean something elsewhere.\n\n- machine: {}\n- load average before each turn: {:.1} to \
         {:.1}, median {:.1}\n- each line has two nodes of its own (network namespaces, one veth pair, MTU 1500), a client's pod on \
         the first and a server's pod on each, behind bridges; the Service has one endpoint\n- {} rounds, in each of which every \
         line has its turn; the median counts, least and most stand beside it; \"÷ direct\" is the ratio to the pod itself, \
         called without any proxy and unencrypted\n- iperf3: one TCP stream, {} s; wrk: 16 kept connections, 1 thread; new \
         connections: 8 callers, a request each; UDP: 2,000 round trips of 64 bytes, one at a time; 4 MB: the median of 15 \
         transfers, each over a new connection\n- CPU s/Gbit: user and system time of the proxy's processes on both nodes \
         during iperf3; RSS: of all its processes on one node\n- encrypted: Selvedge by ESP in user space, AES-256-GCM; EdgeMesh by \
         libp2p over TCP; kube-proxy and the direct way send in clear\n",
        machine(),
        loads.iter().copied().fold(f64::INFINITY, f64::min),
        loads.iter().copied().fold(0.0, f64::max),
        median(loads),
        options.rounds,
        options.seconds,
    )
}
