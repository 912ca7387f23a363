//! Names of Services, beside CoreDNS, unbound and dnsmasq: all on one node, in turns.

mod load;
mod server;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use self::load::{Load, Question};
use self::server::Server;
use super::report::{Spread, Table};
use crate::netns::Netns;
use crate::process;
use crate::topology::RunDir;

/// What is measured, and how often.
#[derive(Debug, Args)]
pub struct Options {
    /// Services of the cluster, each with five endpoints.
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Turns of each server.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load in each turn.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Questions one after another in each turn, for the time that an answer takes.
    #[arg(long, default_value_t = 5000)]
    single: usize,
    /// Write the result into docs/benchmarks-dns.md as well.
    #[arg(long)]
    write: bool,
}

/// What was measured of one server.
#[derive(Default)]
struct Figures {
    per_cpu_second: Vec<f64>,
    per_second: Vec<f64>,
    half: Vec<f64>,
    p99: Vec<f64>,
    lost: usize,
    rss: u64,
}

/// Measures all servers that are here, prints, and perhaps writes it. Fails only if something did not run.
pub fn run(options: &Options) -> Result<ExitCode> {
    let dir = RunDir::create(false)?;
    let ns = Netns::create("dns")?;
    ns.ip("address add 192.0.2.1/24 dev lo")?;
    let (servers, skipped) = server::start_all(&ns, &dir, options.services)?;
    let questions = load::questions(options.services);
    for server in &servers {
        server::check(&ns, server, options.services).with_context(|| server.name.to_owned())?;
    }
    let mut figures: Vec<Figures> = servers.iter().map(|_| Figures::default()).collect();
    for round in 1..=options.rounds {
        // Each has each place.
        for turn in 0..servers.len() {
            let place = (round + turn) % servers.len();
            let (server, figures) = (&servers[place], &mut figures[place]);
            measure(&ns, server, &questions, options, figures)?;
            let (last, p99) = (figures.per_cpu_second.last(), figures.p99.last());
            println!(
                "  {round}  {:<10} {:>9.0} per CPU second, p99 {:>5.0} µs",
                server.name,
                last.unwrap_or(&0.0),
                p99.unwrap_or(&0.0)
            );
        }
    }
    let text = document(&servers, &figures, &skipped, options);
    println!("\n{text}");
    if options.write {
        let path = "docs/benchmarks-dns.md";
        std::fs::write(path, text).with_context(|| format!("write {path}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(ns: &Netns, server: &Server, questions: &[Question], options: &Options, into: &mut Figures) -> Result<()> {
    let pids = [server.pid];
    let times = load::one_by_one(ns, server.address, questions, options.single)?;
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    into.half.push(at(0.5));
    into.p99.push(at(0.99));
    let before = process::cpu_seconds(&pids)?;
    let Load { answers, lost, seconds } = load::flood(ns, server.address, questions, options.seconds)?;
    let cpu = process::cpu_seconds(&pids)? - before;
    into.per_cpu_second.push(answers as f64 / cpu.max(0.01));
    into.per_second.push(answers as f64 / seconds);
    into.lost += lost;
    into.rss = process::memory(&pids)?.rss;
    Ok(())
}

fn document(servers: &[Server], figures: &[Figures], skipped: &[String], options: &Options) -> String {
    let headings = ["", "questions per CPU second", "per second", "one alone, median µs", "p99 µs", "lost", "RSS KiB"];
    let mut table = Table::new(&headings);
    for (server, figures) in servers.iter().zip(figures) {
        table.push(vec![
            server.name.to_owned(),
            Spread::of(&figures.per_cpu_second).text(0),
            Spread::of(&figures.per_second).text(0),
            Spread::of(&figures.half).text(0),
            Spread::of(&figures.p99).text(0),
            figures.lost.to_string(),
            (figures.rss / 1024).to_string(),
        ]);
    }
    let mut text = format!(
        "# Names of Services, side by side\n\nMade by `selvedge-lab bench dns` (`make bench-dns`); only the ratios mean something elsewhere.\n\n\
         {} Services with five endpoints each; of the questions 70 % are for addresses that are there, 15 % for the family\n\
         that is not, 15 % for names out of a search path that are not. All servers run on one node at once, with the agent's\n\
         firewall rules, and are asked in turns, {} of {} s each; every cell is the median with the least and the most.\n\n",
        options.services, options.rounds, options.seconds
    );
    text += &table.markdown();
    text += "\n";
    for server in servers {
        text += &format!("- {}: {}\n", server.name, server.how);
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    text += &format!(
        "- load average at the end: {}; times suffer from other work on the machine, questions per CPU second less\n",
        load.join(", ")
    );
    for line in skipped {
        text += &format!("- SKIPPED {line}\n");
    }
    text
}
