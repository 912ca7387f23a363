//! Gateways live on flash: it wears out with writing, is mounted read-only, and is full.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::fabric::Fabric;
use crate::netns::kill;
use crate::table::Report;
use crate::trace::Trace;

const NODE: &str = "edge-1";

/// No file is written by what happens every day; without a place to write, everything works.
pub fn run(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    report.check("13a", "no file is written by what happens every day", || {
        let pids = [fabric.programs[NODE].pid(), fabric.process(NODE, "keeper")?];
        let run = fabric.folders(fabric.lab.node(NODE)?).run;
        let trace = Trace::start(&pids, &fabric.lab.dir.join("trace"))?;
        every_day(fabric)?;
        let (calls, changes) = trace.stop(&run)?;
        ensure!(changes.is_empty(), "{}", changes.join("\n"));
        ensure!(calls > 30, "only {calls} calls were seen");
        Ok(format!("{calls} calls, all of them only read"))
    });
    let state = fabric.folders(fabric.lab.node(NODE)?).state;
    let state = state.to_string_lossy().into_owned();
    report.check("13b", "everything read-only but the run directory", || {
        let run = fabric.folders(fabric.lab.node(NODE)?).run;
        let script = format!(
            "mount --bind {run} {run}
             for m in / $(df -P {run}/.. | awk 'NR == 2 {{ print $6 }}'); do mount -o remount,bind,ro $m; done
             mount -t tmpfs -o ro tmpfs {state}
             ! touch {run}/../x 2>/dev/null",
            run = run.display()
        );
        lives(fabric, &script, "Read-only file system")
    });
    report.check("13c", "the disk is full", || {
        let script = format!("mount -t tmpfs -o size=4k tmpfs {state}; ! head -c 8k /dev/zero >{state}/x 2>/dev/null");
        lives(fabric, &script, "ENOSPC")
    });
    report.check("13d", "and mended", || {
        fabric.kill(NODE)?;
        fabric.start_program(NODE)?;
        fabric.await_keyed(NODE)?;
        let problems = fabric.status(NODE)?.problems;
        ensure!(problems.is_empty(), "{problems:?}");
        Ok("the state directory is written again".to_owned())
    });
    Ok(())
}

/// The other end restarts, the provider gives another address, a cable is pulled, a hangup.
fn every_day(fabric: &mut Fabric) -> Result<()> {
    fabric.clean("cloud-1")?;
    fabric.start_program("cloud-1")?;
    fabric.await_keyed(NODE)?;
    let edge = fabric.lab.node(NODE)?;
    edge.ns.ip("link set eth0 down\nlink set eth0 up\nroute add default via 192.168.11.1")?;
    kill(fabric.programs[NODE].pid(), Signal::HUP);
    fabric.clean("edge-2")?;
    fabric.start_program("edge-2")?;
    fabric.await_keyed("edge-2")?;
    fabric.await_keyed(NODE)
}

/// Started anew with another generation, so that there is something to keep: tunnels are keyed, status and the log say what
/// is wrong, and not twice.
fn lives(fabric: &mut Fabric, script: &str, wrong: &str) -> Result<String> {
    let before = fabric.programs[NODE].log().len();
    fabric.kill(NODE)?;
    fabric.start_program_in(NODE, script)?;
    fabric.await_keyed(NODE)?;
    let problem = fabric.await_status(NODE, "what is wrong", |status| {
        let problem = status.problems.iter().find(|problem| problem.contains(wrong));
        problem.cloned().with_context(|| format!("{:?}", status.problems))
    })?;
    // As often as something comes to be kept, it cannot be.
    for _ in 0..3 {
        kill(fabric.programs[NODE].pid(), Signal::HUP);
        fabric.status(NODE)?;
    }
    touch(&fabric.folders(fabric.lab.node(NODE)?).config)?;
    fabric.await_keyed(NODE)?;
    let log = fabric.programs[NODE].log();
    let mut said: Vec<&str> = log[before..].lines().filter(|line| line.contains(wrong)).collect();
    let lines = said.len();
    said.sort_unstable();
    said.dedup();
    ensure!(lines > 0 && lines == said.len(), "said more than once:\n{}", &log[before..]);
    Ok(problem)
}

/// Has it read again: the time changes, the content does not.
fn touch(path: &Path) -> Result<()> {
    let text = std::fs::read(path)?;
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
