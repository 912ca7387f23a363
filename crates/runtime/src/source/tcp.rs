//! Connections that are known to be dead soon after the server has gone without a word.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use selvedge_linux::tcp::keep_alive;
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, TcpConnector, Transport,
};

/// After so long a silence the kernel asks for a sign of life, three times with such pauses: a packet of 60 bytes each
/// way.
const IDLE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(10);
const TRIES: u8 = 3;

/// Connects.
#[derive(Debug)]
pub(super) struct Tcp {
    /// Whether the kernel asks now and then if the server is still there.
    pub(super) watchful: bool,
}

impl Connector for Tcp {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<()>) -> Result<Option<Self::Out>, Error> {
        if !self.watchful {
            let plain = TcpConnector::default().connect(details, chained)?;
            return Ok(plain.map(|transport| Box::new(transport) as Box<dyn Transport>));
        }
        let patience = *details.timeout.after / u32::try_from(details.addrs.len().max(1)).unwrap_or(1);
        let mut refused = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in &*details.addrs {
            match TcpStream::connect_timeout(address, patience) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    keep_alive(&stream, IDLE, PAUSE, TRIES).map_err(io::Error::other)?;
                    let config = details.config;
                    let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Some(Box::new(Watched { stream, buffers })));
                }
                Err(error) => refused = error,
            }
        }
        Err(refused.into())
    }
}

#[derive(Debug)]
struct Watched {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for Watched {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        self.stream.set_write_timeout(timeout.not_zero().map(|time| *time))?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output).map_err(|error| in_time(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        self.stream.set_read_timeout(timeout.not_zero().map(|time| *time))?;
        let length = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(|error| in_time(error, timeout))?,
            }
        };
        self.buffers.input_appended(length);
        Ok(length > 0)
    }

    /// Nothing comes unasked.
    fn is_open(&mut self) -> bool {
        let silent = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        silent.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) && self.stream.set_nonblocking(false).is_ok()
    }
}

fn in_time(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}
