//! The verb `dns query`: asks the running server as a pod would, and shows where the answer is from.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use selvedge_dns::{MAX_UDP, Name, Rcode, Response, kind, question};

use super::exchange::framed;
use crate::error::Context as _;
use crate::status::DnsStatus;
use crate::{Error, Result};

/// Longer than the server waits for its upstreams.
const PATIENCE: Duration = Duration::from_secs(7);

/// Asks the server for a name. Returns the answer as text, and whether it is one.
pub(crate) fn ask(status: &DnsStatus, name: &str, kind: &str) -> Result<(String, bool)> {
    let wanted = Name::parse(name).ok_or_else(|| Error::new(format!("\"{name}\" is no name")))?;
    let number = kind::parse(kind).ok_or_else(|| Error::new(format!("\"{kind}\" is no type of records")))?;
    let address: Option<IpAddr> = status.addresses.first().and_then(|address| address.parse().ok());
    let address = address.ok_or_else(|| Error::new("this node answers no DNS"))?;
    let server = SocketAddr::new(address, super::PORT);
    let begin = Instant::now();
    let response = talk(server, &wanted, number).context(|| format!("ask {server}"))?;
    let took = begin.elapsed().as_micros();
    let mut out = String::new();
    for (owner, ttl, kind, data) in &response.answers {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{owner}  {ttl}  {kind}  {data}");
    }
    let outcome = match (response.rcode, response.answers.is_empty()) {
        (Rcode::NoError, false) => String::new(),
        (Rcode::NoError, true) => format!("there is no {} of that name; ", kind::name(number)),
        (Rcode::NxDomain, _) => "there is no such name (NXDOMAIN); ".to_owned(),
        (other, _) => format!("no answer ({}); ", other.name()),
    };
    let origin = response.origin.as_deref().unwrap_or("unknown");
    let _ = writeln!(out, "{outcome}from: {origin}; {}.{} ms", took / 1000, took / 100 % 10);
    Ok((out, response.rcode == Rcode::NoError && !response.answers.is_empty()))
}

fn talk(server: SocketAddr, name: &Name, kind: u16) -> std::io::Result<Response> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let id = std::process::id() as u16;
    let query = question(id, name, kind);
    socket.send(&query)?;
    let mut buffer = [0; MAX_UDP as usize];
    let length = socket.recv(&mut buffer)?;
    let unreadable = || std::io::Error::other("the answer cannot be read");
    let response =
        buffer.get(..length).and_then(|message| Response::read(message, id, name, kind)).ok_or_else(unreadable)?;
    if !response.truncated {
        return Ok(response);
    }
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&framed(&query))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Response::read(&message, id, name, kind).ok_or_else(unreadable)
}
