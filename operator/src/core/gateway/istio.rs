//! What EdgeMesh reads of Istio: Gateway, VirtualService and DestinationRule. Rules are tried in the order in which they stand.

use selvedge_model::Protocol;
use selvedge_model::gateway::{
    Backend, Field, FieldMatch, GatewayBalance, HeaderEdit, ListenerProtocol, Match, MatchKind, Mirror, PathEdit,
    Redirect, Retry, Rewrite, Rule, TextMatch, TlsVersion,
};

use super::backends::{is_about, read_balance};
use super::classes::usable;
use super::doc::{Doc, Notes};
use super::places::{Claim, Conflict, Place, Places, Spot, chosen, place};
use super::{Input, Status, StatusContent, is_host, refusal, status, words};
use crate::api::{Condition, GatewayKind, GatewayObject, Object};

/// A server of a Gateway, for one of its hosts.
struct Server<'a> {
    gateway: &'a Object<GatewayObject>,
    protocol: ListenerProtocol,
    host: String,
    /// Whose VirtualServices may say what is served for it; all if it does not say.
    namespace: Option<String>,
    spots: Vec<Spot>,
    redirects: bool,
}

/// Rules of a VirtualService, by what they are for.
#[derive(Default)]
struct Rules {
    http: Vec<Rule>,
    /// With the server names.
    tls: Vec<Rule>,
    tcp: Vec<Rule>,
}

pub(super) fn compile(input: &Input<'_>, places: &mut Places) -> Vec<Status> {
    let mut statuses = Vec::new();
    let mut servers = Vec::new();
    for gateway in input.by_age(&[GatewayKind::IstioGateway]) {
        let (its, said) = read_gateway(input, gateway, places);
        servers.extend(its);
        statuses.push(said);
    }
    let mut used = Vec::new();
    for service in input.by_age(&[GatewayKind::VirtualService]) {
        statuses.extend(read_service(input, service, &servers, places, &mut used));
    }
    for server in servers.iter().filter(|server| server.redirects) {
        let redirect = Redirect { scheme: Some("https".to_owned()), host: None, port: None, path: None, status: 301 };
        let name = format!("Gateway {}/{}", server.gateway.reference.namespace, server.gateway.reference.name);
        let rule = Rule { name, redirect: Some(redirect), ..Rule::default() };
        server.spots.iter().for_each(|spot| places.add(spot, std::slice::from_ref(&rule)));
    }
    // Those of others say nothing to us, and we nothing about them.
    for rule in input.all(GatewayKind::DestinationRule) {
        let about = used.iter().any(|(namespace, name): &(String, String)| is_about(rule, namespace, name));
        if !about {
            continue;
        }
        let notes = Notes::default();
        read_balance(rule, &notes);
        statuses.push(said(rule, None, &notes.into_inner()));
    }
    statuses
}

fn said(object: &Object<GatewayObject>, refused: Option<(&'static str, String)>, notes: &[(String, String)]) -> Status {
    let generation = object.value.generation;
    let accepted = match refused {
        Some((reason, words)) => Condition::new("Accepted", false, reason, words, generation),
        None if notes.is_empty() => Condition::new("Accepted", true, "Accepted", "understood", generation),
        None => Condition::new("Accepted", true, "Accepted", format!("left out: {}", words(notes)), generation),
    };
    status(object, StatusContent::Conditions(vec![accepted]))
}

fn read_gateway<'a>(
    input: &Input<'_>,
    gateway: &'a Object<GatewayObject>,
    places: &mut Places,
) -> (Vec<Server<'a>>, Status) {
    let notes = Notes::default();
    let doc = Doc::new("spec", &gateway.value.spec, &notes);
    let place = place(&gateway.value, &doc);
    let selector: Vec<String> = doc
        .get("selector")
        .iter()
        .flat_map(|s| s.texts().map(|(l, v)| format!("{l}={v}")).collect::<Vec<_>>())
        .collect();
    let nodes = chosen(input, &selector.join(","));
    let mut servers = Vec::new();
    let mut problem = match nodes.is_empty() {
        true if selector.is_empty() => {
            Some(("NoNodes", "spec.selector is empty: it chooses nodes by their labels".to_owned()))
        }
        true => Some(("NoNodes", format!("no node of the fabric has the labels {}", selector.join(",")))),
        false => None,
    };
    for server in doc.list("servers") {
        match read_server(input, gateway, &server, &place, &nodes, places) {
            Ok(more) => servers.extend(more),
            Err(error) => problem = problem.or(Some(error)),
        }
        server.done();
    }
    doc.done();
    drop(doc);
    (servers, said(gateway, problem, &notes.into_inner()))
}

fn read_server<'a>(
    input: &Input<'_>,
    gateway: &'a Object<GatewayObject>,
    doc: &Doc<'_>,
    place: &Place,
    nodes: &[String],
    places: &mut Places,
) -> Result<Vec<Server<'a>>, (&'static str, String)> {
    let invalid = |words: String| ("Invalid", words);
    let port = doc.get("port").ok_or_else(|| invalid(format!("{}.port is missing", doc.path())))?;
    let number = port.port("number").ok_or_else(|| invalid(format!("{}.number is missing", port.path())))?;
    for name in ["name", "targetPort"] {
        port.get(name);
    }
    doc.get("name");
    let name = port.text("protocol").unwrap_or_default();
    port.done();
    let tls = doc.get("tls");
    let mode = tls.as_ref().and_then(|tls| tls.text("mode")).unwrap_or("SIMPLE");
    let ends = tls.as_ref().is_some_and(|tls| tls.text("credentialName").is_some());
    let protocol = match name.to_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => ListenerProtocol::Http,
        "HTTPS" | "TLS" if mode == "PASSTHROUGH" => ListenerProtocol::Tls,
        "HTTPS" => ListenerProtocol::Https,
        "TLS" => ListenerProtocol::TlsTerminate,
        "TCP" if ends => ListenerProtocol::TlsTerminate,
        "TCP" | "MONGO" => ListenerProtocol::Tcp,
        "UDP" => ListenerProtocol::Udp,
        _ => return Err(invalid(format!("{}.protocol {name} is not supported", port.path()))),
    };
    let ends_here = matches!(protocol, ListenerProtocol::Https | ListenerProtocol::TlsTerminate);
    let (mut min_tls, mut certificate, mut redirects) = (TlsVersion::default(), None, false);
    if let Some(tls) = &tls {
        match tls.text("minProtocolVersion") {
            None | Some("TLS_AUTO" | "TLSV1_2") => {}
            Some("TLSV1_3") => min_tls = TlsVersion::Tls13,
            Some(other) => tls.note(&format!("minProtocolVersion {other} is not spoken, TLSV1_2 is used")),
        }
        if let Some(name) = tls.text("credentialName").filter(|_| ends_here) {
            let secret = (gateway.reference.namespace.clone(), name.to_owned());
            places.named.insert(secret.clone());
            usable(input, &secret, mode == "MUTUAL").map_err(|words| ("InvalidCertificateRef", words))?;
            certificate = Some(secret);
        }
        redirects = tls.flag("httpsRedirect");
        tls.done();
    }
    if ends_here && certificate.is_none() {
        return Err(invalid(format!("{}.tls.credentialName is missing", doc.path())));
    }
    // EdgeMesh asks for certificates of clients wherever the Secret names authorities.
    let client_certificates = mode == "MUTUAL";
    let mut servers = Vec::new();
    for host in doc.list("hosts") {
        let text = host.as_text().unwrap_or_default();
        let (namespace, text) = text.rsplit_once('/').map_or((None, text), |(namespace, host)| (Some(namespace), host));
        let namespace = match namespace {
            None | Some("*") => None,
            Some(".") => Some(gateway.reference.namespace.clone()),
            Some(other) => Some(other.to_owned()),
        };
        let raw = matches!(protocol, ListenerProtocol::Tcp | ListenerProtocol::Udp);
        let site = if raw || text == "*" { String::new() } else { text.to_lowercase() };
        if !site.is_empty() && !is_host(&site) {
            host.note(&format!("\"{text}\" is no host"));
            continue;
        }
        let claim = Claim {
            name: format!("{}/{}/{number}", gateway.reference.namespace, gateway.reference.name),
            place: place.clone(),
            port: number,
            protocol,
            min_tls,
            host: site.clone(),
            certificate: certificate.clone(),
            client_certificates,
            in_order: true,
        };
        let mut spots = Vec::new();
        for node in nodes {
            match places.claim(node, &claim) {
                Ok(spot) => spots.push(spot),
                Err(Conflict::Protocol(other)) => {
                    return Err((
                        "Conflicted",
                        format!("port {number} is that of {other} on {node}, for another protocol"),
                    ));
                }
                Err(Conflict::Host(other)) => {
                    return Err((
                        "Conflicted",
                        format!("port {number} and host {text} are those of {other} on {node}"),
                    ));
                }
            }
        }
        servers.push(Server { gateway, protocol, host: site, namespace, spots, redirects });
    }
    Ok(servers)
}

fn read_service(
    input: &Input<'_>,
    service: &Object<GatewayObject>,
    servers: &[Server<'_>],
    places: &mut Places,
    used: &mut Vec<(String, String)>,
) -> Option<Status> {
    let notes = Notes::default();
    let doc = Doc::new("spec", &service.value.spec, &notes);
    let named: Vec<String> = doc.list("gateways").iter().filter_map(|g| g.as_text().map(str::to_owned)).collect();
    let fits = |server: &&Server<'_>| {
        named.iter().any(|name| {
            let (namespace, name) = name.split_once('/').unwrap_or((&service.reference.namespace, name));
            server.gateway.reference.namespace == namespace && server.gateway.reference.name == name
        }) && server.namespace.as_ref().is_none_or(|only| *only == service.reference.namespace)
    };
    let mine: Vec<&Server<'_>> = servers.iter().filter(fits).collect();
    if mine.is_empty() {
        return None;
    }
    let mut hosts: Vec<String> = doc.list("hosts").iter().filter_map(|h| h.as_text().map(str::to_lowercase)).collect();
    hosts.retain(|host| {
        let sound = host == "*" || is_host(host);
        if !sound {
            doc.note(&format!("host \"{host}\" is none"));
        }
        sound
    });
    let mut lost = Vec::new();
    let name = format!("VirtualService {}/{}", service.reference.namespace, service.reference.name);
    let mut reader = Reader { input, service, lost: &mut lost, used };
    let mut rules = Rules::default();
    for http in doc.list("http") {
        rules.http.extend(reader.http(&http, &name));
    }
    for (part, list) in [("tls", &mut rules.tls), ("tcp", &mut rules.tcp)] {
        for one in doc.list(part) {
            let matches = one.list("match");
            let hosts = matches.iter().flat_map(|m| {
                let hosts =
                    m.list("sniHosts").iter().filter_map(|h| h.as_text().map(str::to_lowercase)).collect::<Vec<_>>();
                for known in ["port", "gateways"] {
                    m.get(known);
                }
                m.done();
                hosts
            });
            let hosts: Vec<String> = hosts.filter(|host| host != "*").collect();
            let backends = reader.backends(&one, false);
            one.done();
            let rule = Rule { name: name.clone(), hosts, backends, ..Rule::default() };
            match refusal(&rule) {
                None => list.push(rule),
                Some(why) => one.note(&why),
            }
        }
    }
    doc.get("exportTo");
    doc.done();
    drop(doc);
    let mut attached = false;
    for server in mine {
        let within = hosts_within(&hosts, &server.host);
        let Some(within) = within else { continue };
        attached = true;
        let list: Vec<Rule> = match server.protocol {
            ListenerProtocol::Http | ListenerProtocol::Https => {
                rules.http.iter().map(|rule| Rule { hosts: within.clone(), ..rule.clone() }).collect()
            }
            ListenerProtocol::Tls => rules.tls.clone(),
            _ => rules.tcp.iter().map(|rule| Rule { hosts: Vec::new(), ..rule.clone() }).collect(),
        };
        server.spots.iter().for_each(|spot| places.add(spot, &list));
    }
    let refused = match (attached, lost.is_empty()) {
        (false, _) => Some(("NoMatchingHost", "no host of it is one of the Gateway's servers".to_owned())),
        (true, false) => Some(("BackendNotFound", lost.join("; "))),
        (true, true) => None,
    };
    Some(said(service, refused, &notes.into_inner()))
}

/// `None`: no host is the server's; empty: all of it.
fn hosts_within(hosts: &[String], server: &str) -> Option<Vec<String>> {
    if hosts.is_empty() {
        return None;
    }
    if server.is_empty() {
        let all = hosts.iter().any(|host| host == "*");
        return Some(if all { Vec::new() } else { hosts.to_vec() });
    }
    let suffix = |pattern: &str, host: &str| {
        pattern.strip_prefix('*').is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
    };
    let within = |host: &String| match host {
        host if host == "*" || suffix(host, server) => Some(server.to_owned()),
        host => (host == server || suffix(server, host)).then(|| host.clone()),
    };
    let hosts: Vec<String> = hosts.iter().filter_map(within).collect();
    (!hosts.is_empty()).then_some(hosts)
}

struct Reader<'a, 'b> {
    input: &'a Input<'b>,
    service: &'a Object<GatewayObject>,
    lost: &'a mut Vec<String>,
    /// Services that are named anywhere.
    used: &'a mut Vec<(String, String)>,
}

impl Reader<'_, '_> {
    fn http(&mut self, doc: &Doc<'_>, name: &str) -> Vec<Rule> {
        let mut rule = Rule { name: name.to_owned(), ..Rule::default() };
        doc.get("name");
        let before = doc.noted();
        let mut prefixes = false;
        for one in doc.list("match") {
            let (read, prefix) = read_match(&one);
            prefixes |= prefix;
            rule.matches.push(read);
        }
        // A match that is understood in part fits too much.
        if doc.noted() != before {
            rule.status = Some(500);
        }
        rule.backends = self.backends(doc, false);
        if let Some(redirect) = doc.get("redirect") {
            let path = redirect.text("uri").map(|uri| PathEdit { prefix: false, value: uri.to_owned() });
            rule.redirect = Some(Redirect {
                scheme: redirect.text("scheme").map(str::to_owned),
                host: redirect.text("authority").map(str::to_lowercase),
                port: redirect.port("port"),
                path,
                status: redirect.number("redirectCode").map_or(301, |code| code as u16),
            });
            redirect.done();
        }
        if let Some(rewrite) = doc.get("rewrite") {
            let path = rewrite.text("uri").map(|uri| PathEdit { prefix: prefixes, value: uri.to_owned() });
            rule.rewrite = Some(Rewrite { host: rewrite.text("authority").map(str::to_lowercase), path });
            rewrite.done();
        }
        rule.timeout_ms = doc.duration("timeout");
        if let Some(retries) = doc.get("retries") {
            let on = retries.text("retryOn").unwrap_or_default();
            let mut statuses: Vec<u16> = on.split(',').filter_map(|word| word.trim().parse().ok()).collect();
            if on.contains("5xx") || on.contains("gateway-error") {
                statuses.extend([502, 503, 504]);
            }
            rule.attempt_timeout_ms = retries.duration("perTryTimeout");
            let attempts = retries.number("attempts").unwrap_or(2).min(10) as u8;
            rule.retry = Some(Retry { attempts, statuses, pause_ms: 0 });
            retries.done();
        }
        if let Some(headers) = doc.get("headers") {
            (rule.request_headers, rule.response_headers) = header_edits(&headers);
        }
        let percent = doc.get("mirrorPercentage").map(|p| {
            let percent = p.value().get("value").and_then(serde_json::Value::as_f64).unwrap_or(100.0);
            p.get("value");
            percent
        });
        if let Some(mirror) = doc.get("mirror") {
            let share = (percent.unwrap_or(100.0).clamp(0.0, 100.0) * 100.0) as u16;
            let backend = self.destination(&mirror, 1, false);
            mirror.done();
            if !backend.invalid {
                rule.mirrors.push(Mirror { backend, share });
            }
        }
        doc.done();
        if let Some(why) = refusal(&rule) {
            doc.note(&why);
            rule = Rule { name: rule.name, matches: rule.matches, status: Some(500), ..Rule::default() };
        }
        vec![rule]
    }

    fn backends(&mut self, doc: &Doc<'_>, udp: bool) -> Vec<Backend> {
        let routes = doc.list("route");
        let alone = routes.len() == 1;
        let mut backends = Vec::new();
        for route in routes {
            let weight = route.number("weight").unwrap_or(u32::from(alone));
            let Some(destination) = route.get("destination") else {
                route.note("has no destination");
                continue;
            };
            let mut backend = self.destination(&destination, weight, udp);
            if let Some(headers) = route.get("headers") {
                (backend.request_headers, backend.response_headers) = header_edits(&headers);
            }
            destination.done();
            route.done();
            backends.push(backend);
        }
        backends
    }

    /// `web`, `web.other` or `web.other.svc.cluster.local`.
    fn destination(&mut self, doc: &Doc<'_>, weight: u32, udp: bool) -> Backend {
        let host = doc.text("host").unwrap_or_default();
        let (name, rest) = host.split_once('.').unwrap_or((host, ""));
        let namespace = rest.split('.').next().filter(|n| !n.is_empty()).unwrap_or(&self.service.reference.namespace);
        let port = doc.get("port").and_then(|port| port.port("number"));
        let there = self.input.service(namespace, name);
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let mut ports = there.into_iter().flat_map(|s| &s.ports).filter(|p| p.protocol == protocol).map(|p| p.port);
        let found = match port {
            Some(port) => ports.find(|p| *p == port),
            None => ports.next(),
        };
        if found.is_none() {
            let port = port.map(|port| format!(" with port {port}")).unwrap_or_default();
            self.lost.push(format!("{}: there is no Service {namespace}/{name}{port}", doc.path()));
        }
        self.used.push((namespace.to_owned(), name.to_owned()));
        let rule = self.input.all(GatewayKind::DestinationRule).find(|rule| is_about(rule, namespace, name));
        let balance = rule.map_or_else(GatewayBalance::default, |rule| read_balance(rule, &Notes::default()));
        Backend {
            namespace: namespace.to_owned(),
            service: name.to_owned(),
            port: found.or(port).unwrap_or(1),
            weight: weight.min(1_000_000),
            balance,
            http2: false,
            request_headers: HeaderEdit::default(),
            response_headers: HeaderEdit::default(),
            invalid: found.is_none(),
        }
    }
}

/// With whether its path is a prefix.
fn read_match(doc: &Doc<'_>) -> (Match, bool) {
    let mut one = Match::default();
    let mut prefix = false;
    let text = |doc: &Doc<'_>| {
        let found = [("exact", MatchKind::Exact), ("prefix", MatchKind::Beginning), ("regex", MatchKind::Regex)]
            .into_iter()
            .find_map(|(name, kind)| Some(TextMatch { kind, value: doc.text(name)?.to_owned() }));
        doc.done();
        found
    };
    doc.get("name");
    if let Some(uri) = doc.get("uri") {
        one.path = text(&uri);
        prefix = one.path.as_ref().is_some_and(|path| path.kind == MatchKind::Beginning);
    }
    if let Some(method) = doc.get("method") {
        one.method = text(&method).filter(|m| m.kind == MatchKind::Exact).map(|m| m.value);
        if one.method.is_none() {
            method.note("is supported as exact only");
        }
    }
    for (part, list) in [("headers", &mut one.headers), ("queryParams", &mut one.query)] {
        for (name, value) in doc.get(part).iter().flat_map(Doc::entries) {
            match text(&value) {
                Some(TextMatch { kind, value }) => list.push(FieldMatch { name: name.to_owned(), kind, value }),
                // It must be there, whatever it says.
                None => {
                    list.push(FieldMatch { name: name.to_owned(), kind: MatchKind::Beginning, value: String::new() })
                }
            }
        }
    }
    doc.done();
    (one, prefix)
}

/// Of requests and of answers.
fn header_edits(doc: &Doc<'_>) -> (HeaderEdit, HeaderEdit) {
    let edit = |name| {
        let Some(edit) = doc.get(name) else { return HeaderEdit::default() };
        let fields = |part| {
            let found = edit.get(part);
            let fields = found.iter().flat_map(Doc::texts);
            fields.map(|(name, value)| Field { name: name.to_owned(), value: value.to_owned() }).collect()
        };
        let remove = edit.list("remove").iter().filter_map(|name| name.as_text().map(str::to_owned)).collect();
        let read = HeaderEdit { set: fields("set"), add: fields("add"), remove };
        edit.done();
        read
    };
    let both = (edit("request"), edit("response"));
    doc.done();
    both
}
