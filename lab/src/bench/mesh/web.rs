//! A web server and a UDP echo for the pods, small enough to be no part of what is measured.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::netns::Netns;

/// What `/large` is.
pub const LARGE: usize = 4 << 20;
/// What every other path is.
const SMALL: usize = 100;

/// Both servers; they end on drop.
pub struct Web {
    stop: Arc<AtomicBool>,
    address: SocketAddrV4,
    ns: String,
    threads: Vec<JoinHandle<()>>,
}

impl Web {
    /// Listens on both addresses in the namespace.
    pub fn start(ns: &Netns, web: SocketAddrV4, echo: SocketAddrV4) -> Result<Self> {
        let (listener, socket) = ns.enter(|| Ok((TcpListener::bind(web)?, UdpSocket::bind(echo)?)))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let flags = (stop.clone(), stop.clone());
        let accept = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if flags.0.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::spawn(move || drop(converse(&stream)));
            }
        });
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !flags.1.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Ok(Self { stop, address: web, ns: ns.name().to_owned(), threads: vec![accept, echo] })
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the one that accepts.
        let address = self.address;
        let _ = crate::netns::enter(&self.ns, || Ok(TcpStream::connect(address)?));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// HTTP/1.1 with keep-alive; requests have no body.
fn converse(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    let (mut line, mut large, mut close) = (String::new(), false, false);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end() {
            "" => {
                let length = if large { LARGE } else { SMALL };
                let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
                answer.resize(answer.len() + length, b'x');
                writer.write_all(&answer)?;
                if close {
                    return Ok(());
                }
            }
            head if head.starts_with("GET ") => large = head.starts_with("GET /large "),
            head => close |= head.eq_ignore_ascii_case("connection: close"),
        }
    }
}
