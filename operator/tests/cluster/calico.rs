//! Calico's kinds on an API server. What of them matters is here: the names, and that nothing else is changed.

use serde_json::{Value, json};

use crate::support::{Answer, Proxy, World, cluster, eventually};

const VERSION: &str = "crd.projectcalico.org/v1";

fn definition(kind: &str, plural: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.crd.projectcalico.org")},
        "spec": {
            "group": "crd.projectcalico.org", "scope": "Cluster", "versions": [version],
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()},
        },
    })
}

fn block(network: &str, node: &str) -> Value {
    json!({
        "apiVersion": VERSION, "kind": "IPAMBlock",
        "metadata": {"name": network.replace(['.', '/'], "-")},
        "spec": {
            "cidr": network, "affinity": format!("host:{node}"), "allocations": [], "attributes": [],
            "deleted": false, "strictAffinity": false, "unallocated": [0],
        },
    })
}

fn with_calico() -> Value {
    let mut cluster = cluster();
    cluster["spec"]["podNetworks"] = json!("calico");
    cluster
}

/// Whether an edge reaches this network by the connector.
async fn reached(world: &World, network: &str) -> bool {
    let config = world.config("edge-1").await.unwrap_or_default();
    config["peers"][0]["prefixes"].as_array().is_some_and(|prefixes| prefixes.contains(&json!(network)))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn blocks_of_calico_are_followed_and_pools_made_for_it() {
    let world = World::new().await;
    world.apply(definition("IPAMBlock", "ipamblocks")).await;
    world.apply(definition("IPPool", "ippools")).await;
    let others = json!({"apiVersion": VERSION, "kind": "IPPool", "metadata": {"name": "default-ipv4-ippool"},
                        "spec": {"cidr": "10.244.0.0/16", "natOutgoing": true}});
    world.apply(others.clone()).await;
    world.apply(block("10.244.9.0/26", "cloud-1")).await;
    world.apply(with_calico()).await;
    let proxy = Proxy::start(world.client.clone()).await;
    let _operator = world.operator("a", &proxy);
    eventually("the block", async || reached(&world, "10.244.9.0/26").await.then_some(()).ok_or("not yet")).await;
    world.apply(block("10.244.9.64/26", "cloud-1")).await;
    eventually("both", async || reached(&world, "10.244.9.0/25").await.then_some(()).ok_or("not yet")).await;

    let pool = json!({"apiVersion": VERSION, "kind": "IPPool", "metadata": {"name": "selvedge-beijing-10-234-0-0-16"}});
    eventually("the pool of edges", async || {
        let there = world.get(&pool).await.ok_or("none")?;
        let expected = json!({"cidr": "10.234.0.0/16", "blockSize": 26, "disabled": true, "ipipMode": "Never",
                              "vxlanMode": "Never", "natOutgoing": false});
        if there["spec"] == expected { Ok(()) } else { Err(there["spec"].to_string()) }
    })
    .await;
    world.apply(cluster()).await;
    eventually("no pool", async || world.get(&pool).await.map_or(Ok(()), |_| Err("there"))).await;
    assert_eq!(world.get(&others).await.unwrap()["spec"], others["spec"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn blocks_that_may_not_be_read_matter_only_where_they_are_asked_for() {
    let world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    proxy.fail("/apis/crd.projectcalico.org/v1/ipamblocks", Answer::Status(403), usize::MAX / 4);
    let operator = world.operator("a", &proxy);
    world.settled().await;
    assert!(operator.ask("/readyz").0.contains("200"));
    // The cloud's pods have their networks from them.
    world.apply(with_calico()).await;
    eventually("readiness to end", async || {
        let (_, words) = operator.ask("/readyz");
        if words.ends_with("\r\n\r\nnot listed yet: IPAMBlock\n") { Ok(()) } else { Err(words) }
    })
    .await;
    assert!(reached(&world, "10.244.1.0/24").await, "what was in force stays in force");
}
