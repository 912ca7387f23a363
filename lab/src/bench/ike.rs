//! Many callers at once: what a responder of IKEv2 takes for an IKE SA with its first CHILD SA.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use selvedge_ike::{Config, Credentials, Endpoint, Event, Now, Peer, PeerId, RingCrypto, TrafficSelector, Wall};
use selvedge_linux::poll::{Interest, poll};
use serde_json::{Value, json};

use super::credentials::Authority;
use super::link::{End, Link};
use super::tunnel;
use crate::idle::Usage;
use crate::process::{self, Daemon, Memory};
use crate::programs::wait;

const PATIENCE: Duration = Duration::from_secs(20);

/// Callers that are in the middle of a handshake at one time.
const AT_ONCE: usize = 32;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responder<'a> {
    /// `selvedge-connector` or `selvedge-agent`, of a folder or from beside this program.
    Selvedge(&'static str, Option<&'a Path>),
    /// charon with kernel-libipsec.
    Charon,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Handshakes {
    /// How many tunnels.
    pub count: usize,
    /// From the first call until the last tunnel was up.
    pub wall: Duration,
    /// CPU seconds of the responder's processes.
    pub cpu: f64,
    /// Memory of the responder before the first call and with all tunnels up.
    pub before: Memory,
    /// See `before`.
    pub after: Memory,
}

struct Caller {
    endpoint: Endpoint,
    socket: UdpSocket,
    /// Its own, so that many callers do not do everything at the same instant.
    origin: Instant,
    up: bool,
}

/// Sets up `count` tunnels with a responder and takes its measure; each caller has a certificate and an address of its
/// own. `name` is at most five characters.
pub fn run(
    name: &str,
    responder: Responder<'_>,
    count: usize,
    authority: &Authority,
    dir: &Path,
) -> Result<Handshakes> {
    let link = Link::create(name, dir)?;
    let credentials = authority.issue("bench.b")?;
    let (_daemon, process) = match responder {
        Responder::Selvedge(program, folder) => {
            let config = config(&link.b, program, count, false);
            (tunnel::start_node(program, &link.b, &config, &credentials, folder)?, program)
        }
        Responder::Charon => (charon(&link.b, &credentials)?, "charon-systemd"),
    };
    wait("responder", PATIENCE, || {
        let sockets = link.b.ns.run("ss -Hlun")?;
        sockets.contains(":4500").then_some(()).context("does not listen yet")
    })?;
    let mut callers = callers(&link.a, &link.b, count, authority, true)?;
    // A program that is just starting up is not idle yet.
    let pids = settle(&link.b, process)?;
    let (before, cpu) = (process::memory(&pids)?, process::cpu_seconds(&pids)?);
    let started = Instant::now();
    call(&mut callers).with_context(|| tail(&link.b.dir))?;
    let wall = started.elapsed();
    // Both programs lead each caller's network to the tunnel by a route of its own; without it nothing is done yet.
    wait("routes", PATIENCE, || {
        let routes = link.b.ns.run("ip route show table 220")?;
        let found = (0..count).filter(|n| routes.contains(&format!("{} dev", network(*n)))).count();
        ensure!(found == count, "{found} of {count} callers have a route");
        Ok(())
    })?;
    // What the last tunnels leave to be done counts, too.
    settle(&link.b, process)?;
    let cpu = process::cpu_seconds(&pids)? - cpu;
    Ok(Handshakes { count, wall, cpu, before, after: process::memory(&pids)? })
}

/// Sets up `count` tunnels with a program, which calls if it is the agent, and leaves them alone for a while; what its
/// processes were before and after.
pub fn idle(name: &str, program: &'static str, count: usize, time: Duration, dir: &Path) -> Result<[Vec<Usage>; 2]> {
    let (link, authority) = (Link::create(name, dir)?, Authority::new()?);
    let calls = program == "selvedge-agent";
    let mut callers = callers(&link.a, &link.b, count, &authority, !calls)?;
    let config = config(&link.b, program, count, calls);
    let _daemon = tunnel::start_node(program, &link.b, &config, &authority.issue("bench.b")?, None)?;
    wait("its ports", PATIENCE, || {
        let sockets = link.b.ns.run("ss -Hlun")?;
        sockets.contains(":4500").then_some(()).context("does not listen yet")
    })?;
    call(&mut callers).with_context(|| tail(&link.b.dir))?;
    settle(&link.b, program)?;
    let before = Usage::of(&link.b.ns)?;
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        serve(&mut callers.iter_mut().collect::<Vec<_>>(), left)?;
    }
    Ok([before, Usage::of(&link.b.ns)?])
}

/// Waits until the processes use no CPU time any more.
fn settle(end: &End, process: &str) -> Result<Vec<u32>> {
    let (mut last, mut quiet) = (-1.0, 0);
    wait("an idle responder", PATIENCE, || {
        let pids = process::processes(&end.ns, process)?;
        let now = process::cpu_seconds(&pids)?;
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
        ensure!(quiet >= 15, "still at work");
        Ok(pids)
    })
}

fn tail(dir: &Path) -> String {
    let mut text = String::new();
    for name in ["selvedge-connector.log", "selvedge-agent.log", "charon.log"] {
        let log = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        text += &lines[lines.len().saturating_sub(10)..].join("\n");
    }
    text
}

/// Network of the caller of this number.
fn network(number: usize) -> String {
    format!("10.{}.{}.0/24", 100 + number / 250, number % 250)
}

/// Outer address of the caller of this number, where it is called instead.
fn outer(number: usize) -> String {
    format!("192.0.2.{}", 100 + number)
}

fn config(end: &End, program: &str, count: usize, calls: bool) -> Value {
    let peer = |n: usize| {
        let addresses: Vec<String> = calls.then(|| outer(n)).into_iter().collect();
        let name = format!("bench.p{n}");
        json!({"name": name, "via": "tunnel", "addresses": addresses, "initiate": calls, "prefixes": [network(n)]})
    };
    let peers: Vec<Value> = (0..count).map(peer).collect();
    json!({
        "version": 1, "generation": 1, "name": "bench.b", "node": "b",
        "role": if program == "selvedge-connector" { "connector" } else { "edge" },
        "podCidrs": [end.network], "local": {"prefixes": [end.network]}, "peers": peers, "datapath": "user",
    })
}

fn charon(end: &End, credentials: &super::credentials::Credentials) -> Result<Daemon> {
    let connections = format!(
        "connections {{ callers {{\n local_addrs = {}\n version = 2\n unique = never\n mobike = no\n \
         proposals = aes128gcm16-prfsha256-x25519\n local {{ auth = pubkey\n certs = tls.crt\n id = bench.b }}\n \
         remote {{ auth = pubkey\n id = %any\n cacerts = ca.crt }}\n \
         children {{ net {{ local_ts = {}\n remote_ts = 10.0.0.0/8\n esp_proposals = aes256gcm16 }} }}\n}} }}\n",
        end.outer, end.network
    );
    tunnel::charon(end, credentials, &connections)
}

/// Callers behind one address; or, if they do not call, peers with an address each that wait.
fn callers(own: &End, other: &End, count: usize, authority: &Authority, call: bool) -> Result<Vec<Caller>> {
    let remote: SocketAddr = format!("{}:4500", other.outer).parse()?;
    own.ns.enter(|| {
        (0..count)
            .map(|number| {
                let name = format!("bench.p{number}");
                let pem = authority.issue(&name)?;
                let credentials =
                    Credentials::from_pem(pem.certificate.as_bytes(), pem.key.as_bytes(), pem.authority.as_bytes())?;
                let mut config = Config::new(name, credentials);
                config.force_encap = true;
                let mut endpoint = Endpoint::new(config, Box::new(RingCrypto::new()));
                let socket = if call {
                    UdpSocket::bind((own.outer, 0))?
                } else {
                    own.ns.ip(&format!("address add {}/24 dev eth0", outer(number)))?;
                    UdpSocket::bind(format!("{}:4500", outer(number)))?
                };
                socket.connect(remote)?;
                socket.set_nonblocking(true)?;
                let peer = Peer {
                    id: PeerId(1),
                    name: "bench.b".to_owned(),
                    remotes: if call { vec![remote] } else { Vec::new() },
                    initiate: call,
                    metered: false,
                    local_ts: vec![selector(&network(number))?],
                    remote_ts: vec![selector(other.network)?],
                };
                let shift = Duration::from_millis(977 * number as u64);
                let origin = Instant::now().checked_sub(shift).unwrap_or_else(Instant::now);
                endpoint.set_peers(now(origin), vec![peer]);
                Ok(Caller { endpoint, socket, origin, up: false })
            })
            .collect()
    })
}

fn selector(net: &str) -> Result<TrafficSelector> {
    Ok(net.parse::<ipnet::IpNet>()?.into())
}

fn now(since: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    Now { mono: since.elapsed(), wall: Wall::Is(wall) }
}

/// Lets all call, [`AT_ONCE`] at a time, until all are up.
fn call(callers: &mut [Caller]) -> Result<()> {
    let (mut first, mut next) = (0, 0);
    let mut active: Vec<usize> = Vec::with_capacity(AT_ONCE);
    let mut last_progress = Instant::now();
    while first < callers.len() {
        while active.len() < AT_ONCE && next < callers.len() {
            callers[next].drain()?;
            active.push(next);
            next += 1;
        }
        let mut calling: Vec<&mut Caller> = callers[..next].iter_mut().filter(|caller| !caller.up).collect();
        serve(&mut calling, Duration::from_millis(100))?;
        let waiting = active.len();
        active.retain(|index| !callers[*index].up);
        if active.len() < waiting {
            first += waiting - active.len();
            last_progress = Instant::now();
        }
        if last_progress.elapsed() > PATIENCE {
            let state: Vec<String> =
                callers[active[0]].endpoint.peers().map(|peer| format!("{:?}", peer.last_error)).collect();
            bail!("{first} of {} callers were answered: {}", callers.len(), state.join(", "));
        }
    }
    Ok(())
}

/// Lets callers do what is due, once, within the time.
fn serve(callers: &mut [&mut Caller], time: Duration) -> Result<()> {
    let due = callers
        .iter()
        .filter_map(|caller| Some(caller.endpoint.poll_timeout()?.saturating_sub(caller.origin.elapsed())));
    let time = due.min().map_or(time, |due| due.min(time));
    let mut interests: Vec<Interest> = callers.iter().map(|caller| Interest::readable(&caller.socket)).collect();
    poll(&mut interests, Some(time))?;
    for (caller, interest) in callers.iter_mut().zip(&interests) {
        if interest.is_readable() {
            caller.receive()?;
        }
        let now = now(caller.origin);
        if caller.endpoint.poll_timeout().is_some_and(|at| at <= now.mono) {
            caller.endpoint.handle_timeout(now);
            caller.drain()?;
        }
    }
    Ok(())
}

impl Caller {
    fn receive(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        let (local, remote) = (self.socket.local_addr()?, self.socket.peer_addr()?);
        while let Ok(len) = self.socket.recv(&mut buffer) {
            if let Some(message) = buffer[..len].strip_prefix(&[0; 4]) {
                // The endpoint knows its own port as 4500, as behind a NAT.
                self.endpoint.handle_datagram(now(self.origin), SocketAddr::new(local.ip(), 4500), remote, message);
            }
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<()> {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::ChildUp { .. } => self.up = true,
                Event::Refused { reason, .. } | Event::PeerDown { reason, .. } => bail!("refused: {reason}"),
                _ => {}
            }
        }
        while let Some(transmit) = self.endpoint.poll_transmit() {
            let marker: &[u8] = if transmit.non_esp_marker { &[0; 4] } else { &[] };
            self.socket.send(&[marker, &transmit.payload[..]].concat())?;
        }
        Ok(())
    }
}
