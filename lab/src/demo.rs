//! The runs a person looks at: the demonstration, and the matrix with all its rows.

use std::ops::RangeInclusive;
use std::process::ExitCode;

use anyhow::Result;

use crate::capture::Capture;
use crate::extra;
use crate::fabric::{Fabric, Options};
use crate::matrix;
use crate::router::Wan;
use crate::table::Report;
use crate::topology::PICTURE;

/// Picture, set-up, 48 rows, verdict on the wire, tunnel times.
pub fn run(options: &Options) -> Result<ExitCode> {
    println!("Selvedge: cloud and edge as one encrypted pod network, on a laboratory of network namespaces\n{PICTURE}");
    let mut report = Report::new();
    let fabric = set_up(options, &report)?;
    let capture = start_capture(&fabric)?;
    report.title("Every way between cloud and edge: a TCP connection whose answer is checked, and a ping");
    matrix::run(&mut report, &fabric, |_| true)?;
    println!();
    let verdict = capture.stop()?;
    report.verdict("only ESP and IKE between the sites, no plain text", &extra::judge(&verdict));
    for (node, peer, time) in &fabric.set_up {
        println!("tunnel {node} - {peer}: up {:.2} s after the programs started", time.as_secs_f64());
    }
    Ok(report.finish())
}

/// As the demonstration, with the rows of our own; or only some of the 48.
pub fn matrix(options: &Options, rows: Option<&str>) -> Result<ExitCode> {
    let selection = rows.map(matrix::selection).transpose()?;
    let mut report = Report::new();
    let fabric = set_up(options, &report)?;
    every_row(&mut report, &fabric, selection.as_deref())?;
    Ok(report.finish())
}

/// The 48 rows, or some of them; with all of them the rows of our own; and what stood on the wire meanwhile.
pub fn every_row(report: &mut Report, fabric: &Fabric, selection: Option<&[RangeInclusive<u32>]>) -> Result<()> {
    let capture = start_capture(fabric)?;
    report.title("The 48 rows");
    matrix::run(report, fabric, |id| selection.is_none_or(|s| s.iter().any(|r| r.contains(&id))))?;
    if selection.is_none() {
        report.title("Rows of our own");
        extra::run(report, fabric);
    }
    let verdict = capture.stop()?;
    report.check("w1", "only ESP and IKE between the sites", || extra::judge(&verdict));
    Ok(())
}

fn set_up(options: &Options, report: &Report) -> Result<Fabric> {
    report.title("Setting up");
    let fabric = Fabric::start(options, report)?;
    let status = fabric.status("edge-1")?;
    report.progress(&format!("ready: ESP in the {}, rules by {}", space(&status.datapath), status.firewall));
    Ok(fabric)
}

fn start_capture(fabric: &Fabric) -> Result<Capture> {
    Capture::start(&fabric.lab.wan.ns, Wan::BRIDGE, &fabric.lab.dir.join("wan.pcap"))
}

fn space(datapath: &str) -> &str {
    if datapath == "user" { "user space" } else { datapath }
}
