//! Whom everybody trusts changes while everything runs: another authority, certificates that count no longer, devices
//! with keys of their own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Lossless, within};
use crate::exec;
use crate::fabric::Fabric;
use crate::pace;
use crate::probe;
use crate::programs::{Program, find, wait};
use crate::table::Report;
use crate::topology::{CONNECTOR_PUBLIC, Net};

const SECONDS: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
/// On the connector's public address.
const FEED: u16 = 24443;

/// Another authority takes over in three steps, and nobody loses a packet.
pub fn replaced(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    let first = authorities(fabric, "edge-1")?;
    let traffic = [Lossless::start(fabric, ("edge-1", "cloud-2"))?, Lossless::start(fabric, ("edge-2", "edge-1"))?];
    let grace = pace::limit(SECONDS).as_secs();
    let manifest = std::fs::read_to_string(fabric.manifests.dir.join("cluster.yaml"))?;
    report.check("16a", "everybody trusts the old and the new authority", || {
        change(fabric, |cluster| {
            cluster["metadata"]["annotations"] = json!({"selvedge.dev/rotate-ca": "lab"});
            cluster["spec"]["rotationGraceSeconds"] = json!(grace);
        })?;
        everywhere(fabric, "two authorities", |there| there.len() == 2 && there.contains(&first[0]))?;
        traffic.iter().try_for_each(Lossless::goes_on)?;
        Ok("traffic goes on".to_owned())
    });
    report.check("16b", "everybody gets a certificate by the new one", || {
        everywhere(fabric, "the new authority signs", |there| there.len() == 2 && there[0] != first[0])?;
        traffic.iter().try_for_each(Lossless::goes_on)?;
        Ok("traffic goes on".to_owned())
    });
    report.check("16c", "the old one goes, none lost", || {
        everywhere(fabric, "one authority", |there| there.len() == 1 && there[0] != first[0])?;
        // Whoever was let in by the old one proves itself anew.
        fabric.await_keyed("edge-1")?;
        fabric.await_keyed("cloud-1")?;
        traffic.into_iter().map(Lossless::stop).collect::<Result<Vec<_>>>().map(|all| all.join("; "))
    });
    report.check("16d", "a program that starts anew is let in by the new one", || {
        fabric.clean("edge-2")?;
        fabric.start_program("edge-2")?;
        fabric.await_keyed("edge-2")?;
        Ok("accepted".to_owned())
    });
    crate::manifests::replace(&fabric.manifests.dir.join("cluster.yaml"), &manifest)
}

/// A node is revoked: its tunnels end at once everywhere, the others feel nothing, and it comes back when it is forgiven.
pub fn revoked(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    const OTHERS: [&str; 2] = ["cloud-1", "edge-1"];
    let manifest = std::fs::read_to_string(fabric.manifests.dir.join("cluster.yaml"))?;
    report.check("17a", "a revoked edge loses its tunnels at once, others keep theirs", || {
        let traffic = Lossless::start(fabric, ("edge-1", "cloud-2"))?;
        change(fabric, |cluster| cluster["spec"]["revoked"] = json!(["edge-2"]))?;
        let changed = Instant::now();
        for node in OTHERS {
            fabric.await_status(node, "no tunnel to the revoked edge", |status| {
                let peer = status.peer("beijing.edge-2")?;
                let reason = peer.last_error.as_deref().unwrap_or_default();
                ensure!(peer.state != "up" && reason == "certificate of beijing.edge-2 was revoked", "{reason}");
                Ok(())
            })?;
        }
        let took = within(changed.elapsed(), SECONDS)?;
        let (from, to) = (fabric.lab.place(Net::Pod, "edge-2")?, fabric.lab.place(Net::Pod, "cloud-2")?);
        ensure!(probe::ping(from.ns, to.address(true)?, Duration::from_secs(1)).is_err(), "it still reaches the cloud");
        Ok(format!("{took}; {}", traffic.stop()?))
    });
    report.check("17b", "it stays out with its old certificate, whatever it tries", || {
        fabric.clean("edge-2")?;
        fabric.start_program("edge-2")?;
        let reason = fabric.await_status("cloud-1", "the caller is refused", |status| {
            let refused = status.refused.iter().find(|r| r.claimed.as_deref() == Some("beijing.edge-2"));
            let refused = refused.filter(|r| r.reason.ends_with("was revoked"));
            refused.map(|r| r.reason.clone()).context("nobody was refused")
        })?;
        Ok(reason)
    });
    report.check("17c", "forgiven, it gets a new certificate and its tunnels", || {
        crate::manifests::replace(&fabric.manifests.dir.join("cluster.yaml"), &manifest)?;
        fabric.await_keyed("edge-2")?;
        fabric.traffic("edge-2", "cloud-2")?;
        Ok("back".to_owned())
    });
    Ok(())
}

/// An edge makes its own key, enrols by a token and follows the operator.
pub fn enrolled(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    const NODE: &str = "edge-1";
    let server = format!("https://{CONNECTOR_PUBLIC}:{FEED}");
    fabric.operator.terminate()?;
    let (manifests, output) = (fabric.manifests.dir.clone(), fabric.output.clone());
    let listen = format!("{CONNECTOR_PUBLIC}:{FEED}");
    let [from, to] = [&manifests, &output].map(|path| path.to_string_lossy().into_owned());
    let arguments = ["run", "--manifests", &from, "--out", &to, "--feed-listen", &listen];
    fabric.operator =
        Program::start(&fabric.lab.node("cloud-1")?.ns, &fabric.lab.dir, "selvedge-operator", &arguments)?;
    let state = fabric.folders(fabric.lab.node(NODE)?).state;
    report.check("18a", "a device enrols by a one-time token", || {
        fabric.clean(NODE)?;
        let token = || {
            let mut command = Command::new(find("selvedge-operator")?);
            command.args(["token", "--out", &to, "--node", NODE, "--server", &server]);
            exec::run(&mut command).map(|text| text.trim().to_owned())
        };
        let token = wait("a token", MINUTE, token)?;
        let enrol = |state: &Path| {
            let mut command = Command::new(find("selvedge-agent")?);
            command.args(["enroll", &token, "--state-dir"]).arg(state);
            fabric.lab.node(NODE)?.ns.enter(|| exec::run(&mut command))
        };
        let said = wait("enrolment", MINUTE, || enrol(&state))?;
        let again = enrol(&fabric.lab.dir.join("stolen"));
        ensure!(again.is_err(), "the token is good twice");
        Ok(said.trim().to_owned())
    });
    report.check("18b", "it follows the operator: a change arrives, none lost", || {
        fabric.start_program_in(NODE, "export SELVEDGE_SOURCE=operator")?;
        fabric.await_keyed(NODE)?;
        // What is sent before the way is there would count as lost.
        drop(fabric.traffic(NODE, "cloud-2")?);
        let traffic = Lossless::start(fabric, (NODE, "cloud-2"))?;
        let config = |members: &[&str], there: bool| {
            fabric.manifests.write_community(members)?;
            let changed = Instant::now();
            fabric.await_status(NODE, "the change of the community", |status| {
                ensure!(status.peer("beijing.edge-2").is_ok() == there, "not yet");
                Ok(())
            })?;
            within(changed.elapsed(), SECONDS)
        };
        let left = config(&["beijing.edge-1"], false)?;
        let back = config(&["beijing.edge-1", "beijing.edge-2"], true)?;
        Ok(format!("{left}, {back}; {}", traffic.stop()?))
    });
    report.check("18c", "it comes up with the operator out of reach", || {
        fabric.operator.terminate()?;
        fabric.kill(NODE)?;
        fabric.start_program_in(NODE, "export SELVEDGE_SOURCE=operator")?;
        fabric.await_keyed(NODE)?;
        fabric.start_operator()?;
        Ok("from what it kept".to_owned())
    });
    fabric.clean(NODE)?;
    fabric.start_program(NODE)?;
    fabric.await_keyed(NODE)
}

/// Changes the manifest of the cluster.
fn change(fabric: &Fabric, change: impl FnOnce(&mut Value)) -> Result<()> {
    let path = fabric.manifests.dir.join("cluster.yaml");
    let mut cluster = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    change(&mut cluster);
    crate::manifests::replace(&path, &serde_json::to_string_pretty(&cluster)?)
}

/// Waits until what is delivered to every node is as it should be.
fn everywhere(fabric: &Fabric, what: &str, good: impl Fn(&[String]) -> bool) -> Result<()> {
    for node in &fabric.lab.nodes {
        wait(&format!("{}: {what}", node.name), MINUTE, || {
            let there = authorities(fabric, &node.name)?;
            ensure!(good(&there), "{} authorities", there.len());
            Ok(())
        })?;
    }
    Ok(())
}

/// The authorities that a node is given, the one that signs first.
fn authorities(fabric: &Fabric, node: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(fabric.output.join(node).join("tls/ca.crt"))?;
    Ok(text.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect())
}
