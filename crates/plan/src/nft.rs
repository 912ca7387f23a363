//! The ruleset as one table of nftables, replaced as a whole in one transaction of `nft -f`.
//!
//! Needs Linux 5.6 (`nat` chains in `inet` tables and ports in their maps) and nft 0.9.4.
//!
//! An accept here ends only our own chain: chains of others at the same hook still see the packet, so a drop policy of
//! theirs (Docker's `FORWARD`, fw4's zones) cannot be overruled from this table. What is accepted in `forward` carries
//! [`ACCEPTED_MARK`] from there on, for a rule of theirs to look at. It is the same for addresses: accept
//! would leave a packet to the next `nat` chain's masquerading, but a connection is translated only once, so a source
//! that must stay is translated into itself.

#[cfg(feature = "services")]
mod services;
#[cfg(feature = "services")]
mod watch;

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::facts::Family;
use crate::firewall::{Chain, FNV_START, Match, Rule, Ruleset, Set, Verdict, hash_on};

#[cfg(feature = "services")]
pub use services::update;

/// The chain that says who may send to whom through this host.
const PERMITTED: &str = "permitted";

#[cfg(feature = "services")]
const REFUSED: &str = "ct state new jump refused";

/// Set on forwarded packets that the ruleset accepts, so that rules in chains of others can accept them too.
pub const ACCEPTED_MARK: u32 = 0x2000_0000;

/// Set on the first packet of a call from outside until it leaves: its source may have to change.
#[cfg(feature = "services")]
pub(crate) const CALLED_MARK: u32 = 0x1000_0000;

/// Text for `nft -f -` that puts the table there, in place of an older one.
pub fn replace(ruleset: &Ruleset) -> String {
    let mut text = format!("{}table inet selvedge {{\n", remove());
    // Writing to a String cannot fail.
    let _ = block(&mut text, "chain", &digest(ruleset), &[]).and_then(|()| body(&mut text, ruleset));
    text + "}\n"
}

/// Text for `nft -f -` that removes the table, if there is one.
pub fn remove() -> &'static str {
    // Declared first: deleting what is not there is an error.
    "table inet selvedge\ndelete table inet selvedge\n"
}

/// Name of the chain that is in a table of exactly this content, as [`replace`] and [`update`] make it, and in no other.
pub fn digest(ruleset: &Ruleset) -> String {
    let mut hasher = Hasher(FNV_START);
    // Nor can this.
    let _ = body(&mut hasher, ruleset);
    format!("digest-{:016x}", hasher.0)
}

struct Hasher(u64);

impl Write for Hasher {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 = hash_on(self.0, text.as_bytes());
        Ok(())
    }
}

fn body(text: &mut impl Write, ruleset: &Ruleset) -> std::fmt::Result {
    for ((set, family), nets) in &ruleset.sets {
        let (name, kind) = (set_name(*set, *family), address_type(*family));
        let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
        block(text, "set", &name, &[format!("type {kind}"), "flags interval".into(), elements(&nets)])?;
    }
    let mut rules: BTreeMap<Hook, Vec<String>> = BTreeMap::new();
    #[cfg(feature = "services")]
    if let Some(serving) = &ruleset.serving {
        services::body(text, ruleset, serving)?;
        rules.insert(Hook::ServicesArriving, vec!["jump services".into()]);
        rules.insert(Hook::ServicesLocal, vec!["jump services".into()]);
        // Calls that arrive were confirmed when they left: they are this host's own.
        for (hook, chain) in [(Hook::CalledLocal, "calls"), (Hook::Of(Chain::Input), "answers")] {
            let watch = format!("ct status & (dnat | assured) == dnat jump {chain}");
            let watch = ruleset.watch.then_some(watch);
            rules.insert(hook, watch.into_iter().chain([REFUSED.to_owned()]).collect());
        }
    }
    #[cfg(feature = "services")]
    if ruleset.watch {
        watch::body(text)?;
    }
    for (chain, own) in ruleset.chains.iter().filter(|(chain, _)| **chain != Chain::Clamp) {
        rules.entry(Hook::Of(*chain)).or_default().extend(own.iter().map(|rule| line(*chain, rule)));
    }
    let young = young(ruleset);
    if !young.is_empty() {
        let permitted = rules.insert(Hook::Of(Chain::Forward), young).unwrap_or_default();
        block(text, "chain", PERMITTED, &permitted)?;
    }
    for (hook, rules) in rules {
        let (name, kind) = hook.chain();
        block(text, "chain", name, &[&[format!("type {kind}; policy accept;")], rules.as_slice()].concat())?;
    }
    Ok(())
}

/// What forwarded packets pass before it is said who may send to whom. Both ends of a connection have spoken once the
/// kernel calls it assured: it leaves by the first rule, as most packets do.
fn young(ruleset: &Ruleset) -> Vec<String> {
    let mut rules = Vec::new();
    #[cfg(feature = "services")]
    if ruleset.serving.is_some() {
        rules.push(format!("meta l4proto udp ct state established goto {PERMITTED}"));
        rules.extend(ruleset.watch.then(|| "ct status dnat jump calls".to_owned()));
        rules.push(REFUSED.to_owned());
    }
    let clamp = ruleset.chains.get(&Chain::Clamp).into_iter().flatten();
    rules.extend(clamp.map(|rule| line(Chain::Clamp, rule)));
    if !rules.is_empty() {
        rules.insert(0, format!("ct status assured goto {PERMITTED}"));
        rules.push(format!("goto {PERMITTED}"));
    }
    rules
}

/// Where a base chain hangs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hook {
    #[cfg(feature = "services")]
    ServicesArriving,
    #[cfg(feature = "services")]
    ServicesLocal,
    #[cfg(feature = "services")]
    CalledLocal,
    Of(Chain),
}

impl Hook {
    /// Name, type and place: before those of others at the same hook, whose usual priorities are one higher.
    fn chain(self) -> (&'static str, &'static str) {
        match self {
            #[cfg(feature = "services")]
            Hook::ServicesArriving => ("services-arriving", "nat hook prerouting priority -101"),
            #[cfg(feature = "services")]
            Hook::ServicesLocal => ("services-local", "nat hook output priority -101"),
            #[cfg(feature = "services")]
            Hook::CalledLocal => ("called-local", "filter hook output priority -1"),
            Hook::Of(Chain::Arrival) => ("arriving", "filter hook prerouting priority -301"),
            #[cfg(feature = "dns")]
            Hook::Of(Chain::Departure) => ("leaving", "filter hook output priority -301"),
            Hook::Of(Chain::Input) => ("incoming", "filter hook input priority -1"),
            Hook::Of(Chain::Clamp | Chain::Forward) => ("forwarded", "filter hook forward priority -1"),
            Hook::Of(Chain::Source) => ("source", "nat hook postrouting priority 99"),
        }
    }
}

fn line(chain: Chain, rule: &Rule) -> String {
    // A rule without a family has no condition or verdict that needs one.
    let family = rule.family.unwrap_or(Family::V4);
    let ip = protocol(family);
    let addressed = |m: &Match| match m {
        Match::Source(_) | Match::Destination(_) | Match::SourceIn(_) | Match::DestinationIn(_) => true,
        #[cfg(feature = "services")]
        Match::Itself => true,
        _ => false,
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
        // The one link that is there before any rule; a number is compared faster than a name.
        Match::From("lo") => "iif \"lo\"".into(),
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
        #[cfg(feature = "services")]
        Match::Itself => format!("{ip} saddr . {ip} daddr @own{}", suffix(family)),
        #[cfg(feature = "services")]
        Match::Called => format!("meta mark & {CALLED_MARK:#x} != 0"),
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

fn block(text: &mut impl Write, kind: &str, name: &str, lines: &[String]) -> std::fmt::Result {
    writeln!(text, "\t{kind} {name} {{")?;
    lines.iter().try_for_each(|line| writeln!(text, "\t\t{line}"))?;
    writeln!(text, "\t}}")
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
