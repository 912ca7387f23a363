//! The laboratory's rows in a Kubernetes: the operator on the API server, the agents fed by what stands for it on the
//! edges.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cluster::NAMESPACE;
use super::framework::Framework;
use super::offline;
use crate::demo;
use crate::fabric::{Fabric, Options, served};
use crate::manifests::SERVICES;
use crate::programs::wait;
use crate::table::Report;

const LIMIT: Duration = Duration::from_secs(60);

/// The 48 rows and those of our own.
pub fn run(framework: Framework, options: &Options) -> Result<ExitCode> {
    with(framework, options, |report, fabric| {
        report.check("k1", "the agents say which API they ask", || source(fabric));
        if framework.is_secure() {
            report.check("k2", "without a token the API says nothing", || refused(fabric));
        }
        report.check("k3", "an agent that knows nothing learns all Services", || learn(fabric));
        demo::every_row(report, fabric, None)
    })
}

/// What happens without the cloud.
pub fn offline(framework: Framework, options: &Options) -> Result<ExitCode> {
    with(framework, options, offline::run)
}

fn with(
    framework: Framework,
    options: &Options,
    rows: impl FnOnce(&mut Report, &mut Fabric) -> Result<()>,
) -> Result<ExitCode> {
    let mut report = Report::new();
    report.title(&format!("Setting up: {}", framework.name()));
    let mut fabric = Fabric::start_on(framework, options, &report)?;
    rows(&mut report, &mut fabric).with_context(|| fabric.logs())?;
    if report.failed() > 0 {
        println!("{}", fabric.logs());
    }
    Ok(report.finish())
}

fn source(fabric: &Fabric) -> Result<String> {
    let framework = fabric.cluster.as_ref().context("no cluster")?.framework;
    for node in ["edge-1", "edge-2"] {
        fabric.await_status(node, "its source", |status| {
            let source = status.source.as_ref().context("no source in its status")?;
            ensure!(source.kind == framework.word(), "{source:?}");
            Ok(())
        })?;
    }
    Ok(framework.word().to_owned())
}

/// Whoever is nobody may not read what is the node's.
fn refused(fabric: &mut Fabric) -> Result<String> {
    let node = "edge-1";
    let api = fabric.cluster.as_mut().context("no cluster")?.edge(node)?.api("selvedge-lab", None)?;
    let answer = api.ask("GET", &format!("/api/v1/namespaces/{NAMESPACE}/secrets/selvedge-node-{node}"), None)?;
    ensure!(matches!(answer.status, 401 | 403), "{}", answer.said());
    Ok(answer.status.to_string())
}

/// Here every Service and every slice is in the first list, where those before saw them come by watches.
fn learn(fabric: &mut Fabric) -> Result<String> {
    let node = "edge-1";
    let folders = fabric.folders(fabric.lab.node(node)?);
    fabric.clean(node)?;
    for folder in [&folders.run, &folders.state] {
        ensure!(!folder.join("services").exists(), "clean leaves {}", folder.join("services").display());
    }
    fabric.start_program(node)?;
    let start = Instant::now();
    wait("all Services", LIMIT, || served(&fabric.lab, fabric.lab.node(node)?, &SERVICES))?;
    fabric.await_keyed(node)?;
    Ok(format!("after {:.1} s", start.elapsed().as_secs_f64()))
}
