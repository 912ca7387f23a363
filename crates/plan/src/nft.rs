//! The ruleset as one table of nftables, replaced as a whole in one transaction of `nft -f`.
//!
//! Needs Linux 5.6 (`nat` chains in `inet` tables and ports in their maps) and nft 0.9.4.
//!
//! An accept here ends only our own chain: chains of others at the same hook still see the packet, so a drop policy of
//! theirs (Docker's `FORWARD`, fw4's zones) cannot be overruled from this table. What is accepted in `forward` carries
//! [`ACCEPTED_MARK`] from there on, for a rule of theirs to look at. It is the same for addresses: accept
//! would leave a packet to the next `nat` chain's masquerading, but a connection is translated only once, so a source
//! that must stay is translated into itself.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use selvedge_model::Balance;

use crate::facts::Family;
use crate::firewall::{Chain, Frontend, Match, Rule, Ruleset, Service, Set, Verdict, hash};

/// Set on forwarded packets that the ruleset accepts, so that rules in chains of others can accept them too.
pub const ACCEPTED_MARK: u32 = 0x2000_0000;

/// Begins the name of the empty chain whose rest is the digest of the whole table.
const DIGEST: &str = "digest-";

/// Text for `nft -f -` that puts the table there, in place of an older one.
pub fn replace(ruleset: &Ruleset) -> String {
    let body = body(ruleset);
    format!("{}table inet selvedge {{\n\tchain {} {{\n\t}}\n{body}}}\n", remove(), digest(&body))
}

/// Text for `nft -f -` that removes the table, if there is one.
pub fn remove() -> &'static str {
    // Declared first: deleting what is not there is an error.
    "table inet selvedge\ndelete table inet selvedge\n"
}

/// Whether `list`, the output of `nft list table inet selvedge`, shows the table that [`replace`] makes.
pub fn is_current(list: &str, ruleset: &Ruleset) -> bool {
    let wanted = format!("chain {} {{", digest(&body(ruleset)));
    list.lines().any(|line| line.trim() == wanted)
}

fn digest(body: &str) -> String {
    format!("{DIGEST}{:016x}", hash(body.as_bytes()))
}

fn body(ruleset: &Ruleset) -> String {
    let mut text = String::new();
    for ((set, family), nets) in &ruleset.sets {
        let (name, kind) = (set_name(*set, *family), address_type(*family));
        let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
        block(&mut text, "set", &name, &[format!("type {kind}"), "flags interval".into(), elements(&nets)]);
    }
    let (served, refused) = if cfg!(feature = "services") { services(&mut text, ruleset) } else { (false, false) };
    let mut rules: BTreeMap<Hook, Vec<String>> = BTreeMap::new();
    if served {
        rules.insert(Hook::ServicesArriving, vec!["jump services".into()]);
        rules.insert(Hook::ServicesLocal, vec!["jump services".into()]);
    }
    if refused {
        rules.insert(Hook::Of(Chain::Forward), vec!["jump refused".into()]);
        rules.insert(Hook::RefusedLocal, vec!["jump refused".into()]);
    }
    for (chain, own) in &ruleset.chains {
        rules.entry(Hook::Of(*chain)).or_default().extend(own.iter().map(|rule| line(*chain, rule)));
    }
    for (hook, rules) in rules {
        let (name, kind) = hook.chain();
        block(&mut text, "chain", name, &[&[format!("type {kind}; policy accept;")], rules.as_slice()].concat());
    }
    text
}

/// Where a base chain hangs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hook {
    ServicesArriving,
    ServicesLocal,
    RefusedLocal,
    Of(Chain),
}

impl Hook {
    /// Name, type and place: before those of others at the same hook, whose usual priorities are one higher.
    fn chain(self) -> (&'static str, &'static str) {
        match self {
            Hook::ServicesArriving => ("services-arriving", "nat hook prerouting priority -101"),
            Hook::ServicesLocal => ("services-local", "nat hook output priority -101"),
            Hook::RefusedLocal => ("refused-local", "filter hook output priority -1"),
            Hook::Of(Chain::Arrival) => ("arriving", "filter hook prerouting priority -301"),
            #[cfg(feature = "dns")]
            Hook::Of(Chain::Departure) => ("leaving", "filter hook output priority -301"),
            Hook::Of(Chain::Clamp) => ("clamped", "filter hook forward priority -151"),
            Hook::Of(Chain::Input) => ("incoming", "filter hook input priority -1"),
            Hook::Of(Chain::Forward) => ("forwarded", "filter hook forward priority -1"),
            Hook::Of(Chain::Source) => ("source", "nat hook postrouting priority 99"),
        }
    }
}

/// Writes what Services need besides base chains; returns whether there are any with and any without endpoints.
fn services(text: &mut String, ruleset: &Ruleset) -> (bool, bool) {
    let (mut dispatch, mut refuse) = (Vec::new(), Vec::new());
    for family in Family::BOTH {
        let (ip, kind, suffix) = (protocol(family), address_type(family), suffix(family));
        let key = format!("{ip} daddr . meta l4proto . th dport");
        let (mut served, mut refused) = (Vec::new(), Vec::new());
        for (frontend, service) in ruleset.services.iter().filter(|(f, _)| f.family() == family) {
            let Frontend { address, port, .. } = frontend;
            let element = format!("{address} . {} . {port} comment \"{}\"", frontend.protocol_name(), service.name);
            if service.endpoints.is_empty() {
                refused.push(element);
            } else {
                let chain = service_chain(frontend);
                block(text, "chain", &chain, &[translation(frontend, service, ruleset.balance)]);
                served.push(format!("{element} : goto {chain}"));
            }
        }
        if !served.is_empty() {
            let kind = format!("type {kind} . inet_proto . inet_service : verdict");
            block(text, "map", &format!("services{suffix}"), &[kind, elements(&served)]);
            dispatch.push(format!("{key} vmap @services{suffix}"));
        }
        if !refused.is_empty() {
            let kind = format!("type {kind} . inet_proto . inet_service");
            block(text, "set", &format!("refused{suffix}"), &[kind, elements(&refused)]);
            refuse.push(format!("{key} @refused{suffix} meta l4proto tcp reject with tcp reset"));
            refuse.push(format!("{key} @refused{suffix} reject"));
        }
    }
    if !dispatch.is_empty() {
        block(text, "chain", "services", &dispatch);
    }
    if !refuse.is_empty() {
        block(text, "chain", "refused", &refuse);
    }
    (!dispatch.is_empty(), !refuse.is_empty())
}

fn translation(frontend: &Frontend, service: &Service, balance: Balance) -> String {
    let (ip, l4) = (protocol(frontend.family()), frontend.protocol_name());
    if let [endpoint] = service.endpoints.as_slice() {
        return format!("meta l4proto {l4} dnat {ip} to {endpoint}");
    }
    let how = match balance {
        Balance::Random | Balance::SourceHash => "random",
        Balance::RoundRobin => "inc",
    };
    let choice = |(i, e): (usize, &SocketAddr)| format!("{i} : {} . {}", e.ip(), e.port());
    let choices: Vec<String> = service.endpoints.iter().enumerate().map(choice).collect();
    let (count, choices) = (choices.len(), choices.join(", "));
    format!("meta l4proto {l4} dnat {ip} addr . port to numgen {how} mod {count} map {{ {choices} }}")
}

/// `svc-10.96.0.7-tcp-80`; names hold no colons.
fn service_chain(frontend: &Frontend) -> String {
    let Frontend { address, port, .. } = frontend;
    format!("svc-{}-{}-{port}", address.to_string().replace(':', "_"), frontend.protocol_name())
}

fn line(chain: Chain, rule: &Rule) -> String {
    // A rule without a family has no condition or verdict that needs one.
    let family = rule.family.unwrap_or(Family::V4);
    let ip = protocol(family);
    let addressed = |m: &Match| {
        matches!(m, Match::Source(_) | Match::Destination(_) | Match::SourceIn(_) | Match::DestinationIn(_))
    };
    let mut words: Vec<String> = Vec::new();
    if rule.family.is_some() && !rule.matches.iter().any(addressed) {
        words.push(format!("meta nfproto {}", if family == Family::V4 { "ipv4" } else { "ipv6" }));
    }
    words.extend(rule.matches.iter().map(|condition| match condition {
        Match::Source(net) => format!("{ip} saddr {net}"),
        Match::Destination(net) => format!("{ip} daddr {net}"),
        Match::SourceIn(set) => format!("{ip} saddr @{}", set_name(*set, family)),
        Match::DestinationIn(set) => format!("{ip} daddr @{}", set_name(*set, family)),
        Match::SourceLocal => "fib saddr type local".into(),
        Match::From(link) => format!("iifname \"{link}\""),
        Match::NotFrom(link) => format!("iifname != \"{link}\""),
        Match::NotTo(link) => format!("oifname != \"{link}\""),
        Match::Esp => "meta l4proto esp".into(),
        Match::UdpPort(port) => format!("udp dport {port}"),
        #[cfg(feature = "dns")]
        Match::FromUdpPort(port) => format!("udp sport {port}"),
        Match::TcpSyn => "tcp flags & (syn | rst) == syn".into(),
        Match::Established => "ct state established,related".into(),
        Match::Translated => "ct status dnat".into(),
    }));
    words.push(match rule.verdict {
        Verdict::Accept if chain == Chain::Forward => format!("meta mark set meta mark | {ACCEPTED_MARK:#x} accept"),
        Verdict::Accept => "accept".into(),
        #[cfg(feature = "dns")]
        Verdict::Untracked => "notrack".into(),
        Verdict::Drop => "counter drop".into(),
        Verdict::Return => "return".into(),
        Verdict::Keep => format!("snat {ip} to {ip} saddr"),
        Verdict::TakeSource(address) => format!("snat {ip} to {address}"),
        Verdict::Masquerade => "masquerade".into(),
        Verdict::Clamp => "tcp option maxseg size set rt mtu".into(),
    });
    words.join(" ")
}

fn block(text: &mut String, kind: &str, name: &str, lines: &[String]) {
    let _ = write!(text, "\t{kind} {name} {{\n\t\t{}\n\t}}\n", lines.join("\n\t\t"));
}

fn elements(elements: &[String]) -> String {
    format!("elements = {{ {} }}", elements.join(", "))
}

fn set_name(set: Set, family: Family) -> String {
    format!("{}{}", set.name(), suffix(family))
}

fn suffix(family: Family) -> &'static str {
    if family == Family::V4 { "" } else { "6" }
}

fn protocol(family: Family) -> &'static str {
    if family == Family::V4 { "ip" } else { "ip6" }
}

fn address_type(family: Family) -> &'static str {
    if family == Family::V4 { "ipv4_addr" } else { "ipv6_addr" }
}
