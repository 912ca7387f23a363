//! What reports endpoints that do not do their duty: it costs next to nothing as long as all do.

use super::{PREFIX, Tables, add as add_chain};
use crate::facts::Family;
use crate::firewall::REPORTS;

const CALLS: &str = "SELVEDGE-CALLS";
const ANSWERS: &str = "SELVEDGE-ANSWERS";

/// A connection that is confirmed and still new has had a packet before this one, and no answer.
pub(super) fn add(tables: &mut Tables, family: Family) {
    let report = format!("-m limit --limit 20/sec --limit-burst 20 -j NFLOG --nflog-group {REPORTS}");
    let unreachable = match family {
        Family::V4 => "-p icmp -m icmp --icmp-type 3",
        Family::V6 => "-p ipv6-icmp -m icmp6 --icmpv6-type 1",
    };
    let answers = [
        format!("-p tcp -m tcp --tcp-flags RST,ACK RST,ACK -m conntrack --ctdir REPLY {report}"),
        format!("{unreachable} -m conntrack --ctstate RELATED {report}"),
    ];
    let calls = [format!("-m conntrack --ctstate NEW --ctstatus CONFIRMED {report}"), format!("-j {ANSWERS}")];
    add_chain(tables, "filter", ANSWERS, answers.into(), &[]);
    add_chain(tables, "filter", CALLS, calls.into(), &[]);
    // Calls that arrive were confirmed when they left: they are this host's own.
    for (base, chain) in [("FORWARD", CALLS), ("OUTPUT", CALLS), ("INPUT", ANSWERS)] {
        let own = format!("{PREFIX}{base}");
        let filter = tables.entry("filter").or_default();
        let others = filter.jumps.insert(base, own.clone()).filter(|before| *before != own);
        let rules = filter.chains.entry(own).or_default();
        rules.insert(0, format!("-m conntrack --ctstate DNAT ! --ctstatus ASSURED -j {chain}"));
        rules.extend(others.map(|chain| format!("-j {chain}")));
    }
}
