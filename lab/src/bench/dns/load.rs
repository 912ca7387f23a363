//! Questions, as many as a server answers, and one after another.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;

/// Clients at once, and questions of each that are out at once.
const CLIENTS: usize = 8;
const WINDOW: usize = 24;

/// After so long without an answer, what was out is lost.
const PATIENCE: Duration = Duration::from_millis(500);

/// A question as it is sent, without its number.
pub type Question = Vec<u8>;

/// What came of it.
pub struct Load {
    pub answers: usize,
    pub lost: usize,
    pub seconds: f64,
}

/// Name of a Service.
pub fn name(service: usize) -> String {
    format!("service-{service}.ns-{}.svc.cluster.local", service % 20)
}

/// Seven of ten for what is there; the others for IPv6, and out of search paths.
pub fn questions(services: usize) -> Vec<Question> {
    // Every Service once, in an order that jumps about.
    let each = (0..services).map(|i| (i * 7919) % services.max(1));
    each.enumerate()
        .map(|(i, service)| match i % 20 {
            0..=13 => question(&name(service), 1),
            14..=16 => question(&name(service), 28),
            _ => question(&format!("www.example.com.ns-{}.svc.cluster.local", service % 20), 1),
        })
        .collect()
}

/// A question of class IN with recursion desired.
pub fn question(name: &str, kind: u16) -> Question {
    let mut out = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out
}

/// As many as possible for so many seconds.
pub fn flood(ns: &Netns, server: SocketAddr, questions: &[Question], seconds: u64) -> Result<Load> {
    let end = Duration::from_secs(seconds);
    let begin = Instant::now();
    let counts = ns.enter(|| {
        let sockets = (0..CLIENTS).map(|_| socket(server, PATIENCE)).collect::<Result<Vec<_>>>()?;
        std::thread::scope(|scope| {
            let client = |(number, socket)| scope.spawn(move || keep_asking(number, &socket, questions, begin, end));
            let clients: Vec<_> = sockets.into_iter().enumerate().map(client).collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
                .collect::<Result<Vec<_>>>()
        })
    })?;
    let (answers, lost) = counts.iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    Ok(Load { answers, lost, seconds: begin.elapsed().as_secs_f64() })
}

fn keep_asking(
    number: usize,
    socket: &UdpSocket,
    questions: &[Question],
    begin: Instant,
    end: Duration,
) -> Result<(usize, usize)> {
    let mut next = number * questions.len() / CLIENTS;
    let mut message = Vec::new();
    let mut ask = || -> Result<()> {
        message.clear();
        message.extend_from_slice(&questions[next % questions.len()]);
        message[..2].copy_from_slice(&(next as u16).to_be_bytes());
        next += 1;
        socket.send(&message)?;
        Ok(())
    };
    let (mut answers, mut lost) = (0, 0);
    let mut buffer = [0; 2048];
    (0..WINDOW).try_for_each(|_| ask())?;
    while begin.elapsed() < end {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                answers += 1;
                ask()?;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                lost += WINDOW;
                (0..WINDOW).try_for_each(|_| ask())?;
            }
            Err(error) => return Err(error).context("answer"),
        }
    }
    Ok((answers, lost))
}

/// How long each of `count` questions takes, sorted.
pub fn one_by_one(ns: &Netns, server: SocketAddr, questions: &[Question], count: usize) -> Result<Vec<Duration>> {
    ns.enter(|| {
        let socket = socket(server, Duration::from_secs(2))?;
        let mut buffer = [0; 2048];
        let mut times = Vec::with_capacity(count);
        for i in 0..count.max(1) {
            let mut message = questions[i % questions.len()].clone();
            message[..2].copy_from_slice(&(i as u16).to_be_bytes());
            let begin = Instant::now();
            socket.send(&message)?;
            let length = socket.recv(&mut buffer).context("answer")?;
            times.push(begin.elapsed());
            ensure!(length > 12 && buffer[..2] == message[..2], "an answer to something else");
        }
        times.sort_unstable();
        Ok(times)
    })
}

/// A client of its own port.
pub fn socket(server: SocketAddr, patience: Duration) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}
