use std::path::PathBuf;

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
        }
    }

    pub(crate) fn status_socket(&self) -> PathBuf {
        self.run_dir.join("status.sock")
    }
}
