//! Questions over TLS (RFC 7858): one connection to each server that is asked so, with all its questions on it.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use selvedge_dns::Transmit;
use selvedge_linux::poll::Interest;
use selvedge_linux::tcp;
use selvedge_model::NameServer;

use super::exchange::{framed, whole};
use crate::clock::Clock;
use crate::source::tls;
use crate::{Error, Result};

/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A server that says nothing for so long lost the connection, or what is between did; the next question opens another.
const SILENCE: Duration = Duration::from_secs(2);

/// The same before it is there.
const BEGIN: Duration = Duration::from_secs(4);

/// Sessions that can be taken up again.
const SESSIONS: usize = 8;

/// Whom to believe that he is the server.
pub(super) struct Trust {
    authorities: String,
    state_dir: PathBuf,
    /// Made when it is needed first.
    config: Option<Arc<ClientConfig>>,
}

impl Trust {
    /// By authorities in PEM, or by those of this system.
    pub(super) fn new(authorities: String, state_dir: &Path) -> Trust {
        Trust { authorities, state_dir: state_dir.to_owned(), config: None }
    }

    /// The same authorities as the configuration's.
    pub(super) fn is_by(&self, authorities: &str) -> bool {
        self.authorities == authorities
    }

    fn config(&mut self) -> Result<Arc<ClientConfig>> {
        if let Some(config) = &self.config {
            return Ok(Arc::clone(config));
        }
        let mut roots = RootCertStore::empty();
        let mut take =
            |pem: &[u8]| roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten()).0 > 0;
        let found = if self.authorities.is_empty() {
            SYSTEM.iter().any(|file| std::fs::read(file).is_ok_and(|pem| take(&pem)))
        } else {
            take(self.authorities.as_bytes())
        };
        if !found {
            let why = match self.authorities.is_empty() {
                true => {
                    "this system has no certificate authorities (package ca-certificates or ca-bundle); `dns.authorities` can name some"
                }
                false => "`dns.authorities` holds no certificate that can be read",
            };
            return Err(Error::new(why));
        }
        let mut config = tls::client(roots, Clock::new(&self.state_dir))?;
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Arc::clone(self.config.insert(Arc::new(config))))
    }
}

/// The connection to a server.
pub(super) struct Channel {
    stream: TcpStream,
    tls: ClientConnection,
    input: Vec<u8>,
    /// Questions without an answer.
    waiting: Vec<Transmit>,
    /// The server answered over it.
    proven: bool,
    /// Since when it owes an answer.
    owing: Duration,
}

impl Channel {
    pub(super) fn open(now: Duration, server: &NameServer, trust: &mut Trust) -> Result<Channel> {
        let name = server.tls.as_deref().unwrap_or_default().to_owned();
        let name = ServerName::try_from(name).map_err(|_| Error::new("not a server name"))?;
        let tls = ClientConnection::new(trust.config()?, name).map_err(|error| Error::new(error.to_string()))?;
        let stream = tcp::connect(server.address).map_err(|error| Error::new(error.to_string()))?;
        Ok(Channel { stream, tls, input: Vec::new(), waiting: Vec::new(), proven: false, owing: now })
    }

    /// Takes a question; [`Channel::advance`] sends it.
    pub(super) fn ask(&mut self, now: Duration, transmit: Transmit) -> io::Result<()> {
        if self.waiting.is_empty() {
            self.owing = now;
        }
        self.tls.writer().write_all(&framed(&transmit.payload))?;
        self.waiting.push(transmit);
        Ok(())
    }

    pub(super) fn interest(&self) -> Interest {
        let interest = Interest::readable(&self.stream);
        if self.tls.wants_write() { interest.or_writable() } else { interest }
    }

    /// Goes on. Gives the exchanges that have an answer, with it; an error ends the connection, after these.
    pub(super) fn advance(&mut self, now: Duration, answers: &mut Vec<(u32, Vec<u8>)>) -> io::Result<()> {
        let result = self.write().and_then(|()| self.read()).and_then(|()| self.write());
        while let Some(message) = whole(&self.input).map(<[u8]>::to_vec) {
            self.input.drain(..2 + message.len());
            self.owing = now;
            self.proven = true;
            // Two questions may have the same number: whose answer it is, their names tell.
            let asked = self.waiting.iter().filter(|asked| number(&asked.payload) == number(&message));
            answers.extend(asked.map(|asked| (asked.exchange, message.clone())));
        }
        result
    }

    /// Forgets questions that nobody waits for any more, and tells whether the connection is of use.
    pub(super) fn keep(&mut self, now: Duration, is_open: impl Fn(u32) -> bool) -> bool {
        let patience = if self.tls.is_handshaking() { BEGIN } else { SILENCE };
        let silent = !self.waiting.is_empty() && self.owing + patience <= now;
        self.waiting.retain(|asked| is_open(asked.exchange));
        !silent
    }

    /// Whether the server answered over it, and what it did not answer.
    pub(super) fn close(self) -> (bool, Vec<Transmit>) {
        (self.proven, self.waiting)
    }

    /// When it will have been silent for too long.
    pub(super) fn ends(&self) -> Option<Duration> {
        let patience = if self.tls.is_handshaking() { BEGIN } else { SILENCE };
        (!self.waiting.is_empty()).then_some(self.owing + patience)
    }

    fn write(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) => return not_yet(error),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        loop {
            match self.tls.read_tls(&mut self.stream) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return not_yet(error),
            }
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            let mut clear = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut clear)?;
            self.input.extend_from_slice(&clear);
            if state.peer_has_closed() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn number(message: &[u8]) -> Option<u16> {
    message.first_chunk().map(|number| u16::from_be_bytes(*number))
}

fn not_yet(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected => Ok(()),
        _ => Err(error),
    }
}
