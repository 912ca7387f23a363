//! The server that every pod and every node runs: it says who it is and whom it sees.
//!
//! TCP, one request line, then: `WHO` → one line of JSON; `PUT <bytes>` and the bytes → their checksum; `GET <bytes>` →
//! so many bytes of the pattern; `ECHO` → every line comes back. UDP: `WHO` → the line of JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::{RecvFlags, Shutdown, recvfrom, shutdown};
use serde::{Deserialize, Serialize};

use crate::netns::Netns;

/// Where every server listens, TCP and UDP.
pub const PORT: u16 = 8080;

/// Stands in every payload, so that plain text on a wire is found.
pub const MARKER: &str = "selvedge-lab-plain-text-marker";

const IDLE: Duration = Duration::from_secs(60);

/// What a server says about itself and its client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Name of the pod, or `host-<node>`.
    pub name: String,
    /// The node it runs on.
    pub node: String,
    /// The client's address as the server saw it.
    pub client: SocketAddr,
    /// Always [`MARKER`].
    pub marker: String,
}

/// A running server; it ends on drop.
#[derive(Debug)]
pub struct Server {
    tcp: TcpListener,
    udp: Vec<UdpSocket>,
}

impl Server {
    /// Listens in the namespace: TCP on every address, UDP on the given ones (so that answers leave from the address
    /// that was asked).
    pub fn start(ns: &Netns, name: &str, node: &str, addresses: &[IpAddr]) -> Result<Self> {
        let (tcp, udp) = ns.enter(|| {
            let tcp = TcpListener::bind(("::", PORT)).context("listen on TCP")?;
            let udp = addresses
                .iter()
                .map(|address| UdpSocket::bind((*address, PORT)).with_context(|| format!("bind UDP to {address}")))
                .collect::<Result<Vec<_>>>()?;
            Ok((tcp, udp))
        })?;
        let who = (name.to_owned(), node.to_owned());
        for socket in &udp {
            let (socket, who) = (socket.try_clone()?, who.clone());
            std::thread::spawn(move || serve_udp(&socket, &who));
        }
        let listener = tcp.try_clone()?;
        std::thread::spawn(move || serve_tcp(&listener, &who));
        Ok(Self { tcp, udp })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the threads; an unconnected UDP socket wakes although the call itself fails.
        let _ = shutdown(&self.tcp, Shutdown::Both);
        for socket in &self.udp {
            let _ = shutdown(socket, Shutdown::Both);
        }
    }
}

/// `length` bytes in which the marker stands again and again, each time with another number.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    let mut line = 0u32;
    while bytes.len() < length {
        bytes.extend_from_slice(format!("{MARKER} {line:08}\n").as_bytes());
        line += 1;
    }
    bytes.truncate(length);
    bytes
}

/// FNV-1a, 64 bits: enough to see bytes lost, doubled or swapped.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

type Who = (String, String);

fn answer(who: &Who, client: SocketAddr) -> String {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let answer = Answer { name: who.0.clone(), node: who.1.clone(), client, marker: MARKER.to_owned() };
    serde_json::to_string(&answer).unwrap_or_default() + "\n"
}

fn serve_udp(socket: &UdpSocket, who: &Who) {
    let mut buffer = [0; 2048];
    // A socket that was shut down gives an empty datagram without a sender, at which `UdpSocket::recv_from` panics.
    while let Ok((_, _, Some(client))) = recvfrom(socket, &mut buffer, RecvFlags::empty()) {
        if let Ok(client) = SocketAddr::try_from(client) {
            let _ = socket.send_to(answer(who, client).as_bytes(), client);
        }
    }
}

fn serve_tcp(listener: &TcpListener, who: &Who) {
    while let Ok((stream, client)) = listener.accept() {
        let who = who.clone();
        std::thread::spawn(move || converse(stream, client, &who));
    }
}

fn converse(mut stream: TcpStream, client: SocketAddr, who: &Who) -> Option<()> {
    stream.set_read_timeout(Some(IDLE)).ok()?;
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let verb = words.next()?;
    let length = || words.clone().next().and_then(|word| word.parse::<usize>().ok());
    match verb {
        "WHO" => stream.write_all(answer(who, client).as_bytes()).ok()?,
        "GET" => stream.write_all(&pattern(length()?)).ok()?,
        "PUT" => {
            let mut bytes = Vec::new();
            reader.take(length()? as u64).read_to_end(&mut bytes).ok()?;
            stream.write_all(format!("{} {:016x}\n", bytes.len(), checksum(&bytes)).as_bytes()).ok()?;
        }
        "ECHO" => loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                break;
            }
            stream.write_all(line.as_bytes()).ok()?;
        },
        _ => {}
    }
    stream.shutdown(std::net::Shutdown::Write).ok()
}
