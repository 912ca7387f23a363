//! The certificate and certificate request payloads, which share one format (RFC 7296 sections 3.6 and 3.7).

use super::{Reader, WireError};

/// X.509 Certificate - Signature: one DER certificate, or in a request the concatenated SHA-1 hashes of CA keys.
pub(crate) const CERT_X509_SIGNATURE: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cert<'a> {
    pub(crate) encoding: u8,
    pub(crate) data: &'a [u8],
}

impl<'a> Cert<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        Ok(Self { encoding: reader.u8()?, data: reader.rest() })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.encoding);
        out.extend_from_slice(self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let cert = Cert::parse(&[4, 0x30, 1]).unwrap();
        assert_eq!(cert, Cert { encoding: CERT_X509_SIGNATURE, data: &[0x30, 1] });
        let mut out = Vec::new();
        cert.emit(&mut out);
        assert_eq!(out, [4, 0x30, 1]);
        assert_eq!(Cert::parse(&[]), Err(WireError::Truncated));
    }
}
