//! One IKE peer on real sockets, for interoperability tests: prints one line per event, takes commands on stdin, and
//! answers ICMP echo requests that arrive in ESP-in-UDP, so that keys are proved as well.
//!
//! ```text
//! ikectl --role initiator --name beijing.edge-1 --peer beijing.connector --local 10.9.0.1 --remote 10.9.0.2:500 \
//!        --certs DIR --local-ts 10.1.0.0/24,fd00:1::/64 --remote-ts 10.2.0.0/24 [--encap yes] [--chacha yes] \
//!        [--dpd SECONDS] [--child-rekey SECONDS] [--ike-rekey SECONDS]
//! ```
//!
//! `DIR` holds `cert.pem` (own certificate, then intermediates), `key.pem` (PKCS#8) and `ca.pem`. A responder needs no
//! `--remote`. Commands: `rekey-child`, `rekey-ike`, `status`, `quit`.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::BufRead;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use selvedge_ike::{
    Child, Config, Credentials, Crypto, Endpoint, Event, Now, Peer, PeerId, RingCrypto, TrafficSelector, Wall,
};

const PEER: PeerId = PeerId(1);

enum Input {
    Datagram { local: SocketAddr, remote: SocketAddr, bytes: Vec<u8> },
    Command(String),
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = BTreeMap::new();
    let mut words = std::env::args().skip(1);
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        args.insert(key, value);
    }
    let arg = |key: &str| args.get(key).ok_or_else(|| format!("{key} is missing"));
    let seconds = |key: &str, default| match args.get(key) {
        Some(text) => text.parse().map(Duration::from_secs),
        None => Ok(default),
    };
    let local: IpAddr = arg("--local")?.parse()?;
    let file = |name: &str| std::fs::read(format!("{}/{name}", arg("--certs")?)).map_err(|e| format!("{name}: {e}"));
    let credentials = Credentials::from_pem(&file("cert.pem")?, &file("key.pem")?, &file("ca.pem")?)?;
    let mut config = Config::new(arg("--name")?, credentials);
    config.force_encap = args.contains_key("--encap");
    config.prefer_chacha = args.contains_key("--chacha");
    config.timers.dpd = seconds("--dpd", config.timers.dpd)?;
    config.timers.child_rekey = seconds("--child-rekey", config.timers.child_rekey)?;
    config.timers.ike_rekey = seconds("--ike-rekey", config.timers.ike_rekey)?;
    let peer = Peer {
        id: PEER,
        name: arg("--peer")?.clone(),
        remotes: args.get("--remote").map(|remote| remote.parse()).transpose()?.into_iter().collect(),
        initiate: arg("--role")? == "initiator",
        metered: false,
        local_ts: selectors(arg("--local-ts")?)?,
        remote_ts: selectors(arg("--remote-ts")?)?,
    };

    let (sender, inputs) = channel();
    let ike = receive(SocketAddr::new(local, 500), sender.clone())?;
    let nat_t = receive(SocketAddr::new(local, 4500), sender.clone())?;
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(Input::Command(line.trim().to_owned()));
        }
    });
    let start = Instant::now();
    let mut node = Node {
        endpoint: Endpoint::new(config, Box::new(RingCrypto::new())),
        start,
        ike,
        nat_t,
        children: BTreeMap::new(),
        sending: None,
        sequence: BTreeMap::new(),
    };
    let now = node.now();
    node.endpoint.set_peers(now, vec![peer]);
    node.endpoint.handle_local_address(now, PEER, local);
    node.run(&inputs)
}

fn selectors(text: &str) -> Result<Vec<TrafficSelector>, ipnet::AddrParseError> {
    text.split(',').map(|net| net.parse::<IpNet>().map(TrafficSelector::from)).collect()
}

fn receive(local: SocketAddr, sender: Sender<Input>) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    let reader = socket.try_clone()?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((len, remote)) = reader.recv_from(&mut buffer) {
            let bytes = buffer[..len].to_vec();
            if sender.send(Input::Datagram { local, remote, bytes }).is_err() {
                return;
            }
        }
    });
    Ok(socket)
}

struct Node {
    endpoint: Endpoint,
    start: Instant,
    ike: UdpSocket,
    nat_t: UdpSocket,
    children: BTreeMap<u32, Child>,
    sending: Option<u32>,
    sequence: BTreeMap<u32, u32>,
}

impl Node {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Now { mono: self.start.elapsed(), wall: Wall::Is(wall) }
    }

    fn run(&mut self, inputs: &Receiver<Input>) -> Result<(), Box<dyn Error>> {
        let mut quit_at: Option<Duration> = None;
        loop {
            self.drain()?;
            let timeout = self.endpoint.poll_timeout().into_iter().chain(quit_at).min();
            let wait = timeout.map_or(Duration::from_secs(3600), |at| at.saturating_sub(self.now().mono));
            match inputs.recv_timeout(wait) {
                Ok(Input::Datagram { local, remote, bytes }) => self.on_datagram(local, remote, &bytes)?,
                Ok(Input::Command(command)) => {
                    let now = self.now();
                    match command.as_str() {
                        "rekey-child" => self.endpoint.rekey_child(now, PEER),
                        "rekey-ike" => self.endpoint.rekey_ike(now, PEER),
                        "status" => self.endpoint.peers().for_each(|status| println!("status {status:?}")),
                        "quit" => {
                            self.endpoint.shutdown(now);
                            quit_at = Some(now.mono + Duration::from_secs(2));
                        }
                        other => println!("unknown command {other}"),
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let now = self.now();
            if self.endpoint.poll_timeout().is_some_and(|at| at <= now.mono) {
                self.endpoint.handle_timeout(now);
            }
            let closed = quit_at.is_some() && self.endpoint.ike_sas() == 0;
            if closed || quit_at.is_some_and(|at| at <= now.mono) {
                self.drain()?;
                return Ok(());
            }
        }
    }

    fn on_datagram(&mut self, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) -> std::io::Result<()> {
        let now = self.now();
        if local.port() == 500 {
            self.endpoint.handle_datagram(now, local, remote, bytes);
        } else if let Some(message) = bytes.strip_prefix(&[0; 4]) {
            self.endpoint.handle_datagram(now, local, remote, message);
        } else if bytes.len() > 8 {
            self.on_esp(remote, bytes)?;
        }
        Ok(())
    }

    fn drain(&mut self) -> std::io::Result<()> {
        while let Some(event) = self.endpoint.poll_event() {
            let line = match event {
                Event::ChildUp { child, .. } => {
                    let line = format!("child-up {child:?}");
                    if child.send {
                        self.sending = Some(child.spi_in);
                    }
                    self.children.insert(child.spi_in, child);
                    line
                }
                Event::ChildSend { spi_in, spi_out, .. } => {
                    self.sending = Some(spi_in);
                    format!("child-send spi_in={spi_in:08x} spi_out={spi_out:08x}")
                }
                Event::ChildRetired { spi_in, spi_out, .. } => {
                    self.sending = self.sending.filter(|sending| *sending != spi_in);
                    format!("child-retired spi_in={spi_in:08x} spi_out={spi_out:08x}")
                }
                Event::PeerUp { remote, .. } => format!("peer-up remote={remote}"),
                Event::PeerDown { reason, .. } => format!("peer-down {reason}"),
                Event::Refused { remote, claimed, reason } => format!("refused {remote} {claimed:?} {reason}"),
                Event::Later { wall } => format!("later {wall}"),
            };
            println!("{line}");
        }
        while let Some(transmit) = self.endpoint.poll_transmit() {
            let marker: &[u8] = if transmit.non_esp_marker { &[0; 4] } else { &[] };
            let socket = if transmit.local_port == 500 { &self.ike } else { &self.nat_t };
            if let Err(error) = socket.send_to(&[marker, &transmit.payload].concat(), transmit.remote) {
                eprintln!("{}: {error}", transmit.remote);
            }
        }
        Ok(())
    }

    /// ESP (RFC 4303) with SPI, sequence number, IV, ciphertext and tag; an inner IPv4 echo request is answered.
    fn on_esp(&mut self, remote: SocketAddr, packet: &[u8]) -> std::io::Result<()> {
        let crypto = RingCrypto::new();
        let (Some(header), Some(iv)) = (packet.get(..8), packet.get(8..16)) else { return Ok(()) };
        let spi = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let Some(child) = self.children.get(&spi) else {
            println!("esp-in spi={spi:08x} unknown");
            return Ok(());
        };
        let (key, salt) = child.key_in.split_at(child.key_in.len() - 4);
        let Ok(nonce) = [salt, iv].concat().try_into() else { return Ok(()) };
        let mut inner = packet[16..].to_vec();
        if crypto.open(child.suite, key, &nonce, header, &mut inner).is_err() {
            println!("esp-in spi={spi:08x} bad");
            return Ok(());
        }
        println!("esp-in spi={spi:08x} ok");
        let trailer = inner.len().saturating_sub(2);
        let padding = inner.get(trailer).copied().unwrap_or(0);
        inner.truncate(trailer.saturating_sub(padding.into()));
        let (Some(reply), Some(out)) = (echo_reply(inner), self.sending.and_then(|spi| self.children.get(&spi))) else {
            return Ok(());
        };
        let sequence = self.sequence.entry(out.spi_out).or_default();
        *sequence += 1;
        let header = [out.spi_out.to_be_bytes(), sequence.to_be_bytes()].concat();
        let iv = u64::from(*sequence).to_be_bytes();
        let (key, salt) = out.key_out.split_at(out.key_out.len() - 4);
        let Ok(nonce) = [salt, &iv[..]].concat().try_into() else { return Ok(()) };
        let mut body = reply;
        let padding = u8::try_from((4 - (body.len() + 2) % 4) % 4).unwrap_or(0);
        body.extend(1..=padding);
        body.extend_from_slice(&[padding, 4]);
        if crypto.seal(out.suite, key, &nonce, &header, &mut body).is_ok() {
            self.nat_t.send_to(&[&header, &iv[..], &body].concat(), remote)?;
            println!("esp-echo spi={:08x}", out.spi_out);
        }
        Ok(())
    }
}

/// Turns an IPv4 ICMP echo request into its reply; both checksums stay right but for the type.
fn echo_reply(mut packet: Vec<u8>) -> Option<Vec<u8>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    if packet[0] >> 4 != 4 || *packet.get(9)? != 1 || *packet.get(header)? != 8 || packet.len() < header + 4 {
        return None;
    }
    let source: [u8; 4] = packet[12..16].try_into().ok()?;
    packet.copy_within(16..20, 12);
    packet[16..20].copy_from_slice(&source);
    packet[header] = 0;
    // The sum loses the type's 0x0800, so its complement gains it, with end-around carry.
    let sum = u32::from(u16::from_be_bytes([packet[header + 2], packet[header + 3]])) + 0x0800;
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).ok()?;
    packet[header + 2..header + 4].copy_from_slice(&sum.to_be_bytes());
    Some(packet)
}
