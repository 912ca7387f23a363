//! Small servers and clients inside namespaces: this very test program, started again by `ip netns exec`.
//!
//! A server answers `<its name> <the client's address as it sees it>`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Child;
use std::time::Duration;

use super::netns::Netns;

/// Longest wait for an answer that should come at once.
const PATIENCE: Duration = Duration::from_secs(5);
const VARIABLE: &str = "PLAN_TALK";

/// What the test named `talk` does: nothing, unless it was started as a helper.
pub fn helper() {
    let Ok(order) = std::env::var(VARIABLE) else { return };
    let words: Vec<&str> = order.split(' ').collect();
    match words.as_slice() {
        ["tcp", "serve", name, address] => serve_tcp(name, address.parse().unwrap()),
        ["udp", "serve", name, address] => serve_udp(name, address.parse().unwrap()),
        ["tcp", "call", to] => say(&call_tcp(to.parse().unwrap())),
        ["udp", "call", to, from] => say(&call_udp(to.parse().unwrap(), from.parse().unwrap())),
        ["udp", "send", to, from] => {
            UdpSocket::bind(SocketAddr::new(from.parse().unwrap(), 0))
                .unwrap()
                .send_to(b"?", to.parse::<SocketAddr>().unwrap())
                .unwrap();
            say("sent");
        }
        _ => panic!("{order}"),
    }
}

pub struct Server(Child);

impl Server {
    pub fn start(netns: &Netns, protocol: &str, name: &str, address: &str) -> Server {
        let mut child = start(netns, &format!("{protocol} serve {name} {address}"));
        assert_eq!(answer(&mut child), "ready");
        Server(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server's answer, or the kind of the error.
pub fn call(netns: &Netns, protocol: &str, to: &str) -> String {
    let any = if to.starts_with('[') { "::" } else { "0.0.0.0" };
    finish(start(netns, &if protocol == "tcp" { format!("tcp call {to}") } else { format!("udp call {to} {any}") }))
}

/// The same by UDP from a certain address.
pub fn call_from(netns: &Netns, from: &str, to: &str) -> String {
    finish(start(netns, &format!("udp call {to} {from}")))
}

/// One UDP packet that nobody needs to answer.
pub fn send_from(netns: &Netns, from: &str, to: &str) {
    assert_eq!(finish(start(netns, &format!("udp send {to} {from}"))), "sent");
}

fn start(netns: &Netns, order: &str) -> Child {
    let program = std::env::current_exe().unwrap();
    let variable = format!("{VARIABLE}={order}");
    netns.spawn(&["env", &variable, program.to_str().unwrap(), "--exact", "talk", "--nocapture"])
}

fn finish(mut child: Child) -> String {
    let line = answer(&mut child);
    child.wait().unwrap();
    line
}

/// The next line that a helper said; the test harness says other things too.
fn answer(child: &mut Child) -> String {
    let output = child.stdout.as_mut().unwrap();
    let mut lines = BufReader::new(output).lines().map(Result::unwrap);
    lines.find_map(|line| line.split_once('@').map(|(_, said)| said.to_owned())).unwrap_or_else(|| {
        let mut problem = String::new();
        child.stderr.take().unwrap().read_to_string(&mut problem).unwrap();
        panic!("{problem}")
    })
}

fn say(line: &str) {
    println!("@{line}");
}

fn serve_tcp(name: &str, address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    say("ready");
    for connection in listener.incoming() {
        let mut connection = connection.unwrap();
        let client = connection.peer_addr().unwrap().ip();
        let _ = write!(connection, "{name} {client}");
    }
}

fn serve_udp(name: &str, address: SocketAddr) {
    let socket = UdpSocket::bind(address).unwrap();
    say("ready");
    loop {
        let (_, client) = socket.recv_from(&mut [0; 16]).unwrap();
        let _ = socket.send_to(format!("{name} {}", client.ip()).as_bytes(), client);
    }
}

fn call_tcp(to: SocketAddr) -> String {
    let talk = || {
        let mut connection = TcpStream::connect_timeout(&to, PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        connection.read_to_string(&mut text).map(|_| text)
    };
    talk().unwrap_or_else(|e: std::io::Error| format!("{:?}", e.kind()))
}

fn call_udp(to: SocketAddr, from: IpAddr) -> String {
    let talk = || {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"?")?;
        let mut answer = [0; 128];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    talk().unwrap_or_else(|e: std::io::Error| format!("{:?}", e.kind()))
}
