//! What a device needs to ask for a certificate: a key of its own, and a request signed by it (PKCS #10, RFC 2986).

use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use zeroize::Zeroizing;

use crate::auth::ECDSA_WITH_SHA256;
use crate::crypto::{Crypto as _, CryptoError, RingCrypto, public_key};
use crate::der;

/// Version 0 and an empty subject: who the key belongs to is for the authority to say.
const VERSION_AND_SUBJECT: [u8; 5] = [0x02, 1, 0, 0x30, 0];

/// No attributes.
const ATTRIBUTES: [u8; 2] = [0xa0, 0];

/// AlgorithmIdentifier of an elliptic curve key on P-256 (RFC 5480 section 2.1.1).
const P256: [u8; 21] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];

/// A new ECDSA key on P-256, as PKCS #8 in PEM.
pub fn new_key() -> Result<Zeroizing<String>, CryptoError> {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
    Ok(pem("PRIVATE KEY", key.map_err(|_| CryptoError)?.as_ref()))
}

/// A request for a certificate for this key, both in PEM.
pub fn certificate_request(key: &str) -> Result<String, CryptoError> {
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use rustls_pki_types::pem::PemObject as _;
    use zeroize::Zeroize as _;
    let mut key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).map_err(|_| CryptoError)?;
    let request = request(key.secret_pkcs8_der());
    key.zeroize();
    Ok(pem("CERTIFICATE REQUEST", &request?).to_string())
}

fn request(key_pkcs8: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let key = der::sequence(&[&P256[..], &bit_string(&public_key(key_pkcs8)?)].concat());
    let info = der::sequence(&[&VERSION_AND_SUBJECT[..], &key, &ATTRIBUTES].concat());
    let signature = RingCrypto::new().sign(key_pkcs8, &info)?;
    Ok(der::sequence(&[&info[..], &ECDSA_WITH_SHA256, &bit_string(&signature)].concat()))
}

/// SHA-256 (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap_or_default()
}

/// Whole octets, fewer than 127 of them.
fn bit_string(octets: &[u8]) -> Vec<u8> {
    [&[0x03, u8::try_from(octets.len() + 1).unwrap_or_default(), 0], octets].concat()
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Reserved at once: what is copied on the way of growing would stay in memory.
    let mut text = Zeroizing::new(String::with_capacity(der.len() * 3 / 2 + 100));
    for part in ["-----BEGIN ", label, "-----\n"] {
        text.push_str(part);
    }
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let octet = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
            let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
            for i in 0..4 {
                let digit = char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]);
                text.push(if i <= group.len() { digit } else { '=' });
            }
        }
        text.push('\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_signed_by_its_key_and_claims_nothing() {
        use rustls_pki_types::CertificateSigningRequestDer;
        use rustls_pki_types::pem::PemObject as _;
        let key = new_key().unwrap();
        let text = certificate_request(&key).unwrap();
        let request = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).unwrap();
        // This verifies the signature, too.
        let parsed = rcgen::CertificateSigningRequestParams::from_der(&request).unwrap();
        assert_eq!(parsed.params.distinguished_name, rcgen::DistinguishedName::new());
        assert_eq!(parsed.params.subject_alt_names, []);
        let pair = rcgen::KeyPair::from_pem(&key).unwrap();
        assert_eq!(rcgen::PublicKeyData::der_bytes(&parsed.public_key), rcgen::PublicKeyData::der_bytes(&pair));
        assert_ne!(new_key().unwrap(), key);
        assert!(certificate_request("").is_err());
    }

    #[test]
    fn pem_of_every_length_is_read_again() {
        use rustls_pki_types::CertificateDer;
        use rustls_pki_types::pem::PemObject as _;
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length).collect();
            let text = pem("CERTIFICATE", &bytes);
            assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), bytes, "{length}");
        }
    }
}
