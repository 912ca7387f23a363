//! The IKE header (RFC 7296 section 3.1).

use super::{Reader, WireError};

/// Octets of the IKE header.
pub(crate) const HEADER_LEN: usize = 28;

const VERSION: u8 = 0x20;
const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;

/// Exchange types (RFC 7296 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    IkeSaInit,
    IkeAuth,
    CreateChildSa,
    Informational,
    Other(u8),
}

impl From<u8> for Exchange {
    fn from(value: u8) -> Self {
        match value {
            34 => Self::IkeSaInit,
            35 => Self::IkeAuth,
            36 => Self::CreateChildSa,
            37 => Self::Informational,
            other => Self::Other(other),
        }
    }
}

impl From<Exchange> for u8 {
    fn from(value: Exchange) -> Self {
        match value {
            Exchange::IkeSaInit => 34,
            Exchange::IkeAuth => 35,
            Exchange::CreateChildSa => 36,
            Exchange::Informational => 37,
            Exchange::Other(other) => other,
        }
    }
}

/// The fixed header of a message, without next payload and length, which belong to the bytes that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) spi_i: u64,
    pub(crate) spi_r: u64,
    pub(crate) exchange: Exchange,
    /// The sender is the original initiator of the IKE SA.
    pub(crate) from_initiator: bool,
    pub(crate) response: bool,
    pub(crate) message_id: u32,
}

impl Header {
    /// The header and the type of the first payload. The message must be exactly as long as the header says.
    pub(crate) fn parse(message: &[u8]) -> Result<(Self, u8), WireError> {
        let mut reader = Reader::new(message);
        let spi_i = reader.u64()?;
        let spi_r = reader.u64()?;
        let next = reader.u8()?;
        let version = reader.u8()?;
        let exchange = Exchange::from(reader.u8()?);
        let flags = reader.u8()?;
        let message_id = reader.u32()?;
        let length = reader.u32()?;
        let header = Self {
            spi_i,
            spi_r,
            exchange,
            from_initiator: flags & FLAG_INITIATOR != 0,
            response: flags & FLAG_RESPONSE != 0,
            message_id,
        };
        if version >> 4 != VERSION >> 4 {
            return Err(WireError::Version(version >> 4));
        }
        if usize::try_from(length) != Ok(message.len()) {
            return Err(WireError::Length);
        }
        Ok((header, next))
    }

    /// Appends the header of a message whose payloads take `body` octets.
    pub(crate) fn emit(&self, next: u8, body: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.spi_i.to_be_bytes());
        out.extend_from_slice(&self.spi_r.to_be_bytes());
        let initiator = if self.from_initiator { FLAG_INITIATOR } else { 0 };
        let response = if self.response { FLAG_RESPONSE } else { 0 };
        out.extend_from_slice(&[next, VERSION, self.exchange.into(), initiator | response]);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        let length = u32::try_from(HEADER_LEN + body).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 28] =
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 46, 0x20, 35, 0x08, 0, 0, 0, 1, 0, 0, 0, 28];

    fn header() -> Header {
        Header {
            spi_i: 0x0102_0304_0506_0708,
            spi_r: 0x090a_0b0c_0d0e_0f10,
            exchange: Exchange::IkeAuth,
            from_initiator: true,
            response: false,
            message_id: 1,
        }
    }

    #[test]
    fn parse_and_emit_agree_with_the_bytes() {
        assert_eq!(Header::parse(&BYTES), Ok((header(), 46)));
        let mut out = Vec::new();
        header().emit(46, 0, &mut out);
        assert_eq!(out, BYTES);
    }

    #[test]
    fn wrong_length_version_or_size_is_refused() {
        let mut long = BYTES.to_vec();
        long.push(0);
        assert_eq!(Header::parse(&long), Err(WireError::Length));
        assert_eq!(Header::parse(&BYTES[..27]), Err(WireError::Truncated));
        let mut v3 = BYTES;
        v3[17] = 0x30;
        assert_eq!(Header::parse(&v3), Err(WireError::Version(3)));
        let mut minor = BYTES;
        minor[17] = 0x21;
        assert!(Header::parse(&minor).is_ok());
    }
}
