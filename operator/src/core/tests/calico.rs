use super::*;

/// The scene with a cluster whose cloud nodes have Calico.
fn calico() -> Scene {
    let mut scene = beijing();
    scene.put(cluster("beijing", json!({"podNetworks": "calico"})));
    scene.put_all([connector(), node("cloud-2", "", "172.16.0.12", &["10.244.2.0/24"])]);
    scene
}

fn block(network: &str, affinity: Option<&str>) -> Value {
    let name = network.replace(['.', '/', ':'], "-");
    json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMBlock", "metadata": {"name": name},
        "spec": {"cidr": network, "affinity": affinity, "allocations": [], "attributes": [], "strictAffinity": false},
    })
}

fn prefixes(config: &NodeConfig) -> Vec<String> {
    config.local.prefixes.iter().map(ToString::to_string).collect()
}

#[test]
fn cloud_nodes_have_the_blocks_of_calico_and_not_what_kubernetes_gave_them() {
    let mut scene = calico();
    scene.put_all([
        block("10.244.77.0/26", Some("host:cloud-1")),
        block("10.244.77.64/26", Some("host:cloud-1")),
        block("10.244.90.128/26", Some("host:cloud-2")),
        block("10.244.91.0/26", None),
        block("10.244.92.0/26", Some("virtual:load-balancer")),
    ]);
    let configs = scene.configs();
    assert_eq!(pods(&configs["cloud-1"]), ["10.244.77.0/25"]);
    assert_eq!(pods(&configs["cloud-2"]), ["10.244.90.128/26"]);
    let services = ["10.96.0.0/16", "fd00:96::/112"];
    assert_eq!(prefixes(&configs["cloud-1"]), [&services[..], &["10.244.77.0/25", "10.244.90.128/26"]].concat());
    // A second block, an IPv6 one, and one that Calico took back.
    scene.put(block("10.244.90.192/26", Some("host:cloud-2"))).put(block("fd00:244::/122", Some("host:cloud-2")));
    scene.remove("IPAMBlock", "10-244-77-64-26");
    let configs = scene.configs();
    assert_eq!(
        prefixes(&configs["cloud-1"]),
        [&services[..], &["10.244.77.0/26", "10.244.90.128/25", "fd00:244::/122"]].concat()
    );
}

#[test]
fn a_cloud_node_without_a_block_is_mentioned() {
    let mut scene = calico();
    scene.put(block("10.244.77.0/26", Some("host:cloud-1")));
    assert_eq!(
        scene.problems(),
        ["Warning: Node cloud-2 in test.yaml: IPAMBlocks: is empty: pods of this node cannot be reached from the edge"]
    );
}

#[test]
fn edge_nodes_have_blocks_of_their_own_pool_whatever_kubernetes_gave_them() {
    let mut scene = calico();
    scene.put_all([block("10.244.77.0/26", Some("host:cloud-1")), block("10.244.90.0/26", Some("host:cloud-2"))]);
    scene.put_all([
        node("edge-1", "edge", "192.168.11.2", &["10.244.5.0/24"]),
        annotated(edge("edge-2", "192.168.12.2"), "pod-cidrs", "10.234.7.0/24,fd00:234:0:7::/64"),
        // Calico's IPAM may still know the node from before it was an edge.
    ]);
    scene.put(block("10.244.95.0/26", Some("host:edge-1")));
    let configs = scene.configs();
    assert_eq!(pods(&configs["edge-1"]), ["10.234.0.0/24", "fd00:234::/64"]);
    assert_eq!(pods(&configs["edge-2"]), ["10.234.7.0/24", "fd00:234:0:7::/64"]);
}

#[test]
fn calico_is_told_of_all_networks_behind_tunnels() {
    let mut scene = calico();
    scene.put_all([
        remote("shanghai", "10.8.0.0/14"),
        annotated(edge("edge-1", "192.168.11.2"), "pod-cidrs", "10.99.1.0/28,fd00:234:0:1::/64"),
        annotated(edge("edge-2", "192.168.12.2"), "pod-cidrs", "10.234.2.0/24,fd00:234:0:2::/64"),
    ]);
    let output = compile(&scene.state, &scene.options, &scene.memory).output.expect("a usable cluster");
    let pools: Vec<String> =
        output.ip_pools.iter().map(|(name, pool)| format!("{name} {} /{}", pool.network, pool.block_size)).collect();
    assert_eq!(
        pools,
        [
            "selvedge-beijing-10-234-0-0-16 10.234.0.0/16 /26",
            "selvedge-beijing-10-8-0-0-14 10.8.0.0/14 /26",
            "selvedge-beijing-10-99-1-0-28 10.99.1.0/28 /28",
            "selvedge-beijing-fd00-234---48 fd00:234::/48 /122",
        ]
    );
    scene.put(cluster("beijing", json!({})));
    let output = compile(&scene.state, &scene.options, &scene.memory).output.expect("a usable cluster");
    assert!(output.ip_pools.is_empty());
}

#[test]
fn behind_the_connector_may_be_the_whole_network_of_the_cluster() {
    let mut scene = beijing();
    scene.put(cluster("beijing", json!({"podNetworks": "cluster"})));
    scene.put_all([connector(), node("cloud-2", "", "172.16.0.12", &[]), edge("edge-1", "192.168.11.2")]);
    let configs = scene.configs();
    assert_eq!(prefixes(&configs["cloud-1"]), ["10.96.0.0/16", "fd00:96::/112", "10.244.0.0/16", "fd00:244::/48"]);
    // A node that comes or goes changes nobody's networks.
    scene.put(node("cloud-3", "", "172.16.0.13", &[]));
    assert_eq!(prefixes(&scene.configs()["cloud-1"]), prefixes(&configs["cloud-1"]));
}
