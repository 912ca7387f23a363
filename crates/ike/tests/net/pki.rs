//! Certificate authorities and certificates for tests.

use std::ops::Range;
use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    date_time_ymd,
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
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, key()).unwrap())
    }

    pub fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
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
