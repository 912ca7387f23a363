//! The authentication payload (RFC 7296 section 3.8, RFC 7427 section 3).

use super::{Reader, WireError};

const ECDSA_P256_SHA256: u8 = 9;
const DIGITAL_SIGNATURE: u8 = 14;

/// How the AUTH data is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthMethod<'a> {
    /// RFC 7427: the DER of an AlgorithmIdentifier, outer SEQUENCE included.
    Signature(&'a [u8]),
    /// RFC 4754: r and s side by side, 32 octets each.
    EcdsaP256Sha256,
    Other(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Auth<'a> {
    pub(crate) method: AuthMethod<'a>,
    pub(crate) value: &'a [u8],
}

impl<'a> Auth<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let method = reader.u8()?;
        reader.bytes(3)?;
        let method = match method {
            DIGITAL_SIGNATURE => {
                let len = reader.u8()?;
                AuthMethod::Signature(reader.bytes(len.into())?)
            }
            ECDSA_P256_SHA256 => AuthMethod::EcdsaP256Sha256,
            other => AuthMethod::Other(other),
        };
        Ok(Self { method, value: reader.rest() })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        match self.method {
            AuthMethod::Signature(algorithm) => {
                out.extend_from_slice(&[DIGITAL_SIGNATURE, 0, 0, 0]);
                out.push(u8::try_from(algorithm.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(algorithm);
            }
            AuthMethod::EcdsaP256Sha256 => out.extend_from_slice(&[ECDSA_P256_SHA256, 0, 0, 0]),
            AuthMethod::Other(other) => out.extend_from_slice(&[other, 0, 0, 0]),
        }
        out.extend_from_slice(self.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        for bytes in [&[14, 0, 0, 0, 2, 0x30, 0, 5, 6][..], &[9, 0, 0, 0, 1, 2], &[2, 0, 0, 0, 1]] {
            let auth = Auth::parse(bytes).unwrap();
            let mut out = Vec::new();
            auth.emit(&mut out);
            assert_eq!(out, bytes);
        }
        assert_eq!(Auth::parse(&[14, 0, 0, 0, 9, 1]), Err(WireError::Truncated));
    }
}
