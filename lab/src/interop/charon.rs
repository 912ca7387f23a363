//! strongSwan's daemon in a namespace, with files and a control socket of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::site::{Place, Site, await_answer};
use crate::bench::credentials::Authority;
use crate::exec;

/// What differs between connections.
#[derive(Clone)]
pub struct Connection {
    /// IKE proposal.
    pub ike: &'static str,
    /// ESP proposal.
    pub esp: &'static str,
    /// The name the other end must have; empty: the right one.
    pub remote_id: &'static str,
    /// Its own certificate is by an authority nobody trusts.
    pub stranger: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Connection {
            ike: "aes256gcm16-prfsha256-curve25519",
            esp: "aes256gcm16-curve25519",
            remote_id: "",
            stranger: false,
        }
    }
}

/// A running charon.
pub struct Charon {
    child: Child,
    folder: PathBuf,
    namespace: String,
}

impl Charon {
    /// Starts it at `place` with one connection; with `call` it knows where to call.
    pub fn start(site: &Site, place: Place, connection: &Connection, call: Option<Place>) -> Result<Self> {
        let folder = site.folder("charon")?;
        for name in ["conf.d", "ecdsa", "private"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let own = if connection.stranger {
            Authority::new()?.issue(place.name())?
        } else {
            site.authority().issue(place.name())?
        };
        own.write_as(&folder, "x509ca/own.pem", "x509/cert.pem", "pkcs8/key.pem")?;
        site.authority().issue("lab.unused")?.write_as(
            &folder,
            "x509ca/ca.pem",
            "unused/cert.pem",
            "unused/key.pem",
        )?;
        std::fs::write(folder.join("strongswan.conf"), settings(&folder))?;
        std::fs::write(folder.join("swanctl.conf"), connections(place, connection, call))?;
        let log = std::fs::File::create(folder.join("charon.log"))?;
        let mut command = site.host(place).command("/usr/sbin/charon-systemd");
        command.env("STRONGSWAN_CONF", folder.join("strongswan.conf"));
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start charon-systemd (lab/tools/setup test installs it)")?;
        let charon = Self { child, folder, namespace: site.host(place).name().to_owned() };
        let socket = charon.folder.join("vici");
        await_answer("charon's control socket", || Ok(socket.exists().then(String::new)))?;
        charon.control(&["--load-all"])?;
        Ok(charon)
    }

    /// Runs `swanctl`; what it printed.
    pub fn control(&self, arguments: &[&str]) -> Result<String> {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "swanctl"]).args(arguments);
        command.arg("--uri").arg(format!("unix://{}", self.folder.join("vici").display()));
        command.env("STRONGSWAN_CONF", self.folder.join("strongswan.conf")).env("SWANCTL_DIR", &self.folder);
        exec::run(&mut command)
    }

    /// Waits until a CHILD_SA with these words is installed.
    pub fn installed(&self, words: &str) -> Result<String> {
        await_answer("an installed CHILD_SA", || {
            let list = self.control(&["--list-sas"])?;
            let line = list.lines().find(|line| line.contains("INSTALLED") && line.contains(words));
            Ok(line.map(|line| line.trim().chars().skip(2).take(60).collect()))
        })
    }

    /// The SPIs of the established IKE SA.
    pub fn ike_spis(&self) -> Result<String> {
        let list = self.control(&["--list-sas"])?;
        let line = list.lines().find(|line| line.contains("ESTABLISHED")).context("no established IKE SA")?;
        Ok(line.split("IKEv2, ").nth(1).unwrap_or_default().to_owned())
    }

    /// Waits until the only IKE SA has other SPIs.
    pub fn await_other_spis(&self, before: &str) -> Result<()> {
        await_answer("another IKE SA", || {
            let list = self.control(&["--list-sas"])?;
            let spis: Vec<&str> = list.lines().filter_map(|line| line.split("IKEv2, ").nth(1)).collect();
            Ok((spis.len() == 1 && spis[0] != before && list.contains("ESTABLISHED")).then(String::new))
        })
        .map(drop)
    }

    /// Waits until there is no IKE SA.
    pub fn await_no_sa(&self) -> Result<String> {
        await_answer("the end of all SAs", || Ok(self.control(&["--list-sas"])?.trim().is_empty().then(String::new)))
    }
}

impl Drop for Charon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(folder: &Path) -> String {
    format!(
        "charon-systemd {{
  load = random nonce openssl curve25519 pem pkcs1 pkcs8 pubkey x509 revocation constraints kernel-libipsec kernel-netlink socket-default vici aes sha1 sha2 hmac gcm chapoly kdf drbg updown
  filelog {{ stderr {{ default = 1 }} }}
  journal {{ default = -1 }}
  plugins {{ vici {{ socket = unix://{}/vici }} }}
}}
swanctl {{ load = pem pkcs1 pkcs8 x509 openssl random nonce pubkey }}
",
        folder.display()
    )
}

fn connections(place: Place, connection: &Connection, call: Option<Place>) -> String {
    let other = place.other();
    format!(
        "connections {{ c {{
  version = 2
  local_addrs = {}
  remote_addrs = {}
  proposals = {}
  local {{ auth = pubkey\n certs = cert.pem\n id = {} }}
  remote {{ auth = pubkey\n id = {} }}
  children {{ k {{
    local_ts = {}
    remote_ts = {}
    esp_proposals = {}
    mode = tunnel
  }} }}
}} }}
",
        place.address(),
        call.map_or("%any", Place::address),
        connection.ike,
        place.name(),
        if connection.remote_id.is_empty() { other.name() } else { connection.remote_id },
        place.networks(),
        other.networks(),
        connection.esp,
    )
}
