use std::net::IpAddr;

use selvedge_model::gateway::{GatewayBalance, Listener, ListenerProtocol, MatchKind, TlsVersion};
use selvedge_model::{Endpoint, Protocol, ServicePort};
use serde_json::{Value, json};

use super::*;
use crate::api::{self, ObjectRef};

/// Two nodes, of which one has the label `gate=yes`, and Services `default/web`, `default/dns` and `other/web`.
#[derive(Default)]
struct Scene {
    state: ClusterState,
    certificates: Certificates,
}

impl Scene {
    fn new() -> Scene {
        let mut scene = Scene::default();
        let name = json!({"metadata": {"name": "edge", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        scene.put(&with(name, "GatewayClass", "gateway.networking.k8s.io/v1", json!({"controllerName": CONTROLLER})));
        for name in ["shop", "other"] {
            let certificate = Certificate { pem: "PEM".into(), authorities: (name == "shop").then(|| "CA".into()) };
            scene.certificates.insert(("default".into(), name.into()), Ok(certificate));
        }
        scene
    }

    fn put(&mut self, value: &Value) -> &mut Self {
        let reference = ObjectRef { file: "test.yaml".to_owned(), ..api::name(value) };
        let content = api::read(value).expect("object is right").expect("kind is known");
        self.state.insert(Object { reference, value: content }).expect("name is new");
        self
    }

    fn gateway(&mut self, name: &str, listeners: Value) -> &mut Self {
        let meta = json!({"metadata": {"name": name, "annotations": {"selvedge.dev/nodes": "gate=yes"}}});
        let spec = json!({"gatewayClassName": "edge", "listeners": listeners});
        self.put(&with(meta, "Gateway", "gateway.networking.k8s.io/v1", spec))
    }

    fn route(&mut self, kind: &str, name: &str, spec: Value) -> &mut Self {
        let version = if kind == "HTTPRoute" || kind == "GRPCRoute" { "v1" } else { "v1alpha2" };
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let meta = json!({"metadata": {"namespace": namespace, "name": name, "generation": 4}});
        self.put(&with(meta, kind, &format!("gateway.networking.k8s.io/{version}"), spec))
    }

    fn istio(&mut self, kind: &str, name: &str, spec: Value) -> &mut Self {
        self.put(&with(json!({"metadata": {"name": name}}), kind, "networking.istio.io/v1alpha3", spec))
    }

    fn compile(&self) -> Gateways {
        let labels = |gate: &str| BTreeMap::from([("gate".to_owned(), gate.to_owned())]);
        let (yes, no) =
            (Node { labels: labels("yes"), ..Node::default() }, Node { labels: labels("no"), ..Node::default() });
        let nodes = BTreeMap::from([("edge-1", &yes), ("edge-2", &no)]);
        let service = |namespace: &str, name: &str, protocol, port| {
            let endpoints = vec![Endpoint::new(IpAddr::from([10, 0, 0, 1]), 8080, "")];
            Service {
                namespace: namespace.into(),
                name: name.into(),
                ports: vec![ServicePort { protocol, port, endpoints, ..ServicePort::default() }],
                ..Service::default()
            }
        };
        let services = [
            service("default", "dns", Protocol::Udp, 53),
            service("default", "web", Protocol::Tcp, 80),
            service("other", "web", Protocol::Tcp, 80),
        ];
        compile(&self.state, &nodes, &services, &self.certificates)
    }

    /// The listeners of `edge-1`, the only node that has any.
    fn listeners(&self) -> Vec<Listener> {
        let mut gateways = self.compile();
        let listeners = gateways.sections.remove("edge-1").map(|section| section.listeners).unwrap_or_default();
        for site in listeners.iter().flat_map(|listener| &listener.sites) {
            assert!(site.host.is_empty() || is_host(&site.host), "{}", site.host);
            assert_eq!(site.rules.iter().find_map(refusal), None);
        }
        assert!(gateways.sections.is_empty(), "another node has a gateway: {:?}", gateways.sections.keys());
        listeners
    }

    /// `Accepted=True/Accepted understood` of an object, a line for each condition.
    fn said(&self, kind: GatewayKind, name: &str) -> Vec<String> {
        let gateways = self.compile();
        let about =
            |s: &&Status| s.kind == kind && format!("{}/{}", s.namespace, s.name).ends_with(&format!("/{name}"));
        let Some(status) = gateways.statuses.iter().find(about) else { return Vec::new() };
        let line = |c: &Condition| format!("{}={}/{} {}", c.kind, c.status, c.reason, c.message);
        match &status.content {
            StatusContent::Conditions(conditions) => conditions.iter().map(line).collect(),
            StatusContent::Gateway { conditions, listeners, .. } => {
                let listeners =
                    listeners.iter().flat_map(|l| l.conditions.iter().map(|c| format!("{} {}", l.name, line(c))));
                conditions.iter().map(line).chain(listeners).collect()
            }
            StatusContent::Parents(parents) => {
                parents.iter().flat_map(|(_, conditions)| conditions.iter().map(line)).collect()
            }
        }
    }
}

fn with(mut object: Value, kind: &str, version: &str, spec: Value) -> Value {
    (object["kind"], object["apiVersion"], object["spec"]) = (kind.into(), version.into(), spec);
    object
}

fn http() -> Value {
    json!([{"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}])
}

fn to_web() -> Value {
    json!([{"name": "web", "port": 80}])
}

fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

#[test]
fn a_route_becomes_rules_on_the_chosen_node() {
    let mut scene = Scene::new();
    scene.gateway("gate", http()).route(
        "HTTPRoute",
        "shop",
        json!({"parentRefs": [{"name": "gate"}], "hostnames": ["Shop.example"], "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/a"}, "method": "GET",
                         "headers": [{"name": "x", "value": "1"}]}],
            "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}}},
                        {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web", "port": 80}, "percent": 5}}],
            "backendRefs": [{"name": "web", "port": 80, "weight": 3}], "timeouts": {"request": "2s"}}]}),
    );
    let listeners = scene.listeners();
    assert_eq!((listeners.len(), listeners[0].port, listeners[0].protocol), (1, 80, ListenerProtocol::Http));
    assert_eq!(listeners[0].name, "default/gate/http");
    let rule = &listeners[0].sites[0].rules[0];
    assert_eq!(rule.hosts, ["shop.example"]);
    assert_eq!((rule.backends[0].weight, rule.timeout_ms, rule.mirrors[0].share), (3, Some(2000), 500));
    assert_eq!(rule.matches[0].path.as_ref().map(|p| (p.kind, &*p.value)), Some((MatchKind::Prefix, "/a")));
    assert_eq!(rule.matches[0].method.as_deref(), Some("GET"));
    let said = scene.said(GatewayKind::HttpRoute, "shop");
    assert_eq!(
        said,
        ["Accepted=True/Accepted understood", "ResolvedRefs=True/ResolvedRefs all that it names is there"]
    );
    let said = scene.said(GatewayKind::Gateway, "gate");
    assert!(has(&said, "Programmed=True/Programmed sent to edge-1"), "{said:?}");
    assert_eq!(scene.said(GatewayKind::GatewayClass, "edge"), ["Accepted=True/Accepted served by edge nodes"]);
}

#[test]
fn what_is_not_supported_is_named_and_answered_with_500() {
    let mut scene = Scene::new();
    let good = json!({"backendRefs": to_web()});
    let bad = json!({"filters": [{"type": "CORS", "cors": {}}], "backendRefs": to_web()});
    let cookie = json!({"matches": [{"cookies": []}], "backendRefs": to_web()});
    scene.gateway("gate", http());
    scene.route("HTTPRoute", "some", json!({"parentRefs": [{"name": "gate"}], "rules": [good, bad]}));
    scene.route("HTTPRoute", "all", json!({"parentRefs": [{"name": "gate"}], "rules": [cookie]}));
    scene.route("HTTPRoute", "extra", json!({"parentRefs": [{"name": "gate"}], "rules": [good], "invented": 1}));
    let said = scene.said(GatewayKind::HttpRoute, "some");
    assert!(has(&said, "PartiallyInvalid=True/UnsupportedValue Dropped Rule: 1 of 2 rules answer 500"), "{said:?}");
    assert!(has(&said, "spec.rules[1].filters[0] type CORS is not supported"), "{said:?}");
    let said = scene.said(GatewayKind::HttpRoute, "all");
    assert!(
        has(&said, "Accepted=False/UnsupportedValue spec.rules[0].matches[0].cookies is not supported"),
        "{said:?}"
    );
    let said = scene.said(GatewayKind::HttpRoute, "extra");
    assert!(has(&said, "Accepted=True/Accepted left out: spec.invented is not supported"), "{said:?}");
    let statuses: Vec<_> = scene.listeners()[0].sites[0].rules.iter().map(|rule| rule.status).collect();
    assert_eq!(statuses, [Some(500), None, None, Some(500)]);
}

#[test]
fn references_are_resolved_or_named() {
    let mut scene = Scene::new();
    let rule = |to: Value| json!({"parentRefs": [{"name": "gate"}], "rules": [{"backendRefs": [to]}]});
    scene.gateway("gate", http());
    scene.route("HTTPRoute", "gone", rule(json!({"name": "gone", "port": 80})));
    scene.route("HTTPRoute", "port", rule(json!({"name": "web", "port": 81})));
    scene.route("HTTPRoute", "kind", rule(json!({"name": "web", "port": 80, "kind": "Pod"})));
    scene.route("HTTPRoute", "foreign", rule(json!({"name": "web", "namespace": "other", "port": 80})));
    for (route, part) in [
        ("gone", "ResolvedRefs=False/BackendNotFound spec.rules[0].backendRefs[0]: there is no Service default/gone"),
        (
            "port",
            "ResolvedRefs=False/BackendNotFound spec.rules[0].backendRefs[0]: Service default/web has no port 81/tcp",
        ),
        ("kind", "ResolvedRefs=False/InvalidKind"),
        ("foreign", "ResolvedRefs=False/RefNotPermitted"),
    ] {
        let said = scene.said(GatewayKind::HttpRoute, route);
        assert!(has(&said, part), "{said:?}");
    }
    let invalid: Vec<_> = scene.listeners()[0].sites[0].rules.iter().map(|rule| rule.backends[0].invalid).collect();
    assert_eq!(invalid, [true; 4]);
    let grant = json!({"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "default"}],
                       "to": [{"group": "", "kind": "Service", "name": "web"}]});
    let meta = json!({"metadata": {"name": "grant", "namespace": "other"}});
    scene.put(&with(meta, "ReferenceGrant", "gateway.networking.k8s.io/v1beta1", grant));
    assert!(has(&scene.said(GatewayKind::HttpRoute, "foreign"), "ResolvedRefs=True"));
}

#[test]
fn listeners_take_only_what_they_allow() {
    let mut scene = Scene::new();
    scene.gateway(
        "gate",
        json!([{"name": "same", "port": 80, "protocol": "HTTP", "hostname": "*.example"},
               {"name": "tcp", "port": 81, "protocol": "TCP"}, {"name": "udp", "port": 81, "protocol": "UDP"},
               {"name": "odd", "port": 82, "protocol": "SCTP"}]),
    );
    let rule = |section: &str, host: &str| {
        let hosts = if host.is_empty() { json!([]) } else { json!([host]) };
        json!({"parentRefs": [{"name": "gate", "namespace": "default", "sectionName": section}], "hostnames": hosts,
               "rules": [{"backendRefs": to_web()}]})
    };
    let raw = |section: &str, to: &str, port: u16| {
        json!({"parentRefs": [{"name": "gate", "sectionName": section}],
               "rules": [{"backendRefs": [{"name": to, "port": port}]}]})
    };
    scene.route("HTTPRoute", "fits", rule("same", "a.example"));
    scene.route("HTTPRoute", "host", rule("same", "a.other"));
    scene.route("HTTPRoute", "other/space", rule("same", "a.example"));
    scene.route("HTTPRoute", "section", rule("none", ""));
    scene.route("HTTPRoute", "kind", rule("tcp", ""));
    scene.route("TCPRoute", "raw", raw("tcp", "web", 80));
    scene.route("UDPRoute", "names", raw("udp", "dns", 53));
    for (kind, route, part) in [
        (GatewayKind::HttpRoute, "fits", "Accepted=True"),
        (GatewayKind::HttpRoute, "host", "Accepted=False/NoMatchingListenerHostname"),
        (GatewayKind::HttpRoute, "space", "Accepted=False/NotAllowedByListeners"),
        (GatewayKind::HttpRoute, "section", "Accepted=False/NoMatchingParent"),
        (GatewayKind::HttpRoute, "kind", "Accepted=False/NotAllowedByListeners"),
        (GatewayKind::TcpRoute, "raw", "Accepted=True"),
        (GatewayKind::UdpRoute, "names", "ResolvedRefs=True"),
    ] {
        let said = scene.said(kind, route);
        assert!(has(&said, part), "{route}: {said:?}");
    }
    let said = scene.said(GatewayKind::Gateway, "gate");
    assert!(has(&said, "odd Accepted=False/UnsupportedProtocol"), "{said:?}");
    let listeners = scene.listeners();
    let seen: Vec<_> = listeners.iter().map(|l| (l.port, l.protocol, l.sites[0].rules.len())).collect();
    assert_eq!(seen, [(80, ListenerProtocol::Http, 1), (81, ListenerProtocol::Tcp, 1), (81, ListenerProtocol::Udp, 1)]);
}

#[test]
fn certificates_are_named_and_missing_ones_are_said() {
    let mut scene = Scene::new();
    let tls = |name: &str, host: &str, secret: Value, options: Value| {
        json!({"name": name, "port": 443, "protocol": "HTTPS", "hostname": host,
               "tls": {"certificateRefs": [secret], "options": options}})
    };
    let known = json!({"selvedge.dev/min-tls-version": "1.3", "selvedge.dev/client-certificates": "required"});
    scene.gateway(
        "gate",
        json!([
            tls("good", "a.example", json!({"name": "shop"}), known),
            tls("gone", "b.example", json!({"name": "gone"}), json!({"cipher": "x"})),
            tls("foreign", "c.example", json!({"name": "shop", "namespace": "other"}), json!({})),
            tls(
                "clients",
                "d.example",
                json!({"name": "other"}),
                json!({"selvedge.dev/client-certificates": "required"})
            )
        ]),
    );
    let said = scene.said(GatewayKind::Gateway, "gate");
    for part in [
        "good ResolvedRefs=True",
        "good Programmed=True",
        "gone ResolvedRefs=False/InvalidCertificateRef Secret default/gone was not read yet",
        "gone Programmed=False",
        "foreign ResolvedRefs=False/RefNotPermitted",
        "clients ResolvedRefs=False/InvalidCertificateRef Secret default/other has no ca.crt",
        "left out: spec.listeners[1].tls.options[cipher] is not supported",
    ] {
        assert!(has(&said, part), "{part}: {said:?}");
    }
    let gateways = scene.compile();
    let listener = &gateways.sections["edge-1"].listeners[0];
    assert_eq!(
        (listener.sites.len(), listener.min_tls, listener.sites[0].client_certificates),
        (1, TlsVersion::Tls13, true)
    );
    assert_eq!(listener.sites[0].certificate, "default_shop");
    let text = bundle(&gateways.secrets["edge-1"], &scene.certificates);
    assert_eq!(text, "# default_shop\nPEM\n# default_shop.ca\nCA\n");
    assert_eq!(gateways.named.len(), 3);
}

#[test]
fn two_gateways_share_a_port_but_not_a_host() {
    let mut scene = Scene::new();
    let listen =
        |protocol: &str, host: &str| json!([{"name": "l", "port": 80, "protocol": protocol, "hostname": host}]);
    scene.gateway("a", listen("HTTP", "a.example")).gateway("b", listen("HTTP", "b.example"));
    scene.gateway("c", listen("HTTP", "a.example")).gateway("d", listen("TCP", ""));
    assert_eq!(scene.listeners().len(), 1);
    assert_eq!(scene.listeners()[0].sites.len(), 2);
    let said = scene.said(GatewayKind::Gateway, "c");
    assert!(
        has(&said, "l Conflicted=True/HostnameConflict default/a/l has the same port and host on edge-1"),
        "{said:?}"
    );
    assert!(has(&scene.said(GatewayKind::Gateway, "d"), "l Conflicted=True/ProtocolConflict"));
}

#[test]
fn nobody_serves_what_chooses_no_node() {
    let mut scene = Scene::new();
    let spec = json!({"gatewayClassName": "edge", "listeners": http()});
    scene.put(&with(json!({"metadata": {"name": "lost"}}), "Gateway", "gateway.networking.k8s.io/v1", spec));
    let foreign = json!({"gatewayClassName": "nginx", "listeners": http()});
    scene.put(&with(json!({"metadata": {"name": "theirs"}}), "Gateway", "gateway.networking.k8s.io/v1", foreign));
    scene.route("HTTPRoute", "theirs", json!({"parentRefs": [{"name": "theirs"}], "rules": []}));
    assert_eq!(scene.listeners(), []);
    let said = scene.said(GatewayKind::Gateway, "lost");
    assert!(has(&said, "Programmed=False/AddressNotAssigned neither it nor its class has the annotation"), "{said:?}");
    assert_eq!(scene.said(GatewayKind::Gateway, "theirs"), [] as [String; 0]);
    assert_eq!(scene.said(GatewayKind::HttpRoute, "theirs"), [] as [String; 0]);
}

#[test]
fn a_method_of_grpc_is_a_path() {
    let mut scene = Scene::new();
    scene.gateway("gate", http()).route(
        "GRPCRoute",
        "calls",
        json!({"parentRefs": [{"name": "gate"}], "rules": [{
            "matches": [{"method": {"service": "a.B", "method": "C"}}, {"method": {"service": "a.D"}}, {"method": {"method": "E"}}],
            "backendRefs": to_web()}]}),
    );
    let listeners = scene.listeners();
    let rule = &listeners[0].sites[0].rules[0];
    let paths: Vec<_> = rule.matches.iter().flat_map(|m| &m.path).map(|p| (p.kind, &*p.value)).collect();
    let expected = [(MatchKind::Exact, "/a.B/C"), (MatchKind::Prefix, "/a.D"), (MatchKind::Regex, "/[^/]+/E")];
    assert_eq!(paths, expected);
    assert!(rule.backends[0].http2);
}

#[test]
fn edgemesh_objects_as_its_samples_have_them() {
    let mut scene = Scene::new();
    let server = |number: u16, protocol: &str, tls: Value| json!({"port": {"number": number, "name": "p", "protocol": protocol}, "hosts": ["*"], "tls": tls});
    scene.istio(
        "Gateway",
        "gate",
        json!({"selector": {"gate": "yes"}, "servers": [
            server(12345, "HTTP", Value::Null), server(443, "HTTPS", json!({"credentialName": "shop", "mode": "SIMPLE", "minProtocolVersion": "TLSV1_0"})),
            server(7000, "TCP", Value::Null)]}),
    );
    scene.istio(
        "VirtualService",
        "web",
        json!({"hosts": ["*"], "gateways": ["gate"],
               "http": [{"match": [{"uri": {"prefix": "/v1"}}, {"uri": {"exact": "/"}}], "rewrite": {"uri": "/"},
                         "route": [{"destination": {"host": "web", "port": {"number": 80}}}]},
                        {"route": [{"destination": {"host": "web.other.svc.cluster.local"}, "weight": 10}]}],
               "tcp": [{"route": [{"destination": {"host": "web", "port": {"number": 80}}}]}]}),
    );
    scene.istio(
        "DestinationRule",
        "web",
        json!({"host": "web", "trafficPolicy": {"loadBalancer": {"consistentHash": {"httpHeaderName": "user"}}}}),
    );
    let listeners = scene.listeners();
    let ports: Vec<_> = listeners.iter().map(|l| (l.port, l.protocol, l.sites[0].rules.len())).collect();
    assert_eq!(
        ports,
        [(443, ListenerProtocol::Https, 2), (7000, ListenerProtocol::Tcp, 1), (12345, ListenerProtocol::Http, 2)]
    );
    let site = &listeners[2].sites[0];
    assert!(site.in_order);
    let first = &site.rules[0];
    assert_eq!(first.matches[0].path.as_ref().map(|p| (p.kind, &*p.value)), Some((MatchKind::Beginning, "/v1")));
    assert!(first.rewrite.as_ref().and_then(|r| r.path.as_ref()).is_some_and(|p| p.prefix));
    assert_eq!(first.backends[0].balance, GatewayBalance::Header("user".into()));
    assert_eq!((&*site.rules[1].backends[0].namespace, site.rules[1].backends[0].port), ("other", 80));
    let said = scene.said(GatewayKind::IstioGateway, "gate");
    assert_eq!(said.len(), 1);
    assert!(
        has(&said, "Accepted=True/Accepted left out: spec.servers[1].tls minProtocolVersion TLSV1_0 is not spoken"),
        "{said:?}"
    );
    assert_eq!(scene.said(GatewayKind::VirtualService, "web"), ["Accepted=True/Accepted understood"]);
}

#[test]
fn foreign_destination_rules_hurt_nobody() {
    let mut scene = Scene::new();
    scene.istio(
        "Gateway",
        "gate",
        json!({"selector": {"gate": "yes"}, "servers": [{"port": {"number": 80, "protocol": "HTTP"}, "hosts": ["*"]}]}),
    );
    let route = json!([{"route": [{"destination": {"host": "web"}}]}]);
    scene.istio("VirtualService", "web", json!({"hosts": ["*"], "gateways": ["default/gate"], "http": route}));
    // As kubeflow has them, and worse.
    for (name, spec) in [
        (
            "web",
            json!({"host": "web", "subsets": [{"name": "v1"}], "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}, "loadBalancer": {"simple": "LEAST_CONN"}}}),
        ),
        ("ml", json!({"host": "ml.kubeflow", "trafficPolicy": {"loadBalancer": {"simple": "PASSTHROUGH"}}})),
        ("odd", json!({"trafficPolicy": 7})),
        ("empty", Value::Null),
    ] {
        scene.istio("DestinationRule", name, spec);
    }
    assert_eq!(scene.listeners()[0].sites[0].rules[0].backends[0].balance, GatewayBalance::RoundRobin);
    let said = scene.said(GatewayKind::DestinationRule, "web");
    for part in [
        "spec.subsets is not supported",
        "simple LEAST_CONN is not supported, ROUND_ROBIN is used",
        "spec.trafficPolicy.tls is not supported",
    ] {
        assert!(has(&said, part), "{part}: {said:?}");
    }
    for name in ["ml", "odd", "empty"] {
        assert_eq!(scene.said(GatewayKind::DestinationRule, name), [] as [String; 0], "{name} is nobody's business");
    }
}

#[test]
fn what_a_node_would_refuse_is_answered_and_takes_nothing_else_with_it() {
    let mut scene = Scene::new();
    let route = json!([{"destination": {"host": "web"}}]);
    let bad = json!([
        {"match": [{"uri": {"prefix": "/a"}}], "route": route, "headers": {"request": {"set": {"x y": "1"}}}},
        {"match": [{"uri": {"prefix": "/b"}}], "redirect": {"redirectCode": 999}},
        {"match": [{"uri": {"prefix": "/c"}}], "rewrite": {"uri": "/ d"}, "route": route},
        {"route": route},
    ]);
    let servers = json!([{"port": {"number": 80, "protocol": "HTTP"}, "hosts": ["*", "a b"]}]);
    scene.istio("Gateway", "gate", json!({"selector": {"gate": "yes"}, "servers": servers}));
    scene.istio("VirtualService", "web", json!({"hosts": ["*", "b/c"], "gateways": ["gate"], "http": bad}));
    scene.istio("VirtualService", "nowhere", json!({"hosts": ["a b"], "gateways": ["gate"], "http": bad}));
    scene.gateway("api", json!([{"name": "http", "port": 81, "protocol": "HTTP"}]));
    let balance = json!({"host": "web", "trafficPolicy": {"loadBalancer": {"consistentHash": {"httpHeaderName": ""}}}});
    scene.istio("DestinationRule", "web", balance);
    let spec = |hosts: Value| json!({"parentRefs": [{"name": "api"}], "hostnames": hosts, "rules": [{"backendRefs": to_web()}]});
    scene.route("HTTPRoute", "some", spec(json!(["a.example", "a_b/c"])));
    scene.route("HTTPRoute", "none", spec(json!(["a b"])));
    let listeners = scene.listeners();
    let statuses: Vec<_> = listeners[0].sites[0].rules.iter().map(|rule| rule.status).collect();
    assert_eq!(statuses, [Some(500), Some(500), Some(500), None]);
    let hosts: Vec<_> = listeners[1].sites[0].rules.iter().map(|rule| &rule.hosts[..]).collect();
    assert_eq!(hosts, [["a.example"]]);
    let said = scene.said(GatewayKind::VirtualService, "web");
    for part in
        ["\"x y\" is not the name of a header field", "redirect.status: ", "rewrite.path.value: ", "\"b/c\" is none"]
    {
        assert!(has(&said, part), "{part}: {said:?}");
    }
    assert!(has(&scene.said(GatewayKind::VirtualService, "nowhere"), "NoMatchingHost"));
    assert!(has(&scene.said(GatewayKind::HttpRoute, "none"), "NoMatchingListenerHostname"));
}

#[test]
fn a_host_of_one_namespace_is_served_by_no_other() {
    let mut scene = Scene::new();
    let servers = json!([{"port": {"number": 80, "protocol": "HTTP"}, "hosts": ["./a.example", "other/b.example", "*/c.example"]}]);
    scene.istio("Gateway", "gate", json!({"selector": {"gate": "yes"}, "servers": servers}));
    let route = json!([{"route": [{"destination": {"host": "web"}}]}]);
    scene.istio("VirtualService", "web", json!({"hosts": ["*"], "gateways": ["gate"], "http": route}));
    let served = |listeners: Vec<Listener>| {
        let sites = listeners.into_iter().flat_map(|listener| listener.sites);
        sites.filter(|site| !site.rules.is_empty()).map(|site| site.host).collect::<Vec<_>>()
    };
    assert_eq!(served(scene.listeners()), ["a.example", "c.example"]);
}

#[test]
fn objects_of_any_shape_are_survived() {
    let shapes = [Value::Null, json!(7), json!("x"), json!([]), json!([[]]), json!({}), json!({"a": {}})];
    for (kind, version) in
        GatewayKind::ALL.map(|kind| (kind.name(), format!("{}/{}", kind.group(), kind.versions()[0])))
    {
        for shape in &shapes {
            let mut scene = Scene::new();
            scene.gateway("gate", http());
            scene.put(&with(
                json!({"metadata": {"name": "any", "namespace": "default"}}),
                kind,
                &version,
                shape.clone(),
            ));
            scene.compile();
            for field in ["parentRefs", "rules", "listeners", "servers", "http", "tcp", "hosts", "gateways", "selector"]
            {
                let mut spec = json!({"parentRefs": [{"name": "gate"}], "gatewayClassName": "edge"});
                spec[field] = shape.clone();
                let mut scene = Scene::new();
                scene.gateway("gate", http());
                scene.put(&with(json!({"metadata": {"name": "any", "namespace": "default"}}), kind, &version, spec));
                scene.compile();
            }
        }
    }
}
