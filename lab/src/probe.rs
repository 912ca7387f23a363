//! Clients: real connections, datagrams and pings from within a namespace, each with a deadline.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Netns;
use crate::pace;
use crate::server::{Answer, MARKER, checksum, pattern};

/// How long one probe may take, on a machine of normal speed.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Asks the server over TCP who it is.
pub fn who_tcp(from: &Netns, to: SocketAddr, deadline: Duration) -> Result<Answer> {
    let text = converse(from, to, deadline, |stream| {
        writeln!(stream, "WHO {MARKER}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    })
    .with_context(|| format!("TCP to {to}"))?;
    serde_json::from_str(&text).with_context(|| format!("TCP to {to}: answer {text:?}"))
}

/// Asks the server with one datagram who it is.
pub fn who_udp(from: &Netns, to: SocketAddr, deadline: Duration) -> Result<Answer> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    who_udp_as(from, SocketAddr::new(any, 0), to, deadline)
}

/// The same from this address and port.
pub fn who_udp_as(from: &Netns, own: SocketAddr, to: SocketAddr, deadline: Duration) -> Result<Answer> {
    let deadline = pace::limit(deadline);
    from.enter(|| {
        let socket = UdpSocket::bind(own)?;
        // Connected: an answer from another address than the one asked is none.
        socket.connect(to)?;
        socket.set_read_timeout(Some(deadline))?;
        socket.send(format!("WHO {MARKER}").as_bytes())?;
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer)?;
        Ok(serde_json::from_slice(&buffer[..length])?)
    })
    .with_context(|| format!("UDP to {to}"))
}

/// Opens a connection and closes it.
pub fn connect(from: &Netns, to: SocketAddr, deadline: Duration) -> Result<()> {
    from.enter(|| Ok(TcpStream::connect_timeout(&to, pace::limit(deadline)).map(drop)?))
        .with_context(|| format!("TCP to {to}"))
}

/// Sends one datagram and waits for the same to come back.
pub fn echo(from: &Netns, to: SocketAddr, deadline: Duration) -> Result<()> {
    from.enter(|| {
        let socket = UdpSocket::bind((IpAddr::from([0; 4]), 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(pace::limit(deadline)))?;
        socket.send(MARKER.as_bytes())?;
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer)?;
        ensure!(buffer[..length] == *MARKER.as_bytes(), "something else came back");
        Ok(())
    })
    .with_context(|| format!("UDP to {to}"))
}

/// Sends and fetches so many bytes and compares them.
pub fn bulk_tcp(from: &Netns, to: SocketAddr, bytes: usize, deadline: Duration) -> Result<Duration> {
    let sent = pattern(bytes);
    let expected = format!("{bytes} {:016x}", checksum(&sent));
    let start = Instant::now();
    let said = converse(from, to, deadline, |stream| {
        writeln!(stream, "PUT {bytes}")?;
        stream.write_all(&sent)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    })
    .with_context(|| format!("send {bytes} bytes to {to}"))?;
    ensure!(said.trim() == expected, "sent {expected}, {to} received {}", said.trim());
    let received = converse(from, to, deadline, |stream| {
        writeln!(stream, "GET {bytes}")?;
        let mut received = Vec::new();
        stream.read_to_end(&mut received)?;
        Ok(received)
    })
    .with_context(|| format!("fetch {bytes} bytes from {to}"))?;
    ensure!(received == sent, "{to} sent {} bytes that differ from the {bytes} expected", received.len());
    Ok(start.elapsed())
}

/// One echo request; its round-trip time.
pub fn ping(from: &Netns, to: IpAddr, deadline: Duration) -> Result<Duration> {
    ping_with(from, to, deadline, "")
}

/// One echo request of `size` bytes as an IP packet, not to be fragmented on the way.
pub fn ping_sized(from: &Netns, to: IpAddr, size: usize, deadline: Duration) -> Result<Duration> {
    let headers = if to.is_ipv4() { 28 } else { 48 };
    ping_with(from, to, deadline, &format!("-M do -s {}", size.saturating_sub(headers)))
}

fn ping_with(from: &Netns, to: IpAddr, deadline: Duration, options: &str) -> Result<Duration> {
    let text = from.run(&format!("ping -n -c 1 -W {} {options} {to}", pace::limit(deadline).as_secs().max(1)))?;
    let time = text.split_once("time=").and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<f64>().ok());
    match time {
        Some(milliseconds) => Ok(Duration::from_secs_f64(milliseconds / 1000.0)),
        None => bail!("ping {to}: no time in {text:?}"),
    }
}

fn converse<T: Send>(
    from: &Netns,
    to: SocketAddr,
    deadline: Duration,
    talk: impl FnOnce(&mut TcpStream) -> std::io::Result<T> + Send,
) -> Result<T> {
    let deadline = pace::limit(deadline);
    from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&to, deadline).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(deadline))?;
        stream.set_write_timeout(Some(deadline))?;
        talk(&mut stream).context("talk")
    })
}
