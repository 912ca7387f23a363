//! The tunnels that are compared, and how each is brought up with its own defaults.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use selvedge_esp::{PeerPrefixes, Suite};
use selvedge_tunnel::keeper::message::{Install, Report, Request};
use selvedge_tunnel::keeper::{Client, Mode, Options};
use serde_json::json;
use zeroize::Zeroizing;

use super::credentials::Authority;
use super::link::{End, Link};
use crate::exec;
use crate::probe;
use crate::process::{self, Daemon};
use crate::programs::{self, wait};

const PATIENCE: Duration = Duration::from_secs(20);

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None.
    Direct,
    /// Two agents.
    Selvedge,
    /// The datapath of the agents alone, keyed by hand: no firewall, no key exchange.
    Keeper(Suite),
    /// With so many threads.
    Boringtun(u8),
    /// wireguard-go.
    WireguardGo,
    /// charon with kernel-libipsec.
    Strongswan,
}

/// Every kind, in the order of the table.
pub const KINDS: [Kind; 8] = [
    Kind::Direct,
    Kind::Selvedge,
    Kind::Keeper(Suite::Aes256Gcm),
    Kind::Keeper(Suite::ChaCha20Poly1305),
    Kind::Boringtun(4),
    Kind::Boringtun(1),
    Kind::WireguardGo,
    Kind::Strongswan,
];

/// A tunnel that is up.
pub struct Tunnel {
    /// What it is.
    pub kind: Kind,
    /// What it lies over.
    pub link: Link,
    /// Processes of the first end.
    pub pids_a: Vec<u32>,
    /// Processes of the second end.
    pub pids_b: Vec<u32>,
    _daemons: Vec<Daemon>,
    _clients: Vec<Client>,
}

impl Kind {
    /// As the table names it.
    pub fn title(self) -> String {
        match self {
            Kind::Direct => "none (veth)".to_owned(),
            Kind::Selvedge => "Selvedge agents, AES-256-GCM".to_owned(),
            Kind::Keeper(suite) => format!("Selvedge datapath alone, {}", cipher(suite)),
            Kind::Boringtun(1) => "boringtun-cli, 1 thread".to_owned(),
            Kind::Boringtun(threads) => format!("boringtun-cli, {threads} threads (its default)"),
            Kind::WireguardGo => "wireguard-go".to_owned(),
            Kind::Strongswan => "strongSwan kernel-libipsec, AES-256-GCM".to_owned(),
        }
    }

    /// Of the device that packets enter.
    pub fn mtu(self) -> u32 {
        match self {
            Kind::Direct => 1500,
            Kind::Selvedge | Kind::Keeper(_) | Kind::Strongswan => 1400,
            Kind::Boringtun(_) | Kind::WireguardGo => 1420,
        }
    }

    /// What was run on the first end, as one would type it.
    pub fn commands(self) -> &'static str {
        match self {
            Kind::Direct => "",
            Kind::Selvedge => "selvedge-agent run --config config.json --credentials tls (\"datapath\": \"user\")",
            Kind::Keeper(_) => "selvedge-agent keeper RUN-DIR user sv0 1400 500 4500, keys installed by the bench",
            Kind::Boringtun(1) => "boringtun-cli --foreground --disable-drop-privileges --threads 1 DEVICE; wg set …",
            Kind::Boringtun(_) => "boringtun-cli --foreground --disable-drop-privileges DEVICE; wg set …",
            Kind::WireguardGo => "wireguard-go --foreground DEVICE; wg set …",
            Kind::Strongswan => "charon-systemd (load … openssl … kernel-libipsec …); swanctl --load-all; --initiate",
        }
    }

    fn short(self) -> String {
        match self {
            Kind::Direct => "d".to_owned(),
            Kind::Selvedge => "s".to_owned(),
            Kind::Keeper(Suite::ChaCha20Poly1305) => "kc".to_owned(),
            Kind::Keeper(_) => "ka".to_owned(),
            Kind::Boringtun(threads) => format!("b{threads}"),
            Kind::WireguardGo => "w".to_owned(),
            Kind::Strongswan => "i".to_owned(),
        }
    }

    /// Name of its processes.
    pub fn process(self) -> Option<&'static str> {
        match self {
            Kind::Direct => None,
            Kind::Selvedge | Kind::Keeper(_) => Some("selvedge-agent"),
            Kind::Boringtun(_) => Some("boringtun-cli"),
            Kind::WireguardGo => Some("wireguard-go"),
            Kind::Strongswan => Some("charon-systemd"),
        }
    }
}

impl Tunnel {
    /// Brings it up and waits until a ping goes through.
    pub fn start(kind: Kind, authority: &Authority, dir: &Path) -> Result<Self> {
        let link = Link::create(&kind.short(), dir)?;
        let (mut daemons, mut clients) = (Vec::new(), Vec::new());
        match kind {
            Kind::Direct => {
                for (end, other) in link.ends() {
                    inner_on(end, "lo")?;
                    end.ns.ip(&format!("route add {} via {} src {}", other.network, other.outer, end.inner))?;
                }
            }
            Kind::Selvedge => {
                for (end, other) in link.ends() {
                    daemons.push(agent(end, other, authority)?);
                }
            }
            Kind::Keeper(suite) => clients = keyed_by_hand(&link, suite)?,
            Kind::Boringtun(_) | Kind::WireguardGo => daemons = wireguard(kind, &link)?,
            Kind::Strongswan => daemons = strongswan(&link, authority)?,
        }
        let mut check = || {
            daemons.iter_mut().try_for_each(Daemon::check)?;
            probe::ping(&link.a.ns, link.b.inner.parse()?, Duration::from_secs(1)).map(drop)
        };
        wait(&kind.title(), PATIENCE, &mut check).with_context(|| logs(&link))?;
        let pids = |end: &End| kind.process().map_or(Ok(Vec::new()), |name| process::processes(&end.ns, name));
        let (pids_a, pids_b) = (pids(&link.a)?, pids(&link.b)?);
        Ok(Self { kind, link, pids_a, pids_b, _daemons: daemons, _clients: clients })
    }

    /// Processes of both ends.
    pub fn pids(&self) -> Vec<u32> {
        [&self.pids_a[..], &self.pids_b[..]].concat()
    }
}

/// A program that lab/tools/bench-peers brings; what to do if it is not there.
pub fn peer_program(name: &str) -> Result<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench-peers/bin")).join(name);
    if !path.exists() {
        bail!("{} is not there: lab/tools/bench-peers brings it", path.display());
    }
    Ok(path)
}

fn cipher(suite: Suite) -> &'static str {
    match suite {
        Suite::Aes128Gcm => "AES-128-GCM",
        Suite::Aes256Gcm => "AES-256-GCM",
        Suite::ChaCha20Poly1305 => "ChaCha20-Poly1305",
    }
}

fn logs(link: &Link) -> String {
    let mut text = String::new();
    for (end, _) in link.ends() {
        for entry in std::fs::read_dir(&end.dir).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let tail = log.len().saturating_sub(2000);
                text += &format!("{}:\n{}\n", entry.path().display(), log.get(tail..).unwrap_or(&log));
            }
        }
    }
    text
}

fn inner_on(end: &End, device: &str) -> Result<()> {
    end.ns.ip(&format!("address add {}/32 dev {device}", end.inner))
}

fn agent(end: &End, other: &End, authority: &Authority) -> Result<Daemon> {
    let config = json!({
        "version": 1, "generation": 1, "name": format!("bench.{}", end.letter), "node": end.letter, "role": "edge",
        "podCidrs": [end.network], "local": {"prefixes": [end.network]},
        "peers": [{
            "name": format!("bench.{}", other.letter), "via": "tunnel", "addresses": [other.outer],
            "initiate": end.letter == "a", "prefixes": [other.network],
        }],
        "datapath": "user",
    });
    start_node("selvedge-agent", end, &config, &authority.issue(&format!("bench.{}", end.letter))?, None)
}

/// Starts agent or connector, of `folder` or from beside this program, with this configuration.
pub fn start_node(
    program: &str,
    end: &End,
    config: &serde_json::Value,
    credentials: &super::credentials::Credentials,
    folder: Option<&Path>,
) -> Result<Daemon> {
    std::fs::write(end.dir.join("config.json"), config.to_string())?;
    credentials.write(&end.dir.join("tls"))?;
    let program_file = match folder {
        Some(folder) => folder.join(program),
        None => programs::find(program)?,
    };
    let mut command = end.ns.command(program_file);
    command.arg("run");
    for (option, file) in
        [("--config", "config.json"), ("--credentials", "tls"), ("--run-dir", "run"), ("--state-dir", "state")]
    {
        command.arg(option).arg(end.dir.join(file));
    }
    if program == "selvedge-agent" {
        command.arg("--cni-dir").arg(end.dir.join("cni"));
    }
    Daemon::start(command, &end.dir.join(format!("{program}.log")))
}

fn keyed_by_hand(link: &Link, suite: Suite) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for (end, other) in link.ends() {
        let options = Options { tun: "sv0".to_owned(), ..Options::new(end.dir.join("run"), Mode::User) };
        let program = programs::find("selvedge-agent")?;
        let mut client = end.ns.enter(|| Ok(Client::spawn(&program, "keeper", &options)?))?;
        let peers = vec![PeerPrefixes { id: 1, prefixes: vec![other.network.parse()?] }];
        client.send(&Request::SetPeers { peers, more: false })?;
        let spi = |letter: &str| if letter == "a" { 0x1000 } else { 0x2000 };
        let key = |letter: &str| Zeroizing::new(vec![letter.as_bytes()[0]; suite.keymat_len()]);
        client.send(&Request::Install(Install {
            peer: 1,
            spi_in: spi(end.letter),
            spi_out: spi(other.letter),
            suite,
            key_in: key(end.letter),
            key_out: key(other.letter),
            local: format!("{}:4500", end.outer).parse()?,
            remote: format!("{}:4500", other.outer).parse()?,
            send: true,
        }))?;
        client.send(&Request::List)?;
        // A refusal comes before the list.
        let answer = wait("the keeper's answer", PATIENCE, || client.recv()?.context("none"))?;
        match answer {
            Report::SaList { pairs, .. } if pairs.len() == 1 => {}
            other => bail!("the keeper says {other:?}"),
        }
        inner_on(end, "sv0")?;
        end.ns.ip(&format!("route add {} dev sv0 src {}", other.network, end.inner))?;
        clients.push(client);
    }
    Ok(clients)
}

fn wireguard(kind: Kind, link: &Link) -> Result<Vec<Daemon>> {
    let mut daemons = Vec::new();
    let mut keys = Vec::new();
    for (end, _) in link.ends() {
        let secret = exec::run(Command::new("wg").arg("genkey"))?;
        let public = exec::feed(Command::new("wg").arg("pubkey"), &secret)?;
        std::fs::write(end.dir.join("key"), secret)?;
        keys.push(public.trim().to_owned());
    }
    for ((end, other), public) in link.ends().into_iter().zip(keys.iter().rev()) {
        // Control sockets of all namespaces lie in one folder.
        let device = format!("{}{}{}", kind.short(), std::process::id(), end.letter);
        let mut command = match kind {
            Kind::Boringtun(threads) => {
                let mut command = end.ns.command(peer_program("boringtun-cli")?);
                command.args(["--foreground", "--disable-drop-privileges", "--threads", &threads.to_string()]);
                command
            }
            _ => {
                let mut command = end.ns.command(peer_program("wireguard-go")?);
                command.arg("--foreground");
                command
            }
        };
        command.arg(&device);
        let mut daemon = Daemon::start(command, &end.dir.join("wireguard.log"))?;
        wait(&device, PATIENCE, || {
            daemon.check()?;
            end.ns.run(&format!("wg show {device}")).map(drop)
        })?;
        let key = end.dir.join("key");
        end.ns.run(&format!(
            "wg set {device} private-key {} listen-port 51820 peer {public} allowed-ips {} endpoint {}:51820",
            key.display(),
            other.network,
            other.outer
        ))?;
        end.ns.ip(&format!("link set {device} mtu {} up", kind.mtu()))?;
        inner_on(end, &device)?;
        end.ns.ip(&format!("route add {} dev {device} src {}", other.network, end.inner))?;
        daemons.push(daemon);
    }
    Ok(daemons)
}

/// Plugins of charon: what keys with ECDSA certificates and AES-GCM need, the fastest of each.
const PLUGINS: &str = "random nonce openssl pem pkcs1 pkcs8 x509 pubkey constraints kdf curve25519 kernel-libipsec \
                       kernel-netlink socket-default vici";

/// Starts charon with its files in `end.dir` and loads a connection.
pub fn charon(end: &End, credentials: &super::credentials::Credentials, connections: &str) -> Result<Daemon> {
    let dir = end.dir.display();
    inner_on(end, "lo")?;
    // Limits on half-open callers are out of the way (block_threshold = 0 would not lift it but make it 1), and the
    // tables are sized as strongSwan's documentation advises for many SAs.
    let settings = format!(
        "charon-systemd {{\n load = {PLUGINS}\n cookie_threshold = 100000\n cookie_threshold_ip = 100000\n \
         block_threshold = 100000\n ikesa_table_size = 1024\n \
         ikesa_table_segments = 16\n plugins {{ vici {{ socket = unix://{dir}/vici }} }}\n \
         journal {{ default = -1 }}\n filelog {{ stderr {{ default = 0 }} }}\n}}\n"
    );
    std::fs::write(end.dir.join("strongswan.conf"), settings)?;
    credentials.write_as(&end.dir, "x509ca/ca.crt", "x509/tls.crt", "private/tls.key")?;
    let file = end.dir.join("swanctl.conf");
    std::fs::write(&file, connections)?;
    let mut command = end.ns.command("charon-systemd");
    command.env("STRONGSWAN_CONF", end.dir.join("strongswan.conf"));
    let mut daemon = Daemon::start(command, &end.dir.join("charon.log"))?;
    wait("charon", PATIENCE, || {
        daemon.check()?;
        swanctl(end, &["--load-all", "--file", &file.display().to_string()]).map(drop)
    })?;
    Ok(daemon)
}

fn swanctl(end: &End, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("swanctl");
    command.args(arguments).arg("--uri").arg(format!("unix://{}/vici", end.dir.display()));
    command.env("SWANCTL_DIR", &end.dir).env("STRONGSWAN_CONF", end.dir.join("strongswan.conf"));
    exec::run(&mut command)
}

fn strongswan(link: &Link, authority: &Authority) -> Result<Vec<Daemon>> {
    let mut daemons = Vec::new();
    for (end, other) in link.ends() {
        let connections = format!(
            "connections {{ net {{\n local_addrs = {}\n remote_addrs = {}\n version = 2\n \
             proposals = aes128gcm16-prfsha256-x25519\n local {{ auth = pubkey\n certs = tls.crt\n id = bench.{} }}\n \
             remote {{ auth = pubkey\n id = bench.{} }}\n \
             children {{ net {{ local_ts = {}\n remote_ts = {}\n esp_proposals = aes256gcm16 }} }}\n}} }}\n",
            end.outer, other.outer, end.letter, other.letter, end.network, other.network
        );
        daemons.push(charon(end, &authority.issue(&format!("bench.{}", end.letter))?, &connections)?);
    }
    swanctl(&link.a, &["--initiate", "--child", "net", "--timeout", "10"])?;
    Ok(daemons)
}
