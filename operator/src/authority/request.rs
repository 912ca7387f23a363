//! What a device asks a certificate for: the public half of a key that never leaves it (PKCS #10, RFC 2986).

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::{FromDer, parse_x509_pem};

use super::{Result, error};

/// More than any request for a P-256 key needs.
pub(crate) const MAX_REQUEST: usize = 4096;

/// The key of a request in PEM, whose holder signed it. Whatever else the request asks for (subject, names, extensions)
/// is passed over: a certificate says what the authority knows, never what somebody wishes.
pub(crate) fn requested_key(pem: &str) -> Result<SubjectPublicKeyInfo> {
    if pem.len() > MAX_REQUEST {
        return error(format!("the request is longer than {MAX_REQUEST} bytes"));
    }
    let Ok((_, pem)) = parse_x509_pem(pem.as_bytes()) else { return error("the request is no PEM") };
    let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents) else {
        return error("the request cannot be read");
    };
    let key = &request.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return error("the request is not for an ECDSA key on P-256");
    }
    if request.verify_signature().is_err() {
        return error("the request is not signed by its key");
    }
    Ok(SubjectPublicKeyInfo::from_der(key.raw)?)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PublicKeyData};

    use super::*;

    fn request(key: &KeyPair) -> String {
        CertificateParams::new(vec!["beijing.connector".to_owned()])
            .unwrap()
            .serialize_request(key)
            .unwrap()
            .pem()
            .unwrap()
    }

    #[test]
    fn the_key_is_all_that_is_taken() {
        let key = KeyPair::generate().unwrap();
        assert_eq!(requested_key(&request(&key)).unwrap().der_bytes(), key.der_bytes());
    }

    #[test]
    fn what_is_no_request_of_the_holder_is_refused() {
        let refused = |pem: &str| requested_key(pem).unwrap_err().to_string();
        let good = request(&KeyPair::generate().unwrap());
        // Within the key, behind its algorithm.
        let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
        let last = if lines[2].ends_with('A') { "B" } else { "A" };
        lines[2].replace_range(63.., last);
        assert_eq!(refused(&lines.join("\n")), "the request is not signed by its key");
        assert_eq!(refused(""), "the request is no PEM");
        assert_eq!(refused(&"x".repeat(MAX_REQUEST + 1)), "the request is longer than 4096 bytes");
        let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        assert_eq!(refused(&request(&other)), "the request is not for an ECDSA key on P-256");
    }
}
