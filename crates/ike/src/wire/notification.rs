//! The notify payload (RFC 7296 section 3.10).

use super::{Protocol, Reader, WireError};

/// Notify message types (RFC 7296 section 3.10.1, RFC 7427).
pub(crate) mod notify {
    pub(crate) const UNSUPPORTED_CRITICAL_PAYLOAD: u16 = 1;
    pub(crate) const INVALID_IKE_SPI: u16 = 4;
    pub(crate) const INVALID_MAJOR_VERSION: u16 = 5;
    pub(crate) const INVALID_SYNTAX: u16 = 7;
    pub(crate) const INVALID_SPI: u16 = 11;
    pub(crate) const NO_PROPOSAL_CHOSEN: u16 = 14;
    pub(crate) const INVALID_KE_PAYLOAD: u16 = 17;
    pub(crate) const AUTHENTICATION_FAILED: u16 = 24;
    pub(crate) const NO_ADDITIONAL_SAS: u16 = 35;
    pub(crate) const TS_UNACCEPTABLE: u16 = 38;
    pub(crate) const TEMPORARY_FAILURE: u16 = 43;
    pub(crate) const CHILD_SA_NOT_FOUND: u16 = 44;
    pub(crate) const INITIAL_CONTACT: u16 = 16384;
    pub(crate) const NAT_DETECTION_SOURCE_IP: u16 = 16388;
    pub(crate) const NAT_DETECTION_DESTINATION_IP: u16 = 16389;
    pub(crate) const COOKIE: u16 = 16390;
    pub(crate) const REKEY_SA: u16 = 16393;
    pub(crate) const SIGNATURE_HASH_ALGORITHMS: u16 = 16431;

    /// The registered name, or the number.
    pub(crate) fn name(kind: u16) -> String {
        match kind {
            UNSUPPORTED_CRITICAL_PAYLOAD => "UNSUPPORTED_CRITICAL_PAYLOAD",
            INVALID_IKE_SPI => "INVALID_IKE_SPI",
            INVALID_MAJOR_VERSION => "INVALID_MAJOR_VERSION",
            INVALID_SYNTAX => "INVALID_SYNTAX",
            9 => "INVALID_MESSAGE_ID",
            INVALID_SPI => "INVALID_SPI",
            NO_PROPOSAL_CHOSEN => "NO_PROPOSAL_CHOSEN",
            INVALID_KE_PAYLOAD => "INVALID_KE_PAYLOAD",
            AUTHENTICATION_FAILED => "AUTHENTICATION_FAILED",
            34 => "SINGLE_PAIR_REQUIRED",
            NO_ADDITIONAL_SAS => "NO_ADDITIONAL_SAS",
            36 => "INTERNAL_ADDRESS_FAILURE",
            37 => "FAILED_CP_REQUIRED",
            TS_UNACCEPTABLE => "TS_UNACCEPTABLE",
            39 => "INVALID_SELECTORS",
            TEMPORARY_FAILURE => "TEMPORARY_FAILURE",
            CHILD_SA_NOT_FOUND => "CHILD_SA_NOT_FOUND",
            other => return format!("error {other}"),
        }
        .to_owned()
    }
}

/// A notification; `protocol` and `spi` name an existing SA or are absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notify<'a> {
    pub(crate) protocol: Option<Protocol>,
    pub(crate) spi: &'a [u8],
    pub(crate) kind: u16,
    pub(crate) data: &'a [u8],
}

impl<'a> Notify<'a> {
    pub(crate) fn new(kind: u16) -> Self {
        Self { protocol: None, spi: &[], kind, data: &[] }
    }

    pub(crate) fn is_error(&self) -> bool {
        self.kind < 16384
    }

    /// The ESP SPI this notification is about.
    pub(crate) fn esp_spi(&self) -> Option<u32> {
        let spi = self.spi.try_into().ok().map(u32::from_be_bytes)?;
        (self.protocol == Some(Protocol::Esp)).then_some(spi)
    }

    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let protocol = reader.u8()?;
        let spi_len = reader.u8()?;
        let kind = reader.u16()?;
        let spi = reader.bytes(spi_len.into())?;
        Ok(Self { protocol: Protocol::from_number(protocol), spi, kind, data: reader.rest() })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.protocol.map_or(0, Protocol::number));
        out.push(u8::try_from(self.spi.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(self.spi);
        out.extend_from_slice(self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let bytes = [3, 4, 0x40, 0x09, 0xde, 0xad, 0xbe, 0xef];
        let parsed = Notify::parse(&bytes).unwrap();
        assert_eq!((parsed.kind, parsed.esp_spi()), (notify::REKEY_SA, Some(0xdead_beef)));
        let mut out = Vec::new();
        parsed.emit(&mut out);
        assert_eq!(out, bytes);
        assert_eq!(Notify::parse(&[3, 4, 0x40, 0x09, 1]), Err(WireError::Truncated));
    }

    #[test]
    fn an_spi_of_another_protocol_or_size_is_no_esp_spi() {
        assert_eq!(Notify::parse(&[1, 4, 0x40, 0x09, 1, 2, 3, 4]).unwrap().esp_spi(), None);
        assert_eq!(Notify::parse(&[3, 2, 0x40, 0x09, 1, 2]).unwrap().esp_spi(), None);
    }
}
