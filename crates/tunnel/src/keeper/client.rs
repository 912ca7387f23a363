//! The other end of the keeper's socket.

use super::message::{Malformed, Report, Request, VERSION, Welcome};
use super::options::socket;
use super::{Mode, Options};
use selvedge_linux::Error;
use selvedge_linux::poll::{Interest, poll};
use selvedge_linux::process::spawn_detached;
use selvedge_linux::seqpacket::{Connection, MAX_MESSAGE};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// A keeper answers at once; one that does not within this time hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connection to a keeper.
pub struct Client {
    connection: Connection,
    welcome: Welcome,
    buffer: Vec<u8>,
}

/// Why there is no keeper to talk to, or no more.
#[derive(Debug)]
pub enum ClientError {
    /// The keeper has ended, or another client has taken over.
    Closed,
    /// It does not answer.
    Silent,
    /// It speaks another version of the protocol.
    Version(u16),
    /// It said what no keeper says.
    Malformed(Malformed),
    /// The connection cannot be made or used.
    System(Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Closed => f.write_str("the keeper closed the connection"),
            ClientError::Silent => f.write_str("the keeper does not answer"),
            ClientError::Version(version) => write!(f, "the keeper speaks version {version}, this is {VERSION}"),
            ClientError::Malformed(error) => error.fmt(f),
            ClientError::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                ClientError::Closed
            }
            _ => ClientError::System(error.into()),
        }
    }
}

type Result<T> = std::result::Result<T, ClientError>;

impl Client {
    /// Becomes the client of the keeper of `run_dir`; `None` if none runs.
    pub fn connect(run_dir: &Path) -> Result<Option<Self>> {
        let Some(connection) = dial(run_dir)? else { return Ok(None) };
        let welcome = greet(&connection)?;
        if welcome.version != VERSION {
            return Err(ClientError::Version(welcome.version));
        }
        Ok(Some(Client { connection, welcome, buffer: vec![0; MAX_MESSAGE] }))
    }

    /// Becomes the client of a keeper like `options`: of the one that runs, or, if there is none or it has another
    /// version or mode, of a new one, started as `program verb <options>`.
    ///
    /// To send another keeper away ends its tunnels.
    pub fn spawn(program: &Path, verb: &str, options: &Options) -> Result<Self> {
        match Self::connect(&options.run_dir) {
            Ok(Some(client)) if client.welcome.mode == options.mode => return Ok(client),
            // Closed: it was just ending.
            Ok(None) | Err(ClientError::Closed) => {}
            Ok(Some(_)) | Err(ClientError::Version(_)) => drop(stop(&options.run_dir)?),
            Err(error) => return Err(error),
        }
        std::fs::create_dir_all(&options.run_dir)?;
        let mut args = options.to_args();
        args.insert(0, verb.into());
        spawn_detached(program, &args, Some(&options.log())).map_err(ClientError::System)?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            match Self::connect(&options.run_dir) {
                Ok(Some(client)) => return Ok(client),
                Ok(None) | Err(ClientError::Closed) => {}
                Err(error) => return Err(error),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(ClientError::System(Error::new(format!("no keeper came up, see {}", options.log().display()))))
    }

    /// What the keeper said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Who carries ESP.
    pub fn mode(&self) -> Mode {
        self.welcome.mode
    }

    /// Sends a request. It waits for a keeper that is busy, but not for the request to be carried out.
    ///
    /// Requests are carried out in order; one that fails is answered by [`Report::Refused`].
    pub fn send(&self, request: &Request) -> Result<()> {
        send(&self.connection, request)
    }

    /// Ends the keeper once it has carried out what it was sent before, and waits until it is gone.
    pub fn stop(self) -> Result<()> {
        send(&self.connection, &Request::Stop)?;
        await_end(&self.connection)
    }

    /// The next report; `None` when there is none now: wait until the descriptor is readable.
    pub fn recv(&mut self) -> Result<Option<Report>> {
        recv(&self.connection, &mut self.buffer)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.connection.as_raw_fd()
    }
}

/// Ends the keeper of `run_dir`, of whatever version, and waits until it is gone; false if none runs.
pub fn stop(run_dir: &Path) -> Result<bool> {
    let Some(connection) = dial(run_dir)? else { return Ok(false) };
    match send(&connection, &Request::Stop) {
        Err(ClientError::Closed) | Ok(()) => {}
        Err(error) => return Err(error),
    }
    await_end(&connection).map(|()| true)
}

/// Whether a keeper of `run_dir` is there, of whatever version.
pub fn runs(run_dir: &Path) -> bool {
    dial(run_dir).is_ok_and(|connection| connection.is_some())
}

fn await_end(connection: &Connection) -> Result<()> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let began = Instant::now();
    loop {
        match recv(connection, &mut buffer) {
            Err(ClientError::Closed) => return Ok(()),
            Ok(None) => wait(connection, began)?,
            Ok(Some(_)) | Err(ClientError::Malformed(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

fn dial(run_dir: &Path) -> Result<Option<Connection>> {
    match Connection::connect(socket(run_dir)) {
        Ok(connection) => Ok(Some(connection)),
        Err(error) => match error.errno().map(|errno| io::Error::from_raw_os_error(errno).kind()) {
            Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            _ => Err(ClientError::System(error)),
        },
    }
}

fn greet(connection: &Connection) -> Result<Welcome> {
    send(connection, &Request::Hello { version: VERSION })?;
    let mut buffer = vec![0; MAX_MESSAGE];
    let began = Instant::now();
    loop {
        match recv(connection, &mut buffer)? {
            Some(Report::Welcome(welcome)) => return Ok(welcome),
            Some(_) => return Err(ClientError::Silent),
            None => wait(connection, began)?,
        }
    }
}

fn send(connection: &Connection, request: &Request) -> Result<()> {
    let message = request.encode();
    let began = Instant::now();
    loop {
        match connection.send(&message) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if began.elapsed() > PATIENCE {
                    return Err(ClientError::Silent);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return Ok(result?),
        }
    }
}

fn recv(connection: &Connection, buffer: &mut [u8]) -> Result<Option<Report>> {
    match connection.recv(buffer) {
        Ok(0) => Err(ClientError::Closed),
        Ok(len) => Report::decode(&buffer[..len]).map(Some).map_err(ClientError::Malformed),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn wait(connection: &Connection, began: Instant) -> Result<()> {
    let left = PATIENCE.checked_sub(began.elapsed()).ok_or(ClientError::Silent)?;
    poll(&mut [Interest::readable(connection)], Some(left))?;
    Ok(())
}
