//! What the fabric has to survive. Each scenario has a laboratory of its own.

mod addresses;
mod configuration;
mod credentials;
mod leaks;
mod restart;
mod uninstall;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::fabric::{Fabric, Options};
use crate::table::Report;

struct Scenario {
    name: &'static str,
    what: &'static str,
    run: fn(&mut Report, &mut Fabric) -> Result<()>,
}

const ALL: [Scenario; 9] = [
    Scenario { name: "agent-killed", what: "an agent is killed and comes back", run: restart::agent_killed },
    Scenario { name: "connector-restarted", what: "the connector restarts", run: restart::connector_restarted },
    Scenario { name: "address-changed", what: "addresses change", run: addresses::changed },
    Scenario { name: "peer-unreachable", what: "a peer cannot be reached", run: addresses::peer_unreachable },
    Scenario { name: "bad-configuration", what: "the configuration is spoilt", run: configuration::spoilt },
    Scenario { name: "uninstall", what: "nothing stays, nothing of others goes", run: uninstall::run },
    Scenario { name: "bad-credentials", what: "credentials are wrong", run: credentials::refused },
    Scenario { name: "tunnel-down", what: "nothing leaves in clear", run: leaks::tunnel_down },
    Scenario { name: "foreign-source", what: "foreign sources in a tunnel", run: leaks::foreign_source },
];

/// Names and descriptions, for help.
pub fn list() -> String {
    ALL.iter().map(|scenario| format!("  {:<20} {}", scenario.name, scenario.what)).collect::<Vec<_>>().join("\n")
}

/// Runs one scenario, or `all`.
pub fn run(name: &str, options: &Options) -> Result<ExitCode> {
    let chosen: Vec<&Scenario> = ALL.iter().filter(|scenario| name == "all" || name == scenario.name).collect();
    if chosen.is_empty() {
        bail!("no scenario {name}; there are:\n{}", list());
    }
    let mut report = Report::new();
    for scenario in chosen {
        report.title(&format!("{}: {}", scenario.name, scenario.what));
        let outcome = Fabric::start(options, &report)
            .and_then(|mut fabric| (scenario.run)(&mut report, &mut fabric).with_context(|| fabric.logs()));
        if let Err(error) = outcome {
            report.row("-", scenario.name, Duration::ZERO, &Err(error));
        }
    }
    Ok(report.finish())
}

/// How long something took, against what it may take.
fn within(took: Duration, limit: Duration) -> Result<String> {
    let text = format!("{:.2} s", took.as_secs_f64());
    ensure!(took <= limit, "took {text}, may take {:.0} s", limit.as_secs_f64());
    Ok(text)
}

/// Runs `event` under two-way traffic between the pods of two nodes; an error if a single packet is lost.
fn without_loss(
    fabric: &mut Fabric,
    pair: (&str, &str),
    event: impl FnOnce(&mut Fabric) -> Result<()>,
) -> Result<String> {
    let there = fabric.traffic(pair.0, pair.1)?;
    let back = fabric.traffic(pair.1, pair.0)?;
    there.await_replies(50)?;
    event(fabric)?;
    let after = Instant::now();
    for traffic in [&there, &back] {
        traffic.await_recovery(after, Duration::from_secs(10))?;
        traffic.await_replies(50)?;
    }
    let ((sent, lost), (sent_back, lost_back)) = (there.stop()?, back.stop()?);
    ensure!(lost + lost_back == 0, "{lost} of {sent} lost there, {lost_back} of {sent_back} back");
    Ok(format!("none of {} packets lost", sent + sent_back))
}
