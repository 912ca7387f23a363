use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::*;

const CLUSTER: &str = "\
apiVersion: selvedge.dev/v1alpha1
kind: Cluster
metadata: {name: beijing}
spec:
  clusterCIDRs: [10.244.0.0/16]
  serviceCIDRs: [10.96.0.0/16]
  edgePodCIDRs: [10.234.0.0/16]
  connector: {addresses: [203.0.113.10]}
---
apiVersion: v1
kind: Node
metadata: {name: cloud-1, labels: {node-role.kubernetes.io/connector: ''}}
spec: {podCIDRs: [10.244.1.0/24]}
status: {addresses: [{type: InternalIP, address: 172.16.0.11}]}
";

/// Manifests, output and a clock.
struct Bench {
    root: TempDir,
    now: SystemTime,
}

fn bench() -> Bench {
    let bench = Bench { root: tempfile::tempdir().unwrap(), now: SystemTime::UNIX_EPOCH + days(20_000) };
    fs::create_dir(bench.root.path().join("manifests")).unwrap();
    bench.write("cluster.yaml", CLUSTER);
    bench.edge("edge-1", "192.168.11.2");
    bench
}

fn days(n: u64) -> Duration {
    Duration::from_secs(n * DAY)
}

impl Bench {
    fn manifest(&self, name: &str) -> PathBuf {
        self.root.path().join("manifests").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.manifest(name), text).unwrap();
    }

    fn edge(&self, name: &str, address: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{node-role.kubernetes.io/edge: ''}}}}\n\
             status: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n"
        );
        self.write(&format!("{name}.yaml"), &text);
    }

    fn out(&self, path: &str) -> PathBuf {
        self.root.path().join("out").join(path)
    }

    fn operator(&self) -> Operator {
        Operator::new(&self.root.path().join("manifests"), Store::open(&self.out("")).unwrap(), None)
    }

    /// One run of a fresh process.
    fn run(&self) -> bool {
        self.operator().once(self.now).unwrap().flawless
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&fs::read(self.out(path)).unwrap()).unwrap()
    }

    fn generation(&self, node: &str) -> u64 {
        self.json(&format!("{node}/config.json"))["generation"].as_u64().unwrap()
    }

    /// Which credentials are in force: they get a new name with each change.
    fn credentials(&self, node: &str) -> PathBuf {
        fs::read_link(self.out(&format!("{node}/tls/..data"))).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.out(path)).unwrap().permissions().mode() & 0o7777
    }

    /// Every file with its inode: a rewritten file has another one.
    fn inodes(&self) -> BTreeMap<PathBuf, u64> {
        fn visit(path: PathBuf, inodes: &mut BTreeMap<PathBuf, u64>) {
            for entry in fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                inodes.insert(path.clone(), fs::symlink_metadata(&path).unwrap().ino());
                if path.is_dir() && !path.is_symlink() {
                    visit(path, inodes);
                }
            }
        }
        let mut inodes = BTreeMap::new();
        visit(self.out(""), &mut inodes);
        inodes
    }
}

#[test]
fn the_examples_are_right() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/standalone");
    let (nodes, problems) = check(&examples, None).unwrap();
    assert_eq!(problems, []);
    assert_eq!(nodes.keys().collect::<Vec<_>>(), ["cloud-1", "cloud-2", "edge-1", "edge-2", "master"]);
    assert_eq!(nodes["edge-1"].peers, 2);
    let mut index = Directory::new(&examples);
    index.scan().unwrap();
    let (state, _) = index.state();
    let output = compile(&state, &options(None), &Memory::default()).output.unwrap();
    let endpoints = &output.config("edge-1").unwrap().services.list[0].ports[0].endpoints;
    assert!(nodes["edge-1"].pod_cidrs.iter().any(|net| endpoints.iter().any(|e| net.contains(&e.address))));
}

#[test]
fn everything_is_there_with_the_right_modes() {
    let bench = bench();
    assert!(bench.run());
    for (path, mode) in [
        (".state", 0o700),
        (".state/ca.key", 0o600),
        (".state/ca.crt", 0o600),
        (".state/allocations.json", 0o600),
        ("edge-1", 0o755),
        ("edge-1/config.json", 0o644),
        ("edge-1/tls", 0o700),
        ("edge-1/tls/..data", 0o700),
        ("edge-1/tls/tls.key", 0o640),
        ("edge-1/tls/tls.crt", 0o644),
        ("edge-1/tls/ca.crt", 0o644),
        ("cloud-1/tls/tls.key", 0o640),
        ("status.json", 0o644),
    ] {
        assert_eq!(bench.mode(path), mode, "{path}: {:o}", bench.mode(path));
    }
    let status = bench.json("status.json");
    assert_eq!(status["nodes"]["cloud-1"]["name"], "beijing.connector");
    assert_eq!(status["nodes"]["edge-1"]["podCidrs"][0], "10.234.0.0/24");
    assert_eq!(status["nodes"]["edge-1"]["certificateNotAfter"], rfc3339(bench.now + days(30)));
    assert_eq!(fs::read(bench.out("edge-1/tls/ca.crt")).unwrap(), fs::read(bench.out(".state/ca.crt")).unwrap());
}

#[test]
fn a_second_run_writes_nothing() {
    let bench = bench();
    bench.run();
    let before = bench.inodes();
    assert!(bench.run());
    assert_eq!(bench.inodes(), before);
}

#[test]
fn modes_that_were_loosened_are_set_right() {
    let bench = bench();
    bench.run();
    fs::set_permissions(bench.out(".state"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(bench.out(".state/allocations.json"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(bench.out("edge-1/tls"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(bench.out("edge-1/tls/tls.key"), fs::Permissions::from_mode(0o644)).unwrap();
    bench.run();
    assert_eq!(bench.mode(".state"), 0o700);
    assert_eq!(bench.mode(".state/allocations.json"), 0o600);
    assert_eq!(bench.mode("edge-1/tls"), 0o700);
    assert_eq!(bench.mode("edge-1/tls/tls.key"), 0o640);
}

#[test]
fn generations_count_changes_of_each_node() {
    let bench = bench();
    bench.run();
    bench.edge("edge-2", "192.168.12.2");
    bench.run();
    assert_eq!((bench.generation("edge-1"), bench.generation("edge-2"), bench.generation("cloud-1")), (1, 1, 2));
    // Damaged, or of another schema: the count goes on.
    fs::write(bench.out("cloud-1/config.json"), r#"{"version": 9, "generation": 7, "name": "beijing.connector"}"#)
        .unwrap();
    bench.run();
    assert_eq!(bench.generation("cloud-1"), 8);
    assert_eq!(bench.json("cloud-1/config.json")["role"], "connector");
}

#[test]
fn certificates_are_renewed_in_time_and_not_before() {
    let mut bench = bench();
    bench.run();
    let (first, config) = (bench.credentials("edge-1"), bench.inodes()[&bench.out("edge-1/config.json")]);
    bench.now += days(20) - Duration::from_secs(1);
    bench.run();
    assert_eq!(bench.credentials("edge-1"), first);
    bench.now += Duration::from_secs(1);
    let outcome = bench.operator().once(bench.now).unwrap();
    assert_ne!(bench.credentials("edge-1"), first);
    assert!(!bench.out("edge-1/tls").join(&first).exists(), "old credentials are gone");
    assert_eq!(bench.json("status.json")["nodes"]["edge-1"]["certificateNotAfter"], rfc3339(bench.now + days(30)));
    assert_eq!(bench.inodes()[&bench.out("edge-1/config.json")], config);
    assert!(outcome.wake > bench.now);
}

#[test]
fn the_next_renewal_wakes() {
    let mut bench = bench();
    bench.run();
    bench.now += days(20) - Duration::from_secs(10);
    assert_eq!(bench.operator().once(bench.now).unwrap().wake, bench.now + Duration::from_secs(10));
}

#[test]
fn credentials_that_do_not_fit_are_replaced() {
    let mut bench = bench();
    bench.edge("edge-2", "192.168.12.2");
    bench.run();
    let key = |node: &str| fs::read(bench.root.path().join("out").join(node).join("tls/tls.key")).unwrap();
    let damages: [&dyn Fn(&Bench); 5] = [
        &|b| fs::remove_file(b.out("edge-1/tls/..data/tls.key")).unwrap(),
        &|b| fs::remove_file(b.out("edge-1/tls/tls.crt")).unwrap(),
        &|b| fs::copy(b.out("edge-2/tls/tls.key"), b.out("edge-1/tls/..data/tls.key")).map(drop).unwrap(),
        &|b| fs::write(b.out("edge-1/tls/..data/tls.crt"), "garbage").unwrap(),
        &|b| fs::remove_dir_all(b.out("edge-1/tls")).unwrap(),
    ];
    let other = key("edge-2");
    let mut now = bench.now;
    for (i, damage) in damages.iter().enumerate() {
        let before = key("edge-1");
        damage(&bench);
        now += Duration::from_secs(1);
        bench.operator().once(now).unwrap();
        assert_ne!(key("edge-1"), before, "damage {i}");
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            assert!(bench.out("edge-1/tls").join(name).exists(), "damage {i}: {name}");
        }
    }
    assert_eq!(key("edge-2"), other);

    // Another authority takes over.
    fs::remove_file(bench.out(".state/ca.key")).unwrap();
    fs::remove_file(bench.out(".state/ca.crt")).unwrap();
    bench.now = now + Duration::from_secs(1);
    bench.run();
    assert_eq!(fs::read(bench.out("edge-2/tls/ca.crt")).unwrap(), fs::read(bench.out(".state/ca.crt")).unwrap());
}

#[test]
fn half_an_authority_is_no_reason_to_make_another() {
    let bench = bench();
    bench.run();
    let before = bench.inodes();
    fs::remove_file(bench.out(".state/ca.key")).unwrap();
    assert!(!bench.run());
    assert!(!bench.out(".state/ca.key").exists());
    assert_eq!(bench.inodes().len(), before.len() - 1);
}

#[test]
fn damaged_allocations_stop_everything() {
    let bench = bench();
    bench.run();
    fs::write(bench.out(".state/allocations.json"), "{").unwrap();
    bench.edge("edge-2", "192.168.12.2");
    assert!(!bench.run());
    assert!(!bench.out("edge-2").exists());
}

#[test]
fn a_vanished_node_goes_with_all_its_files_but_not_with_those_of_others() {
    let bench = bench();
    bench.edge("edge-2", "192.168.12.2");
    bench.edge("edge-3", "192.168.13.2");
    bench.run();
    fs::write(bench.out("edge-2/notes"), "mine").unwrap();
    fs::create_dir(bench.out("not-a-node")).unwrap();
    fs::remove_file(bench.manifest("edge-2.yaml")).unwrap();
    fs::remove_file(bench.manifest("edge-3.yaml")).unwrap();
    assert!(bench.run());
    assert!(!bench.out("edge-3").exists());
    assert_eq!(fs::read_dir(bench.out("edge-2")).unwrap().count(), 1);
    assert!(bench.out("edge-2/notes").exists() && bench.out("not-a-node").exists());
    // The freed blocks come last.
    bench.edge("edge-4", "192.168.14.2");
    bench.run();
    assert_eq!(bench.json("edge-4/config.json")["podCidrs"][0], "10.234.3.0/24");
}

#[test]
fn a_node_that_cannot_be_read_or_is_refused_keeps_what_it_has() {
    let mut bench = bench();
    bench.edge("edge-2", "192.168.12.2");
    bench.run();
    let (before, credentials) = (fs::read(bench.out("edge-2/config.json")).unwrap(), bench.credentials("edge-2"));
    bench.write("edge-2.yaml", "garbage: [");
    assert!(!bench.run());
    bench.edge("edge-2", "192.168.11.2");
    bench.now += days(25);
    assert!(!bench.run());
    assert_eq!(fs::read(bench.out("edge-2/config.json")).unwrap(), before);
    assert_ne!(bench.credentials("edge-2"), credentials, "renewed all the same");
    assert_eq!(bench.json("status.json")["problems"][0]["object"]["name"], "edge-2");
}

#[test]
fn without_a_usable_cluster_all_stays_and_certificates_are_renewed() {
    let mut bench = bench();
    bench.run();
    let (before, credentials) = (fs::read(bench.out("edge-1/config.json")).unwrap(), bench.credentials("edge-1"));
    bench.write("cluster.yaml", &CLUSTER.replace("10.234.0.0", "10.96.0.0"));
    bench.now += days(25);
    assert!(!bench.run());
    assert_eq!(fs::read(bench.out("edge-1/config.json")).unwrap(), before);
    assert_ne!(bench.credentials("edge-1"), credentials);
    let status = bench.json("status.json");
    assert_eq!(status["problems"][0]["field"], "spec.edgePodCIDRs[0]");
    assert_eq!(status["nodes"]["edge-1"]["generation"], 1);
    fs::remove_file(bench.manifest("cluster.yaml")).unwrap();
    assert!(!bench.run());
    assert!(bench.out("cloud-1/config.json").exists());
}

#[test]
fn without_anything_nothing_is_made() {
    let bench = bench();
    fs::remove_file(bench.manifest("cluster.yaml")).unwrap();
    assert!(!bench.run());
    assert_eq!(bench.inodes().into_keys().collect::<Vec<_>>(), [bench.out(".state"), bench.out(".state/lock")]);
}

#[test]
fn one_operator_at_a_time() {
    let bench = bench();
    let first = Store::open(&bench.out("")).unwrap();
    let error = Store::open(&bench.out("")).err().unwrap().to_string();
    assert!(error.ends_with("another selvedge-operator works here"), "{error}");
    drop(first);
    assert!(Store::open(&bench.out("")).is_ok());
}

#[test]
fn the_end_of_the_authority_is_announced() {
    let mut bench = bench();
    bench.run();
    bench.now += days(3650 - 100);
    assert!(bench.run());
    let problem = &bench.json("status.json")["problems"][0];
    assert_eq!(
        (&problem["severity"], &problem["object"]["file"]),
        (&Value::from("warning"), &Value::from(".state/ca.crt"))
    );
}

/// A folder that cannot be written is told, and the other nodes are served.
#[test]
fn an_output_that_fails_is_that_nodes_alone() {
    let bench = bench();
    fs::create_dir_all(bench.out("")).unwrap();
    fs::write(bench.out("cloud-1"), "in the way").unwrap();
    let outcome = bench.operator().once(bench.now).unwrap();
    assert!(!outcome.flawless);
    assert_eq!(outcome.wake, bench.now + RETRY);
    assert!(bench.out("edge-1/config.json").exists());
}

#[test]
fn certificates_of_a_gateway_come_with_the_credentials_and_go() {
    let mut bench = bench();
    let gateway = "\
apiVersion: v1
kind: Node
metadata: {name: edge-1, labels: {node-role.kubernetes.io/edge: '', gate: 'yes'}}
status: {addresses: [{type: InternalIP, address: 192.168.11.2}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: edge, annotations: {selvedge.dev/nodes: gate=yes}}
spec: {controllerName: selvedge.dev/gateway}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shop}
spec:
  gatewayClassName: edge
  listeners: [{name: web, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: shop-tls}]}}]
";
    let secret = |key: &str| {
        let pem = |what: &str, text: &str| format!("-----BEGIN {what}-----\\n{text}\\n-----END {what}-----\\n");
        let (chain, key) = (pem("CERTIFICATE", "Y2VydA=="), pem("PRIVATE KEY", key));
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: shop-tls}}\ntype: kubernetes.io/tls\nstringData:\n  \
             tls.crt: \"{chain}\"\n  tls.key: \"{key}\"\n"
        )
    };
    bench.write("edge-1.yaml", gateway);
    assert!(bench.run());
    assert!(!bench.out("edge-1/tls/gateway.pem").exists());
    bench.write("secret.yaml", &secret("b25l"));
    bench.now += Duration::from_secs(1);
    assert!(bench.run());
    let read = |path: &str| fs::read_to_string(bench.out(path)).unwrap();
    assert!(read("edge-1/tls/gateway.pem").starts_with("# default_shop-tls\n-----BEGIN CERTIFICATE-----"));
    assert!(read("edge-1/config.json").contains("default_shop-tls"));
    assert_eq!(bench.mode("edge-1/tls/gateway.pem"), 0o640);
    assert!(!bench.out("cloud-1/tls/gateway.pem").exists());
    for file in ["edge-1/config.json", "status.json"] {
        assert!(!read(file).contains("b25l"), "a key in {file}");
    }
    // It follows the Secret, without new credentials.
    let (chain, inodes) = (read("edge-1/tls/tls.crt"), bench.inodes());
    assert!(bench.run());
    assert_eq!(bench.inodes(), inodes);
    bench.write("secret.yaml", &secret("dHdv"));
    bench.now += Duration::from_secs(1);
    assert!(bench.run());
    let read = |path: &str| fs::read_to_string(bench.out(path)).unwrap();
    assert!(read("edge-1/tls/gateway.pem").contains("dHdv") && read("edge-1/tls/tls.crt") == chain);
    fs::remove_file(bench.manifest("secret.yaml")).unwrap();
    bench.now += Duration::from_secs(1);
    assert!(bench.run());
    assert!(!bench.out("edge-1/tls/gateway.pem").exists() && bench.out("edge-1/tls/tls.key").exists());
}
