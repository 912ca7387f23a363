//! Two hosts and a router with source NAT between them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::bench::credentials::Authority;
use crate::netns::{Netns, join};
use crate::programs::Program;
use crate::topology::run_dir;

/// A program that has to do something has this long for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind the NAT.
    Left,
    /// Beyond it.
    Right,
}

impl Place {
    /// The opposite end.
    pub fn other(self) -> Self {
        match self {
            Place::Left => Place::Right,
            Place::Right => Place::Left,
        }
    }

    /// Outer address.
    pub fn address(self) -> &'static str {
        match self {
            Place::Left => "10.9.1.2",
            Place::Right => "10.9.2.2",
        }
    }

    /// Networks inside the tunnel.
    pub fn networks(self) -> &'static str {
        match self {
            Place::Left => "10.1.0.0/24,fd00:1::/64",
            Place::Right => "10.2.0.0/24,fd00:2::/64",
        }
    }

    /// Address inside the tunnel.
    pub fn inner(self) -> &'static str {
        match self {
            Place::Left => "10.1.0.1",
            Place::Right => "10.2.0.1",
        }
    }

    /// Name in the certificate.
    pub fn name(self) -> &'static str {
        match self {
            Place::Left => "lab.left",
            Place::Right => "lab.right",
        }
    }
}

/// The three namespaces, the certificates and a folder.
pub struct Site {
    left: Netns,
    right: Netns,
    _router: Netns,
    dir: PathBuf,
    authority: Authority,
}

impl Site {
    /// Builds it; it ends on drop.
    pub fn new() -> Result<Self> {
        let (left, router, right) = (Netns::create("left")?, Netns::create("nat")?, Netns::create("right")?);
        join(&left, "eth0", &router, "inside")?;
        join(&right, "eth0", &router, "outside")?;
        left.ip("addr add 10.9.1.2/24 dev eth0\nlink set eth0 up\naddr add 10.1.0.1/32 dev lo\naddr add fd00:1::1/128 dev lo")?;
        right.ip("addr add 10.9.2.2/24 dev eth0\nlink set eth0 up\naddr add 10.2.0.1/32 dev lo\naddr add fd00:2::1/128 dev lo")?;
        router.ip(
            "addr add 10.9.1.1/24 dev inside\nlink set inside up\naddr add 10.9.2.1/24 dev outside\nlink set outside up",
        )?;
        left.ip("route add default via 10.9.1.1")?;
        right.ip("route add default via 10.9.2.1")?;
        router.sysctl(&[("net/ipv4/ip_forward", "1")])?;
        router.feed(
            "nft -f -",
            "table ip nat { chain post { type nat hook postrouting priority 100; oifname outside masquerade; }; }\n",
        )?;
        let dir = run_dir(std::process::id()).join("interop");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        Ok(Self { left, right, _router: router, dir, authority: Authority::new()? })
    }

    /// The host at a place.
    pub fn host(&self, place: Place) -> &Netns {
        match place {
            Place::Left => &self.left,
            Place::Right => &self.right,
        }
    }

    /// A folder for the files of one end.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.dir.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Who both ends trust.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Pings the other end from the host at `from`, inside the tunnel.
    pub fn ping(&self, from: Place) -> Result<String> {
        let (near, far) = (from.inner(), from.other().inner());
        self.host(from).run(&format!("ping -n -c 3 -i 0.1 -W 2 -I {near} {far}"))?;
        Ok(format!("3 pings {near} to {far}"))
    }

    /// Starts the agent with a configuration for this pair.
    pub fn start_agent(&self, place: Place, peer: Place) -> Result<Program> {
        let folder = self.folder("agent")?;
        self.authority.issue(place.name())?.write(&folder.join("tls"))?;
        // The agent brings its address inside the tunnel itself.
        self.host(place).ip(&format!("addr del {}/32 dev lo", place.inner()))?;
        let quoted = |list: &str| list.split(',').map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
        let config = format!(
            r#"{{"version": 1, "generation": 1, "name": "{}", "node": "left", "role": "edge", "podCidrs": [{own}],
                "local": {{"prefixes": [{own}]}}, "datapath": "user",
                "peers": [{{"name": "{}", "via": "tunnel", "addresses": ["{}"], "initiate": true, "prefixes": [{}]}}]}}"#,
            place.name(),
            peer.name(),
            peer.address(),
            quoted(peer.networks()),
            own = quoted(place.networks()),
        );
        std::fs::write(folder.join("config.json"), config)?;
        let path = |name: &str| folder.join(name).display().to_string();
        let (config, tls, run, state) = (path("config.json"), path("tls"), path("run"), path("state"));
        let arguments = ["run", "--config", &config, "--credentials", &tls, "--run-dir", &run, "--state-dir", &state];
        Program::start(self.host(place), &folder, "selvedge-agent", &arguments)
    }
}

/// Starts something that reads commands and writes lines.
pub fn piped(mut command: Command, log: &Path) -> Result<std::process::Child> {
    let errors = std::fs::File::create(log)?;
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn()?)
}

/// Asks until the answer is there.
pub fn await_answer(what: &str, mut ask: impl FnMut() -> Result<Option<String>>) -> Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > end {
            bail!("{what} did not come within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
