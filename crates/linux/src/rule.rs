//! Policy routing rules: which table is asked for which packets.

use std::fmt;

use ipnet::IpNet;

use crate::Family;
use crate::error::{Context, Result};
use crate::netlink::{Attributes, Reader, Request, Socket, flags, prefix_from, u32_from};
use crate::route::OURS;

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
/// Octets of `struct fib_rule_hdr`.
const HEADER: usize = 12;

/// Attributes and actions of `linux/fib_rules.h`.
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
/// Attributes that narrow a rule in a way [`Rule`] cannot say: input and output link, mark, tunnel, realm, user, ports.
const FOREIGN: [u16; 12] = [3, 4, 10, 11, 12, 13, 16, 17, 20, 22, 23, 24];

/// A rule that sends packets to a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Lower is asked first.
    pub priority: u32,
    /// The table to ask.
    pub table: u32,
    /// Only packets from there.
    pub from: Option<IpNet>,
    /// Only packets to there.
    pub to: Option<IpNet>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:", self.family, self.priority)?;
        if let Some(from) = self.from {
            write!(f, " from {from}")?;
        }
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        write!(f, " table {}", self.table)
    }
}

/// Adds a rule. Returns whether it was not there yet.
pub fn add(socket: &mut Socket, rule: &Rule) -> Result<bool> {
    let mut request = encode(RTM_NEWRULE, flags::CREATE | flags::EXCL, rule);
    request.attribute(FRA_PROTOCOL, &[OURS]);
    match socket.request(&mut request) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Some(libc::EEXIST) => Ok(false),
        Err(e) => Err(e.context(format!("add rule {rule}"))),
    }
}

/// Removes a rule. Returns whether it was there.
pub fn delete(socket: &mut Socket, rule: &Rule) -> Result<bool> {
    match socket.request(&mut encode(RTM_DELRULE, 0, rule)) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e.context(format!("delete rule {rule}"))),
    }
}

/// All rules of a family that look a table up by source and destination alone.
///
/// A kernel without policy routing for the family gives `EOPNOTSUPP` or `EAFNOSUPPORT`.
pub fn list(socket: &mut Socket, family: Family) -> Result<Vec<Rule>> {
    let mut request = Request::new(RTM_GETRULE, 0);
    request.u8(family.raw()).zeros(HEADER - 1);
    socket
        .dump(&mut request, |kind, body| (kind == RTM_NEWRULE).then(|| decode(body)).flatten())
        .context(|| format!("list {family} rules"))
}

fn encode(kind: u16, extra: u16, rule: &Rule) -> Request {
    let len = |prefix: Option<IpNet>| prefix.map_or(0, |p| p.prefix_len());
    let mut request = Request::new(kind, extra);
    request
        .u8(rule.family.raw())
        .u8(len(rule.to))
        .u8(len(rule.from))
        .u8(0)
        .u8(u8::try_from(rule.table).unwrap_or(0))
        .zeros(2)
        .u8(FR_ACT_TO_TBL)
        .u32(0)
        .attribute_u32(FRA_PRIORITY, rule.priority)
        .attribute_u32(FRA_TABLE, rule.table);
    if let Some(from) = rule.from {
        request.attribute_ip(FRA_SRC, from.network());
    }
    if let Some(to) = rule.to {
        request.attribute_ip(FRA_DST, to.network());
    }
    request
}

fn decode(body: &[u8]) -> Option<Rule> {
    let mut head = Reader(body);
    let (family, dst_len, src_len, tos) = (head.u8()?, head.u8()?, head.u8()?, head.u8()?);
    let (table, _, action, flags) = (head.u8()?, head.take(2)?, head.u8()?, head.u32()?);
    let attributes = Attributes::after(body, HEADER);
    let foreign = attributes.clone().any(|(kind, value)| match kind {
        FRA_SUPPRESS_PREFIXLEN => u32_from(value) != Some(u32::MAX),
        _ => FOREIGN.contains(&kind),
    });
    if action != FR_ACT_TO_TBL || tos != 0 || flags != 0 || foreign {
        return None;
    }
    let number = |kind| attributes.find(kind).and_then(u32_from);
    let prefix = |kind, len| match attributes.find(kind) {
        Some(value) => prefix_from(family, Some(value), len).map(Some),
        None => Some(None),
    };
    Some(Rule {
        family: Family::from_raw(family)?,
        priority: number(FRA_PRIORITY).unwrap_or(0),
        table: number(FRA_TABLE).unwrap_or(u32::from(table)),
        from: prefix(FRA_SRC, src_len)?,
        to: prefix(FRA_DST, dst_len)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule {
            family: Family::V4,
            priority: 220,
            table: 220,
            from: Some("10.1.0.0/24".parse().unwrap()),
            to: Some("10.2.0.0/16".parse().unwrap()),
        }
    }

    #[test]
    fn round_trip() {
        for table in [220, 1000] {
            let rule = Rule { table, ..rule() };
            assert_eq!(decode(encode(RTM_NEWRULE, 0, &rule).body()), Some(rule));
        }
        let all = Rule { family: Family::V6, from: None, to: None, ..rule() };
        assert_eq!(decode(encode(RTM_NEWRULE, 0, &all).body()), Some(all));
        assert_eq!(encode(RTM_NEWRULE, 0, &rule()).body()[..12], [2, 16, 24, 0, 220, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn rules_that_say_more_are_not_listed() {
        for (kind, value) in [(10u16, 1u32), (FRA_SUPPRESS_PREFIXLEN, 0), (3, 0)] {
            let mut request = encode(RTM_NEWRULE, 0, &rule());
            request.attribute_u32(kind, value);
            assert_eq!(decode(request.body()), None, "attribute {kind}");
        }
        let mut request = encode(RTM_NEWRULE, 0, &rule());
        request.attribute_u32(FRA_SUPPRESS_PREFIXLEN, u32::MAX).attribute(FRA_PROTOCOL, &[2]);
        assert!(decode(request.body()).is_some());
        let mut inverted = encode(RTM_NEWRULE, 0, &rule()).body().to_vec();
        inverted[8..12].copy_from_slice(&2u32.to_ne_bytes());
        assert_eq!(decode(&inverted), None);
    }
}
