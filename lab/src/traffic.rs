//! A steady stream of pings whose every reply is noted, to count what is lost and to see when it flows again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::netns::{Netns, kill};
use crate::pace;

/// Pings that go on until they are stopped.
#[derive(Debug)]
pub struct Traffic {
    child: Child,
    replies: Arc<Replies>,
    reader: Option<JoinHandle<()>>,
    to: IpAddr,
}

/// By sequence number: when the request was sent.
#[derive(Debug, Default)]
struct Replies {
    sent: Mutex<BTreeMap<u32, Instant>>,
    changed: Condvar,
}

impl Traffic {
    /// Starts, and waits for the first reply.
    pub fn start(from: &Netns, to: IpAddr, interval: Duration) -> Result<Self> {
        let traffic = Self::attempt(from, to, interval)?;
        traffic.await_replies(1)?;
        Ok(traffic)
    }

    /// Starts, whether anybody answers or not.
    pub fn attempt(from: &Netns, to: IpAddr, interval: Duration) -> Result<Self> {
        let mut command = Command::new("ping");
        command.args(["-n", "-i", &interval.as_secs_f64().to_string(), &to.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = from.enter(|| Ok(command.spawn()?))?;
        let output = child.stdout.take().context("output of ping")?;
        let replies = Arc::new(Replies::default());
        let reader = Some(std::thread::spawn({
            let replies = Arc::clone(&replies);
            move || replies.read(output)
        }));
        Ok(Self { child, replies, reader, to })
    }

    /// Waits for so many further replies.
    pub fn await_replies(&self, count: usize) -> Result<()> {
        let target = self.replies.lock().len() + count;
        let came = self.replies.wait(Duration::from_secs(30), |sent| (sent.len() >= target).then_some(()));
        came.with_context(|| format!("{} does not answer", self.to))
    }

    /// Waits for the reply to a request that was sent after the event; the time from the event to that reply.
    pub fn await_recovery(&self, event: Instant, deadline: Duration) -> Result<Duration> {
        let came = self.replies.wait(deadline, |sent| sent.values().any(|at| *at > event).then(|| event.elapsed()));
        came.with_context(|| format!("{} did not answer again within {}", self.to, pace::words(deadline)))
    }

    /// Ends the stream; how many requests were answered or lost, and how many lost.
    pub fn stop(mut self) -> Result<(u32, u32)> {
        kill(self.child.id(), Signal::INT);
        self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            ensure!(reader.join().is_ok(), "the reader of ping panicked");
        }
        let sent = self.replies.lock();
        // The last requests may still have been on their way.
        let last = sent.last_key_value().map_or(0, |(sequence, _)| *sequence);
        Ok((last, last - u32::try_from(sent.len())?))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Replies {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Instant>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, deadline: Duration, ready: impl Fn(&BTreeMap<u32, Instant>) -> Option<T>) -> Option<T> {
        let end = Instant::now() + pace::limit(deadline);
        let mut sent = self.lock();
        loop {
            if let Some(value) = ready(&sent) {
                return Some(value);
            }
            let left = end.checked_duration_since(Instant::now())?;
            sent = self.changed.wait_timeout(sent, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn read(&self, output: ChildStdout) {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some((sequence, time)) = reply(&line) {
                let at = Instant::now().checked_sub(time).unwrap_or_else(Instant::now);
                let mut sent = self.lock();
                let highest = sent.last_key_value().map(|(number, _)| *number);
                sent.insert(unwrapped(highest, sequence), at);
                drop(sent);
                self.changed.notify_all();
            }
        }
    }
}

/// The number of a request whose last 16 bits stand in the reply, by the highest number seen so far.
fn unwrapped(highest: Option<u32>, sequence: u32) -> u32 {
    const WRAP: u32 = 1 << 16;
    let highest = highest.unwrap_or(0);
    let number = highest - highest % WRAP + sequence;
    if number + WRAP / 2 < highest {
        number + WRAP
    } else if number > highest + WRAP / 2 && number >= WRAP {
        number - WRAP
    } else {
        number
    }
}

/// Sequence number and round-trip time of a reply line.
fn reply(line: &str) -> Option<(u32, Duration)> {
    let value = |key: &str| line.split_once(key)?.1.split_whitespace().next();
    let time: f64 = value("time=")?.parse().ok()?;
    Some((value("icmp_seq=")?.parse().ok()?, Duration::from_secs_f64(time / 1000.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_where_they_wrap() {
        assert_eq!(unwrapped(None, 1), 1);
        assert_eq!(unwrapped(Some(7), 9), 9);
        assert_eq!(unwrapped(Some(65_535), 0), 65_536);
        assert_eq!(unwrapped(Some(65_536), 65_535), 65_535);
        assert_eq!(unwrapped(Some(3 * 65_536 + 2), 65_530), 2 * 65_536 + 65_530);
    }

    #[test]
    fn only_replies_count() {
        let line = "64 bytes from 10.0.0.1: icmp_seq=7 ttl=64 time=1.50 ms";
        assert_eq!(reply(line), Some((7, Duration::from_micros(1500))));
        assert_eq!(reply("From 10.0.0.1 icmp_seq=8 Destination Host Unreachable"), None);
    }
}
