//! Where the configuration comes from: a file or an API, and behind it the last good copy.

#[cfg(feature = "api")]
mod asker;
#[cfg(feature = "api")]
pub(crate) mod desk;
#[cfg(feature = "api")]
pub(crate) mod enrolment;
#[cfg(feature = "api")]
pub(crate) mod http;
#[cfg(feature = "api")]
mod operator;
#[cfg(feature = "api")]
mod owned;
#[cfg(feature = "api")]
mod services;
#[cfg(feature = "api")]
pub(crate) mod target;
#[cfg(feature = "api")]
mod tcp;
#[cfg(feature = "api")]
pub(crate) mod tls;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
#[cfg(feature = "gzip")]
use std::path::PathBuf;
#[cfg(feature = "api")]
use std::sync::Arc;

use selvedge_linux::file;
use selvedge_linux::user::User;
use selvedge_model::{MAX_CONFIG_BYTES, NodeConfig, Via};
use selvedge_tunnel::Credentials;
use zeroize::Zeroizing;

use crate::error::Context as _;
#[cfg(feature = "api")]
use crate::options::SourceKind;
use crate::{Error, Options, Result};

/// A configuration that can be used, with what proves who this node is.
pub(crate) struct Loaded {
    pub(crate) config: NodeConfig,
    /// Absent on nodes without tunnels.
    pub(crate) credentials: Option<Credentials>,
    pub(crate) source: &'static str,
    text: String,
    pem: Option<Pem>,
    /// What `gateway.pem` holds.
    #[cfg(feature = "gateway")]
    pub(crate) gateway: Zeroizing<Vec<u8>>,
}

/// The three files of a credentials folder. Revocation lists follow the authorities.
#[derive(PartialEq)]
#[cfg_attr(feature = "api", derive(Clone))]
pub(crate) struct Pem {
    pub(crate) ca: Vec<u8>,
    pub(crate) chain: Vec<u8>,
    pub(crate) key: Zeroizing<Vec<u8>>,
    /// What `gateway.pem` holds, where it comes with them.
    #[cfg(all(feature = "api", feature = "gateway"))]
    pub(crate) gateway: Zeroizing<Vec<u8>>,
}

/// In a folder of credentials.
pub(crate) const CREDENTIAL_FILES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];

/// Beside them if anything was revoked.
#[cfg(feature = "crl")]
pub(crate) const REVOKED: &str = "crl.pem";

/// Beside them if the edge gateway has certificates: a section for each, begun by a line with `# ` and its name.
#[cfg(feature = "gateway")]
pub(crate) const GATEWAY: &str = "gateway.pem";

/// More than any certificate chain, key or revocation list needs.
const MAX_CREDENTIAL_BYTES: u64 = 1 << 20;

impl Loaded {
    /// What an API delivered.
    #[cfg(feature = "api")]
    pub(crate) fn new(config: NodeConfig, text: String, pem: Option<Pem>, source: &'static str) -> Result<Loaded> {
        let credentials = pem.as_ref().map(|pem| Credentials::from_pem(&pem.chain, &pem.key, &pem.ca));
        let credentials = credentials.transpose().context(|| format!("credentials from {source}"))?;
        #[cfg(feature = "gateway")]
        let gateway = pem.as_ref().map(|pem| pem.gateway.clone()).unwrap_or_default();
        Ok(Loaded {
            config,
            credentials,
            source,
            text,
            pem,
            #[cfg(feature = "gateway")]
            gateway,
        })
    }

    /// The same for the program that reads what was delivered, as text.
    #[cfg(feature = "api")]
    pub(crate) fn into_parts(self) -> (String, Option<Pem>) {
        (self.text, self.pem)
    }

    /// True if nothing that matters differs.
    pub(crate) fn same_as(&self, other: &Loaded) -> bool {
        #[cfg(feature = "gateway")]
        if self.gateway != other.gateway {
            return false;
        }
        self.text == other.text && self.pem == other.pem
    }

    /// Keeps this configuration for a boot without any other; flash is written only when something differs.
    pub(crate) fn keep(&self, options: &Options) -> Result<()> {
        let tls = options.state_dir.join("tls");
        private_dir(&options.state_dir)?;
        if let Some(pem) = &self.pem {
            private_dir(&tls)?;
            for (name, content) in CREDENTIAL_FILES.iter().zip([&pem.ca, &pem.chain, &*pem.key]) {
                file::write(tls.join(name), content, 0o600).context(|| format!("keep {name}"))?;
            }
        }
        #[cfg(feature = "gateway")]
        if !self.gateway.is_empty() || tls.join(GATEWAY).exists() {
            private_dir(&tls)?;
            file::write(tls.join(GATEWAY), &self.gateway, 0o600).context(|| format!("keep {GATEWAY}"))?;
        }
        file::write(options.state_dir.join("config.json"), self.text.as_bytes(), 0o600)
            .context(|| "keep the configuration".to_owned())?;
        Ok(())
    }
}

/// Starts the threads that read what is not in files; those for Services start when they are wanted.
#[cfg(feature = "api")]
pub(crate) fn start(options: &Options) -> Result<desk::Desk> {
    let kept = |folder: &Path| read_bounded(&folder.join(SERVICES), MAX_SERVICES_BYTES);
    let kept = kept(&options.run_dir).or_else(|_| kept(&options.state_dir)).unwrap_or_default();
    let view = selvedge_edgeapi::read_kept(std::str::from_utf8(&kept).unwrap_or_default());
    let desk = desk::Desk::new(view);
    let options = Arc::new(options.clone());
    match options.source.kind {
        SourceKind::File => return Ok(desk),
        SourceKind::Operator => return operator::start(&desk, &options).map(|()| desk),
        _ => {}
    }
    if let Ok(loaded) = last_good(&options) {
        let source = loaded.source;
        let (text, pem) = loaded.into_parts();
        desk.put_config(text, source);
        if let Some(pem) = pem {
            desk.put_credentials(pem);
        }
    }
    owned::start(&desk, &options)?;
    Ok(desk)
}

/// In the run folder as they are known, in the state folder as they were not long ago: Services and EndpointSlices.
#[cfg(feature = "api")]
pub(crate) const SERVICES: &str = "services";

/// More than ten times what a thousand Services take.
#[cfg(feature = "api")]
const MAX_SERVICES_BYTES: u64 = 16 << 20;

/// What the operator delivered.
pub(crate) fn delivered(options: &Options) -> Result<Loaded> {
    load(&options.config, &options.credentials, "file")
}

/// What was in force before.
pub(crate) fn last_good(options: &Options) -> Result<Loaded> {
    load(&options.state_dir.join("config.json"), &options.state_dir.join("tls"), "last good copy")
}

/// Reads one configuration file and says in a sentence what is wrong with it.
pub(crate) fn read_config(path: &Path) -> Result<(NodeConfig, String)> {
    #[cfg(feature = "gzip")]
    let (path, text) = match packed(path) {
        packed if !path.exists() && packed.exists() => {
            let text = unpack(&read_bounded(&packed, MAX_CONFIG_BYTES as u64)?);
            (&*packed.clone(), text.context(|| packed.display().to_string())?)
        }
        _ => (path, read_text(path)?),
    };
    #[cfg(not(feature = "gzip"))]
    let text = read_text(path)?;
    let config = NodeConfig::parse(&text).context(|| path.display().to_string())?;
    Ok((config, text))
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = read_bounded(path, MAX_CONFIG_BYTES as u64)?;
    String::from_utf8(bytes)
        .map_err(|e| Error::new(format!("{}: byte {}: not UTF-8 text", path.display(), e.utf8_error().valid_up_to())))
}

/// Where a configuration is that is too long for a ConfigMap, if there is none at `path`.
#[cfg(feature = "gzip")]
pub(crate) fn packed(path: &Path) -> PathBuf {
    path.with_extension("json.gz")
}

/// What gzip(1) has packed.
#[cfg(feature = "gzip")]
fn unpack(packed: &[u8]) -> Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let limit = MAX_CONFIG_BYTES as u64 + 1;
    flate2::read::GzDecoder::new(packed).take(limit).read_to_string(&mut text).context(|| "unpack".to_owned())?;
    Ok(text)
}

/// Only a connector has so many peers.
#[cfg(all(feature = "api", not(feature = "gzip")))]
fn unpack(_: &[u8]) -> Result<String> {
    Err(Error::new("is packed, which only a connector reads".to_owned()))
}

/// Whether the node has tunnels.
#[cfg(feature = "api")]
pub(crate) fn needs_credentials(config: &NodeConfig) -> bool {
    config.peers.iter().any(|p| p.via == Via::Tunnel)
}

fn load(config_path: &Path, credentials_path: &Path, source: &'static str) -> Result<Loaded> {
    let (config, text) = read_config(config_path)?;
    let read = |name: &str| read_bounded(&credentials_path.join(name), MAX_CREDENTIAL_BYTES);
    let [ca, chain, key] = CREDENTIAL_FILES;
    #[cfg(feature = "gateway")]
    let gateway = read_gateway(credentials_path)?;
    #[cfg(feature = "gateway")]
    let needless = !credentials_path.join(ca).exists();
    #[cfg(not(feature = "gateway"))]
    let needless = !credentials_path.exists();
    if !config.peers.iter().any(|p| p.via == Via::Tunnel) && needless {
        return Ok(Loaded {
            config,
            credentials: None,
            source,
            text,
            pem: None,
            #[cfg(feature = "gateway")]
            gateway,
        });
    }
    let pem = Pem {
        ca: read(ca)?,
        chain: read(chain)?,
        key: Zeroizing::new(read(key)?),
        #[cfg(all(feature = "api", feature = "gateway"))]
        gateway: gateway.clone(),
    };
    #[cfg(feature = "crl")]
    let pem = match credentials_path.join(REVOKED).exists() {
        true => Pem { ca: [pem.ca, read(REVOKED)?].concat(), ..pem },
        false => pem,
    };
    let credentials = Credentials::from_pem(&pem.chain, &pem.key, &pem.ca)
        .context(|| format!("credentials in {}", credentials_path.display()))?;
    Ok(Loaded {
        config,
        credentials: Some(credentials),
        source,
        text,
        pem: Some(pem),
        #[cfg(feature = "gateway")]
        gateway,
    })
}

/// What `gateway.pem` in a folder holds; nothing if there is none.
#[cfg(feature = "gateway")]
pub(crate) fn read_gateway(folder: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let path = folder.join(GATEWAY);
    if path.exists() { read_bounded(&path, MAX_CREDENTIAL_BYTES).map(Zeroizing::new) } else { Ok(Zeroizing::default()) }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("is longer than {limit} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|error| {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let hint = if denied { format!(" (for user {})", User::current().name) } else { String::new() };
        Error::new(format!("{}: {error}{hint}", path.display()))
    })
}

pub(crate) fn private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).context(|| format!("create {}", path.display()))
}

#[cfg(test)]
#[cfg(feature = "api")]
mod tests;
