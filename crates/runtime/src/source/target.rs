//! Which Kubernetes API there is to ask.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use selvedge_edgeapi::Flavour;

use super::http::Server;
use crate::options::{Source, SourceKind};
use crate::{Error, Result};

/// An API and where it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) flavour: Flavour,
    pub(crate) server: Server,
}

/// Where a pod finds its ServiceAccount.
pub(crate) const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long a server on this machine may take to accept.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the choice depends on.
pub(crate) trait Surroundings {
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// Whether somebody accepts connections there.
    fn listens(&self, url: &str) -> bool;
    /// Whether there is such a file.
    fn exists(&self, path: &Path) -> bool;
}

/// This machine.
pub(crate) struct Here;

impl Surroundings for Here {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn listens(&self, url: &str) -> bool {
        let place = url.split_once("://").map_or(url, |(_, place)| place);
        let mut addresses = place.to_socket_addrs().into_iter().flatten();
        addresses.any(|address| TcpStream::connect_timeout(&address, PATIENCE).is_ok())
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

/// Whom to ask, as told or as found. What is on the node comes first: it still answers when the cloud is away.
pub(crate) fn choose(source: &Source, here: &dyn Surroundings) -> Result<Target> {
    let given = |flavour: Flavour, url: Option<String>| {
        let url = source.server.clone().or(url)?;
        Some(Target { flavour, server: server(source, flavour, url, here) })
    };
    let pod = pod_server(here);
    // KubeEdge and OpenYurt tell pods their own addresses.
    let of_pod = |address: &str| pod.clone().filter(|url| url.starts_with(&format!("https://{address}:")));
    let kubeedge = of_pod("169.254.30.10");
    let openyurt = of_pod("169.254.2.1");
    let usual = |flavour: Flavour| flavour.usual_server().map(str::to_owned);
    let chosen = match source.kind {
        SourceKind::KubeEdge => given(Flavour::KubeEdge, kubeedge.or(usual(Flavour::KubeEdge))),
        SourceKind::SuperEdge => given(Flavour::SuperEdge, usual(Flavour::SuperEdge)),
        SourceKind::OpenYurt => given(Flavour::OpenYurt, openyurt.or(usual(Flavour::OpenYurt))),
        SourceKind::Kubernetes => given(Flavour::Kubernetes, pod),
        SourceKind::Auto | SourceKind::File | SourceKind::Operator => match &source.server {
            // Of the operator: no Kubernetes API.
            Some(url) if source.kind != SourceKind::Operator => given(by_port(url), None),
            _ => {
                let listening = |flavour: Flavour| usual(flavour).filter(|url| here.listens(url));
                let found =
                    |flavour: Flavour, url: String| Target { flavour, server: server(source, flavour, url, here) };
                kubeedge
                    .map(|url| found(Flavour::KubeEdge, url))
                    .or_else(|| openyurt.map(|url| found(Flavour::OpenYurt, url)))
                    .or_else(|| {
                        let local = [Flavour::KubeEdge, Flavour::OpenYurt, Flavour::SuperEdge];
                        local.into_iter().find_map(|flavour| Some(found(flavour, listening(flavour)?)))
                    })
                    .or_else(|| pod.map(|url| found(Flavour::Kubernetes, url)))
            }
        },
    };
    chosen.ok_or_else(|| {
        let missing = match source.kind {
            SourceKind::Kubernetes => "--server is not given, and no pod's environment says where the API server is",
            _ => {
                "no Kubernetes API answers on this node: neither KubeEdge's (127.0.0.1:10550), OpenYurt's \
                  (127.0.0.1:10261) nor SuperEdge's (127.0.0.1:51003), and no pod's environment names one"
            }
        };
        Error::new(missing)
    })
}

/// Where the environment of a pod says that the API server is. KubeEdge sets both variables to nothing unless MetaServer
/// asks for tokens.
fn pod_server(here: &dyn Surroundings) -> Option<String> {
    let given = |name: &str| here.variable(name).filter(|value| !value.is_empty());
    let host = given("KUBERNETES_SERVICE_HOST")?;
    let port = given("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("https://{host}:{port}"))
}

fn by_port(url: &str) -> Flavour {
    match url.rsplit_once(':').map(|(_, port)| port) {
        Some("10550") => Flavour::KubeEdge,
        Some("10261" | "10268") => Flavour::OpenYurt,
        Some("51003") => Flavour::SuperEdge,
        _ => Flavour::Kubernetes,
    }
}

fn server(source: &Source, flavour: Flavour, url: String, here: &dyn Surroundings) -> Server {
    let account = |name: &str| Some(Path::new(ACCOUNT).join(name)).filter(|path: &PathBuf| here.exists(path));
    // A token goes over plain HTTP only to a yurthub on this machine, which knows nobody without one but the node.
    let secret = url.starts_with("https:") || flavour == Flavour::OpenYurt;
    let token_file = source.token_file.clone().or_else(|| account("token")).filter(|_| secret);
    Server { ca_file: source.ca_file.clone().or_else(|| account("ca.crt")), token_file, url }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    /// Variables, what listens, and whether there is a ServiceAccount.
    struct Elsewhere<'a>(&'a [(&'a str, &'a str)], &'a [&'a str], bool);

    impl Surroundings for Elsewhere<'_> {
        fn variable(&self, name: &str) -> Option<String> {
            self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        }
        fn listens(&self, url: &str) -> bool {
            self.1.iter().any(|port| url.ends_with(port))
        }
        fn exists(&self, _: &Path) -> bool {
            self.2
        }
    }

    fn find(kind: SourceKind, elsewhere: Elsewhere<'_>) -> Option<(Flavour, String, bool)> {
        let source = Source { kind, ..Options::new("x", None).source };
        let target = choose(&source, &elsewhere).ok()?;
        Some((target.flavour, target.server.url, target.server.token_file.is_some()))
    }

    const POD: [(&str, &str); 2] = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];

    #[test]
    fn what_is_on_the_node_comes_first() {
        let auto = |listening: &[&str]| find(SourceKind::Auto, Elsewhere(&POD, listening, true)).unwrap();
        assert_eq!(auto(&[":10550"]), (Flavour::KubeEdge, "http://127.0.0.1:10550".into(), false));
        assert_eq!(auto(&[":10261"]), (Flavour::OpenYurt, "http://127.0.0.1:10261".into(), true));
        assert_eq!(auto(&[":51003"]), (Flavour::SuperEdge, "https://127.0.0.1:51003".into(), true));
        assert_eq!(auto(&[]), (Flavour::Kubernetes, "https://10.96.0.1:443".into(), true));
        assert_eq!(find(SourceKind::Auto, Elsewhere(&[], &[], false)), None);
    }

    #[test]
    fn an_empty_variable_is_none() {
        let empty = [("KUBERNETES_SERVICE_HOST", ""), ("KUBERNETES_SERVICE_PORT", "")];
        assert_eq!(find(SourceKind::Auto, Elsewhere(&empty, &[], true)), None);
        assert_eq!(find(SourceKind::Kubernetes, Elsewhere(&empty, &[], true)), None);
        let found = find(SourceKind::Auto, Elsewhere(&empty, &[":10550"], true)).unwrap();
        assert_eq!(found.1, "http://127.0.0.1:10550");
    }

    #[test]
    fn frameworks_tell_pods_their_own_addresses() {
        let pod = |host, port| [("KUBERNETES_SERVICE_HOST", host), ("KUBERNETES_SERVICE_PORT", port)];
        let yurt = find(SourceKind::Auto, Elsewhere(&pod("169.254.2.1", "10268"), &[":10261"], true)).unwrap();
        assert_eq!(yurt, (Flavour::OpenYurt, "https://169.254.2.1:10268".into(), true));
        let edge = find(SourceKind::KubeEdge, Elsewhere(&pod("169.254.30.10", "10550"), &[], true)).unwrap();
        assert_eq!(edge, (Flavour::KubeEdge, "https://169.254.30.10:10550".into(), true));
        let six = find(SourceKind::Kubernetes, Elsewhere(&pod("fd00::1", "443"), &[], true)).unwrap();
        assert_eq!(six.1, "https://[fd00::1]:443");
    }

    #[test]
    fn a_given_server_is_asked() {
        for (url, flavour) in [
            ("https://127.0.0.1:10550", Flavour::KubeEdge),
            ("https://169.254.20.11:51003", Flavour::SuperEdge),
            ("http://127.0.0.1:10261", Flavour::OpenYurt),
            ("https://10.0.0.1:6443", Flavour::Kubernetes),
        ] {
            let mut source = Options::new("x", None).source;
            source.kind = SourceKind::Auto;
            source.server = Some(url.to_owned());
            let target = choose(&source, &Elsewhere(&[], &[], false)).unwrap();
            assert_eq!((target.flavour, target.server.url.as_str()), (flavour, url));
        }
    }
}
