//! The receiving half of a Security Association.

use crate::replay::ReplayWindow;
use crate::suite::{Cipher, SaError, Suite, check_spi};
use crate::{HEADROOM, ICV, inner};
use std::fmt;
use std::ops::Range;

/// Decrypts the packets of one SPI, each once.
pub struct InboundSa {
    spi: u32,
    cipher: Cipher,
    window: ReplayWindow,
}

/// Why an ESP packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Too short for ESP.
    Short,
    /// It carries another SPI.
    WrongSpi,
    /// Its sequence number was seen before or lies left of the window.
    Replayed,
    /// Its ICV does not match.
    Unauthentic,
    /// A dummy packet (RFC 4303 section 2.6): authentic and to be thrown away.
    Dummy,
    /// Authentic, but what it carries is no IP packet that agrees with its next header, padding and lengths.
    Malformed,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenError::Short => "too short for ESP",
            OpenError::WrongSpi => "another SPI",
            OpenError::Replayed => "replayed",
            OpenError::Unauthentic => "not authentic",
            OpenError::Dummy => "a dummy packet",
            OpenError::Malformed => "malformed inner packet",
        })
    }
}

impl std::error::Error for OpenError {}

/// Pad length and next header.
const TRAILER: usize = 2;

impl InboundSa {
    /// `key_and_salt` is in the order of KEYMAT (RFC 4106 section 8.1); no copy of it is kept outside the cipher.
    pub fn new(spi: u32, suite: Suite, key_and_salt: &[u8]) -> Result<Self, SaError> {
        let cipher = Cipher::new(suite, key_and_salt)?;
        Ok(InboundSa { spi: check_spi(spi)?, cipher, window: ReplayWindow::default() })
    }

    /// Opens an ESP packet in place and says where in `packet` the inner packet lies and whether its sequence number
    /// is the highest so far.
    ///
    /// The inner packet ends where its own header says: what follows is traffic flow padding. On an error `packet`
    /// may be overwritten.
    pub fn open(&mut self, packet: &mut [u8]) -> Result<(Range<usize>, bool), OpenError> {
        let (header, rest) = packet.split_first_chunk_mut::<8>().ok_or(OpenError::Short)?;
        let (iv, rest) = rest.split_first_chunk_mut::<8>().ok_or(OpenError::Short)?;
        let (text, icv) = rest.split_last_chunk_mut::<ICV>().ok_or(OpenError::Short)?;
        if text.len() < TRAILER {
            return Err(OpenError::Short);
        }
        let [s0, s1, s2, s3, n0, n1, n2, n3] = *header;
        if u32::from_be_bytes([s0, s1, s2, s3]) != self.spi {
            return Err(OpenError::WrongSpi);
        }
        let sequence = u32::from_be_bytes([n0, n1, n2, n3]);
        if !self.window.is_new(sequence) {
            return Err(OpenError::Replayed);
        }
        if !self.cipher.open(*header, *iv, text, (*icv).into()) {
            return Err(OpenError::Unauthentic);
        }
        let advanced = self.window.accept(sequence);

        let [body @ .., pad_len, next_header] = &*text else { return Err(OpenError::Malformed) };
        let body_len = body.len().checked_sub(usize::from(*pad_len)).ok_or(OpenError::Malformed)?;
        let body = &body[..body_len];
        if *next_header == inner::NEXT_NONE {
            return Err(OpenError::Dummy);
        }
        if inner::next_header(body) != Some(*next_header) {
            return Err(OpenError::Malformed);
        }
        let len = inner::total_len(body).ok_or(OpenError::Malformed)?;
        Ok((HEADROOM..HEADROOM + len, advanced))
    }

    /// The SPI chosen here.
    pub fn spi(&self) -> u32 {
        self.spi
    }
}
