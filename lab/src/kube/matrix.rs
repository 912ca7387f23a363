//! The laboratory's rows in a Kubernetes: the operator on the API server, the agents fed by what stands for it on the
//! edges.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use super::framework::Framework;
use super::offline;
use crate::demo;
use crate::fabric::{Fabric, Options};
use crate::table::Report;

/// All rows.
pub fn run(framework: Framework, options: &Options) -> Result<ExitCode> {
    let mut report = Report::new();
    report.title(&format!("Setting up: {}", framework.word()));
    let mut fabric = Fabric::start_on(framework, options, &report)?;
    report.check("k1", "the agents say which API they ask", || {
        for node in ["edge-1", "edge-2"] {
            fabric.await_status(node, "its source", |status| {
                let source = status.source.as_ref().context("no source in its status")?;
                ensure!(source.kind == framework.word(), "{source:?}");
                Ok(())
            })?;
        }
        Ok(String::new())
    });
    demo::every_row(&mut report, &fabric, None)?;
    let failed = report.failed();
    offline::run(&mut report, &mut fabric).with_context(|| fabric.logs())?;
    if report.failed() > failed {
        println!("{}", fabric.logs());
    }
    Ok(report.finish())
}
