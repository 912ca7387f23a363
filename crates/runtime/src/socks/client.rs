//! The verb `connect`: a client of the program that runs here, for `ssh` and whatever else wants a pipe.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::unix::net::UnixStream;

use super::talk::{CONNECT, Code, IPV4, IPV6, NAME, NOBODY_ASKS, VERSION};
use crate::cli::Program;
use crate::error::Context as _;
use crate::{Error, Options, Result};

/// Joins standard input and output to a port of a host in the fabric, until either end closes.
pub(crate) fn connect(options: &Options, program: &Program, host: &str, port: u16) -> Result<()> {
    let socket = options.socks_socket();
    let mut stream = UnixStream::connect(&socket)
        .context(|| format!("{} does not run here ({})", program.name, socket.display()))?;
    let what = || format!("connect to {host}, port {port}");
    match ask(&mut stream, host, port).context(what)? {
        0 => {}
        code => return Err(Error::new(Code::words(code))).context(what),
    }
    let mut outgoing = stream.try_clone().context(what)?;
    // It ends with the program, at the latest.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut outgoing);
        let _ = outgoing.shutdown(Shutdown::Write);
    });
    pass(&mut stream).context(what)
}

/// The code of the answer.
fn ask(stream: &mut UnixStream, host: &str, port: u16) -> io::Result<u8> {
    stream.write_all(&[VERSION, 1, NOBODY_ASKS])?;
    stream.read_exact(&mut [0; 2])?;
    let (kind, place) = match host.parse() {
        Ok(IpAddr::V4(address)) => (IPV4, address.octets().to_vec()),
        Ok(IpAddr::V6(address)) => (IPV6, address.octets().to_vec()),
        Err(_) => {
            let length = u8::try_from(host.len()).map_err(|_| io::Error::other("the name is too long"))?;
            (NAME, [&[length], host.as_bytes()].concat())
        }
    };
    stream.write_all(&[&[VERSION, CONNECT, 0, kind], &place[..], &port.to_be_bytes()].concat())?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    Ok(answer[1])
}

/// Writes at once what comes: standard output would wait for the end of a line.
fn pass(stream: &mut impl Read) -> io::Result<()> {
    let mut output = io::stdout().lock();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        output.write_all(buffer.get(..length).unwrap_or_default())?;
        output.flush()?;
    }
}
