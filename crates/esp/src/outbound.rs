//! The sending half of a Security Association.

use crate::suite::{Cipher, SaError, Suite, check_spi};
use crate::{HEADROOM, ICV, inner};
use std::fmt;

/// Encrypts inner packets under one SPI, each sequence number once.
pub struct OutboundSa {
    spi: u32,
    /// Of the last packet sealed.
    sequence: u32,
    cipher: Cipher,
}

/// Why an inner packet was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// It is neither IPv4 nor IPv6.
    NotIp,
    /// The buffer has too little room around it.
    NoRoom,
    /// All 2^32 - 1 sequence numbers are used: only a new Security Association helps.
    Exhausted,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SealError::NotIp => "not an IP packet",
            SealError::NoRoom => "buffer too small for the ESP packet",
            SealError::Exhausted => "sequence numbers exhausted",
        })
    }
}

impl std::error::Error for SealError {}

impl OutboundSa {
    /// `key_and_salt` is in the order of KEYMAT (RFC 4106 section 8.1); no copy of it is kept outside the cipher.
    pub fn new(spi: u32, suite: Suite, key_and_salt: &[u8]) -> Result<Self, SaError> {
        Ok(OutboundSa { spi: check_spi(spi)?, sequence: 0, cipher: Cipher::new(suite, key_and_salt)? })
    }

    /// Seals the inner packet `frame[HEADROOM..HEADROOM + len]` in place; the ESP packet is `frame[..returned]`.
    ///
    /// The buffer must reach [`TAILROOM`](crate::TAILROOM) bytes behind the inner packet.
    pub fn seal(&mut self, frame: &mut [u8], len: usize) -> Result<usize, SealError> {
        let padding = len.wrapping_add(2).wrapping_neg() & 3;
        let sealed = len.checked_add(HEADROOM + padding + 2 + ICV).ok_or(SealError::NoRoom)?;
        let frame = frame.get_mut(..sealed).ok_or(SealError::NoRoom)?;
        let end = sealed - ICV;
        let next_header = inner::next_header(&frame[HEADROOM..HEADROOM + len]).ok_or(SealError::NotIp)?;
        self.sequence = self.sequence.checked_add(1).ok_or(SealError::Exhausted)?;

        let mut header = [0; 8];
        header[..4].copy_from_slice(&self.spi.to_be_bytes());
        header[4..].copy_from_slice(&self.sequence.to_be_bytes());
        let iv = u64::from(self.sequence).to_be_bytes();
        frame[..8].copy_from_slice(&header);
        frame[8..HEADROOM].copy_from_slice(&iv);
        let trailer = &mut frame[HEADROOM + len..end];
        trailer[..padding].copy_from_slice(&[1, 2, 3][..padding]);
        trailer[padding] = padding as u8;
        trailer[padding + 1] = next_header;

        let icv = self.cipher.seal(header, iv, &mut frame[HEADROOM..end]).ok_or(SealError::NoRoom)?;
        frame[end..].copy_from_slice(icv.as_ref());
        Ok(sealed)
    }

    /// The SPI the peer chose.
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// Sequence number of the last packet sealed.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    #[cfg(test)]
    pub(crate) fn set_sequence(&mut self, sequence: u32) {
        self.sequence = sequence;
    }
}
