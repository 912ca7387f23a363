use std::path::PathBuf;

#[cfg(feature = "api")]
use crate::{Result, error::Context as _};

/// Where a program finds its input and keeps its things.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node configuration, a JSON file.
    pub config: PathBuf,
    /// Folder with `ca.crt`, `tls.crt` and `tls.key`.
    pub credentials: PathBuf,
    /// Sockets of the running program; lost at boot.
    pub run_dir: PathBuf,
    /// Last good configuration and credentials; kept over a boot.
    pub state_dir: PathBuf,
    /// Where container runtimes read CNI networks; `None` on nodes that get none.
    pub cni_dir: Option<PathBuf>,
    /// Whom to become when started by root.
    pub user: Option<String>,
    /// Give up all files but those that are known to be needed, where the kernel can hold us to that.
    pub landlock: bool,
    /// Every byte costs money here, whatever the configuration says.
    pub metered: bool,
    /// Where SOCKS5 is served on the network.
    #[cfg(feature = "socks")]
    pub socks: Option<std::net::SocketAddr>,
    /// Who may use it there: a file of names and passwords.
    #[cfg(feature = "socks")]
    pub socks_users: Option<PathBuf>,
    /// Who delivers the configuration.
    #[cfg(feature = "api")]
    pub source: Source,
}

/// Who delivers the configuration, and where Services are read if the configuration leaves them to the node.
#[cfg(feature = "api")]
#[derive(Clone, Debug)]
pub struct Source {
    /// What speaks there.
    pub kind: SourceKind,
    /// Its URL, if it is not where it always is.
    pub server: Option<String>,
    /// Bearer token, read for every request.
    pub token_file: Option<PathBuf>,
    /// Certificate authorities of the server, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Kubernetes name of this node; the host's name if it is not given.
    pub node: Option<String>,
    /// Where ConfigMap and Secret of this node are.
    pub namespace: String,
}

/// Who delivers the configuration.
#[cfg(feature = "api")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Files; Services are read from whatever API is there.
    File,
    /// Whatever API is there.
    Auto,
    /// MetaServer of KubeEdge's edgecore.
    KubeEdge,
    /// lite-apiserver of SuperEdge.
    SuperEdge,
    /// yurthub of OpenYurt.
    OpenYurt,
    /// An ordinary API server.
    Kubernetes,
    /// The operator itself.
    Operator,
}

#[cfg(feature = "api")]
impl SourceKind {
    const WORDS: [(&str, SourceKind); 7] = [
        ("auto", SourceKind::Auto),
        ("file", SourceKind::File),
        ("kubeedge", SourceKind::KubeEdge),
        ("superedge", SourceKind::SuperEdge),
        ("openyurt", SourceKind::OpenYurt),
        ("kubernetes", SourceKind::Kubernetes),
        ("operator", SourceKind::Operator),
    ];

    pub(crate) fn parse(word: &str) -> Result<Self> {
        let found = Self::WORDS.iter().find(|(known, _)| *known == word);
        found.map(|(_, kind)| *kind).ok_or_else(|| {
            let known: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
            crate::Error::new(format!("--source: \"{word}\" is none of {}", known.join(", ")))
        })
    }
}

impl Options {
    /// The defaults of a program named `program` (`selvedge`, `selvedge-connector`): both may run on one machine.
    pub fn new(program: &str, cni_dir: Option<&str>) -> Self {
        Options {
            config: format!("/etc/{program}/config.json").into(),
            credentials: format!("/etc/{program}/tls").into(),
            run_dir: format!("/run/{program}").into(),
            state_dir: format!("/var/lib/{program}").into(),
            cni_dir: cni_dir.map(PathBuf::from),
            user: None,
            landlock: true,
            metered: false,
            #[cfg(feature = "socks")]
            socks: None,
            #[cfg(feature = "socks")]
            socks_users: None,
            #[cfg(feature = "api")]
            source: Source {
                kind: SourceKind::File,
                server: None,
                token_file: None,
                ca_file: None,
                node: None,
                namespace: "selvedge".to_owned(),
            },
        }
    }

    /// What the environment says, as a DaemonSet sets it. Empty means not set: KubeEdge sets variables of its own so.
    #[cfg(feature = "api")]
    pub(crate) fn read_environment(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<()> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let source = &mut self.source;
        if let Some(word) = given("SELVEDGE_SOURCE") {
            source.kind = SourceKind::parse(&word).context(|| "SELVEDGE_SOURCE".to_owned())?;
        }
        source.server = given("SELVEDGE_SERVER").map(without_slash);
        source.token_file = given("SELVEDGE_TOKEN_FILE").map(PathBuf::from);
        source.ca_file = given("SELVEDGE_CA_FILE").map(PathBuf::from);
        source.node = given("SELVEDGE_NODE");
        source.namespace = given("SELVEDGE_NAMESPACE").unwrap_or_else(|| source.namespace.clone());
        Ok(())
    }

    pub(crate) fn status_socket(&self) -> PathBuf {
        self.run_dir.join("status.sock")
    }

    #[cfg(feature = "socks")]
    pub(crate) fn socks_socket(&self) -> PathBuf {
        self.run_dir.join("socks.sock")
    }
}

/// Paths are put behind it that begin with one.
#[cfg(feature = "api")]
pub(crate) fn without_slash(mut url: String) -> String {
    url.truncate(url.trim_end_matches('/').len());
    url
}
