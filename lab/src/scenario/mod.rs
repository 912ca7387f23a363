//! What the fabric has to survive. A scenario leaves everything as it found it, and the next one goes on with the same
//! laboratory; where that fails, it gets another.

mod addresses;
mod authority;
mod clock;
mod configuration;
mod credentials;
mod flash;
mod gateway;
mod health;
mod leaks;
mod membership;
mod names;
mod noise;
mod privilege;
mod restart;
mod samples;
mod services;
mod ssh;
mod uninstall;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::fabric::{Fabric, Options};
use crate::pace;
use crate::table::Report;
use crate::traffic::Traffic;

struct Scenario {
    name: &'static str,
    what: &'static str,
    run: fn(&mut Report, &mut Fabric) -> Result<()>,
}

const ALL: &[Scenario] = &[
    Scenario { name: "agent-killed", what: "a program is killed and comes back", run: restart::killed },
    Scenario { name: "connector-restarted", what: "the connector restarts", run: restart::connector_restarted },
    Scenario { name: "peer-unreachable", what: "a peer cannot be reached", run: addresses::peer_unreachable },
    Scenario { name: "bad-configuration", what: "the configuration is spoilt", run: configuration::spoilt },
    Scenario { name: "bad-credentials", what: "credentials are wrong", run: credentials::refused },
    Scenario { name: "renewal", what: "certificates are renewed", run: credentials::renewed },
    Scenario { name: "authority", what: "another authority takes over", run: authority::replaced },
    Scenario { name: "revocation", what: "a node is revoked", run: authority::revoked },
    Scenario { name: "enrolment", what: "a device enrols and follows the operator", run: authority::enrolled },
    Scenario { name: "clock", what: "clocks are not set", run: clock::unset },
    Scenario { name: "community-changed", what: "an edge leaves and returns", run: membership::community_changed },
    Scenario { name: "gateway", what: "an edge lets clients from outside in", run: gateway::run },
    Scenario { name: "foreign-source", what: "foreign sources in a tunnel", run: leaks::foreign_source },
    Scenario { name: "tunnel-down", what: "nothing leaves in clear", run: leaks::tunnel_down },
    Scenario { name: "address-changed", what: "addresses change", run: addresses::changed },
    Scenario { name: "privilege", what: "as little as possible is allowed", run: privilege::run },
    Scenario { name: "flash", what: "nothing is written, and nothing needs to be", run: flash::run },
    Scenario { name: "health", what: "endpoints die and come back, without the cloud", run: health::run },
    Scenario { name: "services", what: "Services of every kind, from outside and inside", run: services::run },
    Scenario { name: "samples", what: "the sample cases of EdgeMesh's documentation", run: samples::run },
    Scenario { name: "ssh", what: "SOCKS5 and ssh to other nodes", run: ssh::run },
    Scenario { name: "names", what: "the node answers DNS", run: names::run },
    Scenario { name: "noise", what: "noise from outside and inside makes few lines", run: noise::run },
    Scenario { name: "uninstall", what: "nothing stays, nothing of others goes", run: uninstall::run },
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
    let mut standing = None;
    for scenario in chosen {
        report.title(&format!("{}: {}", scenario.name, scenario.what));
        match attempt(scenario, standing.take(), &mut report, options) {
            Ok(fabric) => standing = fabric,
            Err(error) => report.row("-", scenario.name, Duration::ZERO, &Err(error)),
        }
    }
    Ok(report.finish())
}

/// The laboratory as the scenario left it, if it is fit for another one.
fn attempt(
    scenario: &Scenario,
    standing: Option<Fabric>,
    report: &mut Report,
    options: &Options,
) -> Result<Option<Fabric>> {
    let mut fabric = standing.map_or_else(|| Fabric::start(options, report), Ok)?;
    let failed = report.failed();
    (scenario.run)(report, &mut fabric).with_context(|| fabric.logs())?;
    if report.failed() > failed {
        println!("{}", fabric.logs());
        return Ok(None);
    }
    let start = Instant::now();
    match fabric.await_calm() {
        Ok(()) => Ok(Some(fabric)),
        Err(error) => {
            report.row("-", "everything is as before", start.elapsed(), &Err(error.context(fabric.logs())));
            Ok(None)
        }
    }
}

/// How long something took, against what it may take.
fn within(took: Duration, limit: Duration) -> Result<String> {
    let text = format!("{:.2} s", took.as_secs_f64());
    ensure!(took <= pace::limit(limit), "took {text}, may take {}", pace::words(limit));
    Ok(if pace::is_slower() { format!("{text}, may take {}", pace::words(limit)) } else { text })
}

/// Pings both ways between the pods of two nodes, none of which may be lost.
struct Lossless([Traffic; 2]);

impl Lossless {
    /// Enough to see that something goes on.
    const SOME: usize = 30;

    fn start(fabric: &Fabric, pair: (&str, &str)) -> Result<Self> {
        Ok(Self([fabric.traffic(pair.0, pair.1)?, fabric.traffic(pair.1, pair.0)?]))
    }

    /// Waits until some more have come through.
    fn goes_on(&self) -> Result<()> {
        self.0.iter().try_for_each(|traffic| traffic.await_replies(Self::SOME))
    }

    fn stop(self) -> Result<String> {
        self.goes_on()?;
        let mut total = 0;
        let mut losses = Vec::new();
        for (traffic, way) in self.0.into_iter().zip(["there", "back"]) {
            let (sent, lost) = traffic.stop()?;
            total += sent;
            if lost > 0 {
                losses.push(format!("{lost} of {sent} lost {way}"));
            }
        }
        ensure!(losses.is_empty(), "{}", losses.join(", "));
        Ok(format!("none of {total} packets lost"))
    }
}

/// Runs `event` under two-way traffic between the pods of two nodes; an error if a single packet is lost.
fn without_loss(
    fabric: &mut Fabric,
    pair: (&str, &str),
    event: impl FnOnce(&mut Fabric) -> Result<()>,
) -> Result<String> {
    let traffic = Lossless::start(fabric, pair)?;
    event(fabric)?;
    traffic.stop()
}
