use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::*;
use crate::core::renewal::{BACKDATE, DAY};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn days(n: u64) -> Duration {
    Duration::from_secs(n * DAY)
}

fn authority() -> Authority {
    Authority::create("beijing", now()).unwrap().0
}

/// As a peer does it, with the webpki verifier.
fn verify(credentials: &Credentials, ca: &str, name: &str, at: SystemTime) -> std::result::Result<(), webpki::Error> {
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).unwrap();
    let anchors = [anchor_from_trusted_cert(&ca).unwrap()];
    let der = CertificateDer::from_pem_slice(credentials.certificate.as_bytes()).unwrap();
    let certificate = EndEntityCert::try_from(&der)?;
    let time = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        certificate.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &[], time, usage, None, None)?;
    }
    certificate.verify_is_valid_for_subject_name(&ServerName::try_from(name.to_owned()).unwrap())
}

#[test]
fn a_peer_accepts_the_certificate_for_its_name_and_time_only() {
    let authority = authority();
    let credentials = authority.issue("beijing.edge-1", now(), 30).unwrap();
    let ca = authority.pem();
    assert_eq!(verify(&credentials, ca, "beijing.edge-1", now()), Ok(()));
    assert_eq!(verify(&credentials, ca, "beijing.edge-1", now() - BACKDATE), Ok(()));
    assert_eq!(verify(&credentials, ca, "beijing.edge-1", now() + days(30)), Ok(()));
    let second = Duration::from_secs(1);
    assert!(verify(&credentials, ca, "beijing.edge-1", now() - BACKDATE - second).is_err());
    assert!(verify(&credentials, ca, "beijing.edge-1", now() + days(30) + second).is_err());
    assert!(verify(&credentials, ca, "beijing.edge-2", now()).is_err());
    let stranger = Authority::create("beijing", now()).unwrap().0;
    assert!(verify(&credentials, stranger.pem(), "beijing.edge-1", now()).is_err());
}

#[test]
fn a_reloaded_authority_is_the_same() {
    let (authority, key) = Authority::create("beijing", now()).unwrap();
    let reloaded = Authority::load(authority.pem(), &key).unwrap();
    let credentials = reloaded.issue("beijing.edge-1", now(), 30).unwrap();
    assert_eq!(verify(&credentials, authority.pem(), "beijing.edge-1", now()), Ok(()));
    assert!(authority.check("beijing.edge-1", &credentials).is_ok());
}

#[test]
fn every_certificate_has_its_own_key_and_serial_number() {
    let authority = authority();
    let serial = |credentials: &Credentials| {
        with_certificate(&credentials.certificate, |c| Ok(c.raw_serial().to_vec())).unwrap()
    };
    let (a, b) = (authority.issue("c.n", now(), 30).unwrap(), authority.issue("c.n", now(), 30).unwrap());
    assert_ne!(a.key, b.key);
    assert_ne!(serial(&a), serial(&b));
    assert!(serial(&a).len() >= 16);
}

#[test]
fn credentials_of_no_use_are_told_apart() {
    let (authority, stranger) = (authority(), authority());
    let good = authority.issue("beijing.edge-1", now(), 30).unwrap();
    let other = authority.issue("beijing.edge-2", now(), 30).unwrap();
    let foreign = stranger.issue("beijing.edge-1", now(), 30).unwrap();
    let with = |ca: &str, certificate: &str, key: &str| {
        let credentials = Credentials { ca: ca.to_owned(), certificate: certificate.to_owned(), key: key.to_owned() };
        authority.check("beijing.edge-1", &credentials).map_err(|e| e.to_string())
    };
    let ca = authority.pem();
    assert!(with(ca, &good.certificate, &good.key).is_ok());
    let refused = |ca: &str, certificate: &str, key: &str| with(ca, certificate, key).unwrap_err();
    assert_eq!(refused(stranger.pem(), &good.certificate, &good.key), "they belong to another authority");
    assert_eq!(refused(ca, &foreign.certificate, &foreign.key), "the certificate was issued by another authority");
    assert_eq!(refused(ca, &other.certificate, &other.key), "the certificate is for another name");
    assert_eq!(refused(ca, &good.certificate, &other.key), "the key does not belong to the certificate");
    assert!(refused(ca, &good.certificate, "").starts_with("the key cannot be read: "));
    assert_eq!(refused(ca, "", &good.key), "the certificate is no PEM");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(refused(ca, garbage, &good.key).starts_with("the certificate cannot be read: "));
}

#[test]
fn renewal_comes_after_two_thirds() {
    let authority = authority();
    let credentials = authority.issue("beijing.edge-1", now(), 30).unwrap();
    let validity = authority.check("beijing.edge-1", &credentials).unwrap();
    assert_eq!(validity.renewal(), now() + days(20));
    assert!(!validity.is_due(now()));
    assert!(!validity.is_due(now() + days(20) - Duration::from_secs(1)));
    assert!(validity.is_due(now() + days(20)));
    assert!(validity.is_due(now() - days(2)), "made when the clock was ahead");
}

#[test]
fn no_certificate_outlives_the_authority() {
    let authority = authority();
    assert_eq!(authority.not_after(), now() + days(3650));
    let late = authority.issue("beijing.edge-1", now() + days(3640), 30).unwrap();
    assert_eq!(authority.check("beijing.edge-1", &late).unwrap().not_after, authority.not_after());
    assert!(authority.issue("beijing.edge-1", now() + days(3650), 30).is_err());
}

#[test]
fn only_an_authority_with_its_own_key_is_loaded() {
    let (authority, key) = Authority::create("beijing", now()).unwrap();
    let (_, other_key) = Authority::create("beijing", now()).unwrap();
    assert!(Authority::load(authority.pem(), &other_key).is_err());
    assert!(Authority::load(authority.pem(), "").is_err());
    assert!(Authority::load("", &key).is_err());
    let node = authority.issue("beijing.edge-1", now(), 30).unwrap();
    assert!(Authority::load(&node.certificate, &node.key).is_err());
}

#[test]
fn the_longest_name_fits() {
    let name = format!("beijing.{}", ["a".repeat(61).as_str(); 4].join("."))[..253].trim_end_matches('.').to_owned();
    let authority = authority();
    let credentials = authority.issue(&name, now(), 30).unwrap();
    assert_eq!(verify(&credentials, authority.pem(), &name, now()), Ok(()));
    assert!(authority.check(&name, &credentials).is_ok());
}
