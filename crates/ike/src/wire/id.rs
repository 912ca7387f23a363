//! The identification payloads (RFC 7296 section 3.5).

use super::{Reader, WireError};

const FQDN: u8 = 2;
const DER_ASN1_DN: u8 = 9;

/// An identity. The body without the generic header is what the AUTH payload signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Id<'a> {
    Fqdn(&'a str),
    /// The DER of a distinguished name, outer SEQUENCE included.
    Dn(&'a [u8]),
    Other(u8, &'a [u8]),
}

impl<'a> Id<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let kind = reader.u8()?;
        reader.bytes(3)?;
        let data = reader.rest();
        Ok(match kind {
            FQDN => match std::str::from_utf8(data) {
                Ok(name) if is_printable(name) => Self::Fqdn(name),
                _ => Self::Other(FQDN, data),
            },
            DER_ASN1_DN => Self::Dn(data),
            _ => Self::Other(kind, data),
        })
    }

    /// The payload body, `RestOfIDPayload` of RFC 7296 section 2.15. Reserved octets are zero as every sender sets them.
    pub(crate) fn body(&self) -> Vec<u8> {
        let (kind, data) = match *self {
            Self::Fqdn(name) => (FQDN, name.as_bytes()),
            Self::Dn(der) => (DER_ASN1_DN, der),
            Self::Other(kind, data) => (kind, data),
        };
        let mut body = vec![kind, 0, 0, 0];
        body.extend_from_slice(data);
        body
    }
}

/// A DNS name is this; anything else might not even be fit to be shown.
fn is_printable(name: &str) -> bool {
    name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let bytes = b"\x02\0\0\0beijing.edge-1";
        let id = Id::parse(bytes).unwrap();
        assert_eq!(id, Id::Fqdn("beijing.edge-1"));
        assert_eq!(id.body(), bytes);
        assert_eq!(Id::parse(&[9, 0, 0, 0, 0x30, 0]), Ok(Id::Dn(&[0x30, 0])));
        assert_eq!(Id::parse(&[1, 0, 0, 0, 10, 0, 0, 1]), Ok(Id::Other(1, &[10, 0, 0, 1])));
        for name in [b"\x02\0\0\0a\nb".to_vec(), [&[2, 0, 0, 0][..], &[b'a'; 256]].concat()] {
            assert_eq!(Id::parse(&name), Ok(Id::Other(2, &name[4..])));
        }
        assert_eq!(Id::parse(&[2, 0]), Err(WireError::Truncated));
    }
}
