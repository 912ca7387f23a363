//! The cryptographic operations IKE needs, behind one trait.

mod ring;

use std::fmt;

use rustls_pki_types::SignatureVerificationAlgorithm;
use zeroize::Zeroizing;

pub use self::ring::RingCrypto;
pub(crate) use self::ring::public_key;

/// AEAD ciphers, for the IKE SA and for ESP alike: 8 octet IV, 16 octet tag, 4 octet salt behind the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aead {
    /// ENCR_AES_GCM_16 with 128 bit keys (RFC 4106, RFC 5282).
    Aes128Gcm,
    /// ENCR_AES_GCM_16 with 256 bit keys (RFC 4106, RFC 5282).
    Aes256Gcm,
    /// ENCR_CHACHA20_POLY1305 (RFC 7634).
    ChaCha20Poly1305,
}

impl Aead {
    /// Octets of keying material: key and salt.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 20,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 36,
        }
    }
}

/// Pseudorandom functions (RFC 4868).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prf {
    /// PRF_HMAC_SHA2_256.
    HmacSha256,
    /// PRF_HMAC_SHA2_384.
    HmacSha384,
}

impl Prf {
    /// Octets of output, and of the keys derived for it.
    pub fn len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
        }
    }

    /// Never; a PRF has output.
    pub fn is_empty(self) -> bool {
        false
    }
}

/// Key exchange methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Curve25519 (RFC 8031).
    Curve25519,
    /// The 256 bit random ECP group (RFC 5903).
    Ecp256,
}

/// An operation failed: a tag did not verify, a public value is not on its curve, the system has no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptoError;

impl fmt::Display for CryptoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cryptographic operation failed")
    }
}

impl std::error::Error for CryptoError {}

/// Everything cryptographic, so that one library can be replaced by another. All randomness comes through here.
pub trait Crypto: Send {
    /// Fills `out` with random octets.
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError>;

    /// A new private value.
    fn generate(&self, group: Group) -> Result<Box<dyn PrivateValue>, CryptoError>;

    /// `prf(key, parts[0] | parts[1] | ...)`.
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>>;

    /// Encrypts `in_out` and appends the tag. `key` is without the salt.
    fn seal(
        &self,
        aead: Aead,
        key: &[u8],
        nonce: &[u8; 12],
        aad: &[u8],
        in_out: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;

    /// Checks the tag at the end of `in_out`, decrypts and cuts the tag off.
    fn open(
        &self,
        aead: Aead,
        key: &[u8],
        nonce: &[u8; 12],
        aad: &[u8],
        in_out: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;

    /// SHA-1 of the parts, for NAT detection and certificate requests, which RFC 7296 fixes to it.
    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20];

    /// Signs with ECDSA on P-256 with SHA-256; the signature is in DER.
    fn sign(&self, key_pkcs8: &[u8], message: &[u8]) -> Result<Vec<u8>, CryptoError>;

    /// Algorithms for certificate chains and AUTH payloads.
    fn verifiers(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm];
}

/// The private side of a key exchange, usable once.
pub trait PrivateValue: Send {
    /// The public value as the KE payload carries it.
    fn public(&self) -> &[u8];

    /// The shared secret with the peer's public value.
    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError>;
}
