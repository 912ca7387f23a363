//! The operator on a real API server. `make test-kube` runs these.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "what helps tests is as free as they are")]

mod calico;
mod devices;
mod gateways;
mod support;

use std::collections::BTreeSet;
use std::time::Instant;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::{Answer, Proxy, World, cluster, community, eventually, node, ours};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn nodes_get_what_they_need_and_heartbeats_cost_nothing() {
    let world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    // Without all Nodes nothing may be compiled.
    proxy.fail("GET /api/v1/nodes", Answer::Status(500), usize::MAX / 4);
    let operator = world.operator("a", &proxy);
    operator.says("this operator is the one that writes").await;
    eventually("readiness", async || {
        let (status, words) = operator.ask("/readyz");
        let told = status.contains("503") && words.ends_with("\r\n\r\nnot listed yet: Node\n");
        if told { Ok(()) } else { Err(words) }
    })
    .await;
    assert_eq!(world.config("cloud-1").await, None);
    proxy.heal();
    world.settled().await;
    assert!(operator.ask("/readyz").0.contains("200") && operator.ask("/healthz").0.contains("200"));
    let (_, metrics) = operator.ask("/metrics");
    for line in [
        "selvedge_operator_leader 1",
        "selvedge_operator_nodes{role=\"edge\"} 3",
        "selvedge_operator_writes_total{kind=\"ConfigMap\",verb=\"Apply\"} 4",
        "selvedge_operator_problems{severity=\"error\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }

    let edge = world.config("edge-1").await.unwrap();
    assert_eq!((&edge["name"], &edge["generation"]), (&json!("beijing.edge-1"), &json!(1)));
    assert_eq!(edge["services"]["source"], "api");
    let object = world.configs().get("selvedge-node-edge-1").await.unwrap();
    let owner = &object.metadata.owner_references.unwrap()[0];
    let there = world.get(&node("edge-1", "edge", "", &[])).await.unwrap();
    assert_eq!((owner.kind.as_str(), &json!(owner.uid)), ("Node", &there["metadata"]["uid"]));
    let secret = world.secrets().get("selvedge-node-edge-1").await.unwrap();
    let keys: Vec<String> = secret.data.unwrap().into_keys().collect();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);

    // The end of all that a beginning brings.
    world.apply(community("first", &["beijing.edge-3"])).await;
    world.condition_becomes(&community("first", &[]), "Ready", "True Joined: 1 edge nodes are joined").await;
    proxy.writes();
    for i in 0..20 {
        let conditions = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": format!("2026-01-01T00:00:{i:02}Z")}]}});
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(world.client.clone());
        nodes.patch_status("edge-1", &PatchParams::default(), &Patch::Strategic(conditions)).await.unwrap();
    }
    // What comes after them is written, and nothing else.
    world.apply(community("workshop", &["beijing.edge-1", "beijing.edge-2"])).await;
    world.peers_become("edge-1", &["beijing.connector", "beijing.edge-2"]).await;
    world.peers_become("edge-2", &["beijing.connector", "beijing.edge-1"]).await;
    world.condition_becomes(&community("workshop", &[]), "Ready", "True Joined: 2 edge nodes are joined").await;
    let writes: BTreeSet<String> = proxy.writes().into_iter().collect();
    assert_eq!(
        writes.into_iter().collect::<Vec<_>>(),
        [
            "PATCH /api/v1/namespaces/selvedge/configmaps/selvedge-node-edge-1",
            "PATCH /api/v1/namespaces/selvedge/configmaps/selvedge-node-edge-2",
            "PATCH /apis/selvedge.dev/v1alpha1/communities/workshop/status",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn a_removed_member_loses_its_tunnels_everywhere() {
    let world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    let _operator = world.operator("a", &proxy);
    let all = ["beijing.edge-1", "beijing.edge-2", "beijing.edge-3"];
    world.apply(community("workshop", &all)).await;
    world.peers_become("edge-1", &["beijing.connector", all[1], all[2]]).await;
    world.peers_become("edge-2", &["beijing.connector", all[0], all[2]]).await;

    let start = Instant::now();
    world.apply(community("workshop", &all[1..])).await;
    world.peers_become("edge-1", &["beijing.connector"]).await;
    world.peers_become("edge-2", &["beijing.connector", all[2]]).await;
    world.peers_become("edge-3", &["beijing.connector", all[1]]).await;
    eprintln!("a removed member is gone from all configurations after {:?}", start.elapsed());

    // The same by labels, as node pools have them.
    let pool = json!({"selector": {"matchLabels": {"apps.openyurt.io/nodepool": "hangzhou"}}});
    world.apply(ours("Community", "hangzhou", pool)).await;
    for (i, edge) in ["edge-1", "edge-3"].into_iter().enumerate() {
        let mut labelled = node(edge, "edge", &format!("192.168.1{}.2", i * 2 + 1), &[]);
        labelled["metadata"]["labels"]["apps.openyurt.io/nodepool"] = json!("hangzhou");
        world.apply(labelled).await;
    }
    world.peers_become("edge-1", &["beijing.connector", all[2]]).await;
    world.apply(node("edge-3", "edge", "192.168.13.2", &[])).await;
    world.peers_become("edge-1", &["beijing.connector"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn mistakes_are_told_where_they_are_and_disturb_nobody() {
    let world = World::new().await;
    // Refused before the operator ever sees it.
    for (object, field) in [
        (ours("Community", "bad", json!({"members": ["no cluster"]})), "spec.members[0]"),
        (ours("Outpost", "bad", json!({"lanPrefixes": []})), "spec.lanPrefixes"),
        (ours("Cluster", "bad", json!({"clusterCIDRs": ["ten"], "serviceCIDRs": []})), "spec.clusterCIDRs[0]"),
        (
            ours("Cluster", "bad", json!({"clusterCIDRs": [], "serviceCIDRs": []})),
            "serviceCIDRs of the own cluster is empty",
        ),
    ] {
        let Err(kube::Error::Api(status)) = world.try_apply(object).await else { panic!("{field} is taken") };
        assert_eq!(status.code, 422);
        assert!(status.message.contains(field), "{}", status.message);
    }
    let defaults = world.get(&cluster()).await.unwrap();
    assert_eq!(defaults["spec"]["edgeSelector"], json!({"node-role.kubernetes.io/edge": ""}));
    assert_eq!(defaults["spec"]["services"]["source"], "auto");

    let proxy = Proxy::start(world.client.clone()).await;
    let _operator = world.operator("a", &proxy);
    world.settled().await;
    let edge_1 = world.config("edge-1").await;

    world.apply(community("workshop", &["beijing.edge-1", "beijing.edge-9"])).await;
    let unknown = "spec.members[1]: \"beijing.edge-9\": there is no Node edge-9";
    let degraded = format!("True NotAllJoined: {unknown}");
    world.condition_becomes(&community("workshop", &[]), "Degraded", &degraded).await;

    // Overlapping networks, no address, networks that are no networks: each is named on its Node.
    world.apply(node("edge-4", "edge", "192.168.14.2", &["10.244.1.0/25"])).await;
    let mut bare = node("edge-5", "edge", "", &[]);
    bare["status"] = json!({"addresses": []});
    world.apply(bare).await;
    let mut twice = node("edge-6", "edge", "192.168.16.2", &[]);
    twice["metadata"]["annotations"] = json!({"selvedge.dev/pod-cidrs": "10.234.9.0/24,10.234.9.0/24"});
    world.apply(twice).await;
    let mut malformed = node("edge-7", "edge", "192.168.17.2", &[]);
    malformed["metadata"]["annotations"] = json!({"selvedge.dev/pod-cidrs": "10.234.9.1/24"});
    world.apply(malformed).await;
    let expected = [
        format!("Community workshop Warning Refused: {unknown}"),
        "Node edge-4 Warning Refused: spec.podCIDRs: 10.244.1.0/25 overlaps 10.244.1.0/24 of Node cloud-1".to_owned(),
        "Node edge-5 Warning Refused: status.addresses: has no address of type InternalIP; the node is left out".to_owned(),
        "Node edge-6 Warning Refused: metadata.annotations[selvedge.dev/pod-cidrs]: 10.234.9.0/24 overlaps 10.234.9.0/24 \
         of Node edge-6"
            .to_owned(),
        "Node edge-7 Warning Refused: metadata.annotations[selvedge.dev/pod-cidrs]: \"10.234.9.1/24\" has host bits set; \
         the network is 10.234.9.0/24"
            .to_owned(),
    ];
    eventually("Events", async || {
        let events = world.events().await;
        let missing: Vec<&String> = expected.iter().filter(|event| !events.contains(event)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:#?} are not among {events:#?}")) }
    })
    .await;
    assert_eq!(world.config("edge-1").await, edge_1);
    assert_eq!(world.config("edge-5").await, None);

    // What is wrong later leaves the last good version in force.
    let mut wrong = cluster();
    wrong["spec"]["clusterCIDRs"] = json!(["10.244.0.1/16"]);
    world.apply(wrong).await;
    eventually("Ready of beijing", async || {
        let ready = world.condition(&cluster(), "Ready").await;
        let told = ready.starts_with("False Incomplete: spec.clusterCIDRs[0]: \"10.244.0.1/16\" has host bits set");
        if told && ready.ends_with("the last good version stays in force") { Ok(()) } else { Err(ready) }
    })
    .await;
    world.apply(node("edge-8", "edge", "192.168.18.2", &[])).await;
    world.peers_become("edge-8", &["beijing.connector"]).await;
    assert_eq!(world.config("edge-1").await, edge_1);

    world.apply(cluster()).await;
    world.apply(community("workshop", &["beijing.edge-1"])).await;
    world.condition_becomes(&community("workshop", &[]), "Degraded", "False AllJoined: every member is joined").await;
    eventually("the end of a problem", async || {
        let resolved = format!("Community workshop Normal Resolved: resolved: {unknown}");
        if world.events().await.contains(&resolved) { Ok(()) } else { Err("no Event") }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn what_belongs_to_a_node_or_an_outpost_goes_with_it() {
    let world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    let _operator = world.operator("a", &proxy);
    let mill = ours("Outpost", "mill", json!({"lanPrefixes": ["192.168.50.0/24"]}));
    world.apply(mill.clone()).await;
    world.settled().await;
    world.condition_becomes(&mill, "Ready", "True Configured: it has a configuration").await;
    let config = world.config("mill").await.unwrap();
    assert_eq!((&config["podCidrs"], &config["cni"]), (&json!(["192.168.50.0/24"]), &Value::Null));
    let object = world.configs().get("selvedge-node-mill").await.unwrap();
    assert_eq!(object.metadata.owner_references.unwrap()[0].kind, "Outpost");

    world.delete(&mill).await;
    world.delete(&node("edge-3", "edge", "", &[])).await;
    world.peers_become("cloud-1", &["beijing.edge-1", "beijing.edge-2"]).await;
    for name in ["selvedge-node-mill", "selvedge-node-edge-3"] {
        eventually(&format!("the end of {name}"), async || {
            let config = world.configs().get_opt(name).await.unwrap().is_some();
            let secret = world.secrets().get_opt(name).await.unwrap().is_some();
            if config || secret { Err("is there") } else { Ok(()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn a_name_that_is_too_long_for_a_label_will_do() {
    let world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    let _operator = world.operator("a", &proxy);
    let name = format!("edge.{0}.{0}.example", "gateway".repeat(8));
    let long = node(&name, "edge", "192.168.14.2", &[]);
    world.apply(long.clone()).await;
    eventually("its configuration", async || world.config(&name).await.map(drop).ok_or("none")).await;
    world.delete(&long).await;
    eventually("none", async || world.config(&name).await.map_or(Ok(()), |_| Err("there"))).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn what_somebody_else_changed_or_removed_is_set_right() {
    let world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    let mut operator = world.operator("a", &proxy);
    world.settled().await;
    let networks = world.config("edge-1").await.unwrap()["podCidrs"].clone();
    let spoil = json!({"data": {"config.json": "{\"generation\": 41}"}});
    let name = "selvedge-node-edge-1";
    world.configs().patch(name, &PatchParams::default(), &Patch::Merge(spoil)).await.unwrap();
    eventually("the configuration", async || {
        let generation = world.config("edge-1").await.unwrap_or_default()["generation"].clone();
        if generation == 42 { Ok(()) } else { Err(generation.to_string()) }
    })
    .await;
    world.secrets().delete(name, &Default::default()).await.unwrap();
    eventually("the Secret", async || world.secrets().get_opt(name).await.unwrap().map(drop).ok_or("is not there"))
        .await;

    // Without its memory the operator looks at what the nodes have.
    assert!(operator.stop());
    world.configs().delete("selvedge-allocations", &Default::default()).await.unwrap();
    world.delete(&node("edge-2", "edge", "", &[])).await;
    let _operator = world.operator("b", &proxy);
    world.apply(node("edge-0", "edge", "192.168.10.2", &[])).await;
    world.peers_become("edge-0", &["beijing.connector"]).await;
    assert_eq!(world.config("edge-1").await.unwrap()["podCidrs"], networks);
    assert_ne!(world.config("edge-0").await.unwrap()["podCidrs"], networks);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn an_api_server_in_trouble_is_tried_again_and_disturbs_nothing() {
    let world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    for (pattern, answer) in [
        ("GET /api/v1/nodes", Answer::Status(500)),
        ("GET /apis/selvedge.dev/v1alpha1/communities", Answer::Status(429)),
        ("GET /api/v1/nodes?", Answer::GoneEvent),
        ("POST /api/v1/namespaces/selvedge/secrets", Answer::Status(500)),
        ("/configmaps/selvedge-node-edge-1", Answer::Status(409)),
        ("/configmaps/selvedge-node-edge-2", Answer::Status(429)),
        ("/secrets/selvedge-node-edge-3", Answer::Status(500)),
        ("/clusters/beijing/status", Answer::Status(409)),
    ] {
        proxy.fail(pattern, answer, 1);
    }
    let mut operator = world.operator("a", &proxy);
    world.settled().await;
    assert_eq!(proxy.left(), 0);
    let before = world.config("edge-1").await;
    let deletions = || proxy.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect::<Vec<_>>();
    assert_eq!(deletions(), Vec::<String>::new());

    // Watches that are torn, and lists that are refused: an expired token, then an old version.
    proxy.fail("GET /api/v1/nodes", Answer::Status(401), 2);
    proxy.fail("GET /apis/selvedge.dev", Answer::Status(410), 3);
    proxy.cut();
    world.apply(community("workshop", &["beijing.edge-2", "beijing.edge-3"])).await;
    world.apply(node("edge-4", "edge", "192.168.14.2", &[])).await;
    world.peers_become("edge-2", &["beijing.connector", "beijing.edge-3"]).await;
    world.peers_become("edge-4", &["beijing.connector"]).await;
    assert_eq!(world.config("edge-1").await, before);
    assert_eq!(deletions(), Vec::<String>::new());
    assert!(operator.is_running());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn nothing_is_torn_down_while_the_api_server_is_away() {
    let mut world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    let mut operator = world.operator("a", &proxy);
    world.settled().await;
    let before = world.configs().list(&Default::default()).await.unwrap().items;
    world.server.stop();
    operator.says("another operator may write now").await;
    assert!(operator.is_running());
    world.server.resume().await;
    world.apply(node("edge-4", "edge", "192.168.14.2", &[])).await;
    world.peers_become("edge-4", &["beijing.connector"]).await;
    for old in before.iter().filter(|old| old.metadata.name.as_deref().is_some_and(|name| name.contains("-edge-"))) {
        let new = world.configs().get(old.metadata.name.as_deref().unwrap()).await.unwrap();
        assert_eq!(old.metadata.resource_version, new.metadata.resource_version);
    }
    let deletions = proxy.writes().into_iter().filter(|write| write.starts_with("DELETE")).count();
    assert_eq!(deletions, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn of_two_operators_one_writes_and_the_other_takes_over() {
    let world = World::new().await;
    let (first, second) = (Proxy::start(world.client.clone()).await, Proxy::start(world.client.clone()).await);
    let mut a = world.operator("a", &first);
    world.settled().await;
    let b = world.operator("b", &second);
    b.says("all objects are listed").await;
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "selvedge");
    let holder = async || leases.get("selvedge-operator").await.unwrap().spec.unwrap().holder_identity;
    assert_eq!(holder().await.as_deref(), Some("a"));
    world.apply(community("workshop", &["beijing.edge-1", "beijing.edge-2"])).await;
    world.peers_become("edge-1", &["beijing.connector", "beijing.edge-2"]).await;
    assert_eq!(second.writes(), Vec::<String>::new());

    let start = Instant::now();
    assert!(a.stop());
    b.says("this operator is the one that writes").await;
    eprintln!("a Lease that was given back is taken after {:?}", start.elapsed());
    assert_eq!(holder().await.as_deref(), Some("b"));
    world.apply(community("workshop", &[])).await;
    world.peers_become("edge-1", &["beijing.connector"]).await;

    // One that is killed gives nothing back.
    drop(b);
    let start = Instant::now();
    let c = world.operator("c", &first);
    c.says("this operator is the one that writes").await;
    eprintln!("the Lease of a dead operator is taken after {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn two_operators_at_once_never_give_one_network_twice() {
    let world = World::new().await;
    let mut operators = Vec::new();
    for name in ["a", "b"] {
        // Each one is told that the Lease is its own.
        let proxy = Proxy::start(world.client.clone()).await;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "selvedge-operator"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 15},
        });
        proxy.fail("GET /apis/coordination.k8s.io", Answer::Json(lease), usize::MAX / 4);
        proxy.fail("PUT /apis/coordination.k8s.io", Answer::Echo, usize::MAX / 4);
        operators.push((world.operator(name, &proxy), proxy));
    }
    for (operator, _) in &operators {
        operator.says("this operator is the one that writes").await;
    }
    let names: Vec<String> = (10..70).map(|i| format!("edge-{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        world.apply(node(name, "edge", &format!("192.168.100.{}", i + 1), &[])).await;
    }
    world.settled().await;
    let mut networks = BTreeSet::new();
    for name in &names {
        world.peers_become(name, &["beijing.connector"]).await;
        let config = world.config(name).await.unwrap();
        assert!(networks.insert(config["podCidrs"].to_string()), "{name} has {}", config["podCidrs"]);
    }
    let told = |log: &str| log.contains("given out by another operator at the same time");
    eprintln!("operators met at the networks: {:?}", operators.iter().map(|(o, _)| told(&o.log())).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn an_old_api_server_without_endpoint_slices_will_do() {
    let world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    proxy.fail("/apis/discovery.k8s.io/v1/", Answer::Status(404), usize::MAX / 4);
    let _operator = world.operator("a", &proxy);
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn an_api_server_that_does_not_answer_is_no_leader_for_long() {
    let world = World::new().await;
    let proxy = Proxy::start(world.client.clone()).await;
    let mut operator = world.operator("a", &proxy);
    world.settled().await;
    proxy.fail("", Answer::Silence, usize::MAX / 4);
    proxy.cut();
    operator.says("another operator may write now").await;
    proxy.heal();
    world.apply(community("workshop", &["beijing.edge-1", "beijing.edge-2"])).await;
    world.peers_become("edge-1", &["beijing.connector", "beijing.edge-2"]).await;
    assert!(operator.is_running());
}
