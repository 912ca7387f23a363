//! GatewayClasses and Gateways of Gateway API, and the routes that are attached to their listeners.

use std::collections::BTreeMap;

use selvedge_model::gateway::{ListenerProtocol, TlsVersion};

use super::backends::granted;
use super::doc::{Doc, Notes};
use super::places::{Claim, Conflict, Place, Places, Spot, chosen, network, place};
use super::{CONTROLLER, Input, ListenerStatus, SecretName, Status, StatusContent, is_host, routes, status, words};
use crate::api::{Condition, GatewayKind, GatewayObject, Object};

/// Annotation of a Gateway or its class: labels of the nodes that serve it.
const NODES: &str = "selvedge.dev/nodes";

/// A listener, and who may be attached to it.
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) host: String,
    pub(super) kinds: Vec<&'static str>,
    /// Routes of other namespaces may be attached.
    pub(super) any_namespace: bool,
    /// Where it is on each node.
    pub(super) spots: Vec<Spot>,
    accepted: Result<(), (&'static str, String)>,
    resolved: Result<(), (&'static str, String)>,
    conflict: Option<(&'static str, String)>,
    pub(super) routes: u32,
}

/// A Gateway of a class of ours.
pub(super) struct Gateway<'a> {
    pub(super) object: &'a Object<GatewayObject>,
    pub(super) listeners: Vec<Listener>,
    nodes: Vec<String>,
    notes: Vec<(String, String)>,
    selector: Option<String>,
}

pub(super) fn compile(input: &Input<'_>, places: &mut Places) -> Vec<Status> {
    let mut statuses = Vec::new();
    let mut classes = BTreeMap::new();
    for class in input.all(GatewayKind::GatewayClass) {
        let notes = Notes::default();
        let doc = Doc::new("spec", &class.value.spec, &notes);
        if doc.text("controllerName") != Some(CONTROLLER) {
            continue;
        }
        doc.text("description");
        doc.done();
        let generation = class.value.generation;
        let accepted = match notes.into_inner() {
            notes if notes.is_empty() => {
                Condition::new("Accepted", true, "Accepted", "served by edge nodes", generation)
            }
            notes => Condition::new("Accepted", false, "InvalidParameters", words(&notes), generation),
        };
        classes.insert(class.reference.name.clone(), class.value.annotations.get(NODES).cloned());
        statuses.push(status(class, StatusContent::Conditions(vec![accepted])));
    }
    let mut gateways = Vec::new();
    for object in input.by_age(&[GatewayKind::Gateway]) {
        let class = object.value.spec.get("gatewayClassName").and_then(serde_json::Value::as_str);
        let Some(of_class) = class.and_then(|class| classes.get(class)) else { continue };
        gateways.push(Gateway::new(input, object, of_class.clone(), places));
    }
    statuses.extend(routes::attach(input, &mut gateways, places));
    statuses.extend(gateways.into_iter().map(|gateway| gateway.status(input)));
    statuses
}

impl<'a> Gateway<'a> {
    fn new(
        input: &Input<'a>,
        object: &'a Object<GatewayObject>,
        of_class: Option<String>,
        places: &mut Places,
    ) -> Self {
        let notes = Notes::default();
        let doc = Doc::new("spec", &object.value.spec, &notes);
        for name in ["gatewayClassName", "infrastructure"] {
            doc.get(name);
        }
        let mut place = place(&object.value, &doc);
        for address in doc.list("addresses") {
            match (address.text("type").unwrap_or("IPAddress"), address.text("value")) {
                ("IPAddress", Some(text)) => place.addresses.extend(network(text, || address.note("is no address"))),
                (other, _) => address.note(&format!("type {other} is not supported")),
            }
        }
        let selector = object.value.annotations.get(NODES).cloned().or(of_class);
        let nodes = selector.as_ref().map(|selector| chosen(input, selector)).unwrap_or_default();
        let listeners = doc
            .list("listeners")
            .iter()
            .map(|listener| read(input, object, listener, &place, &nodes, places))
            .collect();
        doc.done();
        drop(doc);
        Gateway { object, listeners, nodes, notes: notes.into_inner(), selector }
    }

    fn status(self, input: &Input<'_>) -> Status {
        let generation = self.object.value.generation;
        let condition = |kind, holds, reason, words: String| Condition::new(kind, holds, reason, words, generation);
        let refused: Vec<String> = self
            .listeners
            .iter()
            .filter_map(|l| Some(format!("listener {}: {}", l.name, l.accepted.as_ref().err().map(|(_, w)| w)?)))
            .collect();
        let noted = if self.notes.is_empty() { String::new() } else { format!("left out: {}", words(&self.notes)) };
        let accepted = match refused.is_empty() {
            true if noted.is_empty() => condition("Accepted", true, "Accepted", "understood".to_owned()),
            true => condition("Accepted", true, "Accepted", noted),
            false => condition("Accepted", true, "ListenersNotValid", [refused, vec![noted]].concat().join("; ")),
        };
        let programmed = if self.nodes.is_empty() {
            let words = match &self.selector {
                Some(selector) => format!("no node of the fabric has the labels {selector}"),
                None => {
                    format!("neither it nor its class has the annotation {NODES}, which chooses nodes by their labels")
                }
            };
            condition("Programmed", false, "AddressNotAssigned", words)
        } else if self.listeners.iter().all(|l| l.spots.is_empty()) {
            condition("Programmed", false, "Invalid", "no listener can be served".to_owned())
        } else {
            condition("Programmed", true, "Programmed", format!("sent to {}", self.nodes.join(", ")))
        };
        let addresses = self.nodes.iter().filter_map(|node| input.nodes.get(node.as_str()));
        let addresses = addresses.flat_map(|node| &node.internal_ips).take(16).map(ToString::to_string).collect();
        let listeners = self.listeners.into_iter().map(|listener| listener.status(&condition)).collect();
        status(self.object, StatusContent::Gateway { conditions: vec![accepted, programmed], listeners, addresses })
    }
}

impl Listener {
    fn status(self, condition: &impl Fn(&'static str, bool, &'static str, String) -> Condition) -> ListenerStatus {
        let understood = || "understood".to_owned();
        let accepted = match &self.accepted {
            Ok(()) => condition("Accepted", true, "Accepted", understood()),
            Err((reason, words)) => condition("Accepted", false, reason, words.clone()),
        };
        let resolved = match &self.resolved {
            Ok(()) => condition("ResolvedRefs", true, "ResolvedRefs", "all that it names is there".to_owned()),
            Err((reason, words)) => condition("ResolvedRefs", false, reason, words.clone()),
        };
        let conflicted = match &self.conflict {
            None => condition("Conflicted", false, "NoConflicts", "nobody else has its port and host".to_owned()),
            Some((reason, words)) => condition("Conflicted", true, reason, words.clone()),
        };
        let programmed = match self.spots.is_empty() {
            false => condition("Programmed", true, "Programmed", "sent".to_owned()),
            true => condition("Programmed", false, "Invalid", "no node serves it".to_owned()),
        };
        let conditions = vec![accepted, conflicted, programmed, resolved];
        ListenerStatus { name: self.name, kinds: self.kinds, routes: self.routes, conditions }
    }
}

fn read(
    input: &Input<'_>,
    gateway: &Object<GatewayObject>,
    doc: &Doc<'_>,
    place: &Place,
    nodes: &[String],
    places: &mut Places,
) -> Listener {
    let name = doc.text("name").unwrap_or_default().to_owned();
    let mut listener = Listener {
        port: doc.port("port").unwrap_or_default(),
        host: doc.text("hostname").unwrap_or_default().to_lowercase(),
        kinds: Vec::new(),
        any_namespace: false,
        spots: Vec::new(),
        accepted: Ok(()),
        resolved: Ok(()),
        conflict: None,
        routes: 0,
        name,
    };
    let tls = doc.get("tls");
    let mode = tls.as_ref().and_then(|tls| tls.text("mode")).unwrap_or("Terminate");
    let protocol = match doc.text("protocol").unwrap_or_default() {
        "HTTP" => (ListenerProtocol::Http, &["HTTPRoute", "GRPCRoute"][..]),
        "HTTPS" => (ListenerProtocol::Https, &["HTTPRoute", "GRPCRoute"][..]),
        "TLS" if mode == "Passthrough" => (ListenerProtocol::Tls, &["TLSRoute"][..]),
        "TLS" => (ListenerProtocol::TlsTerminate, &["TLSRoute", "TCPRoute"][..]),
        "TCP" => (ListenerProtocol::Tcp, &["TCPRoute"][..]),
        "UDP" => (ListenerProtocol::Udp, &["UDPRoute"][..]),
        other => {
            listener.accepted =
                Err(("UnsupportedProtocol", format!("protocol {other} is none of HTTP, HTTPS, TLS, TCP, UDP")));
            return listener;
        }
    };
    let (protocol, kinds) = protocol;
    listener.kinds = kinds.to_vec();
    if let Some(allowed) = doc.get("allowedRoutes") {
        if let Some(namespaces) = allowed.get("namespaces") {
            match namespaces.text("from").unwrap_or("Same") {
                "Same" => {}
                "All" => listener.any_namespace = true,
                other => namespaces.note(&format!("from {other} is not supported: only Same and All")),
            }
            namespaces.get("selector");
            namespaces.done();
        }
        let only = allowed.list("kinds");
        if !only.is_empty() {
            let named: Vec<&str> = only.iter().filter_map(|kind| kind.text("kind")).collect();
            if let Some(wrong) = named.iter().find(|kind| !kinds.contains(kind)) {
                listener.resolved = Err(("InvalidRouteKinds", format!("{wrong} cannot be attached to this protocol")));
            }
            listener.kinds.retain(|kind| named.contains(kind));
        }
        allowed.done();
    }
    let ends_here = matches!(protocol, ListenerProtocol::Https | ListenerProtocol::TlsTerminate);
    let mut min_tls = TlsVersion::default();
    let mut certificate = None;
    let mut client_certificates = false;
    if let Some(tls) = &tls {
        if let Some(options) = tls.get("options") {
            for (option, value) in options.entries() {
                match (option, value.as_text()) {
                    ("selvedge.dev/min-tls-version", Some("1.3")) => min_tls = TlsVersion::Tls13,
                    ("selvedge.dev/min-tls-version", Some("1.2")) => {}
                    ("selvedge.dev/client-certificates", Some("required")) => client_certificates = true,
                    _ => value.note("is not supported"),
                }
            }
        }
        let refs = tls.list("certificateRefs");
        if refs.len() > 1 {
            tls.note("certificateRefs: only the first is used");
        }
        if let Some(first) = refs.first().filter(|_| ends_here) {
            let secret = secret(input, gateway, first, client_certificates, places);
            match secret {
                Ok(secret) => certificate = Some(secret),
                Err(error) => listener.resolved = Err(error),
            }
        }
        tls.done();
    }
    if ends_here && certificate.is_none() && listener.resolved.is_ok() {
        listener.resolved = Err(("InvalidCertificateRef", "tls.certificateRefs names no Secret".to_owned()));
    }
    doc.done();
    if !listener.host.is_empty() && !is_host(&listener.host) {
        listener.accepted = Err(("UnsupportedValue", format!("hostname \"{}\" is none", listener.host)));
    }
    if listener.port == 0 {
        listener.accepted = Err(("PortUnavailable", "port is missing".to_owned()));
    }
    let servable = listener.accepted.is_ok() && (!ends_here || certificate.is_some());
    let claim = Claim {
        name: format!("{}/{}/{}", gateway.reference.namespace, gateway.reference.name, listener.name),
        place: place.clone(),
        port: listener.port,
        protocol,
        min_tls,
        host: listener.host.clone(),
        certificate,
        client_certificates,
        in_order: false,
    };
    for node in nodes.iter().filter(|_| servable) {
        match places.claim(node, &claim) {
            Ok(spot) => listener.spots.push(spot),
            Err(conflict) => {
                let conflict = match conflict {
                    Conflict::Protocol(other) => {
                        ("ProtocolConflict", format!("{other} has the port for another protocol on {node}"))
                    }
                    Conflict::Host(other) => {
                        ("HostnameConflict", format!("{other} has the same port and host on {node}"))
                    }
                };
                listener.accepted = Err(("PortUnavailable", conflict.1.clone()));
                listener.conflict = Some(conflict);
            }
        }
    }
    listener
}

/// The Secret of a `certificateRef`, if it can be used.
fn secret(
    input: &Input<'_>,
    gateway: &Object<GatewayObject>,
    doc: &Doc<'_>,
    with_authorities: bool,
    places: &mut Places,
) -> Result<SecretName, (&'static str, String)> {
    let (kind, group) = (doc.text("kind").unwrap_or("Secret"), doc.text("group").unwrap_or_default());
    let namespace = doc.text("namespace").unwrap_or(&gateway.reference.namespace).to_owned();
    let name = doc.text("name").unwrap_or_default().to_owned();
    doc.done();
    if (group, kind) != ("", "Secret") {
        return Err(("InvalidCertificateRef", format!("{kind} is no Secret")));
    }
    if namespace != gateway.reference.namespace && !granted(input, gateway, &namespace, "Secret", &name) {
        return Err(("RefNotPermitted", format!("no ReferenceGrant in {namespace} permits Secret {namespace}/{name}")));
    }
    let secret = (namespace, name);
    places.named.insert(secret.clone());
    usable(input, &secret, with_authorities).map_err(|words| ("InvalidCertificateRef", words))?;
    Ok(secret)
}

/// Whether a Secret was read and holds what is needed.
pub(super) fn usable(input: &Input<'_>, secret: &SecretName, with_authorities: bool) -> Result<(), String> {
    let (namespace, name) = secret;
    match input.certificates.get(secret) {
        Some(Ok(certificate)) if with_authorities && certificate.authorities.is_none() => {
            Err(format!("Secret {namespace}/{name} has no ca.crt"))
        }
        Some(Ok(_)) => Ok(()),
        Some(Err(why)) => Err(format!("Secret {namespace}/{name} {why}")),
        None => Err(format!("Secret {namespace}/{name} was not read yet")),
    }
}
