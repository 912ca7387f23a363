//! The pods.

use std::collections::BTreeMap;

use selvedge_model::Role;
use serde_json::{Value, json};

use crate::api::{AgentSpec, NodeAgent, Resources};

pub(crate) const LABEL_NAME: &str = "app.kubernetes.io/name";
pub(crate) const LABEL_JOB: &str = "app.kubernetes.io/component";
pub(crate) const LABEL_REVISION: &str = "selvedge.dev/revision";
const LABEL_MANAGED: (&str, &str) = ("app.kubernetes.io/managed-by", "selvedge-operator");

/// On a node's ConfigMap, with the program as value: something of it may be on the node.
pub(crate) const LABEL_MARK: &str = "selvedge.dev/agent";

/// The account of the pods; it may read Services, and nothing of any node.
const SERVICE_ACCOUNT: &str = "selvedge-agent";

/// Label selector of all pods of ours.
pub(crate) fn selector() -> String {
    format!("{}={},{LABEL_JOB} in (agent,clean)", LABEL_MANAGED.0, LABEL_MANAGED.1)
}

/// A program that runs on nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    Agent,
    Connector,
}

impl Program {
    pub(crate) fn of(role: Role) -> Program {
        match role {
            Role::Connector => Program::Connector,
            Role::Edge | Role::Cloud => Program::Agent,
        }
    }

    /// Of the binary, the image and the label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Program::Agent => "selvedge-agent",
            Program::Connector => "selvedge-connector",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Program> {
        [Program::Agent, Program::Connector].into_iter().find(|program| program.name() == name)
    }

    /// Base name of its folders.
    fn folder(self) -> &'static str {
        match self {
            Program::Agent => "selvedge",
            Program::Connector => "selvedge-connector",
        }
    }

    /// What it needs: see docs/footprint.md and docs/benchmarks.md. There is no limit of CPU: it would hold up packets.
    fn resources(self) -> Resources {
        let (request, limit) = match self {
            Program::Agent => ("16Mi", "64Mi"),
            Program::Connector => ("32Mi", "256Mi"),
        };
        let cpu = ("cpu".to_owned(), "10m".to_owned());
        Resources {
            requests: BTreeMap::from([cpu, ("memory".to_owned(), request.to_owned())]),
            limits: BTreeMap::from([("memory".to_owned(), limit.to_owned())]),
        }
    }
}

/// What a pod is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    /// Run the program.
    Agent,
    /// Remove from the node all that the program made there.
    Clean,
}

impl Job {
    fn name(self) -> &'static str {
        match self {
            Job::Agent => "agent",
            Job::Clean => "clean",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Job> {
        [Job::Agent, Job::Clean].into_iter().find(|job| job.name() == name)
    }
}

/// Whose pod it is to be, and what from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) namespace: &'a str,
    pub(super) node: &'a str,
    pub(super) node_uid: &'a str,
    pub(super) program: Program,
    pub(super) spec: &'a AgentSpec,
    pub(super) own: &'a NodeAgent,
    /// The program reads Services from an API server.
    pub(super) token: bool,
}

/// Of a pod: the same on all nodes that are to have the same.
pub(super) fn revision(job: Job, spec: &AgentSpec, own: &NodeAgent, program: Program, token: bool) -> String {
    let nowhere = Target { namespace: "", node: "", node_uid: "", program, spec, own, token };
    hash(&match job {
        Job::Agent => agent_spec(nowhere),
        Job::Clean => clean_spec(nowhere),
    })
}

/// FNV-1a of 64 bits of a value in its canonical form, as 16 digits.
pub(super) fn hash(value: &Value) -> String {
    let hash = value
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

/// The pod that runs the program of a node, complete but for the name.
pub(super) fn agent(target: Target<'_>) -> Value {
    pod(target, Job::Agent, agent_spec(target))
}

/// The pod that cleans up after it.
pub(super) fn clean(target: Target<'_>) -> Value {
    pod(Target { token: false, ..target }, Job::Clean, clean_spec(target))
}

fn agent_spec(target: Target<'_>) -> Value {
    let Target { node, program, spec, own, .. } = target;
    let mut args = vec!["run", "--config", "/etc/selvedge/config/config.json", "--credentials", "/etc/selvedge/tls"];
    args.extend(spec.args.iter().chain(&own.args).map(String::as_str));
    let objects = format!("selvedge-node-{node}");
    let mut volumes = node_volumes(target);
    volumes.push(Volume::read("configuration", "/etc/selvedge/config", json!({"configMap": {"name": objects}})));
    // Root of the container owns it, and has no right to pass over modes.
    let secret = json!({"secret": {"secretName": objects, "defaultMode": 0o400}});
    volumes.push(Volume::read("credentials", "/etc/selvedge/tls", secret));
    if target.token {
        volumes.push(Volume::read("token", "/var/run/secrets/kubernetes.io/serviceaccount", token()));
    }
    let probe = json!({
        "exec": {"command": [format!("/{}", program.name()), "status"]},
        "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3,
    });
    pod_spec(target, Job::Agent, json!({"args": args, "readinessProbe": probe}), &volumes)
}

fn clean_spec(target: Target<'_>) -> Value {
    pod_spec(target, Job::Clean, json!({"args": ["clean"]}), &node_volumes(target))
}

struct Volume {
    name: &'static str,
    path: String,
    read_only: bool,
    source: Value,
}

impl Volume {
    fn read(name: &'static str, path: &str, source: Value) -> Volume {
        Volume { name, path: path.to_owned(), read_only: true, source }
    }

    /// A place of the node at the same place in the container.
    fn host(name: &'static str, path: &str, kind: &str) -> Volume {
        let source = json!({"hostPath": {"path": path, "type": kind}});
        Volume { name, path: path.to_owned(), read_only: false, source }
    }
}

fn node_volumes(target: Target<'_>) -> Vec<Volume> {
    let folder = target.program.folder();
    let mut volumes = vec![
        Volume::host("run", &format!("/run/{folder}"), "DirectoryOrCreate"),
        Volume::host("state", &format!("/var/lib/{folder}"), "DirectoryOrCreate"),
        // The node's own firewall tools fit its kernel and its rules; the image has none.
        Volume { read_only: true, ..Volume::host("usr", "/usr", "Directory") },
        Volume { read_only: true, ..Volume::host("alternatives", "/etc/alternatives", "DirectoryOrCreate") },
        Volume::host("xtables-lock", "/run/xtables.lock", "FileOrCreate"),
        Volume::host("tun", "/dev/net", "DirectoryOrCreate"),
        // Read-only in its usual place unless the container is privileged.
        Volume { path: "/host/proc/sys/net".to_owned(), ..Volume::host("sysctl", "/proc/sys/net", "Directory") },
    ];
    if target.program == Program::Agent {
        let networks = Volume::host("cni", &target.spec.cni_dir, "DirectoryOrCreate");
        volumes.push(Volume { path: "/etc/cni/net.d".to_owned(), ..networks });
    }
    volumes
}

/// What a ServiceAccount's pods get by themselves, and only an hour long.
fn token() -> Value {
    let name = json!([{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]);
    json!({"projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": name}},
    ]}})
}

fn pod_spec(target: Target<'_>, job: Job, mut container: Value, volumes: &[Volume]) -> Value {
    let Target { node, program, spec, own, .. } = target;
    let (image, resources) = match program {
        Program::Agent => (&spec.image, &spec.resources),
        Program::Connector => (&spec.connector_image, &spec.connector_resources),
    };
    let mounts = volumes.iter().map(|v| json!({"name": v.name, "mountPath": v.path, "readOnly": v.read_only}));
    let rest = json!({
        "name": job.name(),
        "image": own.image.as_ref().unwrap_or(image),
        "imagePullPolicy": spec.pull_policy,
        "env": [{"name": "RUST_LOG", "value": spec.log.word()}],
        "resources": resources.clone().unwrap_or_else(|| program.resources()),
        "securityContext": {
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts.collect::<Vec<Value>>(),
    });
    merge(&mut container, rest);
    let sources = volumes.iter().map(|volume| {
        let mut source = json!({"name": volume.name});
        merge(&mut source, volume.source.clone());
        source
    });
    json!({
        // Not by the scheduler: it would wait for a node that is full, cordoned or not ready.
        "nodeName": node,
        "hostNetwork": true,
        "dnsPolicy": "Default",
        "enableServiceLinks": false,
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": false,
        "imagePullSecrets": spec.pull_secrets.iter().map(|name| json!({"name": name})).collect::<Vec<Value>>(),
        "priorityClassName": "system-node-critical",
        "restartPolicy": match job { Job::Agent => "Always", Job::Clean => "OnFailure" },
        "terminationGracePeriodSeconds": 10,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
        "volumes": sources.collect::<Vec<Value>>(),
    })
}

fn pod(target: Target<'_>, job: Job, pod_spec: Value) -> Value {
    let Target { namespace, node, node_uid, program, spec, own, token } = target;
    let labels = json!({
        LABEL_NAME: program.name(),
        LABEL_JOB: job.name(),
        LABEL_REVISION: revision(job, spec, own, program, token),
        (LABEL_MANAGED.0): LABEL_MANAGED.1,
    });
    let metadata = json!({
        // KubeEdge gets stuck on a pod that has the name of an earlier one.
        "generateName": format!("{}-{node}-", program.name()),
        "namespace": namespace,
        "labels": labels,
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}],
    });
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec})
}

/// Adds the fields of an object to another one.
fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
