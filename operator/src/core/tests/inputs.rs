//! What a configuration is made from is known by a digest: as long as that stays, nothing is made again.

use selvedge_model::ServiceSource;

use super::*;

/// Two communities with a member in common, cloud nodes, an Outpost, and a Service.
fn fabric() -> Scene {
    let mut scene = beijing();
    scene.put_all([
        connector(),
        node("master", "", "172.16.0.10", &["10.244.0.0/24"]),
        edge("edge-1", "192.168.1.1"),
        edge("edge-2", "192.168.1.2"),
        edge("edge-3", "192.168.1.3"),
        edge("edge-4", "192.168.1.4"),
        community("a", &["beijing.edge-1", "beijing.edge-2"]),
        community("b", &["beijing.edge-2", "beijing.edge-3"]),
        json!({
            "apiVersion": api::API_VERSION, "kind": "Outpost", "metadata": {"name": "mill"},
            "spec": {"lanPrefixes": ["192.168.50.0/24"], "addresses": ["192.168.50.1"]},
        }),
        service("web", &["10.96.0.80"], json!([{"name": "http", "port": 80}])),
    ]);
    scene
}

/// Each node's configuration and the digest of what it is made from.
fn look(scene: &mut Scene) -> BTreeMap<String, (NodeConfig, Digest)> {
    let compiled = compile(&scene.state, &scene.options, &scene.memory);
    let output = compiled.output.expect("a usable cluster");
    let all = output.configs().map(|(node, config)| (node.to_owned(), (config, output.nodes[node].input))).collect();
    scene.memory.incumbents = output.nodes.keys().map(|node| (*node).to_owned()).collect();
    scene.memory.allocations = output.allocations;
    all
}

/// Makes a change and tells whose configuration is another one; each of those must be noticed.
fn change(scene: &mut Scene, change: impl FnOnce(&mut Scene) -> &mut Scene) -> Vec<String> {
    let before = look(scene);
    change(scene);
    let after = look(scene);
    let mut changed = Vec::new();
    for (node, (config, input)) in &after {
        let Some((old, old_input)) = before.get(node) else { continue };
        assert!(old == config || old_input != input, "{node} would not be made again");
        if old != config {
            changed.push(node.clone());
        }
    }
    changed
}

#[test]
fn whatever_changes_a_configuration_changes_what_it_is_made_from() {
    let mut scene = fabric();
    let changes: [(Value, &[&str]); 9] = [
        (edge("edge-3", "192.168.9.9"), &["cloud-1", "edge-2", "edge-3"]),
        (annotated(edge("edge-3", "192.168.9.9"), "public-addresses", "203.0.113.5"), &["cloud-1", "edge-2"]),
        (annotated(edge("edge-4", "192.168.1.4"), "metered", "true"), &["cloud-1", "edge-4"]),
        (annotated(edge("edge-4", "192.168.1.4"), "datapath", "user"), &["cloud-1", "edge-4"]),
        (community("b", &["beijing.edge-2", "beijing.edge-3", "beijing.mill"]), &["edge-2", "edge-3", "mill"]),
        (community("b", &["beijing.mill"]), &["edge-2", "edge-3", "mill"]),
        (
            node("master", "", "172.16.0.10", &["10.244.7.0/24"]),
            &["cloud-1", "edge-1", "edge-2", "edge-3", "edge-4", "master", "mill"],
        ),
        (
            service("web", &["10.96.0.81"], json!([{"name": "http", "port": 80}])),
            &["edge-1", "edge-2", "edge-3", "edge-4", "mill"],
        ),
        (edge("edge-5", "192.168.1.5"), &["cloud-1", "master"]),
    ];
    for (object, expected) in changes {
        let words = object.to_string();
        assert_eq!(change(&mut scene, |scene| scene.put(object)), expected, "{words}");
    }
    assert_eq!(change(&mut scene, |scene| scene.remove("Node", "edge-5")), ["cloud-1", "master"]);
    let changed = change(&mut scene, |scene| {
        scene.put(cluster("beijing", json!({"connector": {"addresses": ["203.0.113.11"]}})))
    });
    assert_eq!(changed, ["edge-1", "edge-2", "edge-3", "edge-4", "mill"]);
}

#[test]
fn where_nothing_changes_nothing_is_made_again() {
    let mut scene = fabric();
    assert_eq!(look(&mut scene), look(&mut scene));
    // Services concern only those who are told of them.
    scene.options.services = ServiceSource::Api;
    let before = look(&mut scene);
    scene.put(service("other", &["10.96.0.99"], json!([{"name": "http", "port": 80}])));
    let after = look(&mut scene);
    let touched: Vec<_> = after.keys().filter(|node| before[*node].1 != after[*node].1).collect();
    assert_eq!(touched, ["mill"]);
    scene.remove("Outpost", "mill");
    let output = compile(&scene.state, &scene.options, &scene.memory).output.expect("a usable cluster");
    assert!(!output.tells_services);
}
