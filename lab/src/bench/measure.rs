//! What is measured on a tunnel: throughput with its CPU time, and round-trip times.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::link::Link;
use super::tunnel::Tunnel;
use crate::process::{self, Daemon};
use crate::programs::wait;

const IPERF_PORT: &str = "5201";
const ECHO_PORT: u16 = 5300;

/// One run of iperf3.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Payload received.
    pub gbit: f64,
    /// While it was received.
    pub seconds: f64,
    /// CPU time of the tunnel's processes on both ends.
    pub cpu: f64,
    /// TCP segments sent again.
    pub retransmits: u64,
}

/// Runs iperf3 for so many seconds with so many TCP streams, from end a to end b.
pub fn throughput(tunnel: &Tunnel, streams: u32, seconds: u32) -> Result<Throughput> {
    let Link { a, b } = &tunnel.link;
    let mut command = b.ns.command("iperf3");
    command.args(["-s", "-1", "-p", IPERF_PORT]);
    let mut server = Daemon::start(command, &b.dir.join("iperf3.log"))?;
    let listening = format!(":{IPERF_PORT}");
    wait("iperf3 server", Duration::from_secs(10), || {
        server.check()?;
        let sockets = b.ns.run("ss -Hltn")?;
        sockets.contains(&listening).then_some(()).context("does not listen yet")
    })?;
    let pids = tunnel.pids();
    let before = process::cpu_seconds(&pids)?;
    let text = a.ns.run(&format!("iperf3 -c {} -p {IPERF_PORT} -t {seconds} -P {streams} -i 0 -J", b.inner))?;
    let cpu = process::cpu_seconds(&pids)? - before;
    let result: Value = serde_json::from_str(&text).context("iperf3's answer")?;
    let received = &result["end"]["sum_received"];
    let number = |value: &Value| value.as_f64().context("iperf3 tells no sum");
    Ok(Throughput {
        gbit: number(&received["bytes"])? * 8e-9,
        seconds: number(&received["seconds"])?,
        cpu,
        retransmits: result["end"]["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
    })
}

/// Round-trip times of 64 bytes over UDP, one at a time, sorted; and how many of `count` had no answer within a second.
pub fn round_trips(link: &Link, count: usize) -> Result<(Vec<Duration>, usize)> {
    let server = link.b.ns.enter(|| Ok(UdpSocket::bind((link.b.inner, ECHO_PORT))?))?;
    let client = link.a.ns.enter(|| {
        let socket = UdpSocket::bind((link.a.inner, 0))?;
        socket.connect((link.b.inner, ECHO_PORT))?;
        Ok(socket)
    })?;
    server.set_read_timeout(Some(Duration::from_millis(100)))?;
    client.set_read_timeout(Some(Duration::from_secs(1)))?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2048];
            while !over.load(Ordering::Relaxed) {
                if let Ok((len, from)) = server.recv_from(&mut buffer) {
                    let _ = server.send_to(&buffer[..len], from);
                }
            }
        });
        let measure = || {
            let (mut times, mut lost) = (Vec::with_capacity(count), 0);
            let (mut request, mut buffer) = ([0x5a; 64], [0; 2048]);
            // The first ones warm caches and neighbour tables.
            for nth in 0..count + 50 {
                request[..8].copy_from_slice(&(nth as u64).to_be_bytes());
                let start = Instant::now();
                client.send(&request)?;
                // What was lost and comes late is not the answer.
                let answered = loop {
                    match client.recv(&mut buffer) {
                        Ok(len) if buffer[..len] == request => break true,
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                        Err(error) => return Err(error.into()),
                    }
                };
                match answered {
                    true if nth >= 50 => times.push(start.elapsed()),
                    true => {}
                    false => lost += 1,
                }
                ensure!(lost <= 20, "{lost} of {nth} datagrams had no answer");
            }
            times.sort();
            Ok((times, lost))
        };
        let times = measure();
        over.store(true, Ordering::Relaxed);
        times
    })
}
