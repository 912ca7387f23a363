//! The key exchange payload (RFC 7296 section 3.4).

use super::{Reader, WireError};

/// A public value of a key exchange method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ke<'a> {
    pub(crate) group: u16,
    pub(crate) data: &'a [u8],
}

impl<'a> Ke<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let group = reader.u16()?;
        reader.u16()?;
        Ok(Self { group, data: reader.rest() })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.group.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let bytes = [0, 31, 0, 0, 9, 8, 7];
        let ke = Ke::parse(&bytes).unwrap();
        assert_eq!(ke, Ke { group: 31, data: &[9, 8, 7] });
        let mut out = Vec::new();
        ke.emit(&mut out);
        assert_eq!(out, bytes);
        assert_eq!(Ke::parse(&[0, 31, 0]), Err(WireError::Truncated));
    }
}
