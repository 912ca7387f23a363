//! Certificate authorities and certificates for tests.

use std::ops::Range;
use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber, date_time_ymd,
};
use selvedge_ike::Credentials;
use zeroize::Zeroizing;

/// The wall clock when tests begin: 2027-01-15 08:00:00 UTC.
pub const WALL: u64 = 1_800_000_000;

pub struct Ca(CertifiedIssuer<'static, KeyPair>);

pub fn ca() -> &'static Ca {
    static CA: OnceLock<Ca> = OnceLock::new();
    CA.get_or_init(Ca::new)
}

pub fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

impl Ca {
    pub fn new() -> Self {
        Self::named("rcgen self signed cert")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, key()).unwrap())
    }

    pub fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A list of certificates that count no longer, by their serial numbers, in PEM.
    pub fn revoke(&self, serials: &[u8]) -> String {
        let certificate = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 1, 2),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(certificate).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// Certificate and key in PEM, with this serial number.
    pub fn numbered(&self, name: &str, serial: u8) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        let key = key();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Credentials for `name` by this authority, which trust `trusted`.
    pub fn credentials(&self, name: &str, trusted: &Ca) -> Credentials {
        self.issue(name, trusted, 1975..4000)
    }

    /// A certificate that begins and ends with the first days of years.
    pub fn issue(&self, name: &str, trusted: &Ca, years: Range<i32>) -> Credentials {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let key = key();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        Credentials::new(vec![leaf.der().to_vec()], Zeroizing::new(key.serialize_der()), vec![trusted.der()]).unwrap()
    }
}
