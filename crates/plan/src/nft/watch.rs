//! What reports endpoints that do not do their duty: it costs nothing as long as all do.

use std::fmt::{Result, Write};

use super::{address_type, block, protocol, suffix};
use crate::facts::Family;
use crate::firewall::REPORTS;

/// Sets and chains: `calls` for packets on their way to endpoints, `answers` for what comes back. Each endpoint is
/// reported once a second at most. A connection that is confirmed and still new has had a packet before this one, and
/// no answer.
pub(super) fn body(text: &mut impl Write) -> Result {
    let (mut calls, mut answers) = (Vec::new(), Vec::new());
    for family in Family::BOTH {
        let (ip, suffix) = (protocol(family), suffix(family));
        let kind = format!("type {} . inet_service", address_type(family));
        let lines = [kind, "size 1024".into(), "flags dynamic,timeout".into(), "timeout 1s".into()];
        block(text, "set", &format!("reported{suffix}"), &lines)?;
        let once = |condition: &str, address: &str, port: &str| {
            let key = format!("{ip} {address} . th {port}");
            let first = format!("{key} != @reported{suffix} add @reported{suffix} {{ {key} }}");
            format!("{condition} {first} log group {REPORTS}")
        };
        calls.push(once("ct state new ct status confirmed", "daddr", "dport"));
        answers.push(once("ct direction reply tcp flags & (rst | ack) == rst | ack", "saddr", "sport"));
        let icmp = if family == Family::V4 { "icmp" } else { "icmpv6" };
        let error = format!("ct state related {icmp} type destination-unreachable");
        answers.push(format!("{error} limit rate 20/second log group {REPORTS}"));
    }
    block(text, "chain", "answers", &answers)?;
    calls.push("jump answers".into());
    block(text, "chain", "calls", &calls)
}
