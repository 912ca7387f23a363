//! The edge gateway's section of a configuration: what it listens on, and where requests and connections go.
//!
//! It is compiled from Gateways and routes by the operator, or written by hand; the engine knows nothing else.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::reader::{ConfigError, Reader, Result};

/// Everything the edge gateway of a node serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Gateway {
    /// What it listens on, each port and protocol once for the same addresses.
    pub listeners: Vec<Listener>,
}

/// A port, and who answers there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Listener {
    /// Shown in `status`.
    pub name: String,
    /// TCP port, or UDP port of protocol `udp`.
    pub port: u16,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// Links whose addresses are listened on; empty: all.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub interfaces: Vec<String>,
    /// Networks whose addresses are listened on; empty: all.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub addresses: Vec<IpNet>,
    /// Networks whose addresses are not listened on.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub excluded: Vec<IpNet>,
    /// `https` only: the oldest version of TLS that is spoken.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_default"))]
    pub min_tls: TlsVersion,
    /// Who answers for which host. TCP and UDP have one, for all.
    pub sites: Vec<Site>,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub enum ListenerProtocol {
    /// HTTP/1.1, and HTTP/2 by prior knowledge.
    Http,
    /// The same under TLS, HTTP/2 by ALPN.
    Https,
    /// TLS that ends at the backend: connections go by the server name.
    Tls,
    /// TLS that ends here, connections behind it.
    TlsTerminate,
    /// TCP connections.
    Tcp,
    /// UDP datagrams.
    Udp,
}

impl ListenerProtocol {
    /// As it is written.
    pub fn name(self) -> &'static str {
        PROTOCOLS.iter().find(|(_, protocol)| *protocol == self).map_or("", |(name, _)| name)
    }
}

/// The oldest version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[cfg_attr(feature = "serde", serde(rename = "1.2"))]
    Tls12,
    /// TLS 1.3.
    #[cfg_attr(feature = "serde", serde(rename = "1.3"))]
    Tls13,
}

/// The rules for one host, or for one suffix of hosts. Of those that fit the most specific answers, and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Site {
    /// `shop.example`, `*.example`, or empty for every host.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "String::is_empty"))]
    pub host: String,
    /// Where TLS ends here: the section of `gateway.pem` with certificate and key.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "String::is_empty"))]
    pub certificate: String,
    /// Clients must have a certificate of the authorities in the section `NAME.ca`.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub client_certificates: bool,
    /// Rules are tried in their order; else in that of precedence that Gateway API gives.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub in_order: bool,
    /// Where requests go.
    pub rules: Vec<Rule>,
}

/// Where some requests go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Rule {
    /// Shown in `status` and in answers of the gateway itself.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "String::is_empty"))]
    pub name: String,
    /// Hosts within the site's; empty: all of it.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub hosts: Vec<String>,
    /// One of them must fit; empty: every request.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub matches: Vec<Match>,
    /// Changes to the request's header.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_default"))]
    pub request_headers: HeaderEdit,
    /// Changes to the answer's header.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_default"))]
    pub response_headers: HeaderEdit,
    /// Answer with a redirection.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub redirect: Option<Redirect>,
    /// Ask the backend for something else.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub rewrite: Option<Rewrite>,
    /// Send copies of requests, too, and forget the answers.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub mirrors: Vec<Mirror>,
    /// Answer with this status, whatever else is said: the route names something that is not there.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub status: Option<u16>,
    /// Where they go, by weight.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub backends: Vec<Backend>,
    /// Until the head of the answer, with all attempts, in milliseconds.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub timeout_ms: Option<u32>,
    /// The same of one attempt.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub attempt_timeout_ms: Option<u32>,
    /// When to ask again.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub retry: Option<Retry>,
}

/// What a request must be like, in every respect that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Match {
    /// Its path.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub path: Option<TextMatch>,
    /// Its method, in capitals.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub method: Option<String>,
    /// Fields of its header.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub headers: Vec<FieldMatch>,
    /// Parameters of its query.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub query: Vec<FieldMatch>,
}

/// What a text must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct TextMatch {
    /// How it is compared.
    pub kind: MatchKind,
    /// With what.
    pub value: String,
}

/// A header field or query parameter, and what it must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct FieldMatch {
    /// Its name; that of a header field is compared without case.
    pub name: String,
    /// How its value is compared.
    pub kind: MatchKind,
    /// With what.
    pub value: String,
}

/// How texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub enum MatchKind {
    /// The same.
    Exact,
    /// Begins so; a path does so by whole elements.
    Prefix,
    /// A regular expression fits the whole.
    Regex,
    /// Begins so, letter by letter.
    Beginning,
}

/// Changes to a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct HeaderEdit {
    /// In the place of what is there.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub set: Vec<Field>,
    /// Besides what is there.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub add: Vec<Field>,
    /// Names of what goes.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub remove: Vec<String>,
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Where the client is sent. What is not named stays as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Redirect {
    /// `http` or `https`.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub scheme: Option<String>,
    /// Another host.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub host: Option<String>,
    /// Another port.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub port: Option<u16>,
    /// Another path.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub path: Option<PathEdit>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// What the backend is asked for instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Rewrite {
    /// Another host.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub host: Option<String>,
    /// Another path.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub path: Option<PathEdit>,
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct PathEdit {
    /// Only the prefix that fitted is replaced; else the whole path.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub prefix: bool,
    /// By this.
    pub value: String,
}

/// Copies of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Mirror {
    /// Where they go.
    pub backend: Backend,
    /// Of how many requests in ten thousand.
    pub share: u16,
}

/// When to ask again, if a request has no body and its answer has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Retry {
    /// How often at most, besides the first time.
    pub attempts: u8,
    /// Answers that are not taken for one. A broken or timed out connection never is.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub statuses: Vec<u16>,
    /// Pause before each, in milliseconds.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_default"))]
    pub pause_ms: u32,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Backend {
    /// Kubernetes namespace of the Service.
    pub namespace: String,
    /// Kubernetes name of the Service.
    pub service: String,
    /// The Service's port.
    pub port: u16,
    /// Of all that are weighed against one another; 0 gets nothing.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_one"))]
    pub weight: u32,
    /// How one of its endpoints is chosen.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_default"))]
    pub balance: GatewayBalance,
    /// It speaks HTTP/2 only.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub http2: bool,
    /// Changes to the header of requests that go there.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_default"))]
    pub request_headers: HeaderEdit,
    /// Changes to the header of answers that come from there.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_default"))]
    pub response_headers: HeaderEdit,
    /// It cannot be used: its share of the requests is answered with 500.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub invalid: bool,
}

/// How an endpoint is chosen, for each request or connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GatewayBalance {
    /// In turn.
    #[default]
    RoundRobin,
    /// Each with the same chance.
    Random,
    /// The same for the same client address.
    SourceHash,
    /// The same for the same value of this header field, given as `header:NAME`.
    Header(String),
    /// The same for the same value of this cookie, given as `cookie:NAME`.
    Cookie(String),
}

/// What a node would not take of a rule, with which it would refuse its whole configuration.
pub fn rule_problem(json: &str) -> Option<ConfigError> {
    let value = miniserde::json::from_str(json);
    value.map_or_else(|_| Some(ConfigError::new("rule", "is not JSON")), |value| rule(&Reader::root(&value)).err())
}

const PROTOCOLS: [(&str, ListenerProtocol); 6] = [
    ("http", ListenerProtocol::Http),
    ("https", ListenerProtocol::Https),
    ("tls", ListenerProtocol::Tls),
    ("tlsTerminate", ListenerProtocol::TlsTerminate),
    ("tcp", ListenerProtocol::Tcp),
    ("udp", ListenerProtocol::Udp),
];
const VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
const KINDS: [(&str, MatchKind); 4] = [
    ("exact", MatchKind::Exact),
    ("prefix", MatchKind::Prefix),
    ("regex", MatchKind::Regex),
    ("beginning", MatchKind::Beginning),
];
const REDIRECTIONS: [u16; 5] = [301, 302, 303, 307, 308];

pub(crate) fn gateway(r: &Reader<'_>) -> Result<Gateway> {
    let listeners = r.list_or_empty("listeners", listener)?;
    for (i, one) in listeners.iter().enumerate() {
        let same = |other: &&Listener| {
            (other.port, other.protocol == ListenerProtocol::Udp) == (one.port, one.protocol == ListenerProtocol::Udp)
                && (&other.interfaces, &other.addresses, &other.excluded)
                    == (&one.interfaces, &one.addresses, &one.excluded)
        };
        if let Some(first) = listeners[..i].iter().find(same) {
            let problem = format!("is the port of \"{}\" already, on the same addresses", first.name);
            return Err(ConfigError::new(format!("gateway.listeners[{i}].port"), problem));
        }
    }
    Ok(Gateway { listeners })
}

fn listener(r: &Reader<'_>) -> Result<Listener> {
    let protocol = r.field("protocol")?.word(&PROTOCOLS)?;
    let sites = r.field("sites")?.list(|site_reader| {
        let site = site(site_reader)?;
        if matches!(protocol, ListenerProtocol::Https | ListenerProtocol::TlsTerminate) && site.certificate.is_empty() {
            return site_reader.error("needs a certificate");
        }
        Ok(site)
    })?;
    Ok(Listener {
        name: r.field("name")?.string()?,
        port: r.field("port")?.port()?,
        protocol,
        interfaces: r.list_or_empty("interfaces", Reader::string)?,
        addresses: r.list_or_empty("addresses", network)?,
        excluded: r.list_or_empty("excluded", network)?,
        min_tls: r.optional("minTls")?.map_or_else(|| Ok(TlsVersion::default()), |v| v.word(&VERSIONS))?,
        sites,
    })
}

/// An address stands for itself.
fn network(r: &Reader<'_>) -> Result<IpNet> {
    r.string()?.parse::<IpAddr>().map_or_else(|_| r.prefix(), |address| Ok(IpNet::from(address)))
}

fn site(r: &Reader<'_>) -> Result<Site> {
    let certificate = text_or_empty(r, "certificate")?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if certificate.starts_with('.') || !certificate.bytes().all(plain) {
        return r.field("certificate")?.error(format!("\"{certificate}\" is not a plain name"));
    }
    Ok(Site {
        host: r.optional("host")?.as_ref().map_or(Ok(String::new()), host)?,
        certificate,
        client_certificates: flag(r, "clientCertificates")?,
        in_order: flag(r, "inOrder")?,
        rules: r.list_or_empty("rules", rule)?,
    })
}

/// A host name or `*.` and a suffix, in small letters.
fn host(r: &Reader<'_>) -> Result<String> {
    let text = r.string()?;
    let name = text.strip_prefix("*.").unwrap_or(&text);
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    if !name.is_empty() && text.len() <= 255 && name.bytes().all(plain) {
        return Ok(text);
    }
    r.error(format!("\"{text}\" is not a host name in small letters"))
}

fn rule(r: &Reader<'_>) -> Result<Rule> {
    Ok(Rule {
        name: text_or_empty(r, "name")?,
        hosts: r.list_or_empty("hosts", host)?,
        matches: r.list_or_empty("matches", a_match)?,
        request_headers: header_edit(r, "requestHeaders")?,
        response_headers: header_edit(r, "responseHeaders")?,
        redirect: r.optional("redirect")?.as_ref().map(redirect).transpose()?,
        rewrite: r.optional("rewrite")?.as_ref().map(rewrite).transpose()?,
        mirrors: r.list_or_empty("mirrors", mirror)?,
        status: r.optional("status")?.as_ref().map(status).transpose()?,
        backends: r.list_or_empty("backends", backend)?,
        timeout_ms: r.optional("timeoutMs")?.as_ref().map(small).transpose()?,
        attempt_timeout_ms: r.optional("attemptTimeoutMs")?.as_ref().map(small).transpose()?,
        retry: r.optional("retry")?.as_ref().map(retry).transpose()?,
    })
}

fn a_match(r: &Reader<'_>) -> Result<Match> {
    Ok(Match {
        path: r.optional("path")?.as_ref().map(text_match).transpose()?,
        method: r.optional("method")?.map(|m| m.string()).transpose()?,
        headers: r.list_or_empty("headers", field_match)?,
        query: r.list_or_empty("query", field_match)?,
    })
}

fn text_match(r: &Reader<'_>) -> Result<TextMatch> {
    Ok(TextMatch { kind: r.field("kind")?.word(&KINDS)?, value: r.field("value")?.string()? })
}

fn field_match(r: &Reader<'_>) -> Result<FieldMatch> {
    let TextMatch { kind, value } = text_match(r)?;
    Ok(FieldMatch { name: r.field("name")?.string()?, kind, value })
}

fn header_edit(r: &Reader<'_>, name: &str) -> Result<HeaderEdit> {
    let Some(r) = r.optional(name)? else { return Ok(HeaderEdit::default()) };
    Ok(HeaderEdit {
        set: r.list_or_empty("set", field)?,
        add: r.list_or_empty("add", field)?,
        remove: r.list_or_empty("remove", field_name)?,
    })
}

fn field(r: &Reader<'_>) -> Result<Field> {
    let value = r.field("value")?;
    let text = value.string()?;
    if text.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return value.error("holds a control character");
    }
    Ok(Field { name: field_name(&r.field("name")?)?, value: text })
}

/// A token of RFC 9110.
fn field_name(r: &Reader<'_>) -> Result<String> {
    let text = r.string()?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !text.is_empty() && text.bytes().all(token) {
        return Ok(text);
    }
    r.error(format!("\"{text}\" is not the name of a header field"))
}

fn redirect(r: &Reader<'_>) -> Result<Redirect> {
    let status = r.optional("status")?;
    let code = status.as_ref().map_or(Ok(302), |s| s.integer(301, 308))? as u16;
    if let Some(status) = status.filter(|_| !REDIRECTIONS.contains(&code)) {
        return status.error(format!("{code} is none of 301, 302, 303, 307, 308"));
    }
    Ok(Redirect {
        scheme: r
            .optional("scheme")?
            .map(|s| s.word(&[("http", "http"), ("https", "https")]))
            .transpose()?
            .map(str::to_owned),
        host: r.optional("host")?.as_ref().map(host).transpose()?,
        port: r.optional("port")?.map(|p| p.port()).transpose()?,
        path: r.optional("path")?.as_ref().map(path_edit).transpose()?,
        status: code,
    })
}

fn rewrite(r: &Reader<'_>) -> Result<Rewrite> {
    Ok(Rewrite {
        host: r.optional("host")?.as_ref().map(host).transpose()?,
        path: r.optional("path")?.as_ref().map(path_edit).transpose()?,
    })
}

fn path_edit(r: &Reader<'_>) -> Result<PathEdit> {
    let value = r.field("value")?;
    let text = value.string()?;
    if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return value.error("holds a space or a control character");
    }
    Ok(PathEdit { prefix: flag(r, "prefix")?, value: text })
}

fn mirror(r: &Reader<'_>) -> Result<Mirror> {
    let share = r.optional("share")?.map_or(Ok(10_000), |s| s.integer(0, 10_000))?;
    Ok(Mirror { backend: backend(&r.field("backend")?)?, share: share as u16 })
}

fn retry(r: &Reader<'_>) -> Result<Retry> {
    Ok(Retry {
        attempts: r.field("attempts")?.integer(0, 10)? as u8,
        statuses: r.list_or_empty("statuses", status)?,
        pause_ms: r.optional("pauseMs")?.as_ref().map_or(Ok(0), small)?,
    })
}

fn status(r: &Reader<'_>) -> Result<u16> {
    Ok(r.integer(200, 599)? as u16)
}

fn small(r: &Reader<'_>) -> Result<u32> {
    Ok(r.integer(0, 86_400_000)? as u32)
}

fn backend(r: &Reader<'_>) -> Result<Backend> {
    Ok(Backend {
        namespace: r.field("namespace")?.string()?,
        service: r.field("service")?.string()?,
        port: r.field("port")?.port()?,
        weight: r.optional("weight")?.map_or(Ok(1), |w| w.integer(0, 1_000_000))? as u32,
        balance: r.optional("balance")?.as_ref().map_or_else(|| Ok(GatewayBalance::default()), balance)?,
        http2: flag(r, "http2")?,
        request_headers: header_edit(r, "requestHeaders")?,
        response_headers: header_edit(r, "responseHeaders")?,
        invalid: flag(r, "invalid")?,
    })
}

fn balance(r: &Reader<'_>) -> Result<GatewayBalance> {
    let text = r.string()?;
    Ok(match text.split_once(':') {
        Some(("header", name)) if !name.is_empty() => GatewayBalance::Header(name.to_owned()),
        Some(("cookie", name)) if !name.is_empty() => GatewayBalance::Cookie(name.to_owned()),
        _ => match text.as_str() {
            "roundRobin" => GatewayBalance::RoundRobin,
            "random" => GatewayBalance::Random,
            "sourceHash" => GatewayBalance::SourceHash,
            _ => {
                return r
                    .error(format!("\"{text}\" is none of roundRobin, random, sourceHash, header:NAME, cookie:NAME"));
            }
        },
    })
}

fn flag(r: &Reader<'_>, name: &str) -> Result<bool> {
    r.optional(name)?.map_or(Ok(false), |flag| flag.bool())
}

fn text_or_empty(r: &Reader<'_>, name: &str) -> Result<String> {
    r.optional(name)?.map_or(Ok(String::new()), |text| text.string())
}

#[cfg(feature = "serde")]
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(feature = "serde")]
fn is_one(weight: &u32) -> bool {
    *weight == 1
}

#[cfg(feature = "serde")]
impl serde::Serialize for GatewayBalance {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            GatewayBalance::RoundRobin => serializer.serialize_str("roundRobin"),
            GatewayBalance::Random => serializer.serialize_str("random"),
            GatewayBalance::SourceHash => serializer.serialize_str("sourceHash"),
            GatewayBalance::Header(name) => serializer.collect_str(&format_args!("header:{name}")),
            GatewayBalance::Cookie(name) => serializer.collect_str(&format_args!("cookie:{name}")),
        }
    }
}
