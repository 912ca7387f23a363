//! Everything that proves the fabric works, in one run: the matrix with either firewall and either datapath, and the
//! scenarios with either datapath. What runs on this machine's kernel and what runs in the guest go side by side, and so
//! does what measures quiet tunnels.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::netns::kill;

/// Lines shown of a job that breaks off.
const LAST: usize = 12;

/// Process ids of the jobs that run.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

struct Job {
    what: &'static str,
    arguments: &'static str,
}

const HERE: [Job; 3] = [
    Job { what: "matrix: user space, nftables", arguments: "matrix --datapath user --firewall nftables" },
    Job { what: "scenarios: user space, nftables", arguments: "scenario all --datapath user --firewall nftables" },
    Job {
        what: "matrix: user space, iptables, no root",
        arguments: "matrix --datapath user --firewall iptables --user nobody",
    },
];

const GUEST: [Job; 3] = [
    Job {
        what: "matrix: kernel, iptables, no root",
        arguments: "guest -- matrix --datapath kernel --firewall iptables --user nobody",
    },
    Job {
        what: "scenarios: kernel, iptables",
        arguments: "guest -- scenario all --datapath kernel --firewall iptables",
    },
    Job { what: "odd kernels", arguments: "odd-kernels" },
];

/// These only wait, so they keep nobody waiting.
const QUIET: [Job; 3] = [
    Job { what: "idle: user space", arguments: "idle --hours 0.02 --datapath user" },
    Job { what: "idle: ten tunnels", arguments: "idle --hours 0.02 --tunnels 10" },
    Job { what: "idle: kernel", arguments: "guest -- idle --hours 0.02 --datapath kernel" },
];

#[derive(Debug)]
struct Outcome {
    what: &'static str,
    took: Duration,
    passed: usize,
    failed: usize,
}

/// Runs all jobs, each as a program of its own, prints the failed rows as they come and a summary; the exit code.
pub fn run() -> Result<ExitCode> {
    let start = Instant::now();
    let outcomes = Mutex::new(Vec::new());
    let lane = |jobs: &[Job]| -> Result<()> {
        for job in jobs {
            let outcome = job.run().with_context(|| job.what)?;
            println!("{outcome}");
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let aside = [scope.spawn(|| lane(&GUEST)), scope.spawn(|| lane(&QUIET))];
        let here = lane(&HERE);
        let join =
            |lane: std::thread::ScopedJoinHandle<'_, _>| lane.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
        aside.into_iter().map(join).fold(here, Result::and)
    })?;
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (passed, failed) = outcomes.iter().fold((0, 0), |sum, o| (sum.0 + o.passed, sum.1 + o.failed));
    println!("\n{:.0} s altogether\n{passed} passed, {failed} failed", start.elapsed().as_secs_f64());
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ends the jobs that run; each takes its laboratory down.
pub fn stop() {
    running().drain(..).for_each(|pid| kill(pid, Signal::TERM));
}

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, took, passed, failed } = self;
        write!(f, "{what:<38} {:>6.1} s  {passed:>3} passed, {failed} failed", took.as_secs_f64())
    }
}

impl Job {
    fn run(&self) -> Result<Outcome> {
        println!("{:<38} started", self.what);
        let start = Instant::now();
        let mut child = Command::new(std::env::current_exe()?)
            .args(self.arguments.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start")?;
        running().push(child.id());
        let mut seen = Seen::default();
        let output = child.stdout.take().context("its output")?;
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if seen.matters(&line) {
                println!("  {}: {line}", self.what);
            }
        }
        // No longer to be ended once its number may be another's.
        running().retain(|pid| *pid != child.id());
        let status = child.wait()?;
        let (passed, mut failed) = seen.count.unwrap_or_default();
        if !status.success() && failed == 0 {
            // It ended before it had counted anything.
            seen.last.iter().for_each(|line| println!("  {}: {line}", self.what));
            failed = 1;
        }
        Ok(Outcome { what: self.what, took: start.elapsed(), passed, failed })
    }
}

/// What of a job's output has been read.
#[derive(Default)]
struct Seen {
    count: Option<(usize, usize)>,
    failure: bool,
    last: VecDeque<String>,
}

impl Seen {
    /// Whether a line is to be shown: a failed row, and what it says until the next row.
    fn matters(&mut self, line: &str) -> bool {
        self.last.push_back(line.to_owned());
        if self.last.len() > LAST {
            self.last.pop_front();
        }
        self.count = count(line).or(self.count);
        self.failure = if line.contains("  FAIL") {
            true
        } else {
            self.failure && !line.is_empty() && !line.contains("  pass  ") && count(line).is_none()
        };
        self.failure
    }
}

/// Reads `N passed, N failed`.
pub fn count(line: &str) -> Option<(usize, usize)> {
    let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
    Some((passed.parse().ok()?, failed.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_rows_are_shown_with_their_reasons_and_the_rest_is_not() {
        let output = "\
  1a  one                  1.0 ms  pass  fine
  1b  two                  1.0 ms  FAIL
        because
        of this
  1c  three                1.0 ms  pass  fine

failed: 1b two
2 passed, 1 failed";
        let mut seen = Seen::default();
        let shown: Vec<&str> = output.lines().filter(|line| seen.matters(line)).map(str::trim).collect();
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert_eq!(shown[1..], ["because", "of this"]);
        assert_eq!(seen.count, Some((2, 1)));
        assert_eq!(count("baseline passed, 1 failed"), None);
    }
}
