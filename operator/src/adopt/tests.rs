use serde_json::{Value, json};

use super::*;

/// FabEdge beside Calico: two edges with networks of its pool, a connector, a community of each kind.
fn calico() -> Vec<Value> {
    let args = [
        "--cluster=beijing",
        "--cluster-role=host",
        "--cni-type=calico",
        "--cluster-cidr=10.233.64.0/18",
        "--edge-pod-cidr=10.234.64.0/18",
        "--edge-cidr-mask-size=26",
        "--connector-subnets=10.233.0.0/18",
        "--connector-public-addresses=203.0.113.10,vpn.example.org",
        "--connector-public-port=45000",
        "--edge-labels=node-role.kubernetes.io/edge=",
        "--v=3",
        "--wireguard",
    ];
    let env = json!([
        {"name": "NAMESPACE", "value": "fabedge"},
        {"name": "AGENT_ARG_ENABLE_PROXY", "value": "true"},
        {"name": "AGENT_ARG_ENABLE_DNS", "value": "true"},
        {"name": "AGENT_ARG_LOG_LEVEL", "value": "3"},
        {"name": "AGENT_ARG_NETWORK_PLUGIN_MTU", "value": "1350"},
    ]);
    let operator = json!({"containers": [
        {"name": "sidecar", "args": ["--cluster=other"]},
        {"name": "operator", "args": args, "env": env},
    ]});
    vec![
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "fabedge-operator"},
               "spec": {"template": {"spec": operator}}}),
        fabedge("Community", "all-edges", json!({"members": ["beijing.edge-1", "beijing.edge-2"]})),
        fabedge("Community", "connectors", json!({"members": ["beijing.connector", "shanghai.connector"]})),
        fabedge("Cluster", "beijing", json!({"cidrs": ["10.233.64.0/18"], "token": "secret"})),
        fabedge("Cluster", "shanghai", json!({"cidrs": ["10.100.0.0/16"], "token": "secret"})),
        node("cloud-1", "connector", "172.16.0.11", json!({})),
        node(
            "edge-1",
            "edge",
            "192.168.11.2",
            json!({"fabedge.io/subnets": "10.234.64.64/26", "fabedge.io/node-public-addresses": "198.51.100.7",
                   "argument.fabedge.io/enable-proxy": "false", "argument.fabedge.io/v": "5"}),
        ),
        node("edge-2", "edge", "192.168.12.2", json!({"fabedge.io/subnets": "10.234.65.0/26"})),
    ]
}

fn fabedge(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "fabedge.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn node(name: &str, role: &str, address: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {format!("node-role.kubernetes.io/{role}"): ""}, "annotations": annotations},
        // What the controller manager gave, and Calico never used.
        "spec": {"podCIDRs": [format!("10.233.{}.0/24", 100 + name.len())]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

fn manifest<'a>(adopted: &'a Adopted, kind: &str, name: &str) -> &'a Value {
    let found = adopted.manifests.iter().find(|m| m["kind"] == kind && m["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn every_address_is_kept_and_the_report_says_what_is_not() {
    let adopted = adopt(&calico());
    assert_eq!(
        manifest(&adopted, "Cluster", "beijing")["spec"],
        json!({
            "clusterCIDRs": ["10.233.64.0/18"], "serviceCIDRs": ["10.233.0.0/18"],
            "podNetworks": "calico", "edgePodCIDRs": ["10.234.64.0/18"], "edgeMaskSize": 26, "edgeMaskSize6": 64,
            "edgeSelector": {"node-role.kubernetes.io/edge": ""},
            "connector": {"addresses": ["203.0.113.10"], "port": 45000},
            "services": {"edge": "kernel"},
            "cni": {"network": "fabedge", "bridge": "br-fabedge", "mtu": 1350, "hairpin": true},
        })
    );
    assert_eq!(
        manifest(&adopted, "Community", "all-edges")["spec"],
        json!({"members": ["beijing.edge-1", "beijing.edge-2"]})
    );
    assert_eq!(
        manifest(&adopted, "Node", "edge-1")["metadata"]["annotations"],
        json!({"selvedge.dev/pod-cidrs": "10.234.64.64/26", "selvedge.dev/public-addresses": "198.51.100.7"})
    );
    assert_eq!(
        adopted.report.to_string(),
        "taken over:
  Cluster beijing: networks, connector, CNI network, from the flags of fabedge-operator
  Cluster shanghai: its networks, so that nothing here overlaps them
  Community all-edges: 2 members
  Node edge-1: pod networks 10.234.64.64/26
  Node edge-1: public addresses 198.51.100.7
  Node edge-2: pod networks 10.234.65.0/26
  2 edge nodes keep their pod networks (compiled and compared)
not taken over:
  --connector-public-addresses vpn.example.org: a name; write its address into spec.connector
  --wireguard of the operator: nothing here corresponds to it
  agents' --enable-dns=true: names are not served on the node yet: pods need another DNS server
  Cluster shanghai: tunnels to its connector; clusters are not joined yet
  Community connectors: joins no edge nodes of this cluster
  Node edge-1: argument.fabedge.io/enable-proxy=false: is one for all nodes here, in the Cluster
to be mended first:
  Node cloud-1: IPAMBlocks: is empty: pods of this node cannot be reached from the edge
"
    );
}

#[test]
fn networks_of_the_cloud_are_those_that_calico_gave() {
    let mut objects = calico();
    let spec = json!({"cidr": "10.233.70.0/26", "affinity": "host:cloud-1", "deleted": false});
    let metadata = json!({"name": "10-233-70-0-26"});
    objects.push(
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMBlock", "metadata": metadata, "spec": spec}),
    );
    let adopted = adopt(&objects);
    assert!(adopted.report.faults.is_empty(), "{}", adopted.report);
    assert!(adopted.manifests.iter().all(|object| object["kind"] != "IPAMBlock"), "it is not ours to write");
}

#[test]
fn secrets_of_fabedge_stay_where_they_are() {
    let text = serde_json::to_string(&adopt(&calico()).manifests).unwrap();
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_network_that_would_change_is_a_fault() {
    let mut objects = calico();
    let edge = objects.iter_mut().find(|o| o["metadata"]["name"] == "edge-2").unwrap();
    edge["metadata"]["annotations"]["fabedge.io/subnets"] = json!("10.234.64.64/27");
    let report = adopt(&objects).report;
    assert!(report.faults.iter().any(|fault| fault == "Node edge-2: would get no configuration"), "{report}");
    assert!(report.to_string().contains("1 edge nodes keep their pod networks"), "{report}");
}

#[test]
fn flannels_nodes_keep_what_kubernetes_gave_them() {
    let mut objects = calico();
    let args = ["--cluster", "beijing", "--cni-type", "flannel", "--cluster-cidr", "10.233.64.0/18"];
    let more = ["--connector-subnets=10.233.0.0/18", "--connector-public-addresses=203.0.113.10"];
    let args = [&args[..], &more[..]].concat();
    objects[0]["spec"]["template"]["spec"]["containers"] = json!([{"command": ["operator"], "args": args}]);
    let nodes = objects.iter_mut().filter(|object| object["kind"] == "Node");
    for (number, node) in nodes.enumerate() {
        node["metadata"]["annotations"] = json!({});
        node["spec"]["podCIDRs"] = json!([format!("10.233.{}.0/24", 64 + number)]);
    }
    let adopted = adopt(&objects);
    assert!(adopted.report.faults.is_empty(), "{}", adopted.report);
    assert!(adopted.report.to_string().contains("2 edge nodes keep their pod networks"), "{}", adopted.report);
    assert_eq!(manifest(&adopted, "Cluster", "beijing")["spec"]["services"], json!({"edge": "off"}));
}

#[test]
fn without_the_operator_among_the_objects_it_says_so() {
    let report = adopt(&[node("edge-1", "edge", "192.168.11.2", json!({}))]).report.to_string();
    assert!(report.contains("no Deployment of fabedge-operator with --cluster among the objects"), "{report}");
    assert!(report.contains("no object of kind Cluster"), "{report}");
}

#[test]
fn lists_of_kubectl_are_read_and_a_broken_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": calico()});
    std::fs::write(dir.path().join("all.json"), list.to_string()).unwrap();
    assert_eq!(objects(dir.path()).unwrap().len(), calico().len());
    std::fs::write(dir.path().join("broken.yaml"), "a: [").unwrap();
    assert!(objects(dir.path()).unwrap_err().starts_with("broken.yaml: line "));
}
