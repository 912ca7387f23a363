//! Traffic selectors (RFC 7296 sections 2.9 and 3.13.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses, ports and a protocol whose packets belong into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrafficSelector {
    /// First address.
    pub start: IpAddr,
    /// Last address, of the same family.
    pub end: IpAddr,
    /// IP protocol number; 0 is any.
    pub protocol: u8,
    /// First port.
    pub start_port: u16,
    /// Last port.
    pub end_port: u16,
}

impl From<IpNet> for TrafficSelector {
    fn from(net: IpNet) -> Self {
        Self { start: net.network(), end: net.broadcast(), protocol: 0, start_port: 0, end_port: u16::MAX }
    }
}

impl TrafficSelector {
    /// The packets that belong to both selectors.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self.start.is_ipv4() != other.start.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (a, 0) => a,
            (0, b) => b,
            (a, b) if a == b => a,
            _ => return None,
        };
        let both = Self {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
            protocol,
            start_port: self.start_port.max(other.start_port),
            end_port: self.end_port.min(other.end_port),
        };
        (both.start <= both.end && both.start_port <= both.end_port).then_some(both)
    }

    /// Whether every packet of `other` belongs to this selector.
    pub fn contains(&self, other: &Self) -> bool {
        self.intersect(other) == Some(*other)
    }

    /// The fewest prefixes that cover exactly the address range.
    pub fn to_prefixes(&self) -> Vec<IpNet> {
        match (self.start, self.end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => split(start.to_bits().into(), end.to_bits().into(), 32)
                .into_iter()
                .filter_map(|(bits, len)| {
                    let address = Ipv4Addr::from_bits(u32::try_from(bits).ok()?);
                    Some(Ipv4Net::new(address, len).ok()?.into())
                })
                .collect(),
            (IpAddr::V6(start), IpAddr::V6(end)) => split(start.to_bits(), end.to_bits(), 128)
                .into_iter()
                .filter_map(|(bits, len)| Some(Ipv6Net::new(Ipv6Addr::from_bits(bits), len).ok()?.into()))
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn split(mut start: u128, end: u128, width: u8) -> Vec<(u128, u8)> {
    let mut prefixes = Vec::new();
    while start <= end {
        // The largest block that is aligned at `start` and ends no later than `end`.
        let mut bits = u8::try_from(start.trailing_zeros()).unwrap_or(width).min(width);
        let last = |bits: u8| if bits == 128 { u128::MAX } else { start | ((1 << bits) - 1) };
        while last(bits) > end {
            bits -= 1;
        }
        prefixes.push((start, width - bits));
        match last(bits).checked_add(1) {
            Some(next) => start = next,
            None => break,
        }
    }
    prefixes
}

/// More selectors than fit into one payload cannot be answered.
const MAX_SELECTORS: usize = 255;

/// What the responder answers: the part of `offered` that its own `policy` allows, in the policy's order and without
/// selectors that lie within another (RFC 7296 section 2.9).
pub(crate) fn narrow(offered: &[TrafficSelector], policy: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    for mine in policy {
        for theirs in offered {
            let Some(both) = mine.intersect(theirs) else { continue };
            if narrowed.len() < MAX_SELECTORS && !narrowed.iter().any(|have| have.contains(&both)) {
                narrowed.retain(|have| !both.contains(have));
                narrowed.push(both);
            }
        }
    }
    narrowed
}

/// Whether a responder kept within what was offered to it.
pub(crate) fn within(answer: &[TrafficSelector], offered: &[TrafficSelector]) -> bool {
    !answer.is_empty() && answer.iter().all(|ts| offered.iter().any(|offer| offer.contains(ts)))
}

/// For people: `10.1.0.0/24, fd00::/64`.
pub(crate) fn describe(selectors: &[TrafficSelector]) -> String {
    let nets: Vec<String> =
        selectors.iter().flat_map(TrafficSelector::to_prefixes).map(|net| net.to_string()).collect();
    if nets.is_empty() { "nothing".to_owned() } else { nets.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(net: &str) -> TrafficSelector {
        net.parse::<IpNet>().unwrap().into()
    }

    fn range(start: &str, end: &str) -> TrafficSelector {
        TrafficSelector { start: start.parse().unwrap(), end: end.parse().unwrap(), ..ts("0.0.0.0/0") }
    }

    #[test]
    fn a_prefix_is_a_range_and_back() {
        for net in ["10.1.2.0/24", "0.0.0.0/0", "10.0.0.1/32", "::/0", "fd00::/64", "fd00::1/128", "255.255.255.255/32"]
        {
            assert_eq!(ts(net).to_prefixes(), [net.parse::<IpNet>().unwrap()]);
        }
        assert_eq!(ts("10.1.2.0/24").end, "10.1.2.255".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn an_odd_range_is_the_fewest_prefixes() {
        let nets: Vec<String> = range("10.0.0.1", "10.0.0.6").to_prefixes().iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]);
        let nets = range("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").to_prefixes();
        assert_eq!(nets.len(), 128);
    }

    #[test]
    fn narrowing_keeps_the_common_part_of_both_families() {
        let policy = [ts("10.1.0.0/16"), ts("fd00:1::/32")];
        let offered = [ts("10.0.0.0/8"), ts("10.1.5.0/24"), ts("fd00:1:2::/48"), ts("192.168.0.0/16")];
        assert_eq!(narrow(&offered, &policy), [ts("10.1.0.0/16"), ts("fd00:1:2::/48")]);
        assert_eq!(narrow(&[ts("172.16.0.0/12")], &policy), []);
        assert_eq!(narrow(&[ts("10.1.5.0/24"), ts("10.0.0.0/8")], &policy), [ts("10.1.0.0/16")]);
    }

    #[test]
    fn protocol_and_ports_narrow_too() {
        let tcp = TrafficSelector { protocol: 6, start_port: 80, end_port: 90, ..ts("10.0.0.0/8") };
        let high = TrafficSelector { start_port: 85, ..ts("10.0.0.0/24") };
        let both = TrafficSelector { protocol: 6, start_port: 85, end_port: 90, ..ts("10.0.0.0/24") };
        assert_eq!(tcp.intersect(&high), Some(both));
        assert_eq!(TrafficSelector { protocol: 17, ..tcp }.intersect(&tcp), None);
    }

    #[test]
    fn an_answer_outside_the_offer_is_noticed() {
        assert!(within(&[ts("10.1.0.0/24")], &[ts("10.1.0.0/16")]));
        assert!(!within(&[ts("10.0.0.0/8")], &[ts("10.1.0.0/16")]));
        assert!(!within(&[], &[ts("10.1.0.0/16")]));
    }
}
