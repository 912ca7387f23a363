//! The security association payload: proposals and transforms (RFC 7296 section 3.3).

use super::{Reader, WireError};

/// Transform types (RFC 7296 section 3.3.2).
pub(crate) mod transform {
    pub(crate) const ENCR: u8 = 1;
    pub(crate) const PRF: u8 = 2;
    pub(crate) const INTEG: u8 = 3;
    pub(crate) const KE: u8 = 4;
    pub(crate) const ESN: u8 = 5;
}

const LAST_PROPOSAL: u8 = 0;
const MORE_PROPOSALS: u8 = 2;
const LAST_TRANSFORM: u8 = 0;
const MORE_TRANSFORMS: u8 = 3;
/// Attribute type 14 (key length) in type/value format.
const KEY_LENGTH: u16 = 0x8000 | 14;

/// What an SA is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Ike,
    Ah,
    Esp,
}

impl Protocol {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Ike => 1,
            Self::Ah => 2,
            Self::Esp => 3,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Ike, Self::Ah, Self::Esp].into_iter().find(|protocol| protocol.number() == number)
    }
}

/// One algorithm of a proposal. Transforms with attributes other than the key length are dropped when parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transform {
    pub(crate) kind: u8,
    pub(crate) id: u16,
    pub(crate) key_bits: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) number: u8,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) spi: Vec<u8>,
    pub(crate) transforms: Vec<Transform>,
}

pub(super) fn parse(body: &[u8]) -> Result<Vec<Proposal>, WireError> {
    let mut reader = Reader::new(body);
    let mut proposals = Vec::new();
    loop {
        let more = reader.u8()?;
        reader.u8()?;
        let length = usize::from(reader.u16()?).checked_sub(4).ok_or(WireError::Length)?;
        proposals.push(proposal(reader.bytes(length)?)?);
        match (more, reader.is_empty()) {
            (MORE_PROPOSALS, false) => {}
            (LAST_PROPOSAL, true) => return Ok(proposals),
            _ => return Err(WireError::Malformed("SA")),
        }
    }
}

fn proposal(body: &[u8]) -> Result<Proposal, WireError> {
    let mut reader = Reader::new(body);
    let number = reader.u8()?;
    let protocol = Protocol::from_number(reader.u8()?);
    let spi_len = reader.u8()?;
    let count = reader.u8()?;
    let spi = reader.bytes(spi_len.into())?.to_vec();
    let mut transforms = Vec::new();
    for i in 1..=count {
        let more = reader.u8()?;
        if more != if i == count { LAST_TRANSFORM } else { MORE_TRANSFORMS } {
            return Err(WireError::Malformed("SA"));
        }
        reader.u8()?;
        let length = usize::from(reader.u16()?).checked_sub(4).ok_or(WireError::Length)?;
        transforms.extend(parse_transform(reader.bytes(length)?)?);
    }
    if reader.is_empty() { Ok(Proposal { number, protocol, spi, transforms }) } else { Err(WireError::Malformed("SA")) }
}

fn parse_transform(body: &[u8]) -> Result<Option<Transform>, WireError> {
    let mut reader = Reader::new(body);
    let kind = reader.u8()?;
    reader.u8()?;
    let mut transform = Transform { kind, id: reader.u16()?, key_bits: None };
    let mut understood = true;
    while !reader.is_empty() {
        let attribute = reader.u16()?;
        let value = reader.u16()?;
        if attribute == KEY_LENGTH {
            transform.key_bits = Some(value);
        } else {
            understood = false;
            if attribute & 0x8000 == 0 {
                reader.bytes(value.into())?;
            }
        }
    }
    Ok(understood.then_some(transform))
}

pub(super) fn emit(proposals: &[Proposal], out: &mut Vec<u8>) {
    for (i, proposal) in proposals.iter().enumerate() {
        let start = out.len();
        out.extend_from_slice(&[if i + 1 == proposals.len() { LAST_PROPOSAL } else { MORE_PROPOSALS }, 0, 0, 0]);
        out.push(proposal.number);
        out.push(proposal.protocol.map_or(0, Protocol::number));
        out.push(u8::try_from(proposal.spi.len()).unwrap_or(u8::MAX));
        out.push(u8::try_from(proposal.transforms.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&proposal.spi);
        for (i, transform) in proposal.transforms.iter().enumerate() {
            let more = if i + 1 == proposal.transforms.len() { LAST_TRANSFORM } else { MORE_TRANSFORMS };
            let length = if transform.key_bits.is_some() { 12 } else { 8 };
            out.extend_from_slice(&[more, 0, 0, length, transform.kind, 0]);
            out.extend_from_slice(&transform.id.to_be_bytes());
            if let Some(bits) = transform.key_bits {
                out.extend_from_slice(&KEY_LENGTH.to_be_bytes());
                out.extend_from_slice(&bits.to_be_bytes());
            }
        }
        let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
        out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two proposals: ESP with an SPI, AES-GCM-16 with 256 bit keys and no ESN; the same with ChaCha20-Poly1305.
    const BYTES: [u8; 60] = [
        2, 0, 0, 32, 1, 3, 4, 2, 0xde, 0xad, 0xbe, 0xef, 3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0, 0, 0, 0, 8, 5, 0, 0,
        0, //
        0, 0, 0, 28, 2, 3, 4, 2, 0xde, 0xad, 0xbe, 0xef, 3, 0, 0, 8, 1, 0, 0, 28, 0, 0, 0, 8, 5, 0, 0, 0,
    ];

    #[test]
    fn bytes_round_trip() {
        let proposals = parse(&BYTES).unwrap();
        assert_eq!(proposals.len(), 2);
        assert_eq!(proposals[0].transforms[0], Transform { kind: 1, id: 20, key_bits: Some(256) });
        assert_eq!(proposals[1].transforms[0], Transform { kind: 1, id: 28, key_bits: None });
        assert_eq!((proposals[1].number, proposals[1].spi.as_slice()), (2, &[0xde, 0xad, 0xbe, 0xef][..]));
        let mut out = Vec::new();
        emit(&proposals, &mut out);
        assert_eq!(out, BYTES);
    }

    #[test]
    fn a_transform_with_an_unknown_attribute_is_dropped() {
        let bytes = [0, 0, 0, 22, 1, 1, 0, 1, 0, 0, 0, 14, 1, 0, 0, 20, 0, 99, 0, 2, 1, 2];
        assert_eq!(parse(&bytes).unwrap()[0].transforms, []);
    }

    #[test]
    fn cut_and_inconsistent_bytes_are_refused() {
        for len in 0..BYTES.len() {
            assert!(parse(&BYTES[..len]).is_err(), "{len}");
        }
        let mut more = BYTES;
        more[32] = 2;
        assert_eq!(parse(&more), Err(WireError::Malformed("SA")));
        let mut count = BYTES;
        count[7] = 1;
        assert_eq!(parse(&count), Err(WireError::Malformed("SA")));
    }
}
