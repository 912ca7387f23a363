//! Edge gateways, by the definitions of Gateway API and of Istio, with the rights of the chart and no others.

use std::fs;
use std::process::Command;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::support::{Proxy, World, binary, eventually, node};

const API: &str = "gateway.networking.k8s.io";
const EDGE: &str = "selvedge-node-edge-1";

/// All documents of a file.
fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---").map(|part| part.trim_start_matches("---"));
    parts.filter(|part| part.contains("kind:")).map(|part| serde_saphyr::from_str(part).unwrap()).collect()
}

/// The definitions of a channel, and those of Istio that EdgeMesh reads.
fn definitions(channel: &str) -> Vec<Value> {
    let folder = binary("gateway.crds").join(channel);
    let mut all = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        all.extend(documents(&fs::read_to_string(file.unwrap().path()).unwrap()));
    }
    let istio = binary("istio.crds").join("customresourcedefinitions.gen.yaml");
    all.extend(documents(&fs::read_to_string(istio).unwrap()));
    let kinds = ["Gateway", "VirtualService", "DestinationRule"];
    all.retain(|one| {
        let (group, kind) = (&one["spec"]["group"], one["spec"]["names"]["kind"].as_str().unwrap_or_default());
        *group == API || (*group == "networking.istio.io" && kinds.contains(&kind))
    });
    all
}

/// Lets the operator do what the chart lets it, and nothing else.
async fn permit(world: &World, gateways: bool) -> Proxy {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/selvedge");
    let rendered = Command::new(binary("helm"))
        .args(["template", "selvedge", chart, "--namespace", "selvedge", "--set", "images.registry=r.test"])
        .args(["--kube-version", "1.30.0", "--set", &format!("gateways={gateways}")])
        .output()
        .unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    for object in documents(&String::from_utf8(rendered.stdout).unwrap()) {
        if object["apiVersion"] == "rbac.authorization.k8s.io/v1" {
            world.apply(object).await;
        }
    }
    Proxy::start(world.server.client_of("selvedge:selvedge-operator").await).await
}

fn object(version: &str, kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({"namespace": namespace, "name": name});
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
}

fn route(version: &str, kind: &str, name: &str, section: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["parentRefs"] = json!([{"name": "gate", "sectionName": section}]);
    object(&format!("{API}/{version}"), kind, "shop", name, spec)
}

fn service(namespace: &str, protocol: &str) -> Value {
    object("v1", "Service", namespace, "web", json!({"ports": [{"port": 80, "protocol": protocol}]}))
}

fn grant(namespace: &str, kind: &str, to: &str) -> Value {
    let spec = json!({"from": [{"group": API, "kind": kind, "namespace": "shop"}], "to": [{"group": "", "kind": to}]});
    object(&format!("{API}/v1beta1"), "ReferenceGrant", namespace, &kind.to_lowercase(), spec)
}

/// A Secret with a new certificate, and the lines of its key.
fn secret(namespace: &str, name: &str) -> (Value, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let data = json!({"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()});
    let metadata = json!({"namespace": namespace, "name": name});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "stringData": data});
    (secret, key.serialize_pem().lines().nth(1).unwrap().to_owned())
}

fn gateway() -> Value {
    let with = |name: &str| json!({"certificateRefs": [{"name": name}]});
    let foreign = json!({"certificateRefs": [{"namespace": "other", "name": "other-tls"}]});
    let spec = json!({"gatewayClassName": "edge", "listeners": [
        {"name": "web", "port": 80, "protocol": "HTTP"},
        {"name": "secure", "port": 443, "protocol": "HTTPS", "hostname": "shop.example", "tls": with("shop-tls")},
        {"name": "foreign", "port": 444, "protocol": "HTTPS", "tls": foreign},
        {"name": "passed", "port": 8443, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
        {"name": "raw", "port": 7000, "protocol": "TCP"},
        {"name": "names", "port": 5300, "protocol": "UDP"},
    ]});
    let mut gateway = object(&format!("{API}/v1"), "Gateway", "shop", "gate", spec);
    gateway["metadata"]["annotations"] = json!({"selvedge.dev/nodes": "gate=yes"});
    gateway
}

/// `Accepted=True/Reason message`, a line for each condition, with the name of the listener before it if it is of one.
async fn told(world: &World, object: &Value) -> String {
    let status = world.get(object).await.unwrap_or_default()["status"].clone();
    let mut lines = Vec::new();
    let all = [("", &json!([status.clone()])), ("listeners", &status["listeners"]), ("parents", &status["parents"])]
        .map(|(_, list)| list.as_array().cloned().unwrap_or_default());
    for of in all.iter().flatten() {
        for c in of["conditions"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (kind, holds, reason) = (text(&c["type"]), text(&c["status"]), text(&c["reason"]));
            lines.push(format!("{} {kind}={holds}/{reason} {}", text(&of["name"]), text(&c["message"])));
        }
    }
    lines.join("\n")
}

async fn says(world: &World, object: &Value, parts: &[&str]) {
    let what = format!("status of {} {}", object["kind"], object["metadata"]["name"]);
    eventually(&what, async || {
        let told = told(world, object).await;
        let missing: Vec<_> = parts.iter().filter(|part| !told.contains(**part)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} is not in\n{told}")) }
    })
    .await;
}

/// `gateway.pem` of a node, empty if there is none.
async fn bundle(world: &World, name: &str) -> String {
    let data = world.secrets().get_opt(name).await.unwrap().and_then(|secret| secret.data).unwrap_or_default();
    data.get("gateway.pem").map(|bytes| String::from_utf8(bytes.0.clone()).unwrap()).unwrap_or_default()
}

/// A world with definitions, a class, Services, and a node that is chosen.
async fn world(definitions: Vec<Value>) -> World {
    let world = World::new().await;
    for definition in definitions {
        world.apply(definition).await;
    }
    for namespace in ["shop", "other"] {
        world.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await;
        world.apply(service(namespace, "TCP")).await;
    }
    let mut names = service("shop", "UDP");
    names["metadata"]["name"] = json!("names");
    world.apply(names).await;
    let mut chosen = node("edge-1", "edge", "192.168.11.2", &[]);
    chosen["metadata"]["labels"]["gate"] = json!("yes");
    world.apply(chosen).await;
    let class = json!({"apiVersion": format!("{API}/v1"), "kind": "GatewayClass", "metadata": {"name": "edge"},
                       "spec": {"controllerName": "selvedge.dev/gateway"}});
    world.apply(class).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn gateways_are_served_where_they_choose_and_said_what_becomes_of_them() {
    let world = world(definitions("standard")).await;
    let (mine, key) = secret("shop", "shop-tls");
    let (theirs, foreign_key) = secret("other", "other-tls");
    world.apply(mine).await;
    world.apply(theirs).await;
    world.apply(gateway()).await;
    let extension =
        json!([{"type": "ExtensionRef", "extensionRef": {"group": "x.example", "kind": "Magic", "name": "m"}}]);
    let web = json!([{"name": "web", "port": 80}]);
    let mixed = json!({"rules": [
        {"matches": [{"path": {"type": "PathPrefix", "value": "/magic"}}], "filters": extension, "backendRefs": web},
        {"backendRefs": [{"namespace": "other", "name": "web", "port": 80}]}]});
    let mixed = route("v1", "HTTPRoute", "mixed", "web", mixed);
    world.apply(mixed.clone()).await;
    world.apply(route("v1", "HTTPRoute", "secure", "secure", json!({"rules": [{"backendRefs": web}]}))).await;
    let routes = [("TLSRoute", "passed", "web"), ("TCPRoute", "raw", "web"), ("UDPRoute", "names", "names")];
    for (kind, section, backend) in routes {
        let mut spec = json!({"rules": [{"backendRefs": [{"name": backend, "port": 80}]}]});
        if kind == "TLSRoute" {
            spec["hostnames"] = json!(["passed.example"]);
        }
        world.apply(route("v1", kind, section, section, spec)).await;
    }
    let proxy = permit(&world, true).await;
    let operator = world.operator("a", &proxy);
    world.settled().await;

    // Everything is said where it belongs.
    says(
        &world,
        &gateway(),
        &[
            " Accepted=True/Accepted",
            " Programmed=True/Programmed sent to edge-1",
            "web Programmed=True",
            "secure ResolvedRefs=True",
            "passed Programmed=True",
            "raw Programmed=True",
            "names Programmed=True",
            "foreign ResolvedRefs=False/RefNotPermitted no ReferenceGrant in other permits Secret other/other-tls",
        ],
    )
    .await;
    says(
        &world,
        &mixed,
        &[
            "Accepted=True/Accepted",
            "PartiallyInvalid=True/UnsupportedValue",
            "type ExtensionRef is not supported",
            "ResolvedRefs=False/RefNotPermitted",
            "no ReferenceGrant in other permits other/web",
        ],
    )
    .await;
    for (kind, section, _) in routes {
        says(&world, &route("v1", kind, section, section, json!({})), &["Accepted=True", "ResolvedRefs=True"]).await;
    }
    let class = json!({"apiVersion": format!("{API}/v1"), "kind": "GatewayClass", "metadata": {"name": "edge"}});
    says(&world, &class, &["Accepted=True"]).await;

    // Only the chosen node has a part in it, and no key is anywhere but in its Secret.
    let config = world.config("edge-1").await.unwrap();
    let listeners: Vec<&str> =
        config["gateway"]["listeners"].as_array().unwrap().iter().map(|l| l["name"].as_str().unwrap()).collect();
    let served = ["shop/gate/web", "shop/gate/secure", "shop/gate/raw", "shop/gate/passed", "shop/gate/names"];
    assert!(served.iter().all(|name| listeners.contains(name)) && listeners.len() == served.len(), "{listeners:?}");
    assert_eq!(world.config("edge-2").await.unwrap()["gateway"], Value::Null);
    eventually("the certificate", async || {
        let text = bundle(&world, EDGE).await;
        if text.contains("# shop_shop-tls") && text.contains(&key) { Ok(()) } else { Err("is not delivered") }
    })
    .await;
    for secret in world.secrets().list(&Default::default()).await.unwrap() {
        let data = secret.data.unwrap_or_default();
        let keys: Vec<&str> = data.keys().map(String::as_str).collect();
        assert_eq!(keys.contains(&"gateway.pem"), secret.metadata.name.as_deref() == Some(EDGE), "{keys:?}");
        assert!(data.values().all(|bytes| !String::from_utf8_lossy(&bytes.0).contains(&foreign_key)));
    }
    for map in world.configs().list(&Default::default()).await.unwrap() {
        assert!(!format!("{:?}", map.data).contains(&key));
    }
    assert!(!operator.log().contains(&key));

    // What another namespace permits holds as long as it does.
    let backend = grant("other", "HTTPRoute", "Service");
    world.apply(backend.clone()).await;
    world.apply(grant("other", "Gateway", "Secret")).await;
    says(&world, &mixed, &["ResolvedRefs=True"]).await;
    says(&world, &gateway(), &["foreign ResolvedRefs=True", "foreign Programmed=True"]).await;
    eventually("the other certificate", async || {
        if bundle(&world, EDGE).await.contains(&foreign_key) { Ok(()) } else { Err("is not delivered") }
    })
    .await;
    world.delete(&backend).await;
    says(&world, &mixed, &["ResolvedRefs=False/RefNotPermitted"]).await;

    // A new certificate takes the place of the old one, and none goes.
    let (renewed, new_key) = secret("shop", "shop-tls");
    world.apply(renewed.clone()).await;
    world.delete(&grant("other", "Gateway", "Secret")).await;
    eventually("the new certificate alone", async || {
        let text = bundle(&world, EDGE).await;
        let alone = text.contains(&new_key) && !text.contains(&key) && !text.contains(&foreign_key);
        if alone { Ok(()) } else { Err("another one is there") }
    })
    .await;
    world.delete(&renewed).await;
    says(&world, &gateway(), &["secure ResolvedRefs=False/InvalidCertificateRef Secret shop/shop-tls does not exist"])
        .await;
    eventually("no certificate", async || if bundle(&world, EDGE).await.is_empty() { Ok(()) } else { Err("one") })
        .await;
    let secret = world.secrets().get(EDGE).await.unwrap();
    assert_eq!(secret.data.unwrap().into_keys().collect::<Vec<_>>(), ["ca.crt", "tls.crt", "tls.key"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn routes_of_an_older_version_and_the_objects_of_edgemesh_are_served() {
    // As they were before they became standard.
    let mut definitions = definitions("experimental");
    for definition in &mut definitions {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        for version in definition["spec"]["versions"].as_array_mut().unwrap() {
            if ["TLSRoute", "TCPRoute", "UDPRoute"].contains(&&*kind) {
                version["served"] = json!(version["name"] == "v1alpha2");
            }
        }
    }
    let world = world(definitions).await;
    world.apply(gateway()).await;
    let raw =
        route("v1alpha2", "TCPRoute", "raw", "raw", json!({"rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}));
    world.apply(raw.clone()).await;
    let istio = |kind: &str, name: &str, spec: Value| object("networking.istio.io/v1alpha3", kind, "shop", name, spec);
    let servers = json!([{"port": {"number": 12345, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]);
    let edge = istio("Gateway", "edgemesh", json!({"selector": {"gate": "yes"}, "servers": servers}));
    let to = json!([{"route": [{"destination": {"host": "web", "port": {"number": 80}}}], "fault": {"abort": {"httpStatus": 500, "percentage": {"value": 1}}}}]);
    let web = istio("VirtualService", "web", json!({"hosts": ["*"], "gateways": ["edgemesh"], "http": to}));
    let hash =
        json!({"host": "web", "trafficPolicy": {"loadBalancer": {"consistentHash": {"httpHeaderName": "user"}}}});
    let rule = istio("DestinationRule", "web", hash);
    for object in [&edge, &web, &rule] {
        world.apply(object.clone()).await;
    }
    let proxy = permit(&world, true).await;
    let _operator = world.operator("a", &proxy);
    says(&world, &raw, &["Accepted=True", "ResolvedRefs=True"]).await;
    says(&world, &edge, &["Accepted=True"]).await;
    says(&world, &web, &["Accepted=True", "spec.http[0].fault is not supported"]).await;
    says(&world, &rule, &["Accepted=True"]).await;
    eventually("the configuration", async || {
        let config = world.config("edge-1").await.unwrap_or_default().to_string();
        if config.contains("header:user") && config.contains("12345") { Ok(()) } else { Err(config) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubernetes API server: make test-kube"]
async fn without_gateways_the_operator_reads_no_secrets_of_others() {
    let world = world(definitions("standard")).await;
    let (mine, _) = secret("shop", "shop-tls");
    world.apply(mine).await;
    world.apply(gateway()).await;
    let proxy = permit(&world, false).await;
    let _operator = world.operator("a", &proxy);
    world.settled().await;
    assert_eq!(world.config("edge-1").await.unwrap()["gateway"], Value::Null);
    assert_eq!(told(&world, &gateway()).await.matches("Programmed=True").count(), 0);
}
