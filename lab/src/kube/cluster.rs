//! The laboratory's nodes as a Kubernetes cluster: what the operator and the agents need in it, and each node's way to
//! the API.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::api::Api;
use super::cloud::{Cloud, PORT};
use super::framework::{EdgeApi, Framework};
use crate::exec;
use crate::node::{Node, Role};
use crate::programs::{find, wait};
use crate::topology::Lab;

/// They come through KubeEdge's controllers and its cloud hub.
const RIGHTS: Duration = Duration::from_secs(60);

/// Where the operator writes.
pub const NAMESPACE: &str = "selvedge";

/// A cluster of which the operator is a part, and what stands for its API on the edges.
#[derive(Debug)]
pub struct Cluster {
    /// By node name; they end before the cloud does.
    pub edges: BTreeMap<String, EdgeApi>,
    /// The API server and the edges' way to it.
    pub cloud: Cloud,
    /// Whose edges they are.
    pub framework: Framework,
    /// The API as its administrator.
    pub admin: Api,
    dir: PathBuf,
}

impl Cluster {
    /// Starts the control plane and installs our definitions and the agents' accounts.
    pub fn start(lab: &Lab, framework: Framework) -> Result<Self> {
        let cloud = Cloud::start(lab, framework)?;
        let admin = cloud.plane.admin()?;
        cloud.apply_text(&exec::run(Command::new(find("selvedge-operator")?).arg("crds"))?)?;
        let dir = lab.dir.join("accounts");
        std::fs::create_dir_all(&dir)?;
        let cluster = Self { edges: BTreeMap::new(), cloud, framework, admin, dir };
        cluster.admin.apply(&object("v1", "Namespace", NAMESPACE, None))?;
        cluster.admin.apply(&services_role())?;
        lab.nodes.iter().try_for_each(|node| cluster.add_account(node))?;
        Ok(cluster)
    }

    /// Starts what stands for the API server on the edges.
    pub fn start_edges(&mut self, lab: &Lab) -> Result<()> {
        for node in lab.nodes.iter().filter(|node| node.role == Role::Edge) {
            self.edges.insert(node.name.clone(), EdgeApi::start(self.framework, &self.cloud, node)?);
            if self.framework == Framework::KubeedgeTls {
                self.await_rights(node)?;
            }
        }
        Ok(())
    }

    /// What an account may do comes to a node with the first pod there that has it.
    fn await_rights(&self, node: &Node) -> Result<()> {
        let account = account(node);
        let mut pod = object("v1", "Pod", &account, Some(NAMESPACE));
        pod["spec"] = json!({
            "nodeName": node.name, "serviceAccountName": account, "hostNetwork": true,
            "containers": [{"name": "agent", "image": "selvedge-agent"}],
        });
        self.admin.apply(&pod)?;
        let token = std::fs::read_to_string(self.token_file(node))?;
        let edge = self.edges.get(&node.name).context("no API on the edge")?;
        let api = edge.api("selvedge-lab", Some(&token))?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/selvedge-node-{}", node.name);
        wait(&format!("rights of {account}"), RIGHTS, || api.get(&path).map(drop)).with_context(|| edge.log_tail())
    }

    /// What stands for the API server on an edge.
    pub fn edge(&mut self, node: &str) -> Result<&mut EdgeApi> {
        self.edges.get_mut(node).with_context(|| format!("{node} has no API of its own"))
    }

    /// The options by which a node's program is told its source.
    pub fn source(&self, node: &Node) -> Vec<String> {
        let (kind, server) = match self.edges.get(&node.name) {
            Some(edge) => (self.framework, edge.url()),
            None => (Framework::Kubernetes, format!("https://{}:{PORT}", self.cloud.address())),
        };
        let words = ["--source", kind.word(), "--server", &server, "--node", &node.name, "--namespace", NAMESPACE];
        let mut words: Vec<String> = words.map(str::to_owned).to_vec();
        let authority = self.cloud.plane.pki.path("ca.crt");
        for (option, file) in [("--ca-file", authority), ("--token-file", self.token_file(node))] {
            words.extend([option.to_owned(), file.display().to_string()]);
        }
        words
    }

    /// The configuration that the operator has written for a node.
    pub fn configuration(&self, node: &str) -> Result<Value> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/selvedge-node-{node}");
        let map = self.admin.get(&path)?;
        let text = map["data"]["config.json"].as_str().context("no config.json in it")?;
        serde_json::from_str(text).with_context(|| path)
    }

    /// One account per node, which may read what is that node's.
    fn add_account(&self, node: &Node) -> Result<()> {
        let name = account(node);
        let own = format!("selvedge-node-{}", node.name);
        self.admin.apply(&object("v1", "ServiceAccount", &name, Some(NAMESPACE)))?;
        let mut role = object("rbac.authorization.k8s.io/v1", "Role", &name, Some(NAMESPACE));
        role["rules"] = json!([{
            "apiGroups": [""], "resources": ["configmaps", "secrets"], "resourceNames": [own],
            "verbs": ["get", "list", "watch"],
        }]);
        self.admin.apply(&role)?;
        for (kind, role, namespace) in [
            ("RoleBinding", ("Role", name.as_str()), Some(NAMESPACE)),
            ("ClusterRoleBinding", ("ClusterRole", "selvedge-agent"), None),
        ] {
            let mut binding = object("rbac.authorization.k8s.io/v1", kind, &name, namespace);
            binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1});
            binding["subjects"] = json!([{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}]);
            self.admin.apply(&binding)?;
        }
        std::fs::write(self.token_file(node), self.cloud.plane.token(NAMESPACE, &name)?)?;
        Ok(())
    }

    fn token_file(&self, node: &Node) -> PathBuf {
        self.dir.join(format!("{}.token", node.name))
    }
}

fn account(node: &Node) -> String {
    format!("selvedge-agent-{}", node.name)
}

/// The head of an object.
pub fn object(version: &str, kind: &str, name: &str, namespace: Option<&str>) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}

fn services_role() -> Value {
    let mut role = object("rbac.authorization.k8s.io/v1", "ClusterRole", "selvedge-agent", None);
    let verbs = ["get", "list", "watch"];
    role["rules"] = json!([
        {"apiGroups": [""], "resources": ["services"], "verbs": verbs},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
    ]);
    role
}
