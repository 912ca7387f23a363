//! The traffic selector payloads (RFC 7296 section 3.13).

use std::net::IpAddr;

use super::{Reader, WireError};
use crate::ts::TrafficSelector;

const IPV4_ADDR_RANGE: u8 = 7;
const IPV6_ADDR_RANGE: u8 = 8;

/// The address range selectors; other types are skipped.
pub(super) fn parse(body: &[u8]) -> Result<Vec<TrafficSelector>, WireError> {
    let mut reader = Reader::new(body);
    let count = usize::from(reader.u8()?);
    reader.bytes(3)?;
    let mut selectors = Vec::new();
    for _ in 0..count {
        let kind = reader.u8()?;
        let protocol = reader.u8()?;
        let length = usize::from(reader.u16()?);
        let mut body = Reader::new(reader.bytes(length.checked_sub(4).ok_or(WireError::Length)?)?);
        if kind != IPV4_ADDR_RANGE && kind != IPV6_ADDR_RANGE {
            continue;
        }
        let start_port = body.u16()?;
        let end_port = body.u16()?;
        let (start, end) = if kind == IPV4_ADDR_RANGE {
            (IpAddr::from(body.array::<4>()?), IpAddr::from(body.array::<4>()?))
        } else {
            (IpAddr::from(body.array::<16>()?), IpAddr::from(body.array::<16>()?))
        };
        if !body.is_empty() || start > end {
            return Err(WireError::Malformed("traffic selector"));
        }
        selectors.push(TrafficSelector { start, end, protocol, start_port, end_port });
    }
    if reader.is_empty() { Ok(selectors) } else { Err(WireError::Malformed("traffic selector")) }
}

/// At most 255 selectors fit; narrowing and configuration stay below that.
pub(super) fn emit(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
    let selectors = &selectors[..selectors.len().min(u8::MAX.into())];
    out.extend_from_slice(&[u8::try_from(selectors.len()).unwrap_or(u8::MAX), 0, 0, 0]);
    for ts in selectors {
        let (kind, length) = if ts.start.is_ipv4() { (IPV4_ADDR_RANGE, 16) } else { (IPV6_ADDR_RANGE, 40) };
        out.extend_from_slice(&[kind, ts.protocol, 0, length]);
        out.extend_from_slice(&ts.start_port.to_be_bytes());
        out.extend_from_slice(&ts.end_port.to_be_bytes());
        for address in [ts.start, ts.end] {
            match address {
                IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_with_both_families() {
        let mut bytes = vec![2, 0, 0, 0, 7, 6, 0, 16, 0, 80, 0, 90, 10, 0, 0, 0, 10, 0, 0, 255];
        bytes.extend_from_slice(&[8, 0, 0, 40, 0, 0, 0xff, 0xff]);
        bytes.extend_from_slice(&[0xfd; 16]);
        bytes.extend_from_slice(&[0xfe; 16]);
        let parsed = parse(&bytes).unwrap();
        assert_eq!(parsed[0].end, IpAddr::from([10, 0, 0, 255]));
        assert_eq!((parsed[0].protocol, parsed[0].start_port, parsed[0].end_port), (6, 80, 90));
        assert_eq!(parsed[1].start, IpAddr::from([0xfd; 16]));
        let mut out = Vec::new();
        emit(&parsed, &mut out);
        assert_eq!(out, bytes);
    }

    #[test]
    fn unknown_types_are_skipped_and_bad_ranges_refused() {
        assert_eq!(parse(&[1, 0, 0, 0, 9, 0, 0, 5, 1]), Ok(vec![]));
        let backwards = [1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
        assert_eq!(parse(&backwards), Err(WireError::Malformed("traffic selector")));
        assert_eq!(parse(&[2, 0, 0, 0, 9, 0, 0, 5, 1]), Err(WireError::Truncated));
        assert_eq!(parse(&[0, 0, 0, 0, 1]), Err(WireError::Malformed("traffic selector")));
    }
}
