//! A network namespace for the length of a test, made and used by `ip netns`.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Netns {
    name: String,
}

impl Netns {
    pub fn new() -> Self {
        let name = format!("plan{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        must("ip", Command::new("ip").args(["netns", "add", &name]).output().unwrap());
        let netns = Netns { name };
        netns.run("ip link set lo up");
        netns
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command line of plain words, run inside; its standard output.
    pub fn run(&self, line: &str) -> String {
        self.feed(line, "")
    }

    /// The same with text on standard input.
    pub fn feed(&self, line: &str, input: &str) -> String {
        match self.try_feed(line, input) {
            Ok(output) => output,
            Err(problem) => panic!("{line}: {problem}\n{input}"),
        }
    }

    pub fn try_feed(&self, line: &str, input: &str) -> Result<String, String> {
        let mut child = self.spawn(&line.split_whitespace().collect::<Vec<_>>());
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub fn spawn(&self, words: &[&str]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn must(what: &str, output: Output) {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}
