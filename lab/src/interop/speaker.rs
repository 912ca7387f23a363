//! Our key exchange alone, on real sockets: the `ikectl` example of `selvedge-ike`, which prints a line per event.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use anyhow::{Context, Result, bail};

use super::site::{PATIENCE, Place, Site, piped};
use crate::programs::find;

/// A running `ikectl`.
pub struct Speaker {
    child: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Speaker {
    /// Starts at `place`; calls `peer` if there is one, else waits to be called.
    pub fn start(site: &Site, place: Place, peer: Option<Place>, options: &[&str]) -> Result<Self> {
        let folder = site.folder("speaker")?;
        site.authority().issue(place.name())?.write_as(&folder, "ca.pem", "cert.pem", "key.pem")?;
        let mut command = site.host(place).command(find("examples/ikectl")?);
        let other = place.other();
        let role = if peer.is_some() { "initiator" } else { "responder" };
        command.args(["--role", role, "--name", place.name(), "--peer", other.name(), "--local", place.address()]);
        command.args(["--local-ts", place.networks(), "--remote-ts", other.networks()]);
        command.arg("--certs").arg(&folder).args(options);
        if let Some(peer) = peer {
            command.arg("--remote").arg(format!("{}:4500", peer.address()));
        }
        let mut child = piped(command, &folder.join("ikectl.log"))?;
        let commands = child.stdin.take().context("standard input")?;
        let output = child.stdout.take().context("standard output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, commands, lines, seen: Vec::new() })
    }

    /// Gives a command.
    pub fn command(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.commands, "{line}")?)
    }

    /// Waits for the next line that begins so.
    pub fn expect(&mut self, beginning: &str) -> Result<String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.starts_with(beginning) {
                        return Ok(line.chars().take(60).collect());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no \"{beginning}\" within {} s: {}", PATIENCE.as_secs(), self.tail())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("ikectl ended: {}", self.tail()),
            }
        }
    }

    /// Asks for the status until it holds these words; the error it tells.
    pub fn await_status(&mut self, words: &str) -> Result<String> {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            self.command("status")?;
            self.expect("status ")?;
            let line = self.seen.last().cloned().unwrap_or_default();
            if line.contains(words) {
                let reason = line.split("reason: \"").nth(1).and_then(|rest| rest.split('"').next());
                return Ok(reason.unwrap_or(words).to_owned());
            }
            if std::time::Instant::now() > end {
                bail!("\"{words}\" is not in the status: {line}");
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Whether a line that begins so has been read.
    pub fn saw(&self, beginning: &str) -> bool {
        self.seen.iter().any(|line| line.starts_with(beginning))
    }

    fn tail(&self) -> String {
        self.seen[self.seen.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
