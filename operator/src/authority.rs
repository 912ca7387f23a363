//! The certificate authority: ECDSA P-256 (RFC 5480), one certificate per node with its fabric name as `dNSName`.

mod authorities;
mod request;

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams,
    SerialNumber,
};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, parse_x509_pem};

pub(crate) use authorities::{Authorities, Everybody, seconds};
pub(crate) use request::{MAX_REQUEST, requested_key};

use crate::core::issued::Serial;
use crate::core::renewal::Validity;

/// Validity of the authority's own certificate.
const AUTHORITY_DAYS: u32 = 3650;

/// Key and certificate that sign all others.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    key: String,
    der: Vec<u8>,
    subject: Vec<u8>,
    validity: Validity,
}

/// What a node proves its name with, and checks its peers with. PEM; the key is PKCS #8.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// One certificate or, while the authority changes, several.
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// Certificates that count no longer, if there are any: a list by each authority.
    pub(crate) crl: Option<String>,
}

/// A certificate and what has to be remembered of it.
pub(crate) struct Certificate {
    pub(crate) pem: String,
    pub(crate) serial: Serial,
    pub(crate) validity: Validity,
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

impl AuthorityError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        AuthorityError(message.into())
    }
}

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
    /// A new authority.
    pub(crate) fn create(cluster: &str, now: SystemTime) -> Result<Authority> {
        let key = KeyPair::generate()?;
        // Two authorities of one cluster are told apart by their names, as CRLs and people do it.
        let name = format!("Selvedge CA {cluster} {}", &hex(digest(&SHA256, key.der_bytes()).as_ref())[..8]);
        let mut params = params(&name, Validity::from_now(now, AUTHORITY_DAYS))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Authority::load(&pem, &key.serialize_pem())
    }

    pub(crate) fn load(pem: &str, key: &str) -> Result<Authority> {
        let pair = KeyPair::from_pem(key).map_err(|e| AuthorityError(format!("the authority's key: {e}")))?;
        let (validity, der, subject) = with_certificate(pem, |certificate| {
            if !certificate.is_ca() {
                return error("the authority's certificate is not one of an authority");
            }
            if certificate.public_key().subject_public_key.data != pair.der_bytes() {
                return error("the authority's key does not belong to its certificate");
            }
            Ok((validity(certificate), certificate.as_raw().to_vec(), certificate.subject().as_raw().to_vec()))
        })?;
        let issuer = Issuer::from_ca_cert_pem(pem, pair)?;
        Ok(Authority { issuer, pem: pem.to_owned(), key: key.to_owned(), der, subject, validity })
    }

    /// The authority's certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// The same in DER.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether a certificate that was verified, in DER, names this authority as its issuer.
    pub(crate) fn is_issuer_of(&self, certificate: &[u8]) -> bool {
        X509Certificate::from_der(certificate).is_ok_and(|(_, c)| c.issuer().as_raw() == self.subject)
    }

    /// The authority's key, PKCS #8 in PEM.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// A certificate for somebody's key. It never outlives the authority.
    pub(crate) fn sign(&self, name: &str, key: &impl PublicKeyData, now: SystemTime, days: u32) -> Result<Certificate> {
        if now >= self.validity.not_after {
            return error("the authority's own certificate has expired");
        }
        let mut validity = Validity::from_now(now, days);
        validity.not_after = validity.not_after.min(self.validity.not_after);
        let serial = Serial::new(random()?);
        let mut params = params(name, validity)?;
        params.serial_number = Some(SerialNumber::from_slice(serial.bytes()));
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName(name.try_into().map_err(|e: rcgen::Error| AuthorityError(e.to_string()))?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let pem = params.signed_by(key, &self.issuer)?.pem();
        Ok(Certificate { pem, serial, validity })
    }

    /// A fresh key in PEM and a certificate for it.
    pub(crate) fn issue(&self, name: &str, now: SystemTime, days: u32) -> Result<(Certificate, String)> {
        let key = KeyPair::generate()?;
        Ok((self.sign(name, &key, now, days)?, key.serialize_pem()))
    }

    /// Whether this authority issued the certificate, in PEM.
    pub(crate) fn signed(&self, certificate: &str) -> bool {
        let issued = with_certificate(certificate, |certificate| {
            with_certificate(&self.pem, |ca| {
                let named = certificate.issuer() == ca.subject();
                Ok(named && certificate.verify_signature(Some(ca.public_key())).is_ok())
            })
        });
        issued.unwrap_or(false)
    }

    /// A list of certificates that count no longer, with the seconds since 1970 from which on, in PEM.
    ///
    /// It ends with the authority: who has heard of a revocation must not forget it because nothing newer came.
    pub(crate) fn revoke(&self, revoked: &[(Serial, u64)], now: SystemTime) -> Result<String> {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let moment = |at: u64| OffsetDateTime::from(SystemTime::UNIX_EPOCH + Duration::from_secs(at));
        let certificate = |(serial, at): &(Serial, u64)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial.bytes()),
            revocation_time: moment(*at),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: OffsetDateTime::from(now),
            next_update: OffsetDateTime::from(self.validity.not_after),
            crl_number: SerialNumber::from(seconds),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(certificate).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }
}

/// The validity of a certificate in PEM made out to `name` and nobody else; an error says why it is of no use.
fn check(name: &str, certificate: &str, key: &str) -> Result<Validity> {
    let key = KeyPair::from_pem(key).or_else(|e| error(format!("the key cannot be read: {e}")))?;
    with_certificate(certificate, |certificate| {
        if sole_name(certificate) != Some(name) {
            return error("the certificate is for another name");
        }
        if certificate.public_key().subject_public_key.data != key.der_bytes() {
            return error("the key does not belong to the certificate");
        }
        Ok(validity(certificate))
    })
}

/// The name that a certificate speaks for: its only subject alternative name.
fn sole_name<'a>(certificate: &X509Certificate<'a>) -> Option<&'a str> {
    let san = certificate.subject_alternative_name().ok().flatten()?;
    match san.value.general_names[..] {
        [GeneralName::DNSName(name)] => Some(name),
        _ => None,
    }
}

/// Whom a certificate in DER, already verified, speaks for, and its serial number.
pub(crate) fn bearer(der: &[u8]) -> Option<(String, Serial)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some((sole_name(&certificate)?.to_owned(), Serial::read(certificate.raw_serial())?))
}

/// The serial number of a certificate in PEM.
fn serial(certificate: &str) -> Option<Serial> {
    with_certificate(certificate, |certificate| Ok(Serial::read(certificate.raw_serial()))).ok().flatten()
}

/// SHA-256 of the first certificate of a PEM text, in DER: by this it is known to somebody who has nothing else.
pub(crate) fn fingerprint(pem: &str) -> Result<String> {
    with_certificate(pem, |certificate| Ok(hex(digest(&SHA256, certificate.as_raw()).as_ref())))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Unpredictable bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).or_else(|_| error("the system gives no random numbers"))?;
    Ok(bytes)
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
