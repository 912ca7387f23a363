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

use crate::guest;
use crate::netns::kill;

/// Lines shown of a job that breaks off.
const LAST: usize = 12;

/// Process ids of the jobs that run.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// A command of this program.
#[derive(Debug)]
pub struct Job {
    /// What it is called in the summary.
    pub what: String,
    /// Its arguments, none of which has a space in it.
    pub arguments: String,
}

const HERE: [(&str, &str); 3] = [
    ("matrix: user space, nftables", "matrix --datapath user --firewall nftables"),
    ("scenarios: user space, nftables", "scenario all --datapath user --firewall nftables"),
    ("matrix: user space, iptables, no root", "matrix --datapath user --firewall iptables --user nobody"),
];

/// Everything there takes one processor of those that the other lanes use as well.
const GUEST: [(&str, &str); 3] = [
    (
        "matrix: kernel, iptables, no root",
        "guest --slower 2 -- matrix --datapath kernel --firewall iptables --user nobody",
    ),
    ("scenarios: kernel, iptables", "guest --slower 2 -- scenario all --datapath kernel --firewall iptables"),
    ("odd kernels", "odd-kernels"),
];

/// These only wait, so they keep nobody waiting.
const QUIET: [(&str, &str); 3] = [
    ("idle: user space", "idle --hours 0.02 --datapath user"),
    ("idle: ten tunnels", "idle --hours 0.02 --tunnels 10"),
    ("idle: kernel", "guest -- idle --hours 0.02 --datapath kernel"),
];

#[derive(Debug)]
struct Outcome {
    what: String,
    took: Duration,
    passed: usize,
    failed: usize,
    /// Processor time of a guest, in seconds.
    cpu: Option<u32>,
    /// Its failed rows, or its last lines.
    failures: Vec<String>,
}

/// The whole test.
pub fn run() -> Result<ExitCode> {
    let lane = |jobs: &[(&str, &str)]| {
        let job =
            |(what, arguments): &(&str, &str)| Job { what: (*what).to_owned(), arguments: (*arguments).to_owned() };
        jobs.iter().map(job).collect()
    };
    run_lanes(vec![lane(&HERE), lane(&GUEST), lane(&QUIET)])
}

/// Runs jobs, each as a program of its own, one lane beside the other; prints the failed rows as they come, and again
/// after a summary; the exit code.
pub fn run_lanes(lanes: Vec<Vec<Job>>) -> Result<ExitCode> {
    let start = Instant::now();
    let outcomes = Mutex::new(Vec::new());
    let run = |jobs: Vec<Job>| -> Result<()> {
        for job in jobs {
            let outcome = job.run().with_context(|| job.what.clone())?;
            println!("{outcome}");
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = lanes.into_iter().map(|jobs| scope.spawn(|| run(jobs))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by(|a, b| a.what.cmp(&b.what));
    println!();
    outcomes.iter().for_each(|outcome| println!("{outcome}"));
    outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).for_each(|Outcome { what, failures, .. }| {
        println!("\n{what}:\n{}", failures.join("\n"));
    });
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
        let Self { what, took, passed, failed, cpu, .. } = self;
        write!(f, "{what:<38} {:>6.1} s  {passed:>3} passed, {failed} failed", took.as_secs_f64())?;
        cpu.map_or(Ok(()), |cpu| write!(f, ", {cpu} s of processor time"))
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
        let mut failures = Vec::new();
        let output = child.stdout.take().context("its output")?;
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if seen.matters(&line) {
                println!("  {}: {line}", self.what);
                failures.push(line);
            }
        }
        // No longer to be ended once its number may be another's.
        running().retain(|pid| *pid != child.id());
        let status = child.wait()?;
        let (passed, mut failed) = seen.count.unwrap_or_default();
        if !status.success() && failed == 0 {
            // It ended before it had counted anything.
            seen.last.iter().for_each(|line| println!("  {}: {line}", self.what));
            failures.extend(seen.last);
            failed = 1;
        }
        Ok(Outcome { what: self.what.clone(), took: start.elapsed(), passed, failed, cpu: seen.cpu, failures })
    }
}

/// What of a job's output has been read.
#[derive(Default)]
struct Seen {
    count: Option<(usize, usize)>,
    cpu: Option<u32>,
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
        self.cpu = guest::cpu_seconds(line).or(self.cpu);
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
