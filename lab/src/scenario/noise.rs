//! Strangers, unknown callers and a loose cable: the log stays short, and says neither where peers are nor what is
//! secret.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use selvedge_ike::{Config, Credentials, Endpoint, Now, Peer, PeerId, RingCrypto, Wall};

use crate::bench::credentials::Authority;
use crate::fabric::Fabric;
use crate::netns::Netns;
use crate::table::Report;
use crate::topology::CONNECTOR_PUBLIC;

const NODE: &str = "edge-1";
const CONNECTOR: &str = "cloud-1";

/// More than one after another of the same kind are left out.
const BURST: usize = 10;

/// Few lines, no addresses, no keys.
pub fn run(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    report.check("14a", "20000 datagrams of nonsense to the connector", || {
        quiet(fabric, CONNECTOR, 2, |fabric| {
            nonsense(&fabric.lab.wan.ns, 20_000)?;
            // Once this has an answer, what came before it has been read.
            fabric.await_keyed(CONNECTOR)
        })
    });
    report.check("14b", "60 callers that nobody knows, each with another name", || {
        quiet(fabric, CONNECTOR, BURST + 2, |fabric| fabric.lab.wan.ns.enter(|| (0..60).try_for_each(intrude)))
    });
    report.check("14c", "a cable that is loose 30 times", || {
        quiet(fabric, NODE, 2 * BURST, |fabric| {
            let edge = fabric.lab.node(NODE)?;
            for _ in 0..30 {
                edge.ns.ip("link set eth0 down\nlink set eth0 up\nroute add default via 192.168.11.1")?;
            }
            fabric.await_keyed(NODE)
        })
    });
    report.check("14d", "no log says where a peer is", || {
        let mut lines = 0;
        for name in fabric.programs.keys() {
            for line in logs(fabric, name)?.lines() {
                let address = line.split(|c: char| c.is_whitespace() || c == ',').find(|word| names_address(word));
                ensure!(address.is_none(), "{name}: {line}");
                lines += 1;
            }
        }
        ensure!(lines > 0, "there are no lines");
        Ok(format!("{lines} lines read"))
    });
    report.check("14e", "no key is in a log, even if everything is logged", || {
        let before = logs(fabric, NODE)?.len();
        fabric.clean(NODE)?;
        fabric.start_program_in(NODE, "export RUST_LOG=trace")?;
        fabric.await_keyed(NODE)?;
        let (secrets, log) = (secrets(fabric)?, logs(fabric, NODE)?);
        ensure!(log.len() > before + 3000, "only {} bytes were logged", log.len().saturating_sub(before));
        let told = secrets.iter().find(|secret| log.contains(secret.as_str()));
        ensure!(told.is_none(), "the log holds {told:?}");
        Ok(format!("none of {} texts in {} KB", secrets.len(), log.len() / 1000))
    });
    fabric.clean(NODE)?;
    fabric.start_program(NODE)
}

/// An error if a node's programs write more lines than that.
fn quiet(
    fabric: &mut Fabric,
    node: &str,
    limit: usize,
    noise: impl FnOnce(&mut Fabric) -> Result<()>,
) -> Result<String> {
    let before = logs(fabric, node)?.lines().count();
    noise(fabric)?;
    let log = logs(fabric, node)?;
    let new: Vec<&str> = log.lines().skip(before).collect();
    ensure!(new.len() <= limit, "{} lines, may be {limit}:\n{}", new.len(), new.join("\n"));
    Ok(format!("{} lines", new.len()))
}

/// What the program of a node and its keeper wrote, in this order.
fn logs(fabric: &Fabric, node: &str) -> Result<String> {
    let keeper = fabric.folders(fabric.lab.node(node)?).run.join("keeper.log");
    let program = fabric.programs.get(node).with_context(|| format!("nothing runs on {node}"))?;
    Ok(std::fs::read_to_string(keeper).unwrap_or_default() + &program.log())
}

/// Datagrams of every kind, from outside: broken IKE, ESP of nobody, noise.
fn nonsense(from: &Netns, count: usize) -> Result<()> {
    let connector: IpAddr = CONNECTOR_PUBLIC.parse()?;
    from.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let mut state = 88_172_645_463_325_252_u64;
        for number in 0..count {
            let mut bytes: Vec<u8> = Vec::with_capacity(200);
            while bytes.len() < 20 + number % 160 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.extend(state.to_ne_bytes());
            }
            let length = u32::try_from(bytes.len())?;
            if number % 4 != 0 {
                // A header as of IKE_SA_INIT, from a new caller or within an IKE SA.
                bytes.resize(bytes.len().max(28), 0);
                bytes[8..16].fill(u8::from(number % 4 == 2));
                bytes[16..20].copy_from_slice(&[33, 0x20, 34, 0x08]);
                bytes[20..24].fill(0);
                bytes[24..28].copy_from_slice(&length.to_be_bytes());
            }
            let (port, marker): (u16, &[u8]) = if number % 2 == 0 { (500, &[]) } else { (4500, &[0; 4]) };
            let marker = if number % 8 == 0 { &[][..] } else { marker };
            socket.send_to(&[marker, &bytes[..]].concat(), (connector, port))?;
        }
        Ok(())
    })
}

/// Calls the connector under a name it does not know, until it refuses.
fn intrude(number: u32) -> Result<()> {
    let name = format!("nobody.intruder-{number}");
    let pem = Authority::new()?.issue(&name)?;
    let credentials = Credentials::from_pem(pem.certificate.as_bytes(), pem.key.as_bytes(), pem.authority.as_bytes())?;
    let mut config = Config::new(name, credentials);
    config.force_encap = true;
    let mut endpoint = Endpoint::new(config, Box::new(RingCrypto::new()));
    let remote = SocketAddr::new(CONNECTOR_PUBLIC.parse()?, 4500);
    let selectors = vec!["10.99.0.0/24".parse::<ipnet::IpNet>()?.into()];
    let peer = Peer {
        id: PeerId(1),
        name: "beijing.connector".to_owned(),
        remotes: vec![remote],
        initiate: true,
        metered: false,
        local_ts: selectors.clone(),
        remote_ts: selectors,
    };
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(remote)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let local = SocketAddr::new(socket.local_addr()?.ip(), 4500);
    let start = Instant::now();
    let now = || Now {
        mono: start.elapsed(),
        wall: Wall::Is(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())),
    };
    endpoint.set_peers(now(), vec![peer]);
    let mut buffer = [0; 4096];
    while start.elapsed() < Duration::from_secs(20) {
        while let Some(transmit) = endpoint.poll_transmit() {
            socket.send(&[&[0; 4], &transmit.payload[..]].concat())?;
        }
        if endpoint.peers().any(|peer| peer.last_error.is_some()) {
            return Ok(());
        }
        match socket.recv(&mut buffer) {
            Ok(length) => endpoint.handle_datagram(now(), local, remote, buffer.get(4..length).unwrap_or_default()),
            Err(_) => endpoint.handle_timeout(now()),
        }
    }
    bail!("intruder {number} was not refused")
}

fn names_address(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_hexdigit() && c != ':');
    let address = word.parse::<SocketAddr>().map(|socket| socket.ip()).or_else(|_| word.parse());
    address.is_ok_and(|address| !address.is_unspecified())
}

/// The node's private key and the keys in its kernel, as they might be written: base64, hexadecimal, a list of numbers.
fn secrets(fabric: &Fabric) -> Result<Vec<String>> {
    let node = fabric.lab.node(NODE)?;
    let mut secrets = private_key(&fabric.folders(node).credentials.join("tls.key"))?;
    // A kernel without IPsec has none.
    let states = node.ns.run("ip xfrm state").unwrap_or_default();
    for word in states.split_whitespace() {
        let digits = word.strip_prefix("0x").filter(|digits| digits.len() >= 40);
        let bytes = |digits: &str| {
            (0..digits.len() / 2)
                .filter_map(|i| u8::from_str_radix(digits.get(i * 2..i * 2 + 2)?, 16).ok())
                .collect::<Vec<_>>()
        };
        secrets.extend(digits.into_iter().flat_map(|digits| written(&bytes(digits))));
    }
    Ok(secrets)
}

fn private_key(path: &Path) -> Result<Vec<String>> {
    let pem = std::fs::read_to_string(path)?;
    let mut secrets: Vec<String> = pem.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned).collect();
    let key = base64(&secrets.concat());
    // PKCS #8 of an elliptic curve: the secret number is an OCTET STRING of 32 bytes.
    let at = key.windows(2).position(|window| window == [4, 32]).context("no secret number in the key")?;
    secrets.extend(written(&key[at + 2..at + 34]));
    Ok(secrets)
}

/// The beginning of some bytes, as they might be written.
fn written(bytes: &[u8]) -> Vec<String> {
    let start = &bytes[..bytes.len().min(8)];
    let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<String> = start.iter().map(ToString::to_string).collect();
    vec![hex.to_uppercase(), hex, list.join(", "), list.join(",")]
}

/// Bytes of base64.
fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(value).collect();
    let join =
        |part: &[u8]| part.iter().fold(0_u32, |sum, digit| sum << 6 | u32::from(*digit)) << (6 * (4 - part.len()));
    digits.chunks(4).flat_map(|part| join(part).to_be_bytes()[1..part.len()].to_vec()).collect()
}
