//! What routes refer to: Services, and who may from another namespace; and how DestinationRules balance them.

use selvedge_model::gateway::{Backend, Field, GatewayBalance, HeaderEdit};

use super::Input;
use super::doc::{Doc, Notes};
use crate::api::{GatewayKind, GatewayObject, Object};

/// Why a reference leads nowhere, as Gateway API names it, and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unresolved {
    pub(super) reason: &'static str,
    pub(super) words: String,
}

/// Reads a `backendRef`. One that leads nowhere takes its share of the requests all the same.
pub(super) fn backend(
    input: &Input<'_>,
    route: &Object<GatewayObject>,
    doc: &Doc<'_>,
    udp: bool,
    unresolved: &mut Vec<Unresolved>,
) -> Backend {
    let namespace = doc.text("namespace").unwrap_or(&route.reference.namespace).to_owned();
    let name = doc.text("name").unwrap_or_default().to_owned();
    let (group, kind) = (doc.text("group").unwrap_or_default(), doc.text("kind").unwrap_or("Service"));
    let port = doc.port("port");
    let mut lost =
        |reason, words: String| unresolved.push(Unresolved { reason, words: format!("{}: {words}", doc.path()) });
    let before = (group, kind);
    let usable = if before != ("", "Service") {
        lost("InvalidKind", format!("{kind} is no Service"));
        false
    } else if namespace != route.reference.namespace && !granted(input, route, &namespace, "Service", &name) {
        lost("RefNotPermitted", format!("no ReferenceGrant in {namespace} permits {namespace}/{name}"));
        false
    } else if let Some(service) = input.service(&namespace, &name) {
        let protocol = if udp { selvedge_model::Protocol::Udp } else { selvedge_model::Protocol::Tcp };
        let there = service.ports.iter().any(|p| Some(p.port) == port && p.protocol == protocol);
        if !there {
            let words = match port {
                Some(port) => format!("Service {namespace}/{name} has no port {port}/{}", protocol.name()),
                None => "port is missing".to_owned(),
            };
            lost("BackendNotFound", words);
        }
        there
    } else {
        lost("BackendNotFound", format!("there is no Service {namespace}/{name}"));
        false
    };
    let balance = balance(input, &namespace, &name);
    Backend {
        namespace,
        service: name,
        port: port.unwrap_or(1),
        weight: doc.number("weight").unwrap_or(1).min(1_000_000),
        balance,
        http2: route.value.kind == GatewayKind::GrpcRoute,
        request_headers: HeaderEdit::default(),
        response_headers: HeaderEdit::default(),
        invalid: !usable,
    }
}

/// Whether a ReferenceGrant lets this object refer to another namespace.
pub(super) fn granted(
    input: &Input<'_>,
    from: &Object<GatewayObject>,
    namespace: &str,
    kind: &str,
    name: &str,
) -> bool {
    let notes = Notes::default();
    input.all(GatewayKind::ReferenceGrant).filter(|grant| grant.reference.namespace == namespace).any(|grant| {
        let doc = Doc::new("spec", &grant.value.spec, &notes);
        let who = doc.list("from").iter().any(|one| {
            one.text("kind") == Some(from.value.kind.name())
                && one.text("group").unwrap_or_default() == from.value.kind.group()
                && one.text("namespace") == Some(&from.reference.namespace)
        });
        let what = doc.list("to").iter().any(|one| {
            one.text("kind") == Some(kind)
                && one.text("group").unwrap_or_default().is_empty()
                && one.text("name").is_none_or(|only| only == name)
        });
        who && what
    })
}

/// Changes to a header as `filters` have them.
pub(super) fn header_edit(doc: &Doc<'_>) -> HeaderEdit {
    let fields = |list: Vec<Doc<'_>>| {
        let field =
            |one: &Doc<'_>| Some(Field { name: one.text("name")?.to_owned(), value: one.text("value")?.to_owned() });
        list.iter().filter_map(field).collect()
    };
    let edit = HeaderEdit {
        set: fields(doc.list("set")),
        add: fields(doc.list("add")),
        remove: doc.list("remove").iter().filter_map(|name| name.as_text().map(str::to_owned)).collect(),
    };
    doc.done();
    edit
}

/// How the DestinationRule of a Service wants it balanced.
fn balance(input: &Input<'_>, namespace: &str, service: &str) -> GatewayBalance {
    let rule = input.all(GatewayKind::DestinationRule).find(|rule| is_about(rule, namespace, service));
    rule.map_or_else(GatewayBalance::default, |rule| read_balance(rule, &Notes::default()))
}

/// By its `host`, or, as in EdgeMesh, by its own name.
pub(super) fn is_about(rule: &Object<GatewayObject>, namespace: &str, service: &str) -> bool {
    let host = rule.value.spec.get("host").and_then(serde_json::Value::as_str).unwrap_or_default();
    let (name, rest) = host.split_once('.').unwrap_or((host, ""));
    let other = rest.split('.').next().filter(|ns| !ns.is_empty()).unwrap_or(&rule.reference.namespace);
    let by_name = rule.reference.namespace == namespace && rule.reference.name == service;
    (name == service && other == namespace) || by_name
}

pub(super) fn read_balance(rule: &Object<GatewayObject>, notes: &Notes) -> GatewayBalance {
    let doc = Doc::new("spec", &rule.value.spec, notes);
    doc.text("host");
    let mut balance = GatewayBalance::default();
    if let Some(policy) = doc.get("trafficPolicy") {
        if let Some(balancer) = policy.get("loadBalancer") {
            match balancer.text("simple") {
                None | Some("ROUND_ROBIN" | "UNSPECIFIED") => {}
                Some("RANDOM") => balance = GatewayBalance::Random,
                Some(other) => balancer.note(&format!("simple {other} is not supported, ROUND_ROBIN is used")),
            }
            if let Some(hash) = balancer.get("consistentHash") {
                // Of the ring there is none to be sized.
                for name in ["minimumRingSize", "ringHash", "maglev"] {
                    hash.get(name);
                }
                if let Some(name) = hash.text("httpHeaderName").filter(|name| !name.is_empty()) {
                    balance = GatewayBalance::Header(name.to_owned());
                } else if hash.flag("useSourceIp") {
                    balance = GatewayBalance::SourceHash;
                } else if let Some(cookie) = hash.get("httpCookie") {
                    match cookie.text("name").filter(|name| !name.is_empty()) {
                        Some(name) => balance = GatewayBalance::Cookie(name.to_owned()),
                        None => cookie.note("has no name"),
                    }
                    for name in ["path", "ttl"] {
                        cookie.get(name);
                    }
                    cookie.done();
                }
                hash.done();
            }
            balancer.done();
        }
        policy.done();
    }
    doc.done();
    balance
}
