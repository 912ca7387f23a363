//! What is measured through a Service: a stream, requests over kept connections, new connections, datagrams, one transfer.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::site::{ECHO_PORT, IPERF_PORT, WEB_PORT};
use super::web::LARGE;
use crate::bench::report::median;
use crate::netns::Netns;
use crate::process;

/// Clients at once that open new connections.
const CALLERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);

/// One turn of one line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// iperf3, one TCP stream.
    pub mbit: f64,
    /// CPU seconds of the proxy's processes for each Gbit of it.
    pub cpu: f64,
    /// wrk with 16 kept connections, requests in a second.
    pub requests: f64,
    /// Connections in a second, one request each, by eight callers.
    pub connections: f64,
    /// Median round trip of a datagram in microseconds.
    pub trip: f64,
    /// Milliseconds for 4 MB over a new connection, the median.
    pub transfer: f64,
}

/// Measures all of it, for so many seconds each.
pub fn turn(from: &Netns, to: Ipv4Addr, seconds: u32, pids: &[u32]) -> Result<Turn> {
    let (mbit, cpu) = stream(from, to, seconds, pids).context("iperf3")?;
    Ok(Turn {
        mbit,
        cpu,
        requests: requests(from, to, seconds).context("wrk")?,
        connections: connections(from, to, Duration::from_secs(seconds.into())).context("new connections")?,
        trip: trip(from, to).context("datagrams")?,
        transfer: transfer(from, to).context("transfer of 4 MB")?,
    })
}

fn stream(from: &Netns, to: Ipv4Addr, seconds: u32, pids: &[u32]) -> Result<(f64, f64)> {
    let before = process::cpu_seconds(pids)?;
    let text = from.run(&format!("iperf3 -c {to} -p {IPERF_PORT} -t {seconds} -i 0 -J"))?;
    let cpu = process::cpu_seconds(pids)? - before;
    let result: Value = serde_json::from_str(&text).context("the answer")?;
    let received = &result["end"]["sum_received"];
    let number = |key: &str| received[key].as_f64().context("no sum is told");
    let bits = number("bytes")? * 8.0;
    Ok((bits / number("seconds")? / 1e6, cpu / (bits / 1e9)))
}

fn requests(from: &Netns, to: Ipv4Addr, seconds: u32) -> Result<f64> {
    let text = from.run(&format!("wrk -t 1 -c 16 -d {seconds}s http://{to}:{WEB_PORT}/"))?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let rate: f64 = line.context("no rate is told")?.trim().parse()?;
    ensure!(rate > 0.0, "no request was answered");
    Ok(rate)
}

fn connections(from: &Netns, to: Ipv4Addr, time: Duration) -> Result<f64> {
    let start = Instant::now();
    let callers: Vec<Result<usize>> = std::thread::scope(|scope| {
        let call = || {
            from.enter(|| {
                let mut count = 0;
                while start.elapsed() < time {
                    fetch(to, "/", 100)?;
                    count += 1;
                }
                Ok(count)
            })
        };
        let threads: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let total: usize = callers.into_iter().sum::<Result<usize>>()?;
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

fn trip(from: &Netns, to: Ipv4Addr) -> Result<f64> {
    const COUNT: usize = 2000;
    from.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((to, ECHO_PORT))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let (mut times, mut lost) = (Vec::with_capacity(COUNT), 0);
        let (mut request, mut buffer) = ([0x5a; 64], [0; 2048]);
        for nth in 0..COUNT as u64 {
            request[..8].copy_from_slice(&nth.to_be_bytes());
            let start = Instant::now();
            socket.send(&request)?;
            loop {
                match socket.recv(&mut buffer) {
                    Ok(length) if buffer[..length] == request => break times.push(start.elapsed().as_secs_f64() * 1e6),
                    // What comes late is not the answer.
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break lost += 1,
                    Err(error) => return Err(error.into()),
                }
            }
            ensure!(lost <= 20, "{lost} of {} datagrams had no answer", nth + 1);
        }
        Ok(median(&times))
    })
}

fn transfer(from: &Netns, to: Ipv4Addr) -> Result<f64> {
    let one = || {
        let start = Instant::now();
        fetch(to, "/large", LARGE)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let times = from.enter(|| (0..15).map(|_| one()).collect::<Result<Vec<f64>>>())?;
    Ok(median(&times))
}

/// One request over a connection of its own; the answer's body has so many bytes.
fn fetch(to: Ipv4Addr, path: &str, length: usize) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddrV4::new(to, WEB_PORT).into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::with_capacity(length + 200);
    stream.read_to_end(&mut answer)?;
    ensure!(answer.len() > length, "{} bytes came instead of {length}", answer.len());
    Ok(())
}
