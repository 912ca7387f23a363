use std::fs;

use tempfile::TempDir;

use super::*;

fn index(files: &[(&str, &str)]) -> (TempDir, Directory) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let mut index = Directory::new(directory.path());
    index.scan().unwrap();
    (directory, index)
}

fn problems(index: &Directory) -> Vec<String> {
    index.state().1.iter().map(ToString::to_string).collect()
}

fn nodes(index: &Directory) -> Vec<String> {
    index.state().0.nodes.into_iter().map(|(name, node)| format!("{name} {:?}", node.value.internal_ips)).collect()
}

fn node(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nstatus:\n  addresses: [{{type: InternalIP, address: \
         \"{address}\"}}]\n"
    )
}

#[test]
fn reads_yaml_json_and_lists_and_passes_over_the_rest() {
    let json = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"j"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.3"},{"type":"Hostname","address":"j"}]}}"#;
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}\n- {{apiVersion: v1, kind: Pod, metadata: {{name: p}}}}\n",
        node("l", "10.0.0.4").trim_end().replace('\n', "\n  ")
    );
    let documents = format!("# head\n---\n{}---\n---\n{}", node("a", "10.0.0.1"), node("b", "10.0.0.2"));
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: many}\n";
    let (directory, index) = index(&[
        ("docs.yaml", &documents),
        ("one.json", json),
        ("list.yml", &list),
        ("other.yaml", deployment),
        (".hidden.yaml", ": ["),
        ("notes.txt", ": ["),
    ]);
    fs::create_dir(directory.path().join("folder.yaml")).unwrap();
    assert_eq!(problems(&index), Vec::<String>::new());
    assert_eq!(nodes(&index), ["a [10.0.0.1]", "b [10.0.0.2]", "j [10.0.0.3]", "l [10.0.0.4]"]);
    assert!(index.is_complete());
}

#[test]
fn a_wrong_object_is_named_by_place_and_field() {
    let cluster = "apiVersion: selvedge.dev/v1alpha1\nkind: Cluster\nmetadata: {name: c}\nspec: ";
    let community = "apiVersion: selvedge.dev/v1alpha1\nkind: Community\nmetadata: {name: c}\n";
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: ns}\nspec: ";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\n";
    for (head, rest, expected) in [
        (
            cluster,
            "{clusterCIDRs: [10.244.0.1/16], serviceCIDRs: []}",
            "Cluster c in f.yaml (line 1): spec.clusterCIDRs[0]: \"10.244.0.1/16\" has host bits set; the network is 10.244.0.0/16",
        ),
        (
            cluster,
            "{clusterCIDRs: [10.244.0.0], serviceCIDRs: []}",
            "Cluster c in f.yaml (line 1): spec.clusterCIDRs[0]: \"10.244.0.0\" is not a network in CIDR notation",
        ),
        (cluster, "{serviceCIDRs: []}", "Cluster c in f.yaml (line 1): spec: missing field `clusterCIDRs`"),
        (
            cluster,
            "{clusterCIDRs: [], serviceCIDRs: [], services: {edge: ebpf}}",
            "Cluster c in f.yaml (line 1): spec.services.edge: \"ebpf\" is none of off, kernel",
        ),
        (
            cluster,
            "{clusterCIDRs: [], serviceCIDRs: [], connector: {port: 0}}",
            "Cluster c in f.yaml (line 1): spec.connector.port: invalid value: integer `0`, expected a nonzero u16",
        ),
        (
            community,
            "spec: {members: beijing.edge-1}",
            "Community c in f.yaml (line 1): spec.members: invalid type: string \"beijing.edge-1\", expected a sequence",
        ),
        (community, "", "Community c in f.yaml (line 1): missing field `spec`"),
        (
            node,
            "}\nspec: {podCIDRs: [fd00::1/64]}",
            "Node n in f.yaml (line 1): spec.podCIDRs[0]: \"fd00::1/64\" has host bits set; the network is fd00::/64",
        ),
        (
            node,
            "}\nstatus: {addresses: [{type: Hostname, address: n}, {type: InternalIP, address: n}]}",
            "Node n in f.yaml (line 1): status.addresses[1].address: \"n\" is not an IP address",
        ),
        (
            node,
            ", annotations: {selvedge.dev/public-addresses: 'gw.example.org'}}",
            "Node n in f.yaml (line 1): metadata.annotations[selvedge.dev/public-addresses]: \"gw.example.org\" is not an IP address",
        ),
        (
            node,
            ", annotations: {selvedge.dev/pod-cidrs: '10.0.0.0/24,x'}}",
            "Node n in f.yaml (line 1): metadata.annotations[selvedge.dev/pod-cidrs]: \"x\" is not a network in CIDR notation",
        ),
        (
            node,
            ", annotations: {selvedge.dev/datapath: fast}}",
            "Node n in f.yaml (line 1): metadata.annotations[selvedge.dev/datapath]: \"fast\" is none of auto, kernel, user",
        ),
        (
            node,
            ", annotations: {selvedge.dev/metered: 'yes'}}",
            "Node n in f.yaml (line 1): metadata.annotations[selvedge.dev/metered]: \"yes\" is none of true, false",
        ),
        (
            node,
            "/../../etc}",
            "Node n/../../etc in f.yaml (line 1): metadata.name: \"n/../../etc\" is not a name of small letters, digits, '-' and '.' (RFC 1123)",
        ),
        (
            service,
            "{clusterIP: nowhere}",
            "Service ns/s in f.yaml (line 1): spec.clusterIP: \"nowhere\" is not an IP address",
        ),
        (
            service,
            "{clusterIPs: [10.96.0.1], ports: [{port: 70000}]}",
            "Service ns/s in f.yaml (line 1): spec.ports[0].port: invalid value: integer `70000`, expected u16",
        ),
        (
            slice,
            "endpoints: [{addresses: [x]}]",
            "EndpointSlice default/e in f.yaml (line 1): endpoints[0].addresses[0]: \"x\" is not an IP address",
        ),
        ("kind: Node", "", "Node in f.yaml (line 1): missing field `apiVersion`"),
        (
            "apiVersion: selvedge.dev/v1alpha1\nkind: Comunity",
            "",
            "Comunity in f.yaml (line 1): kind: \"Comunity\" is none of Cluster, Community, Outpost",
        ),
        (
            "apiVersion: selvedge.dev/v2\nkind: Cluster",
            "",
            "Cluster in f.yaml (line 1): apiVersion: \"selvedge.dev/v2\" is not selvedge.dev/v1alpha1",
        ),
        (
            "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice",
            "",
            "EndpointSlice in f.yaml (line 1): apiVersion: \"discovery.k8s.io/v1beta1\" is not discovery.k8s.io/v1",
        ),
        ("just words", "", "f.yaml (line 1): is no object with apiVersion and kind"),
        ("", "# nothing", "f.yaml: holds no object; delete the file to remove its objects"),
    ] {
        let (_directory, index) = index(&[("f.yaml", &format!("{head}{rest}"))]);
        assert_eq!(problems(&index), [expected]);
        assert_eq!(index.is_complete(), !["Node", "f.yaml"].iter().any(|start| expected.starts_with(start)));
    }
}

#[test]
fn the_place_of_an_error_in_a_later_document_and_in_a_list() {
    let text = format!("{}---\n{}", node("a", "10.0.0.1"), node("b", "x"));
    let list = "kind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {}}\n";
    let (_directory, index) = index(&[("f.yaml", &text), ("list.yaml", list)]);
    assert_eq!(
        problems(&index),
        [
            "Node b in f.yaml, document 2 (line 7): status.addresses[0].address: \"x\" is not an IP address",
            "Node in list.yaml (line 1): items[0].metadata.name: \"\" is not a name of small letters, digits, '-' and '.' (RFC 1123)",
        ]
    );
    assert_eq!(nodes(&index), ["a [10.0.0.1]"]);
}

#[test]
fn text_that_is_no_yaml_is_named_by_line() {
    for (bad, place) in [
        ("key: [1, 2\nother: x\n", "document 2: line "),
        ("a: 1\na: 2\n", "document 2: line 8, column 1: not YAML: duplicate mapping key: a"),
        ("{{ template }}\n", "document 2: line "),
        ("a: *nobody\n", "document 2: line "),
    ] {
        let (_directory, index) = index(&[("f.yaml", &format!("{}---\n{bad}", node("a", "10.0.0.1")))]);
        let problems = problems(&index);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("f.yaml, {place}")), "{}", problems[0]);
        assert!(problems[0].contains("not YAML: ") && !problems[0].contains('\n'), "{}", problems[0]);
        assert_eq!(nodes(&index), ["a [10.0.0.1]"]);
    }
}

#[test]
fn a_small_text_cannot_grow_without_bound() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let alias = format!("*a{}", i - 1);
        text += &format!("a{i}: &a{i} [{}]\n", vec![alias; 10].join(", "));
    }
    let (_directory, index) = index(&[("bomb.yaml", &text), ("deep.yaml", &"[".repeat(100_000))]);
    assert_eq!(problems(&index).len(), 2);
}

#[test]
fn the_last_good_version_stays_in_force() {
    let both = format!("{}---\n{}", node("a", "10.0.0.1"), node("b", "10.0.0.2"));
    let (directory, mut index) = index(&[("f.yaml", &both)]);
    let path = directory.path().join("f.yaml");
    for (text, expected) in [
        // One object is wrong: the other one is taken anew.
        (format!("{}---\n{}", node("a", "10.0.0.9"), node("b", "x")), ["a [10.0.0.9]", "b [10.0.0.2]"]),
        ("garbage: [".to_owned(), ["a [10.0.0.9]", "b [10.0.0.2]"]),
        // Half written.
        (String::new(), ["a [10.0.0.9]", "b [10.0.0.2]"]),
        (both.clone(), ["a [10.0.0.1]", "b [10.0.0.2]"]),
    ] {
        fs::write(&path, &text).unwrap();
        index.refresh("f.yaml");
        assert_eq!(nodes(&index), expected, "{text}");
        assert_eq!(index.is_complete(), text == both);
    }
    fs::write(&path, node("a", "10.0.0.1")).unwrap();
    index.refresh("f.yaml");
    assert_eq!(nodes(&index), ["a [10.0.0.1]"]);
    fs::remove_file(&path).unwrap();
    index.refresh("f.yaml");
    assert_eq!(nodes(&index), Vec::<String>::new());
    assert!(index.is_complete());
}

#[test]
fn a_directory_that_cannot_be_listed_changes_nothing() {
    let (directory, mut index) = index(&[("f.yaml", &node("a", "10.0.0.1"))]);
    drop(directory);
    assert!(index.scan().is_err());
    assert_eq!(nodes(&index), ["a [10.0.0.1]"]);
}

#[test]
fn of_two_objects_with_one_name_the_first_is_in_force() {
    let (_directory, index) = index(&[("a.yaml", &node("n", "10.0.0.1")), ("b.yaml", &node("n", "10.0.0.2"))]);
    assert_eq!(nodes(&index), ["n [10.0.0.1]"]);
    assert_eq!(
        problems(&index),
        [
            "Node n in b.yaml (line 1): metadata.name: is already defined as Node n in a.yaml (line 1); that one is in force"
        ]
    );
}
