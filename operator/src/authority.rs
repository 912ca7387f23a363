//! The certificate authority: ECDSA P-256 (RFC 5480), one certificate per node with its fabric name as `dNSName`.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, parse_x509_pem};

use crate::core::renewal::Validity;

/// Validity of the authority's own certificate.
const AUTHORITY_DAYS: u32 = 3650;

/// Key and certificate that sign all others.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    validity: Validity,
}

/// What a node proves its name with, and checks its peers with. PEM; the key is PKCS #8.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Without the key.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Why a key or certificate cannot be made or used.
#[derive(Debug)]
pub(crate) struct AuthorityError(String);

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AuthorityError {}

type Result<T> = std::result::Result<T, AuthorityError>;

fn error<T>(message: impl Into<String>) -> Result<T> {
    Err(AuthorityError(message.into()))
}

impl From<rcgen::Error> for AuthorityError {
    fn from(e: rcgen::Error) -> Self {
        AuthorityError(e.to_string())
    }
}

impl Authority {
    /// A new authority and its key as PEM.
    pub(crate) fn create(cluster: &str, now: SystemTime) -> Result<(Authority, String)> {
        let key = KeyPair::generate()?;
        let mut params = params(&format!("Selvedge CA {cluster}"), Validity::from_now(now, AUTHORITY_DAYS))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        Ok((Authority::load(&pem, &key_pem)?, key_pem))
    }

    pub(crate) fn load(pem: &str, key: &str) -> Result<Authority> {
        let key = KeyPair::from_pem(key).map_err(|e| AuthorityError(format!("the authority's key: {e}")))?;
        let validity = with_certificate(pem, |certificate| {
            if !certificate.is_ca() {
                return error("the authority's certificate is not one of an authority");
            }
            if certificate.public_key().subject_public_key.data != key.der_bytes() {
                return error("the authority's key does not belong to its certificate");
            }
            Ok(validity(certificate))
        })?;
        Ok(Authority { issuer: Issuer::from_ca_cert_pem(pem, key)?, pem: pem.to_owned(), validity })
    }

    /// The authority's certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// A fresh key and a certificate for it. It never outlives the authority.
    pub(crate) fn issue(&self, name: &str, now: SystemTime, days: u32) -> Result<Credentials> {
        if now >= self.validity.not_after {
            return error("the authority's own certificate has expired");
        }
        let mut validity = Validity::from_now(now, days);
        validity.not_after = validity.not_after.min(self.validity.not_after);
        // The serial number is a digest of the new random key, so it is as random as that.
        let key = KeyPair::generate()?;
        let mut params = params(name, validity)?;
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName(name.try_into().map_err(|e: rcgen::Error| AuthorityError(e.to_string()))?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Credentials { ca: self.pem.clone(), certificate, key: key.serialize_pem() })
    }

    /// The validity of credentials that this authority issued for this name; an error says why they are of no use.
    pub(crate) fn check(&self, name: &str, credentials: &Credentials) -> Result<Validity> {
        if credentials.ca != self.pem {
            return error("they belong to another authority");
        }
        let key = KeyPair::from_pem(&credentials.key).or_else(|e| error(format!("the key cannot be read: {e}")))?;
        with_certificate(&credentials.certificate, |certificate| {
            with_certificate(&self.pem, |ca| {
                let issued = certificate.issuer() == ca.subject();
                if !issued || certificate.verify_signature(Some(ca.public_key())).is_err() {
                    return error("the certificate was issued by another authority");
                }
                Ok(())
            })?;
            let san = certificate.subject_alternative_name().ok().flatten();
            if san.is_none_or(|san| san.value.general_names != [GeneralName::DNSName(name)]) {
                return error("the certificate is for another name");
            }
            if certificate.public_key().subject_public_key.data != key.der_bytes() {
                return error("the key does not belong to the certificate");
            }
            Ok(validity(certificate))
        })
    }
}

fn params(common_name: &str, validity: Validity) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    // ub-common-name of RFC 5280 is 64; the name that counts is the subject alternative name.
    let short: String = common_name.chars().take(64).collect();
    params.distinguished_name.push(DnType::CommonName, short);
    params.not_before = OffsetDateTime::from(validity.not_before);
    params.not_after = OffsetDateTime::from(validity.not_after);
    Ok(params)
}

fn with_certificate<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> Result<T>) -> Result<T> {
    let Ok((_, pem)) = parse_x509_pem(pem.as_bytes()) else { return error("the certificate is no PEM") };
    match X509Certificate::from_der(&pem.contents) {
        Ok((_, certificate)) => read(&certificate),
        Err(e) => error(format!("the certificate cannot be read: {e}")),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let validity = certificate.validity();
    Validity {
        not_before: system_time(validity.not_before.timestamp()),
        not_after: system_time(validity.not_after.timestamp()),
    }
}

/// Seconds since 1970; what is before that is as old as can be.
fn system_time(timestamp: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}

#[cfg(test)]
mod tests;
