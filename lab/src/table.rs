//! What is printed: progress, rows, the last line.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Counts rows as it prints them.
#[derive(Debug)]
pub struct Report {
    passed: usize,
    failed: Vec<String>,
    colour: bool,
    start: Instant,
}

impl Report {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { passed: 0, failed: Vec::new(), colour, start: Instant::now() }
    }

    /// How many rows have failed.
    pub fn failed(&self) -> usize {
        self.failed.len()
    }

    /// A headline.
    pub fn title(&self, text: &str) {
        println!("\n{}", self.paint("1", text));
        flush();
    }

    /// Something done on the way, with the time since the start.
    pub fn progress(&self, text: &str) {
        println!("  {:>6.1} s  {text}", self.start.elapsed().as_secs_f64());
        flush();
    }

    /// One row: its number, what it is, how long it took and what came out.
    pub fn row(&mut self, number: &str, what: &str, took: Duration, outcome: &Result<String>) {
        let time = format!("{:>8.1} ms", took.as_secs_f64() * 1000.0);
        match outcome {
            Ok(detail) => {
                self.passed += 1;
                println!("{number:>4}  {what:<47} {time}  {}  {detail}", self.paint("32", "pass"));
            }
            Err(error) => {
                self.failed.push(format!("{number} {what}"));
                println!("{number:>4}  {what:<47} {time}  {}", self.paint("31", "FAIL"));
                for line in format!("{error:#}").lines() {
                    println!("        {line}");
                }
            }
        }
        flush();
    }

    /// Runs and prints a row.
    pub fn check(&mut self, number: &str, what: &str, check: impl FnOnce() -> Result<String>) {
        let start = Instant::now();
        let outcome = check();
        self.row(number, what, start.elapsed(), &outcome);
    }

    /// A judgement on all rows together: counted only if it fails.
    pub fn verdict(&mut self, what: &str, outcome: &Result<String>) {
        match outcome {
            Ok(detail) => println!("{what}: {}  {detail}", self.paint("32", "pass")),
            Err(error) => {
                self.failed.push(what.to_owned());
                println!("{what}: {}\n        {error:#}", self.paint("31", "FAIL"));
            }
        }
        flush();
    }

    /// Names the failed rows again and prints the last line; the exit code.
    pub fn finish(self) -> ExitCode {
        println!();
        for row in &self.failed {
            println!("failed: {row}");
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        flush();
        if self.failed.is_empty() && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn flush() {
    let _ = std::io::stdout().flush();
}
