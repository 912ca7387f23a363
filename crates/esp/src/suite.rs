//! The AEADs of RFC 4106 and RFC 7634, keyed as IKE's KEYMAT gives it: key, then four bytes of salt.

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use zeroize::Zeroizing;

/// What encrypts the packets of a Security Association. All carry an eight-byte IV and a 16-byte ICV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// AES-GCM with a 128-bit key (RFC 4106).
    Aes128Gcm,
    /// AES-GCM with a 256-bit key (RFC 4106).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
}

const SALT: usize = 4;

impl Suite {
    /// Length in bytes of key and salt together.
    pub const fn keymat_len(self) -> usize {
        match self {
            Suite::Aes128Gcm => 16 + SALT,
            Suite::Aes256Gcm | Suite::ChaCha20Poly1305 => 32 + SALT,
        }
    }

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Suite::Aes128Gcm => &aead::AES_128_GCM,
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }
}

/// Why a Security Association cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaError {
    /// The keying material has another length than the suite asks for.
    KeyLength {
        /// Bytes wanted, salt included.
        want: usize,
        /// Bytes given.
        got: usize,
    },
    /// SPIs 0 to 255 are reserved (RFC 4303 section 2.1).
    ReservedSpi(u32),
}

impl fmt::Display for SaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SaError::KeyLength { want, got } => write!(f, "keying material is {got} bytes long, expected {want}"),
            SaError::ReservedSpi(spi) => write!(f, "SPI {spi} is reserved"),
        }
    }
}

impl std::error::Error for SaError {}

pub(crate) fn check_spi(spi: u32) -> Result<u32, SaError> {
    if spi < 256 { Err(SaError::ReservedSpi(spi)) } else { Ok(spi) }
}

/// One direction's key, bound to the nonce `salt || IV` and the additional data `SPI || sequence number`.
pub(crate) struct Cipher {
    key: LessSafeKey,
    salt: Zeroizing<[u8; SALT]>,
}

impl Cipher {
    pub(crate) fn new(suite: Suite, key_and_salt: &[u8]) -> Result<Self, SaError> {
        let wrong = SaError::KeyLength { want: suite.keymat_len(), got: key_and_salt.len() };
        let (key, salt) = key_and_salt.split_last_chunk::<SALT>().ok_or(wrong)?;
        let key = UnboundKey::new(suite.algorithm(), key).map_err(|_| wrong)?;
        Ok(Cipher { key: LessSafeKey::new(key), salt: Zeroizing::new(*salt) })
    }

    /// Encrypts `text` in place and returns its ICV; `None` only for a text longer than the AEAD can take (64 GiB).
    pub(crate) fn seal(&self, header: [u8; 8], iv: [u8; 8], text: &mut [u8]) -> Option<aead::Tag> {
        self.key.seal_in_place_separate_tag(self.nonce(iv), Aad::from(header), text).ok()
    }

    /// Decrypts `text` in place; false if the ICV does not match.
    pub(crate) fn open(&self, header: [u8; 8], iv: [u8; 8], text: &mut [u8], icv: aead::Tag) -> bool {
        self.key.open_in_place_separate_tag(self.nonce(iv), Aad::from(header), icv, text, 0..).is_ok()
    }

    fn nonce(&self, iv: [u8; 8]) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..SALT].copy_from_slice(&*self.salt);
        nonce[SALT..].copy_from_slice(&iv);
        Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    /// Key, nonce (salt and IV), SPI and sequence number, padded plaintext, ciphertext, ICV.
    struct Vector(Suite, &'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

    const VECTORS: &[Vector] = &[
        // draft-mcgrew-gcm-test-01, the cases with 128- and 256-bit keys and 32-bit sequence numbers.
        Vector(
            Suite::Aes128Gcm,
            "feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "0000a5f80000000a",
            "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d001000001000000000000037369700963796265726369\
             747902646b00000100010001",
            "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0eec416642cfbb85a5\
             b47e48a4ec3b9ba95d918bd1",
            "83b70d3aa8bc6ee4c309e9d85a41ad4a",
        ),
        Vector(
            Suite::Aes128Gcm,
            "7d773d00c144c525ac619d18c84a3f47",
            "d966426743457e9182443bc6",
            "335467aeffffffff",
            "01020201",
            "437f866b",
            "cb3f699fe9b0822bac961c4504bef270",
        ),
        Vector(
            Suite::Aes256Gcm,
            "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
            "112233440102030405060708",
            "4a2cbfe300000002",
            "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201",
            "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8e",
            "b335f4eecfdbf831824b4c4915956c96",
        ),
        // RFC 7634 appendix A.
        Vector(
            Suite::ChaCha20Poly1305,
            "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
            "a0a1a2a31011121314151617",
            "0102030400000005",
            "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f1011121314151617\
             18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204",
            "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c\
             4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0",
            "76aaa8266b7fb0f7b11b369907e1ad43",
        ),
    ];

    #[test]
    fn published_vectors_seal_and_open() {
        for Vector(suite, key, nonce, header, plain, ciphertext, icv) in VECTORS {
            let (salt, iv) = nonce.split_at(8);
            let cipher = Cipher::new(*suite, &hex(&format!("{key}{salt}"))).unwrap();
            let header: [u8; 8] = hex(header).try_into().unwrap();
            let iv: [u8; 8] = hex(iv).try_into().unwrap();
            let mut text = hex(plain);
            let tag = cipher.seal(header, iv, &mut text).unwrap();
            assert_eq!((&text, tag.as_ref()), (&hex(ciphertext), &hex(icv)[..]));
            assert!(cipher.open(header, iv, &mut text, tag));
            assert_eq!(text, hex(plain));
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let want = suite.keymat_len();
            for got in [0, 3, 4, want - 1, want + 1] {
                let error = Cipher::new(suite, &vec![1; got]).err();
                assert_eq!(error, Some(SaError::KeyLength { want, got }));
            }
            assert!(Cipher::new(suite, &vec![1; want]).is_ok());
        }
    }
}
