//! The encrypted payload with an AEAD (RFC 7296 section 3.14, RFC 5282, RFC 7634).

use super::{Chain, HEADER_LEN, Header, Payloads, Reader, WireError, chain, payload};
use crate::crypto::{Aead, Crypto};

const IV_LEN: usize = 8;
const TAG_LEN: usize = 16;
const SALT_LEN: usize = 4;

/// Where the encrypted payload of a message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Type of the first payload inside.
    first: u8,
    /// Start of the initialization vector; everything before it is associated data.
    iv_at: usize,
}

impl Sealed {
    /// Finds the encrypted payload, which is the last of its message.
    pub(crate) fn find(first: u8, message: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(message.get(HEADER_LEN..).ok_or(WireError::Truncated)?);
        let mut kind = first;
        let mut at = HEADER_LEN;
        while kind != payload::NONE {
            let (next, critical, body) = chain::raw(&mut reader)?;
            at += 4;
            if kind == payload::SK {
                let complete = reader.is_empty() && body.len() > IV_LEN + TAG_LEN;
                return if complete { Ok(Self { first: next, iv_at: at }) } else { Err(WireError::Malformed("SK")) };
            }
            if critical && !(payload::SA..=payload::EAP).contains(&kind) {
                return Err(WireError::UnknownCritical(kind));
            }
            at += body.len();
            kind = next;
        }
        Err(WireError::Malformed("SK"))
    }

    /// The tag at the message's end: equal tags mean a bit-identical retransmission.
    pub(crate) fn tag(message: &[u8]) -> [u8; TAG_LEN] {
        message.last_chunk().copied().unwrap_or_default()
    }
}

/// The payloads inside the encrypted payload, as bytes for [`Opened::payloads`].
pub(crate) struct Opened {
    first: u8,
    plaintext: Vec<u8>,
}

impl Opened {
    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (u8, Vec<u8>) {
        (self.first, self.plaintext)
    }

    pub(crate) fn payloads(&self) -> Result<Payloads<'_>, WireError> {
        Payloads::parse(self.first, &self.plaintext)
    }
}

/// Checks and decrypts a message. `key` is the key followed by the salt.
pub(crate) fn open(
    crypto: &dyn Crypto,
    aead: Aead,
    key: &[u8],
    sealed: Sealed,
    message: &[u8],
) -> Result<Opened, WireError> {
    let (aad, body) = message.split_at_checked(sealed.iv_at).ok_or(WireError::Truncated)?;
    let (iv, ciphertext) = body.split_first_chunk::<IV_LEN>().ok_or(WireError::Truncated)?;
    let (key, nonce) = key_and_nonce(key, *iv).ok_or(WireError::Integrity)?;
    let mut plaintext = ciphertext.to_vec();
    crypto.open(aead, key, &nonce, aad, &mut plaintext).map_err(|_| WireError::Integrity)?;
    let padding = usize::from(plaintext.pop().ok_or(WireError::Malformed("SK"))?);
    let len = plaintext.len().checked_sub(padding).ok_or(WireError::Malformed("SK"))?;
    plaintext.truncate(len);
    Ok(Opened { first: sealed.first, plaintext })
}

/// The message with `chain` encrypted. `iv` must never repeat under one key.
pub(crate) fn seal(
    crypto: &dyn Crypto,
    aead: Aead,
    key: &[u8],
    iv: u64,
    header: Header,
    chain: &Chain,
) -> Option<Vec<u8>> {
    let (key, nonce) = key_and_nonce(key, iv.to_be_bytes())?;
    // The payloads and an empty padding with its length octet.
    let mut ciphertext = chain.bytes().to_vec();
    ciphertext.push(0);
    let body = 4 + IV_LEN + ciphertext.len() + TAG_LEN;
    let mut message = Vec::with_capacity(HEADER_LEN + body);
    header.emit(payload::SK, body, &mut message);
    message.extend_from_slice(&[chain.first(), 0]);
    message.extend_from_slice(&u16::try_from(body).ok()?.to_be_bytes());
    crypto.seal(aead, key, &nonce, &message, &mut ciphertext).ok()?;
    message.extend_from_slice(&iv.to_be_bytes());
    message.extend_from_slice(&ciphertext);
    Some(message)
}

fn key_and_nonce(key: &[u8], iv: [u8; IV_LEN]) -> Option<(&[u8], [u8; SALT_LEN + IV_LEN])> {
    let (key, salt) = key.split_last_chunk::<SALT_LEN>()?;
    let mut nonce = [0; SALT_LEN + IV_LEN];
    nonce[..SALT_LEN].copy_from_slice(salt);
    nonce[SALT_LEN..].copy_from_slice(&iv);
    Some((key, nonce))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RingCrypto;
    use crate::wire::Exchange;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }

    /// RFC 7634 appendix B: an INFORMATIONAL message that carries SET_WINDOW_SIZE.
    #[test]
    fn rfc_7634_appendix_b() {
        let key = hex(
            "80 81 82 83 84 85 86 87 88 89 8a 8b 8c 8d 8e 8f 90 91 92 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2 a3",
        );
        let header = Header {
            spi_i: 0xc0c1_c2c3_c4c5_c6c7,
            spi_r: 0xd0d1_d2d3_d4d5_d6d7,
            exchange: Exchange::Informational,
            from_initiator: false,
            response: false,
            message_id: 9,
        };
        let mut chain = Chain::new();
        chain.notify(16385, &[0, 0, 0, 10]);
        let message =
            seal(&RingCrypto::new(), Aead::ChaCha20Poly1305, &key, 0x1011_1213_1415_1617, header, &chain).unwrap();
        let expected = hex(
            "c0 c1 c2 c3 c4 c5 c6 c7 d0 d1 d2 d3 d4 d5 d6 d7 2e 20 25 00 00 00 00 09 00 00 00 45 29 00 00 29
             10 11 12 13 14 15 16 17 61 03 94 70 1f 8d 01 7f 7c 12 92 48 89 6b 71 bf e2 52 36 ef d7 cd c6 70 66 90 63 15 b2",
        );
        assert_eq!(message, expected);
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let crypto = RingCrypto::new();
        let key = [3; 36];
        let header = Header {
            spi_i: 1,
            spi_r: 2,
            exchange: Exchange::Informational,
            from_initiator: true,
            response: false,
            message_id: 3,
        };
        let mut chain = Chain::new();
        chain.notify(16384, b"data");
        let message = seal(&crypto, Aead::Aes256Gcm, &key, 7, header, &chain).unwrap();
        let sealed = Sealed::find(payload::SK, &message).unwrap();
        let opened = open(&crypto, Aead::Aes256Gcm, &key, sealed, &message).unwrap();
        assert_eq!(opened.payloads().unwrap().notify(16384).unwrap().data, b"data");
        for bit in 0..message.len() * 8 {
            let mut bad = message.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let result = open(&crypto, Aead::Aes256Gcm, &key, sealed, &bad).map(|_| ());
            assert_eq!(result, Err(WireError::Integrity), "bit {bit}");
        }
    }

    #[test]
    fn only_a_complete_last_payload_is_found() {
        let mut message = vec![0; HEADER_LEN];
        message.extend_from_slice(&[0, 0, 0, 28]);
        message.extend_from_slice(&[0; 24]);
        assert_eq!(Sealed::find(payload::SK, &message), Err(WireError::Malformed("SK")));
        message[HEADER_LEN + 3] = 29;
        message.push(0);
        assert_eq!(Sealed::find(payload::SK, &message), Ok(Sealed { first: 0, iv_at: 32 }));
        message.push(0);
        assert_eq!(Sealed::find(payload::SK, &message), Err(WireError::Malformed("SK")));
        assert_eq!(Sealed::find(99, &[&[0; 28][..], &[0, 0x80, 0, 4]].concat()), Err(WireError::UnknownCritical(99)));
    }
}
