//! Selvedge's user-space ESP beside other user-space tunnels, all over links of one kind and in interleaved rounds, so
//! that what else the machine does hits all alike. Nothing here passes or fails by its speed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::credentials::Authority;
use super::ike::{self, Handshakes, Responder};
use super::link::Offload;
use super::measure::{self, Throughput};
use super::report::{Spread, Table, median};
use super::tunnel::{self, KINDS, Kind, Tunnel};
use crate::exec;
use crate::process::{self, Memory};
use crate::programs;
use crate::table::Report;
use crate::topology::RunDir;

/// What is measured, and for how long.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How often each tunnel has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of each iperf3 run.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Round trips measured in each turn.
    #[arg(long, default_value_t = 2000)]
    pings: usize,
    /// Tunnels set up with each IKE responder; 0 leaves this part out.
    #[arg(long, default_value_t = 1000)]
    handshakes: usize,
    /// Only the tunnels whose name contains this; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Folder of agent and connector as they ship (cargo build --profile release-edge).
    #[arg(long)]
    edge_programs: Option<PathBuf>,
    /// Write the result to docs/benchmarks.md, too.
    #[arg(long)]
    write: bool,
    /// Leave configurations and logs behind.
    #[arg(long)]
    keep: bool,
}

/// What was measured on one tunnel.
#[derive(Default)]
struct Figures {
    /// By [`Offload`].
    one: [Vec<Throughput>; 2],
    four: [Vec<Throughput>; 2],
    /// Median and 99th percentile of each turn, in microseconds.
    median: Vec<f64>,
    p99: Vec<f64>,
    /// Round trips that did not come about.
    lost: usize,
    before: Memory,
    after: Memory,
}

/// Measures everything, prints and perhaps writes it. Fails only if something did not run.
pub fn run(options: &Options) -> Result<ExitCode> {
    let progress = Report::new();
    let dir = RunDir::create(options.keep)?;
    let authority = Authority::new()?;
    progress.title("Tunnels");
    let mut skipped = Vec::new();
    let mut tunnels = Vec::new();
    let chosen = |kind: &Kind| {
        let title = kind.title().to_lowercase();
        *kind == Kind::Direct || options.only.is_empty() || options.only.iter().any(|part| title.contains(part))
    };
    for kind in KINDS.into_iter().filter(chosen) {
        match available(kind) {
            Ok(()) => {
                tunnels.push((Tunnel::start(kind, &authority, &dir)?, Figures::default()));
                progress.progress(&format!("up: {}", kind.title()));
            }
            Err(error) => skipped.push(format!("{}: {error:#}", kind.title())),
        }
    }
    for (tunnel, figures) in &mut tunnels {
        figures.before = process::memory(&tunnel.pids_a)?;
    }
    let mut loads = Vec::new();
    for round in 1..=options.rounds {
        // Another begins each round, and they are spread over the list: a burst of other work that lasts some turns
        // does not hit the same ones again.
        let first = (round as usize * 3) % tunnels.len();
        for index in (first..tunnels.len()).chain(0..first) {
            loads.push(load());
            let (tunnel, figures) = &mut tunnels[index];
            let text = turn(options, tunnel, figures).with_context(|| tunnel.kind.title())?;
            progress.progress(&format!("round {round}, {}: {text}", tunnel.kind.title()));
        }
    }
    for (tunnel, figures) in &mut tunnels {
        figures.after = process::memory(&tunnel.pids_a)?;
    }
    let mut text = format!(
        "{WITH}\n\n{}\n{WITHOUT}\n\n{}\n{}",
        throughput_table(&tunnels, Offload::On).markdown(),
        throughput_table(&tunnels, Offload::Off).markdown(),
        other_table(&tunnels).markdown()
    );
    let used: Vec<Kind> = tunnels.iter().map(|(tunnel, _)| tunnel.kind).collect();
    drop(tunnels);

    if options.handshakes > 0 {
        progress.title("IKEv2 responders");
        let handshakes = handshakes(options, &authority, &dir, &progress, &mut skipped)?;
        let _ = write!(text, "\n## Handshakes\n\n{HANDSHAKES}\n\n{}", handshakes.markdown());
    }
    progress.title("Size");
    match edge_programs(options) {
        Ok(folder) => {
            let sizes = sizes(&folder, &authority, &dir)?;
            let _ = write!(text, "\n## Size\n\n{SIZES}\n\n{}", sizes.markdown());
        }
        Err(error) => skipped.push(format!("size of agent and connector: {error:#}")),
    }
    for line in &skipped {
        let _ = write!(text, "\nSKIPPED {line}\n");
    }
    let document = format!("{}\n{text}\n{}", head(options, &loads), tail(&used));
    println!("\n{document}");
    if options.write {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md");
        std::fs::write(path, document).with_context(|| format!("write {path}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the machine has what the tunnel needs.
fn available(kind: Kind) -> Result<()> {
    match kind {
        Kind::Direct => exec::run(Command::new("iperf3").arg("--version")).map(drop),
        Kind::Selvedge | Kind::Keeper(_) => programs::find("selvedge-agent").map(drop),
        Kind::Boringtun(_) => tunnel::peer_program("boringtun-cli").map(drop),
        Kind::WireguardGo => tunnel::peer_program("wireguard-go").map(drop),
        Kind::Strongswan => match strongswan_version() {
            Some(_) => Ok(()),
            None => bail!("charon-systemd and its extra plugins are not installed: lab/tools/setup test"),
        },
    }
}

fn turn(options: &Options, tunnel: &Tunnel, figures: &mut Figures) -> Result<String> {
    let mut text = String::new();
    for offload in [Offload::On, Offload::Off] {
        tunnel.link.set_offload(offload)?;
        let one = measure::throughput(tunnel, 1, options.seconds)?;
        let four = measure::throughput(tunnel, 4, options.seconds)?;
        let _ = write!(
            text,
            "{:.0} and {:.0} Mbit/s, {:.2} and {:.2} CPU s/Gbit; ",
            mbit(&one),
            mbit(&four),
            one.cpu / one.gbit,
            four.cpu / four.gbit
        );
        figures.one[offload as usize].push(one);
        figures.four[offload as usize].push(four);
    }
    tunnel.link.set_offload(Offload::On)?;
    let (trips, lost) = measure::round_trips(&tunnel.link, options.pings)?;
    let at = |part: f64| {
        let index = (trips.len().saturating_sub(1) as f64 * part) as usize;
        trips.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    let _ = write!(text, "{:.0} µs", at(0.5));
    figures.lost += lost;
    figures.median.push(at(0.5));
    figures.p99.push(at(0.99));
    Ok(text)
}

fn mbit(run: &Throughput) -> f64 {
    run.gbit * 1e3 / run.seconds
}

impl Figures {
    fn mbit(runs: &[Throughput]) -> Spread {
        Spread::of(&runs.iter().map(mbit).collect::<Vec<_>>())
    }

    fn cpu_per_gbit(runs: &[Throughput]) -> Spread {
        Spread::of(&runs.iter().map(|run| run.cpu / run.gbit).collect::<Vec<_>>())
    }
}

fn throughput_table(tunnels: &[(Tunnel, Figures)], offload: Offload) -> Table {
    let mut table = Table::new(&[
        "tunnel",
        "1 stream, Mbit/s",
        "of direct",
        "× boringtun",
        "4 streams, Mbit/s",
        "of direct",
        "× boringtun",
        "CPU s/Gbit, 1 stream",
        "boringtun's ÷ this",
        "CPU s/Gbit, 4 streams",
        "boringtun's ÷ this",
        "retransmits",
    ]);
    let direct = of(tunnels, Kind::Direct);
    let boringtun: Vec<&Figures> = [1, 4].into_iter().filter_map(|n| of(tunnels, Kind::Boringtun(n))).collect();
    let index = offload as usize;
    let speeds = [|f: &Figures, i: usize| Figures::mbit(&f.one[i]), |f: &Figures, i: usize| Figures::mbit(&f.four[i])];
    let costs = [
        |f: &Figures, i: usize| Figures::cpu_per_gbit(&f.one[i]),
        |f: &Figures, i: usize| Figures::cpu_per_gbit(&f.four[i]),
    ];
    for (tunnel, f) in tunnels {
        let mut row = vec![tunnel.kind.title()];
        for speed in speeds {
            row.push(speed(f, index).text(0));
            row.push(ratio(speed(f, index).median, direct.map(|f| speed(f, index).median)));
            row.push(ratio(speed(f, index).median, boringtun.iter().map(|f| speed(f, index).median).reduce(f64::max)));
        }
        for cost in costs {
            row.push(if cost(f, index).median > 0.0 { cost(f, index).text(2) } else { "-".to_owned() });
            let least = boringtun.iter().map(|f| cost(f, index).median).reduce(f64::min);
            row.push(ratio(least.unwrap_or(0.0), Some(cost(f, index).median)));
        }
        row.push(f.one[index].iter().chain(&f.four[index]).map(|run| run.retransmits).sum::<u64>().to_string());
        table.push(row);
    }
    table
}

fn other_table(tunnels: &[(Tunnel, Figures)]) -> Table {
    let mut table = Table::new(&[
        "tunnel",
        "MTU",
        "RTT median, µs",
        "added",
        "RTT p99, µs",
        "lost",
        "RSS before, MB",
        "RSS after, MB",
        "PSS after, MB",
    ]);
    let direct = of(tunnels, Kind::Direct).map(|direct| median(&direct.median));
    for (tunnel, f) in tunnels {
        let mut row = vec![tunnel.kind.title(), tunnel.kind.mtu().to_string()];
        row.push(format!("{:.0}", median(&f.median)));
        row.push(direct.map_or("-".to_owned(), |direct| format!("{:.0}", median(&f.median) - direct)));
        row.push(format!("{:.0}", median(&f.p99)));
        row.push(f.lost.to_string());
        row.extend([f.before.rss, f.after.rss, f.after.pss].map(megabytes));
        table.push(row);
    }
    table
}

fn of(tunnels: &[(Tunnel, Figures)], kind: Kind) -> Option<&Figures> {
    tunnels.iter().find(|(tunnel, _)| tunnel.kind == kind).map(|(_, figures)| figures)
}

fn ratio(value: f64, base: Option<f64>) -> String {
    match base {
        Some(base) if base > 0.0 && value > 0.0 => format!("{:.2}", value / base),
        _ => "-".to_owned(),
    }
}

fn megabytes(bytes: u64) -> String {
    if bytes == 0 { "-".to_owned() } else { format!("{:.1}", bytes as f64 / 1e6) }
}

fn handshakes(
    options: &Options,
    authority: &Authority,
    dir: &Path,
    progress: &Report,
    skipped: &mut Vec<String>,
) -> Result<Table> {
    let mut table = Table::new(&[
        "responder",
        "tunnels",
        "wall s",
        "per wall second",
        "CPU s",
        "per CPU second",
        "to charon",
        "RSS, MB",
        "RSS with tunnels, MB",
        "kB each",
    ]);
    let mut responders = vec![("selvedge-connector", Responder::Selvedge("selvedge-connector", None))];
    match available(Kind::Strongswan) {
        Ok(()) => responders.push(("strongSwan charon, kernel-libipsec", Responder::Charon)),
        Err(error) => skipped.push(format!("charon as responder: {error:#}")),
    }
    let mut results = vec![Vec::new(); responders.len()];
    for round in 0..options.rounds {
        for ((title, responder), results) in responders.iter().zip(&mut results) {
            let name = format!("h{round}{}", if *responder == Responder::Charon { "c" } else { "s" });
            let result = ike::run(&name, *responder, options.handshakes, authority, dir).with_context(|| *title)?;
            progress.progress(&format!("{title}: {:.0} handshakes per CPU second", rate(&result)));
            results.push(result);
        }
    }
    let middle =
        |results: &[Handshakes], value: fn(&Handshakes) -> f64| median(&results.iter().map(value).collect::<Vec<_>>());
    let charon = responders.iter().position(|(_, responder)| *responder == Responder::Charon);
    let charon = charon.map(|index| middle(&results[index], rate));
    for ((title, _), results) in responders.iter().zip(&results) {
        let Some(last) = results.last() else { continue };
        table.push(vec![
            (*title).to_owned(),
            last.count.to_string(),
            format!("{:.2}", middle(results, |r| r.wall.as_secs_f64())),
            format!("{:.0}", middle(results, |r| r.count as f64 / r.wall.as_secs_f64())),
            format!("{:.2}", middle(results, |r| r.cpu)),
            format!("{:.0}", middle(results, rate)),
            charon.map_or("-".to_owned(), |charon| format!("{:.2}", middle(results, rate) / charon)),
            megabytes(last.before.rss),
            megabytes(last.after.rss),
            format!("{:.1}", (last.after.rss as f64 - last.before.rss as f64) / 1e3 / last.count as f64),
        ]);
    }
    Ok(table)
}

fn rate(result: &Handshakes) -> f64 {
    result.count as f64 / result.cpu.max(0.01)
}

fn edge_programs(options: &Options) -> Result<PathBuf> {
    let folder = match &options.edge_programs {
        Some(folder) => folder.clone(),
        None => std::env::current_exe()?.parent().context("folder of this program")?.join("../release-edge"),
    };
    let there = ["selvedge-agent", "selvedge-connector"].iter().all(|program| folder.join(program).exists());
    ensure!(
        there,
        "not in {}: cargo build --profile release-edge -p selvedge-agent -p selvedge-connector",
        folder.display()
    );
    Ok(folder)
}

fn sizes(folder: &Path, authority: &Authority, dir: &Path) -> Result<Table> {
    let mut table = Table::new(&[
        "program",
        "file, MB",
        "RSS, MB",
        "PSS, MB",
        "RSS with 10 tunnels, MB",
        "PSS with 10 tunnels, MB",
    ]);
    for (name, program) in [("za", "selvedge-agent"), ("zc", "selvedge-connector")] {
        let size = std::fs::metadata(folder.join(program))?.len();
        let result = ike::run(name, Responder::Selvedge(program, Some(folder)), 10, authority, dir)?;
        let mut row = vec![program.to_owned(), format!("{:.2}", size as f64 / 1e6)];
        row.extend([result.before.rss, result.before.pss, result.after.rss, result.after.pss].map(megabytes));
        table.push(row);
    }
    Ok(table)
}

const WITH: &str = "The link as Linux makes it: a veth pair passes packets on unsegmented (TCP and UDP segmentation \
offload), as network cards of servers do.";

const WITHOUT: &str = "The same link without segmentation offload (`ethtool -K eth0 tso off tx-udp-segmentation off`), as on the \
network cards of small gateways: every packet on it stands alone.";

const HANDSHAKES: &str = "Each caller has a certificate (ECDSA P-256) of its own and makes one IKE SA and one CHILD SA \
(IKE_SA_INIT and IKE_AUTH, x25519), 32 at a time; the callers are the same program, Selvedge's, whoever answers. CPU \
time is that of all processes of the responder, with all it does for a tunnel (keys into the datapath, routes, rules). \
charon's limits on half-open callers are lifted and its IKE SA table is sized for many.";

const SIZES: &str = "As they ship (profile release-edge), ESP in user space. Each is two processes of one file: the \
program and the keeper of its sockets; RSS counts the pages that both share twice, PSS once.";

fn head(options: &Options, loads: &[f64]) -> String {
    format!(
        "# Benchmarks\n\nMade by `selvedge-lab bench tunnels` (`make bench`); every number comes from one run on one machine, and only the ratios \
         mean something elsewhere.\n\n- machine: {}\n- load average before each turn: {:.1} to {:.1}, median {:.1}; wall-clock figures suffer from other \
         work on the machine, CPU time per Gbit less\n- each tunnel has a link of its own: two network namespaces and one \
         veth pair (MTU 1500); all tunnels stand all the time\n- {} rounds, in each of which every tunnel has its turn: iperf3 for {} s \
         with 1 TCP stream, {} s with 4 (on both kinds of link), {} round trips of 64 bytes over UDP; the median of the rounds counts, least and most stand beside \
         it; the order changes from round to round\n- CPU \
         seconds per Gbit are user and system time of the tunnel's processes of both ends; what the kernel does for them \
         in the name of others is not in it\n- the agents' line has their firewall rules and policy routing in \
         it, no other line has any: \"datapath alone\" is to be compared with the other tunnels packet for packet, \
         and with the agents to see what the rules cost\n- ratios to boringtun are to the better of its two lines\n- RSS is that of all processes of one end, \
         before the first round and after the last\n\n## Tunnels\n",
        machine(),
        loads.iter().copied().fold(f64::INFINITY, f64::min),
        loads.iter().copied().fold(0.0, f64::max),
        median(loads),
        options.rounds,
        options.seconds,
        options.seconds,
        options.pings
    )
}

/// Processor, cores, kernel.
pub(super) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, m)| m);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

fn tail(kinds: &[Kind]) -> String {
    let mut text = "\n## Commands and versions\n\n".to_owned();
    for kind in kinds {
        if !kind.commands().is_empty() {
            let _ = writeln!(text, "- {}: `{}`", kind.title(), kind.commands());
        }
    }
    for line in versions() {
        let _ = writeln!(text, "- {line}");
    }
    text
}

fn versions() -> Vec<String> {
    let first =
        |mut command: Command| exec::run(&mut command).ok().and_then(|text| text.lines().next().map(str::to_owned));
    let ask = |program: &Path, flag: &str| {
        let mut command = Command::new(program);
        command.arg(flag);
        first(command)
    };
    let mut lines = Vec::new();
    lines.extend(programs::find("selvedge-agent").ok().and_then(|program| ask(&program, "--version")));
    lines.extend(tunnel::peer_program("boringtun-cli").ok().and_then(|program| ask(&program, "--version")));
    if let Ok(file) = tunnel::peer_program("wireguard-go.version") {
        lines.extend(std::fs::read_to_string(file).ok().map(|version| format!("wireguard-go {}", version.trim())));
    }
    lines.extend(strongswan_version().map(|version| format!("strongSwan {version} (Debian)")));
    lines.extend(ask(Path::new("iperf3"), "--version"));
    lines.extend(ask(Path::new("wg"), "--version"));
    lines
}

/// Load average of the last minute.
/// Load average of the last minute.
pub(super) fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// Of the package that has kernel-libipsec.
fn strongswan_version() -> Option<String> {
    let mut command = Command::new("dpkg-query");
    command.args(["-W", "-f", "${Version}\n", "libcharon-extra-plugins", "charon-systemd"]);
    exec::run(&mut command).ok()?.lines().next().map(str::to_owned)
}
