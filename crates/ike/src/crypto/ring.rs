//! [`Crypto`] by `ring`.

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use ring::{aead, agreement, digest, hmac};
use rustls_pki_types::SignatureVerificationAlgorithm;
use zeroize::Zeroizing;

use super::{Aead, Crypto, CryptoError, Group, Prf, PrivateValue};

/// The operating system's randomness and `ring`'s algorithms.
#[derive(Debug)]
pub struct RingCrypto {
    random: SystemRandom,
}

impl RingCrypto {
    /// Ready to use; randomness is first asked for when needed.
    pub fn new() -> Self {
        Self { random: SystemRandom::new() }
    }
}

impl Default for RingCrypto {
    fn default() -> Self {
        Self::new()
    }
}

impl Crypto for RingCrypto {
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        self.random.fill(out).map_err(|_| CryptoError)
    }

    fn generate(&self, group: Group) -> Result<Box<dyn PrivateValue>, CryptoError> {
        let algorithm = algorithm(group);
        let key = agreement::EphemeralPrivateKey::generate(algorithm, &self.random).map_err(|_| CryptoError)?;
        let public = key.compute_public_key().map_err(|_| CryptoError)?;
        let public = match group {
            Group::Curve25519 => public.as_ref(),
            // RFC 5903 section 7: x and y without the octet of the uncompressed point.
            Group::Ecp256 => public.as_ref().get(1..).ok_or(CryptoError)?,
        };
        Ok(Box::new(RingPrivateValue { public: public.to_vec(), group, key }))
    }

    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        let algorithm = match prf {
            Prf::HmacSha256 => hmac::HMAC_SHA256,
            Prf::HmacSha384 => hmac::HMAC_SHA384,
        };
        let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
        for part in parts {
            context.update(part);
        }
        Zeroizing::new(context.sign().as_ref().to_vec())
    }

    fn seal(
        &self,
        aead: Aead,
        key: &[u8],
        nonce: &[u8; 12],
        aad: &[u8],
        in_out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        cipher(aead, key)?.seal_in_place_append_tag(nonce, aead::Aad::from(aad), in_out).map_err(|_| CryptoError)
    }

    fn open(
        &self,
        aead: Aead,
        key: &[u8],
        nonce: &[u8; 12],
        aad: &[u8],
        in_out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let plaintext = cipher(aead, key)?.open_in_place(nonce, aead::Aad::from(aad), in_out);
        let len = plaintext.map_err(|_| CryptoError)?.len();
        in_out.truncate(len);
        Ok(())
    }

    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        for part in parts {
            context.update(part);
        }
        context.finish().as_ref().try_into().unwrap_or_default()
    }

    fn sign(&self, key_pkcs8: &[u8], message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let signature = self.key_pair(key_pkcs8)?.sign(&self.random, message).map_err(|_| CryptoError)?;
        Ok(signature.as_ref().to_vec())
    }

    fn verifiers(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        VERIFIERS
    }
}

/// The public key of a PKCS#8 P-256 key as an uncompressed point.
pub(crate) fn public_key(key_pkcs8: &[u8]) -> Result<Vec<u8>, CryptoError> {
    Ok(RingCrypto::new().key_pair(key_pkcs8)?.public_key().as_ref().to_vec())
}

impl RingCrypto {
    fn key_pair(&self, key_pkcs8: &[u8]) -> Result<EcdsaKeyPair, CryptoError> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key_pkcs8, &self.random).map_err(|_| CryptoError)
    }
}

static VERIFIERS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    #[cfg(feature = "p384")]
    webpki::ring::ECDSA_P384_SHA256,
    #[cfg(feature = "p384")]
    webpki::ring::ECDSA_P384_SHA384,
];

fn algorithm(group: Group) -> &'static agreement::Algorithm {
    match group {
        Group::Curve25519 => &agreement::X25519,
        Group::Ecp256 => &agreement::ECDH_P256,
    }
}

fn cipher(aead: Aead, key: &[u8]) -> Result<aead::LessSafeKey, CryptoError> {
    let algorithm = match aead {
        Aead::Aes128Gcm => &aead::AES_128_GCM,
        Aead::Aes256Gcm => &aead::AES_256_GCM,
        Aead::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    };
    Ok(aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).map_err(|_| CryptoError)?))
}

struct RingPrivateValue {
    group: Group,
    key: agreement::EphemeralPrivateKey,
    public: Vec<u8>,
}

impl PrivateValue for RingPrivateValue {
    fn public(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let point = match self.group {
            Group::Curve25519 => peer.to_vec(),
            Group::Ecp256 => [&[4], peer].concat(),
        };
        let peer = agreement::UnparsedPublicKey::new(algorithm(self.group), point);
        agreement::agree_ephemeral(self.key, &peer, |secret| Zeroizing::new(secret.to_vec())).map_err(|_| CryptoError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// RFC 4231 test cases 2 and 6.
    #[test]
    fn prf_vectors() {
        let crypto = RingCrypto::new();
        let case2 = crypto.prf(Prf::HmacSha256, b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex(&case2), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let case2 = crypto.prf(Prf::HmacSha384, b"Jefe", &[b"what do ya want for nothing?"]);
        assert_eq!(
            hex(&case2),
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"
        );
        let case6 =
            crypto.prf(Prf::HmacSha256, &[0xaa; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"]);
        assert_eq!(hex(&case6), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn sha1_vector() {
        assert_eq!(hex(&RingCrypto::new().sha1(&[b"a", b"bc"])), "a9993e364706816aba3e25717850c26c9cd0d89d");
    }

    #[test]
    fn both_groups_agree_and_refuse_bad_points() {
        let crypto = RingCrypto::new();
        for (group, len) in [(Group::Curve25519, 32), (Group::Ecp256, 64)] {
            let a = crypto.generate(group).unwrap();
            let b = crypto.generate(group).unwrap();
            let (public_a, public_b) = (a.public().to_vec(), b.public().to_vec());
            assert_eq!(public_a.len(), len);
            let secret = a.agree(&public_b).unwrap();
            assert_eq!(secret, b.agree(&public_a).unwrap());
            assert_eq!(secret.len(), 32);
            assert!(crypto.generate(group).unwrap().agree(&vec![0; len]).is_err());
            assert!(crypto.generate(group).unwrap().agree(&public_a[1..]).is_err());
        }
    }
}
