//! Connections from clients, and what waits to be told.

use super::message::{Report, Request, Welcome};
use selvedge_linux::BATCH;
use selvedge_linux::seqpacket::{Connection, MAX_MESSAGE};
use std::collections::VecDeque;
use std::io;
use zeroize::Zeroize;

/// IKE datagrams kept while there is no client.
const MAX_KEPT: usize = 64;
/// News of passing worth kept for a client that does not read.
const MAX_WAITING: usize = 256;
/// A client that asks so much and reads none of the answers is broken.
const MAX_ANSWERS: usize = 4096;

/// What the client is to be told, in order.
#[derive(Default)]
pub(super) struct Mailbox {
    waiting: VecDeque<Letter>,
}

struct Letter {
    message: Vec<u8>,
    /// Worth telling the next client, too.
    lasting: bool,
}

impl Mailbox {
    /// Whether as much IKE as is read at once can be kept.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() + BATCH <= MAX_KEPT
    }

    pub(super) fn is_overfull(&self) -> bool {
        self.waiting.len() > MAX_ANSWERS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// An answer; the client waits for it.
    pub(super) fn answer(&mut self, report: &Report) {
        self.waiting.push_back(Letter { message: report.encode(), lasting: false });
    }

    /// News that count whoever is the client; the oldest give way.
    pub(super) fn lasting(&mut self, report: &Report) {
        while self.waiting.len() >= MAX_KEPT {
            let Some(oldest) = self.waiting.iter().position(|letter| letter.lasting) else { return };
            self.waiting.remove(oldest);
        }
        self.waiting.push_back(Letter { message: report.encode(), lasting: true });
    }

    /// News for the present client only.
    pub(super) fn passing(&mut self, report: &Report) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(Letter { message: report.encode(), lasting: false });
        }
    }

    /// The client has changed: it hears who we are, then what was kept.
    pub(super) fn welcome(&mut self, welcome: Welcome) {
        self.client_left();
        self.waiting.push_front(Letter { message: Report::Welcome(welcome).encode(), lasting: false });
    }

    pub(super) fn client_left(&mut self) {
        self.waiting.retain(|letter| letter.lasting);
    }

    /// Sends what the client takes; an error means that it is gone.
    pub(super) fn flush(&mut self, client: &Connection) -> io::Result<()> {
        while let Some(letter) = self.waiting.front() {
            match client.send(&letter.message) {
                Ok(()) => self.waiting.pop_front(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }
}

/// Reads requests into one buffer that is wiped after each.
pub(super) struct Inbox(Vec<u8>);

impl Inbox {
    pub(super) fn new() -> Self {
        Inbox(vec![0; MAX_MESSAGE])
    }

    /// The next request; `None` when there is none now. An error means that the connection is of no more use.
    pub(super) fn next(&mut self, connection: &Connection) -> io::Result<Option<Request>> {
        let len = match connection.recv(&mut self.0) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let request = Request::decode(&self.0[..len]);
        self.0[..len].zeroize();
        request.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}
