//! Odd kernels: something is missing, and two agents come up nevertheless, or say why not; `doctor` names what is missing
//! and the package that brings it. Each kernel is a guest that cannot find some of its modules or is started in an odd way.

mod rows;
mod site;

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::suite;
use crate::table::Report;
use crate::topology::RunDir;
use rows::BOOTS;

/// Boots each kernel in turn and prints the rows of all, with one count at the end.
pub fn run(only: &str) -> Result<ExitCode> {
    let (mut passed, mut failed) = (0, 0);
    for (index, boot) in BOOTS.iter().enumerate() {
        if !boot.rows.iter().any(|row| row.what.contains(only)) {
            continue;
        }
        println!("\n{}", boot.title());
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["guest", "--memory", "384M", "--timeout", "900"]);
        if !boot.without.is_empty() {
            command.args(["--without", &boot.without.join(",")]);
        }
        if let Some(argument) = boot.argument {
            command.args(["--boot", argument]);
        }
        command.args(["--", "odd-kernels", "--inside", &index.to_string(), "--only", only]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start a guest")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        let mut counted = None;
        for line in output.lines().map_while(Result::ok) {
            counted = suite::count(&line).or(counted);
            if suite::count(&line).is_none() && !line.is_empty() {
                println!("{line}");
            }
        }
        let status = child.wait()?;
        let (more, bad) = counted.unwrap_or((0, usize::from(!status.success())));
        (passed, failed) = (passed + more, failed + bad);
    }
    println!("\n{passed} passed, {failed} failed");
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The rows of one boot, on the kernel that runs this.
pub fn run_inside(boot: usize, only: &str) -> Result<ExitCode> {
    let boot = BOOTS.get(boot).context("no such boot")?;
    let dir = RunDir::create(false)?;
    let mut report = Report::new();
    for row in boot.rows.iter().filter(|row| row.what.contains(only)) {
        report.check("", row.what, || site::check(row, &dir));
    }
    Ok(report.finish())
}
