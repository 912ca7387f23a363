//! The cloud's API is out of reach: what was in force stays in force over restarts, what changed meanwhile comes when
//! the cloud is back, and what was deleted never comes again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cloud::Cut;
use super::framework::{EdgeApi, Framework};
use super::steady::Steady;
use crate::fabric::{Fabric, served};
use crate::manifests::{SERVICES, Service, services_later};
use crate::programs::wait;
use crate::table::Report;

const NODE: &str = "edge-1";
const OTHER: &str = "beijing.edge-2";
const BOTH: [&str; 2] = ["beijing.edge-1", "beijing.edge-2"];
/// MetaServer's lists are read every minute until one of them shows the cloud, and its answers may take ten seconds.
const BACK: Duration = Duration::from_secs(180);
/// The kernel finds a connection dead a minute after the last sign of life; ten seconds later no new one was made.
const NOTICED: Duration = Duration::from_secs(90);

/// All rows, for both ways of being cut off.
pub fn run(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    for (letter, cut, what) in
        [("f", Cut::Refused, "connections are refused"), ("g", Cut::Silent, "nothing is answered")]
    {
        report.title(&format!("Without the cloud's API: {what}"));
        let steady = Steady::start(fabric, NODE, "cloud-pod")?;
        let mut row = |number: u32, what: &str, check: &mut dyn FnMut(&mut Fabric) -> Result<String>| {
            report.check(&format!("{letter}{number}"), what, || check(fabric));
        };
        row(1, "the cloud changes, and the edge does not", &mut |fabric| {
            door(fabric)?.cut(cut)?;
            change(fabric)?;
            noticed(fabric)?;
            as_before(fabric)
        });
        row(2, "restarted, it is as it was", &mut |fabric| {
            restart(fabric)?;
            as_before(fabric)
        });
        row(3, "back again, it is as it ought to be", &mut |fabric| {
            door(fabric)?.join()?;
            as_later(fabric)
        });
        row(4, "cut off and restarted, nothing comes again", &mut |fabric| {
            door(fabric)?.cut(cut)?;
            restart(fabric)?;
            noticed(fabric)?;
            as_later(fabric)
        });
        row(5, "back again, as at first", &mut |fabric| {
            door(fabric)?.join()?;
            restore(fabric)
        });
        report.check(&format!("{letter}6"), "a Service that stays answers all the time", || steady.stop());
    }
    if fabric.cluster.as_ref().is_some_and(|cluster| cluster.framework != Framework::Kubernetes) {
        standstill(report, fabric)?;
    }
    Ok(())
}

/// The edges' own APIs accept connections and say nothing: all of them, for an edge that hears of the change ends its
/// tunnel to the one that does not.
fn standstill(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    report.title("The edge's own API stands still");
    let steady = Steady::start(fabric, NODE, "cloud-pod")?;
    report.check("h1", "the cloud changes, and the edge does not", || {
        fabric.cluster.as_ref().context("no cluster")?.edges.values().for_each(EdgeApi::freeze);
        change(fabric)?;
        as_before(fabric)
    });
    report.check("h2", "when it goes on, it is as it ought to be", || {
        fabric.cluster.as_ref().context("no cluster")?.edges.values().for_each(EdgeApi::thaw);
        as_later(fabric)
    });
    report.check("h3", "changed again, as at first", || restore(fabric));
    report.check("h4", "a Service that stays answers all the time", || steady.stop());
    Ok(())
}

fn door(fabric: &mut Fabric) -> Result<&mut super::cloud::Cloud> {
    Ok(&mut fabric.cluster.as_mut().context("no cluster")?.cloud)
}

/// Removes, moves and adds Services, and takes a member out of the community.
fn change(fabric: &mut Fabric) -> Result<()> {
    fabric.manifests.write_services(&fabric.lab, &services_later())?;
    fabric.manifests.write_community(&BOTH[..1])?;
    wait("the operator's answer", BACK, || {
        let written = fabric.written(fabric.lab.node(NODE)?)?;
        let peers = written["peers"].as_array().context("no peers")?;
        ensure!(peers.iter().all(|peer| peer["name"] != OTHER), "{OTHER} is still a peer of {NODE}");
        Ok(())
    })
}

/// Waits until the agent says that it is cut off, where it can tell: caches answer as if they were not.
fn noticed(fabric: &Fabric) -> Result<()> {
    let patience = match fabric.cluster.as_ref().map(|cluster| cluster.framework) {
        Some(Framework::Kubeedge | Framework::KubeedgeTls) => BACK,
        Some(Framework::Kubernetes) => NOTICED,
        _ => return Ok(()),
    };
    wait("that the agent notices", patience, || {
        let status = fabric.status(NODE)?;
        let source = status.source.context("no source in its status")?;
        ensure!(source.reach != "online" || !source.errors.is_empty(), "{source:?}");
        Ok(())
    })
}

/// The edge's API and the agent, as after a power cut that spares the kernel.
fn restart(fabric: &mut Fabric) -> Result<()> {
    fabric.kill(NODE)?;
    let cluster = fabric.cluster.as_mut().context("no cluster")?;
    if cluster.framework != Framework::Kubernetes {
        cluster.edge(NODE)?.restart()?;
    }
    fabric.start_program(NODE)?;
    fabric.await_status(NODE, "a configuration", |status| {
        ensure!(status.config.generation > 0, "none yet");
        Ok(())
    })
}

fn as_before(fabric: &mut Fabric) -> Result<String> {
    in_force(fabric, &SERVICES, true)?;
    Ok(format!("{} Services, {OTHER} is a peer", SERVICES.len()))
}

fn restore(fabric: &mut Fabric) -> Result<String> {
    fabric.manifests.write_community(&BOTH)?;
    fabric.manifests.write_services(&fabric.lab, &SERVICES)?;
    let start = Instant::now();
    wait("all as at first", BACK, || in_force(fabric, &SERVICES, true))?;
    Ok(format!("after {:.1} s", start.elapsed().as_secs_f64()))
}

fn as_later(fabric: &mut Fabric) -> Result<String> {
    let start = Instant::now();
    let services = services_later();
    wait("the new state", BACK, || in_force(fabric, &services, false))?;
    Ok(format!("after {:.1} s", start.elapsed().as_secs_f64()))
}

/// Whether exactly these Services answer on the edge, and whether it has the other edge for a peer.
fn in_force(fabric: &Fabric, services: &[Service], joined: bool) -> Result<()> {
    let node = fabric.lab.node(NODE)?;
    known(fabric, services)?;
    // Those of the other edge alone are behind the tunnel to it.
    let reached: Vec<Service> = services.iter().filter(|s| joined || s.nodes != ["edge-2"]).copied().collect();
    served(&fabric.lab, node, &reached)?;
    for gone in SERVICES.iter().filter(|service| services.iter().all(|other| other.name != service.name)) {
        ensure!(served(&fabric.lab, node, std::slice::from_ref(gone)).is_err(), "Service {} still answers", gone.name);
    }
    let peers = fabric.status(NODE)?.peers;
    ensure!(peers.iter().any(|peer| peer.name == OTHER) == joined, "{OTHER} is a peer: {}", !joined);
    Ok(())
}

/// Whether the agent itself knows exactly these Services, and slices of those with endpoints: what it does not know goes
/// to the connector, which serves it too.
fn known(fabric: &Fabric, services: &[Service]) -> Result<()> {
    let path = fabric.folders(fabric.lab.node(NODE)?).run.join("services");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    // `Service/2 331 default cloud-pod …`, `EndpointSlice/2 505 default cloud-pod-ipv4 cloud-pod …`
    let named = |kind: &str, word: usize| -> BTreeSet<&str> {
        let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let ours = lines.filter(|words| {
            words.first().is_some_and(|word| word.split('/').next() == Some(kind))
                && words.get(3) != Some(&"kubernetes")
        });
        ours.filter_map(|words| words.get(word).copied()).collect()
    };
    let expected = |all: bool| -> BTreeSet<&str> {
        services.iter().filter(|service| all || !service.nodes.is_empty()).map(|service| service.name).collect()
    };
    ensure!(named("Service", 3) == expected(true), "it knows the Services {:?}", named("Service", 3));
    let slices = named("EndpointSlice", 4);
    ensure!(slices.is_superset(&expected(false)), "it knows slices of {slices:?}");
    Ok(())
}
