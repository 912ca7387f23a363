use super::*;

const WEB: &str = r#"{"metadata":{"namespace":"a","name":"web","resourceVersion":"7","managedFields":[{"x":{}}],
    "annotations":{"other":"x","selvedge.dev/balance":"sourceHash","selvedge.dev/health-check":"http:/live",
    "selvedge.dev/weights":"edge-1=3, edge-2=2"},"labels":{"app":"web"}},
    "spec":{"type":"LoadBalancer","clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7","fd00::7"],"ports":[
    {"name":"http","protocol":"TCP","port":80,"targetPort":"web","nodePort":30080,"appProtocol":"kubernetes.io/h2c"},
    {"port":53,"protocol":"UDP"},{"port":9,"protocol":"SCTP","nodePort":30009}],
    "externalIPs":["192.0.2.1"],"loadBalancerSourceRanges":["192.0.2.7/24"],"sessionAffinity":"ClientIP",
    "sessionAffinityConfig":{"clientIP":{"timeoutSeconds":600}},"internalTrafficPolicy":"Local",
    "externalTrafficPolicy":"Local","trafficDistribution":"PreferClose","publishNotReadyAddresses":true},
    "status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.2"},{"hostname":"x"},{"ip":"192.0.2.3","ipMode":"Proxy"}]}}}"#;

fn read(text: &str) -> Option<Service> {
    Service::read(text).unwrap().1
}

fn with_spec(spec: &str) -> String {
    format!(r#"{{"metadata":{{"name":"x"}},"spec":{spec}}}"#)
}

#[test]
fn a_service_keeps_what_is_served() {
    let (meta, web) = Service::read(WEB).unwrap();
    assert_eq!((meta.show().as_str(), meta.version), ("a/web", 7));
    let web = web.unwrap();
    let ports: Vec<_> = web.spec.ports.iter().map(|p| (p.name.as_str(), p.protocol, p.port, p.node_port)).collect();
    let (tcp, udp, sctp) = (Protocol::Tcp, Protocol::Udp, Protocol::Sctp);
    assert_eq!(ports, [("http", tcp, 80, 30080), ("", udp, 53, 0), ("", sctp, 9, 30009)]);
    assert_eq!(web.spec.load_balancer_ips, ["192.0.2.2".parse::<IpAddr>().unwrap()]);
    assert_eq!(web.spec.load_balancer_sources, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!((web.spec.affinity, web.spec.balance), (Some(600), Some(Balance::SourceHash)));
    assert_eq!(web.spec.distribution, Some(Distribution::SameZone));
    assert_eq!((&web.weights["edge-1"], &web.weights["edge-2"]), (&3, &2));
    assert_eq!(
        web.keep(),
        "10.96.0.7,fd00::7 80/tcp/http/30080/kubernetes.io/h2c,53/udp/,9/sctp//30009 external-ips=192.0.2.1 \
         balancers=192.0.2.2 sources=192.0.2.0/24 affinity=600 distribution=sameZone balance=sourceHash \
         health=http:/live weights=edge-1:3,edge-2:2 internal= external= not-ready="
    );
    assert_eq!(Service::restore(&web.keep()), Some(web));
}

#[test]
fn what_an_older_program_kept_comes_back() {
    let old = Service::restore("10.96.0.7,fd00::7 80/tcp/http,53/udp/").unwrap();
    assert_eq!((old.spec.cluster_ips.len(), old.spec.ports.len(), old.spec.ports[1].port), (2, 2, 53));
    assert!(Service::restore("10.96.0.7 80/tcp/http future=7").is_some());
    assert_eq!(Service::restore("10.96.0.7"), None);
    assert_eq!(Service::restore("ten 80/tcp/http"), None);
    assert_eq!(Service::restore("10.96.0.7 80/tcp/http affinity=x"), None);
}

#[test]
fn services_without_an_address_have_a_name() {
    let headless = read(&with_spec(r#"{"clusterIP":"None","clusterIPs":["None"],"ports":[{"port":80}]}"#)).unwrap();
    assert!(headless.spec.is_headless() && !headless.spec.is_proxied());
    assert_eq!(Service::restore(&headless.keep()), Some(headless));
    let alias = with_spec(r#"{"type":"ExternalName","clusterIP":"10.96.0.1","externalName":"Example.org."}"#);
    let alias = read(&alias).unwrap();
    assert_eq!((alias.spec.external_name.as_deref(), alias.spec.is_headless()), (Some("example.org"), false));
    assert!(alias.spec.cluster_ips.is_empty());
    assert_eq!(alias.keep(), "-  external-name=example.org");
    assert_eq!(Service::restore(&alias.keep()), Some(alias));
    for spec in [r#"{"clusterIP":""}"#, r#"{"clusterIPs":[]}"#, "null"] {
        assert_eq!(read(&with_spec(spec)), None, "{spec}");
    }
    assert!(read(&with_spec(r#"{"clusterIP":"10.96.0.1"}"#)).unwrap().spec.is_proxied());
}

#[test]
fn who_else_serves_it_and_how_near() {
    let with = |from: &str, to: &str| read(&WEB.replace(from, to)).unwrap().spec;
    assert!(with(r#""app":"web""#, r#""service.kubernetes.io/service-proxy-name":"x""#).other_proxy);
    assert!(!with(r#""app":"web""#, r#""service.kubernetes.io/service-proxy-name":"selvedge""#).other_proxy);
    assert_eq!(with("PreferClose", "PreferSameNode").distribution, Some(Distribution::SameNode));
    let any = r#""selvedge.dev/distribution":"any""#;
    assert_eq!(with(r#""other":"x""#, any).distribution, Some(Distribution::Any));
    assert_eq!(with(r#""timeoutSeconds":600"#, "").affinity, Some(10_800));
}

#[test]
fn what_is_not_understood_is_left_out_and_named() {
    let ignored = |from: &str, to: &str| {
        assert!(WEB.contains(from), "{from}");
        let problems = read(&WEB.replacen(from, to, 1)).unwrap().ignored;
        problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(ignored("web", "web"), "");
    for (from, to, text) in [
        (
            "\"sourceHash\"",
            "\"ring\"",
            "metadata.annotations[selvedge.dev/balance]: \"ring\" is none of random, roundRobin, sourceHash",
        ),
        (
            "http:/live",
            "https:/live",
            "metadata.annotations[selvedge.dev/health-check]: \"https:/live\" is neither tcp nor http:/path",
        ),
        (
            "edge-1=3",
            "edge-1=300",
            "metadata.annotations[selvedge.dev/weights]: \"edge-1=300\" is not of the form node=1 to node=100",
        ),
        ("SCTP", "DCCP", "spec.ports[2].protocol: \"DCCP\" is none of TCP, UDP, SCTP"),
        ("53,\"protocol\":\"UDP\"", "80", "spec.ports[1].port: 80 is there already with the same protocol"),
        (
            "PreferClose",
            "Far",
            "spec.trafficDistribution: \"Far\" is none of PreferClose, PreferSameZone, PreferSameNode",
        ),
    ] {
        assert_eq!(ignored(from, to), text);
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let error = |text: &str| Service::read(text).unwrap_err().1;
    let ip = r#"{"metadata":{"namespace":"a","name":"b"},"spec":{"clusterIP":"ten"}}"#;
    assert_eq!(error(ip), "a/b: spec.clusterIP: \"ten\" is not an IP address");
    let port = r#"{"metadata":{"namespace":"a","name":"b"},"spec":{"ports":[{"port":70000}]}}"#;
    assert_eq!(error(port), "a/b: a field has a wrong type");
    assert_eq!(error("{}"), "an object has no name");
    assert_eq!(error("7"), "/: a field has a wrong type");
    let sources = WEB.replace("192.0.2.7/24", "all");
    assert_eq!(error(&sources), "a/web: spec.loadBalancerSourceRanges[0]: \"all\" is not a network in CIDR notation");
    let external = WEB.replace("192.0.2.1\"", "one\"");
    assert_eq!(error(&external), "a/web: spec.externalIPs[0]: \"one\" is not an IP address");
    let alias = with_spec(r#"{"type":"ExternalName","externalName":"a b"}"#);
    assert_eq!(error(&alias), "/x: spec.externalName: \"a b\" is not a name");
}
