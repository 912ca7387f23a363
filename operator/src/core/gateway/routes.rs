//! Routes of Gateway API: to which listeners they are attached, and the rules they come to.

use selvedge_model::gateway::{
    Backend, FieldMatch, Match, MatchKind, Mirror, PathEdit, Redirect, Retry, Rewrite, Rule, TextMatch,
};
use serde_json::Value;

use super::backends::{Unresolved, backend, header_edit};
use super::classes::{Gateway, Listener};
use super::doc::{Doc, Notes};
use super::places::Places;
use super::{Input, Status, StatusContent, is_host, refusal, status, words};
use crate::api::{Condition, GatewayKind, GatewayObject, Object};

const KINDS: [GatewayKind; 5] = [
    GatewayKind::HttpRoute,
    GatewayKind::GrpcRoute,
    GatewayKind::TlsRoute,
    GatewayKind::TcpRoute,
    GatewayKind::UdpRoute,
];

/// Attaches all routes to the listeners of our Gateways; what is to be said about the routes.
pub(super) fn attach(input: &Input<'_>, gateways: &mut [Gateway<'_>], places: &mut Places) -> Vec<Status> {
    let mut statuses = Vec::new();
    for route in input.by_age(&KINDS) {
        let notes = Notes::default();
        let doc = Doc::new("spec", &route.value.spec, &notes);
        let parents = doc.list("parentRefs");
        let mine: Vec<(Value, usize, Parent)> =
            parents.iter().filter_map(|parent| ours(parent, route, gateways)).collect();
        if mine.is_empty() {
            continue;
        }
        let read = Route::read(input, route, &doc);
        drop(doc);
        let noted = notes.into_inner();
        let mut said = Vec::new();
        for (reference, gateway, parent) in mine {
            let attached = parent.attach(route, &read, &mut gateways[gateway], places);
            said.push((reference, read.conditions(attached, &noted, route.value.generation)));
        }
        statuses.push(status(route, StatusContent::Parents(said)));
    }
    statuses
}

/// Which part of a Gateway a route wants.
struct Parent {
    section: Option<String>,
    port: Option<u16>,
}

fn ours(doc: &Doc<'_>, route: &Object<GatewayObject>, gateways: &[Gateway<'_>]) -> Option<(Value, usize, Parent)> {
    let group = doc.text("group").unwrap_or(GatewayKind::Gateway.group());
    let kind = doc.text("kind").unwrap_or("Gateway");
    let namespace = doc.text("namespace").unwrap_or(&route.reference.namespace);
    let (name, section, port) = (doc.text("name")?, doc.text("sectionName").map(str::to_owned), doc.port("port"));
    if (group, kind) != (GatewayKind::Gateway.group(), "Gateway") {
        return None;
    }
    let fits = |g: &Gateway<'_>| g.object.reference.namespace == namespace && g.object.reference.name == name;
    let gateway = gateways.iter().position(fits)?;
    Some((doc.value().clone(), gateway, Parent { section, port }))
}

impl Parent {
    fn attach(
        &self,
        route: &Object<GatewayObject>,
        read: &Route,
        gateway: &mut Gateway<'_>,
        places: &mut Places,
    ) -> Result<(), (&'static str, &'static str)> {
        let same = gateway.object.reference.namespace == route.reference.namespace;
        let wanted = |l: &&mut Listener| {
            self.section.as_ref().is_none_or(|section| *section == l.name)
                && self.port.is_none_or(|port| port == l.port)
        };
        let mut result = Err(("NoMatchingParent", "the Gateway has no such listener"));
        for listener in gateway.listeners.iter_mut().filter(wanted) {
            if !(same || listener.any_namespace) || !listener.kinds.contains(&route.value.kind.name()) {
                if result.is_err() {
                    result = Err((
                        "NotAllowedByListeners",
                        "no listener allows this kind of route, or routes of this namespace",
                    ));
                }
                continue;
            }
            let Some(hosts) = read.hosts_within(&listener.host) else {
                if result.is_err() {
                    result = Err(("NoMatchingListenerHostname", "no host of the route is one of a listener"));
                }
                continue;
            };
            listener.routes += 1;
            result = Ok(());
            let rules: Vec<Rule> =
                read.rules.iter().map(|rule| Rule { hosts: hosts.clone(), ..rule.clone() }).collect();
            for spot in &listener.spots {
                places.add(spot, &rules);
            }
        }
        result
    }
}

/// A route, read.
struct Route {
    hosts: Vec<String>,
    /// It names hosts, and none of them is one.
    nowhere: bool,
    rules: Vec<Rule>,
    /// Rules with something that they cannot do without.
    broken: usize,
    unresolved: Vec<Unresolved>,
}

impl Route {
    fn read(input: &Input<'_>, route: &Object<GatewayObject>, doc: &Doc<'_>) -> Route {
        let named = doc.list("hostnames");
        let mut hosts: Vec<String> = named.iter().filter_map(|h| h.as_text().map(str::to_lowercase)).collect();
        hosts.retain(|host| {
            let sound = is_host(host);
            if !sound {
                doc.note(&format!("hostname \"{host}\" is none"));
            }
            sound
        });
        let nowhere = hosts.is_empty() && !named.is_empty();
        doc.get("useDefaultGateways");
        let mut read = Route { hosts, nowhere, rules: Vec::new(), broken: 0, unresolved: Vec::new() };
        let name = format!("{} {}/{}", route.value.kind.name(), route.reference.namespace, route.reference.name);
        for rule in doc.list("rules") {
            read.rule(input, route, &rule, &name);
        }
        doc.done();
        read
    }

    fn rule(&mut self, input: &Input<'_>, route: &Object<GatewayObject>, doc: &Doc<'_>, name: &str) {
        let mut rule = Rule { name: name.to_owned(), ..Rule::default() };
        doc.get("name");
        let mut whole = true;
        for one in doc.list("matches") {
            rule.matches.push(read_match(&one, route.value.kind, &mut whole));
        }
        for filter in doc.list("filters") {
            self.filter(input, route, &filter, &mut rule, &mut whole);
        }
        let udp = route.value.kind == GatewayKind::UdpRoute;
        for reference in doc.list("backendRefs") {
            let mut one = backend(input, route, &reference, udp, &mut self.unresolved);
            for filter in reference.list("filters") {
                let mut only = Rule::default();
                self.filter(input, route, &filter, &mut only, &mut whole);
                if only.redirect.is_some() || only.rewrite.is_some() || !only.mirrors.is_empty() {
                    filter.note("is supported for whole rules only");
                    whole = false;
                }
                (one.request_headers, one.response_headers) = (only.request_headers, only.response_headers);
            }
            reference.done();
            rule.backends.push(one);
        }
        if let Some(timeouts) = doc.get("timeouts") {
            rule.timeout_ms = timeouts.duration("request");
            rule.attempt_timeout_ms = timeouts.duration("backendRequest");
            timeouts.done();
        }
        if let Some(retry) = doc.get("retry") {
            let statuses = retry.list("codes").iter().filter_map(|code| code.as_status()).collect();
            rule.retry = Some(Retry {
                attempts: retry.number("attempts").unwrap_or(1).min(10) as u8,
                statuses,
                pause_ms: retry.duration("backoff").unwrap_or(0),
            });
            retry.done();
        }
        doc.done();
        if let Some(why) = refusal(&rule) {
            doc.note(&why);
            whole = false;
        }
        if !whole {
            self.broken += 1;
            rule = Rule { name: rule.name, matches: rule.matches, status: Some(500), ..Rule::default() };
        }
        self.rules.push(rule);
    }

    fn filter(
        &mut self,
        input: &Input<'_>,
        route: &Object<GatewayObject>,
        doc: &Doc<'_>,
        rule: &mut Rule,
        whole: &mut bool,
    ) {
        match doc.text("type").unwrap_or_default() {
            "RequestHeaderModifier" => {
                rule.request_headers = doc.get("requestHeaderModifier").map(|d| header_edit(&d)).unwrap_or_default();
            }
            "ResponseHeaderModifier" => {
                rule.response_headers = doc.get("responseHeaderModifier").map(|d| header_edit(&d)).unwrap_or_default();
            }
            "RequestRedirect" => {
                let Some(redirect) = doc.get("requestRedirect") else { return };
                rule.redirect = Some(Redirect {
                    scheme: redirect.text("scheme").map(str::to_owned),
                    host: redirect.text("hostname").map(str::to_lowercase),
                    port: redirect.port("port"),
                    path: redirect.get("path").and_then(|path| path_edit(&path)),
                    status: redirect.number("statusCode").map_or(302, |status| status as u16),
                });
                redirect.done();
            }
            "URLRewrite" => {
                let Some(rewrite) = doc.get("urlRewrite") else { return };
                let host = rewrite.text("hostname").map(str::to_lowercase);
                rule.rewrite = Some(Rewrite { host, path: rewrite.get("path").and_then(|path| path_edit(&path)) });
                rewrite.done();
            }
            "RequestMirror" => {
                let Some(mirror) = doc.get("requestMirror") else { return };
                let Some(reference) = mirror.get("backendRef") else { return };
                let to: Backend = backend(input, route, &reference, false, &mut self.unresolved);
                let share = match (mirror.number("percent"), mirror.get("fraction")) {
                    (Some(percent), _) => percent.min(100) * 100,
                    (None, Some(fraction)) => {
                        let of = fraction.number("denominator").unwrap_or(100).max(1);
                        (u64::from(fraction.number("numerator").unwrap_or(0)) * 10_000 / u64::from(of)).min(10_000)
                            as u32
                    }
                    (None, None) => 10_000,
                };
                if !to.invalid {
                    rule.mirrors.push(Mirror { backend: to, share: share as u16 });
                }
                mirror.done();
            }
            other => {
                doc.note(&format!("type {other} is not supported"));
                *whole = false;
                return;
            }
        }
        *whole &= doc.done();
    }

    /// The hosts of the route within a listener's. `None`: there is none; empty: all of them.
    fn hosts_within(&self, listener: &str) -> Option<Vec<String>> {
        if self.nowhere {
            return None;
        }
        if self.hosts.is_empty() || listener.is_empty() {
            return Some(self.hosts.clone());
        }
        let suffix = |pattern: &str, host: &str| {
            pattern.strip_prefix('*').is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
        };
        let within = |host: &String| {
            if host == listener || suffix(listener, host) {
                Some(host.clone())
            } else {
                suffix(host, listener).then(|| listener.to_owned())
            }
        };
        let hosts: Vec<String> = self.hosts.iter().filter_map(within).collect();
        (!hosts.is_empty()).then_some(hosts)
    }

    fn conditions(
        &self,
        attached: Result<(), (&'static str, &'static str)>,
        notes: &[(String, String)],
        generation: i64,
    ) -> Vec<Condition> {
        let condition = |kind, holds, reason, words: String| Condition::new(kind, holds, reason, words, generation);
        let all_broken = self.broken > 0 && self.broken == self.rules.len();
        let noted = words(notes);
        let accepted = match attached {
            Err((reason, words)) => condition("Accepted", false, reason, words.to_owned()),
            Ok(()) if all_broken => condition("Accepted", false, "UnsupportedValue", noted.clone()),
            Ok(()) if notes.is_empty() => condition("Accepted", true, "Accepted", "understood".to_owned()),
            Ok(()) => condition("Accepted", true, "Accepted", format!("left out: {noted}")),
        };
        let mut conditions = vec![accepted];
        if self.broken > 0 && !all_broken {
            let words = format!("Dropped Rule: {} of {} rules answer 500: {noted}", self.broken, self.rules.len());
            conditions.push(condition("PartiallyInvalid", true, "UnsupportedValue", words));
        }
        conditions.push(match self.unresolved.first() {
            None => condition("ResolvedRefs", true, "ResolvedRefs", "all that it names is there".to_owned()),
            Some(first) => {
                let words: Vec<&str> = self.unresolved.iter().take(5).map(|u| u.words.as_str()).collect();
                condition("ResolvedRefs", false, first.reason, words.join("; "))
            }
        });
        conditions
    }
}

fn read_match(doc: &Doc<'_>, kind: GatewayKind, whole: &mut bool) -> Match {
    let mut one = Match::default();
    let before = doc.noted();
    if let Some(path) = doc.get("path") {
        let value = path.text("value").unwrap_or("/").to_owned();
        let kind = match path.text("type").unwrap_or("PathPrefix") {
            "Exact" => MatchKind::Exact,
            "PathPrefix" => MatchKind::Prefix,
            "RegularExpression" => MatchKind::Regex,
            other => {
                path.note(&format!("type {other} is not supported"));
                MatchKind::Exact
            }
        };
        path.done();
        one.path = Some(TextMatch { kind, value });
    }
    // A method of gRPC is a path.
    if kind == GatewayKind::GrpcRoute {
        if let Some(method) = doc.get("method") {
            let regex = method.text("type") == Some("RegularExpression");
            let (service, name) = (method.text("service"), method.text("method"));
            let any = "[^/]+";
            one.path = match (service, name, regex) {
                (None, None, _) => None,
                (Some(service), Some(name), false) => {
                    Some(TextMatch { kind: MatchKind::Exact, value: format!("/{service}/{name}") })
                }
                (Some(service), None, false) => {
                    Some(TextMatch { kind: MatchKind::Prefix, value: format!("/{service}") })
                }
                (None, Some(name), false) => {
                    Some(TextMatch { kind: MatchKind::Regex, value: format!("/{any}/{}", escape(name)) })
                }
                (service, name, true) => {
                    let value = format!("/{}/{}", service.unwrap_or(any), name.unwrap_or(any));
                    Some(TextMatch { kind: MatchKind::Regex, value })
                }
            };
            method.done();
        }
    } else {
        one.method = doc.text("method").map(str::to_owned);
    }
    let fields = |list: Vec<Doc<'_>>| {
        let field = |field: &Doc<'_>| {
            let kind = match field.text("type").unwrap_or("Exact") {
                "Exact" => MatchKind::Exact,
                "RegularExpression" => MatchKind::Regex,
                other => {
                    field.note(&format!("type {other} is not supported"));
                    MatchKind::Exact
                }
            };
            let (name, value) = (field.text("name")?.to_owned(), field.text("value").unwrap_or_default().to_owned());
            field.done();
            Some(FieldMatch { name, kind, value })
        };
        list.iter().filter_map(field).collect()
    };
    one.headers = fields(doc.list("headers"));
    one.query = fields(doc.list("queryParams"));
    doc.done();
    *whole &= doc.noted() == before;
    one
}

fn path_edit(doc: &Doc<'_>) -> Option<PathEdit> {
    let (full, prefix) = (doc.text("replaceFullPath"), doc.text("replacePrefixMatch"));
    let edit = match doc.text("type").unwrap_or_default() {
        "ReplaceFullPath" => Some(PathEdit { prefix: false, value: full.unwrap_or("/").to_owned() }),
        "ReplacePrefixMatch" => Some(PathEdit { prefix: true, value: prefix.unwrap_or("/").to_owned() }),
        other => {
            doc.note(&format!("type {other} is not supported"));
            None
        }
    };
    doc.done();
    edit
}

/// A text as a regular expression that fits it alone.
fn escape(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_alphanumeric() && c != '_').then_some('\\').into_iter().chain([c])).collect()
}
