//! Clients that ask over TCP (RFC 7766).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use selvedge_linux::poll::Interest;

use super::exchange::{framed, whole};

/// For how long a client may say nothing.
const IDLE: Duration = Duration::from_secs(10);

/// A question is shorter.
const MAX_QUESTION: usize = 4096;

/// Answers that a client has not taken, in octets, before no more of its questions are read.
const MAX_OUTPUT: usize = 128 << 10;

/// Questions of one client that wait for an upstream.
const MAX_WAITING: usize = 16;

pub(super) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Questions without an answer yet.
    pub(super) waiting: usize,
    /// When it has been silent for too long.
    pub(super) ends: Duration,
}

impl Connection {
    pub(super) fn new(now: Duration, stream: TcpStream) -> std::io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection { stream, input: Vec::new(), output: Vec::new(), waiting: 0, ends: now + IDLE })
    }

    pub(super) fn interest(&self) -> Interest {
        let busy = self.output.len() >= MAX_OUTPUT || self.waiting >= MAX_WAITING;
        match (busy, self.output.is_empty()) {
            // Only its end, or a question too much, would wake us.
            (true, true) => Interest::none(),
            (_, true) => Interest::readable(&self.stream),
            (_, false) => Interest::readable(&self.stream).or_writable(),
        }
    }

    /// Reads what is there. False if nothing comes any more.
    pub(super) fn read(&mut self, now: Duration) -> bool {
        let mut buffer = [0; MAX_QUESTION];
        if self.output.len() >= MAX_OUTPUT || self.waiting >= MAX_WAITING {
            return true;
        }
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                self.ends = now + IDLE;
                self.input.len() <= 4 * MAX_QUESTION
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// The next question, if all of it is there.
    pub(super) fn question(&mut self) -> Option<Vec<u8>> {
        if self.output.len() >= MAX_OUTPUT || self.waiting >= MAX_WAITING {
            return None;
        }
        let question = whole(&self.input)?.to_vec();
        self.input.drain(..2 + question.len());
        Some(question)
    }

    pub(super) fn answer(&mut self, now: Duration, message: &[u8]) {
        self.output.extend_from_slice(&framed(message));
        self.ends = now + IDLE;
    }

    /// Writes what fits. False if nobody takes it.
    pub(super) fn write(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return false,
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            }
        }
        true
    }
}
