//! The output directory: what every node is to have, and what the operator must remember.
//!
//! ```text
//! OUT/<node>/config.json            NodeConfig
//! OUT/<node>/tls/                   credentials, see `credentials`
//! OUT/status.json                   nodes and problems, for people and scripts
//! OUT/.state/allocations.json       who has which pod network
//! OUT/.state/ca.{crt,key}           the certificate authority, and what else it must remember, see `Authorities`
//! OUT/.state/issued.json            certificates that have not ended
//! OUT/.state/tokens/<node>.json     what is kept of one-time tokens
//! OUT/.state/lock                   held while an operator works here
//! ```

mod atomic;
mod credentials;
mod folder;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use ipnet::IpNet;
use selvedge_model::{NodeConfig, Role};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::authority::{Authorities, Credentials};
use crate::core::Allocations;
use crate::core::issued::Issued;
use crate::server::{Record, Verdict};
use folder::Content;

/// The output directory, for this process alone.
pub(crate) struct Store {
    root: PathBuf,
    _lock: File,
    /// Held while tokens or issued certificates are changed.
    changing: Mutex<()>,
}

/// An error with the path it is about.
#[derive(Debug)]
pub(crate) struct StoreError {
    path: PathBuf,
    message: String,
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.message)
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    pub(crate) fn new(path: impl Into<PathBuf>, error: impl std::fmt::Display) -> Self {
        StoreError { path: path.into(), message: error.to_string() }
    }
}

/// What is kept of a configuration in memory, and told of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    /// In the fabric.
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) generation: u64,
    pub(crate) pod_cidrs: Vec<IpNet>,
    pub(crate) peers: usize,
}

impl Summary {
    pub(crate) fn of(config: &NodeConfig) -> Summary {
        Summary {
            name: config.name.clone(),
            role: config.role,
            generation: config.generation,
            pod_cidrs: config.pod_cidrs.clone(),
            peers: config.peers.len(),
        }
    }
}

type Result<T> = std::result::Result<T, StoreError>;

trait At<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl<T, E: std::fmt::Display> At<T> for std::result::Result<T, E> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|e| StoreError::new(path, e))
    }
}

impl Store {
    /// Makes the directory if it is not there.
    pub(crate) fn open(root: &Path) -> Result<Store> {
        fs::create_dir_all(root).at(root)?;
        let state = root.join(".state");
        atomic::directory(&state, 0o700).at(&state)?;
        let path = state.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).at(&path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Store { root: root.to_owned(), _lock: lock, changing: Mutex::default() }),
            Err(TryLockError::WouldBlock) => Err("another selvedge-operator works here").at(root),
            Err(TryLockError::Error(e)) => Err(e).at(&path),
        }
    }

    /// What was written earlier, by node. A configuration that cannot be read any more counts by its generation alone.
    pub(crate) fn configs(&self) -> Result<BTreeMap<String, Summary>> {
        let mut configs = BTreeMap::new();
        for entry in fs::read_dir(&self.root).at(&self.root)? {
            let name = entry.at(&self.root)?.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let Ok(text) = fs::read_to_string(self.config_path(&name)) else { continue };
            let summary = match NodeConfig::parse(&text) {
                Ok(config) if config.node != name => None,
                Ok(config) => Some(Summary::of(&config)),
                Err(_) => remains(&text),
            };
            configs.extend(summary.map(|summary| (name, summary)));
        }
        Ok(configs)
    }

    /// The configuration that a node has, if it can be read.
    pub(crate) fn config(&self, node: &str) -> Option<NodeConfig> {
        let text = fs::read_to_string(self.config_path(node)).ok()?;
        NodeConfig::parse(&text).ok()
    }

    pub(crate) fn write_config(&self, config: &NodeConfig) -> Result<()> {
        self.make_node_directory(&config.node)?;
        let path = self.config_path(&config.node);
        write_json(&path, config, 0o644)
    }

    pub(crate) fn credentials(&self, node: &str) -> Option<Credentials> {
        credentials::read(&self.root.join(node).join("tls"))
    }

    /// `gateway.pem` as it was written beside them.
    pub(crate) fn gateway(&self, node: &str) -> String {
        credentials::read_gateway(&self.root.join(node).join("tls"))
    }

    /// `gateway` are the certificates of its gateway, if it has any.
    pub(crate) fn write_credentials(
        &self,
        node: &str,
        credentials: &Credentials,
        gateway: &str,
        now: SystemTime,
    ) -> Result<()> {
        self.make_node_directory(node)?;
        let path = self.root.join(node).join("tls");
        credentials::write(&path, credentials, gateway, &version(now)).at(&path)
    }

    /// Removes what this program wrote for a node, and the folder unless somebody put something else there.
    pub(crate) fn remove_node(&self, node: &str) -> Result<()> {
        let folder = self.root.join(node);
        let gone = |result: io::Result<()>| match result {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        let tls = folder.join("tls");
        gone(fs::remove_dir_all(&tls)).at(&tls)?;
        let config = self.config_path(node);
        gone(fs::remove_file(&config)).at(&config)?;
        match gone(fs::remove_dir(&folder)) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            result => result.at(&folder),
        }
    }

    pub(crate) fn write_status(&self, status: &impl Serialize) -> Result<()> {
        write_json(&self.root.join("status.json"), status, 0o644)
    }

    /// Empty if there are none yet. A file that cannot be read is an error: to go on would give networks twice.
    pub(crate) fn allocations(&self) -> Result<Allocations> {
        read_json(&self.allocations_path())
    }

    pub(crate) fn write_allocations(&self, allocations: &Allocations) -> Result<()> {
        write_json(&self.allocations_path(), allocations, 0o600)
    }

    /// Empty if there are none yet. A file that cannot be read is an error: to go on would forget what is to be revoked.
    pub(crate) fn change_issued(&self, change: impl FnOnce(&mut Issued)) -> Result<Issued> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.state_path("issued.json");
        let mut issued = read_json(&path)?;
        change(&mut issued);
        write_json(&path, &issued, 0o600)?;
        Ok(issued)
    }

    /// Lets the token of a node be judged. The record that comes of it, if any, is written before anybody else looks.
    pub(crate) fn change_token(&self, node: &str, judge: impl FnOnce(&Record) -> Verdict) -> Result<bool> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = token_path(&self.root, node);
        let record: Record = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).at(&path)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e).at(&path),
        };
        match judge(&record) {
            Verdict::Spend(spent) => write_json(&path, &spent, 0o600).map(|()| true),
            Verdict::Repeat => Ok(true),
            Verdict::Refuse => Ok(false),
        }
    }

    /// The authorities kept here; `None` if there is neither key nor certificate.
    pub(crate) fn authorities(&self) -> Result<Option<Authorities>> {
        let state = self.root.join(".state");
        let mut kept = BTreeMap::new();
        for name in Authorities::FILES {
            let path = state.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => drop(kept.insert(name.to_owned(), text)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).at(&path),
            }
        }
        if Authorities::are_kept(&kept) { Authorities::load(&kept).map(Some).at(&state) } else { Ok(None) }
    }

    pub(crate) fn write_authorities(&self, authorities: &Authorities, now: SystemTime) -> Result<()> {
        let state = self.root.join(".state");
        let kept = authorities.keep().at(&state)?;
        let files = kept.iter().map(|(name, text)| (name.as_str(), Content { text, mode: 0o600 })).collect();
        folder::write(&state, &files, &version(now)).at(&state)
    }

    fn state_path(&self, name: &str) -> PathBuf {
        self.root.join(".state").join(name)
    }

    fn allocations_path(&self) -> PathBuf {
        self.state_path("allocations.json")
    }

    fn config_path(&self, node: &str) -> PathBuf {
        self.root.join(node).join("config.json")
    }

    fn make_node_directory(&self, node: &str) -> Result<()> {
        let path = self.root.join(node);
        atomic::directory(&path, 0o755).at(&path)
    }
}

/// What can be told of a configuration of another schema or a damaged one: enough to go on counting.
fn remains(text: &str) -> Option<Summary> {
    let value: Value = serde_json::from_str(text).ok()?;
    Some(Summary {
        name: value.get("name")?.as_str()?.to_owned(),
        role: Role::Cloud,
        generation: value.get("generation")?.as_u64()?,
        pod_cidrs: Vec::new(),
        peers: 0,
    })
}

/// Keeps a token in an output directory, whether an operator works there or not. It replaces an earlier one.
pub(crate) fn write_token(root: &Path, node: &str, record: &Record) -> Result<()> {
    let path = token_path(root, node);
    if let Some(tokens) = path.parent() {
        atomic::directory(tokens, 0o700).at(tokens)?;
    }
    write_json(&path, record, 0o600)
}

fn token_path(root: &Path, node: &str) -> PathBuf {
    root.join(".state/tokens").join(format!("{node}.json"))
}

/// A name for what is written now.
fn version(now: SystemTime) -> String {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

fn read_json<T: Default + DeserializeOwned>(path: &Path) -> Result<T> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).at(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(e) => Err(e).at(path),
    }
}

fn write_json(path: &Path, value: &impl Serialize, mode: u32) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).at(path)?;
    text.push(b'\n');
    atomic::replace(path, &text, mode).at(path)
}
