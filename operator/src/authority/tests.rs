use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::*;
use crate::core::issued::Issued;
use crate::core::renewal::{BACKDATE, DAY};
use crate::core::rotation::{Phase, Step};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn days(n: u64) -> Duration {
    Duration::from_secs(n * DAY)
}

fn authorities() -> Authorities {
    Authorities::create("beijing", None, now()).unwrap()
}

fn issue(authorities: &Authorities, name: &str, at: SystemTime) -> Credentials {
    authorities.upkeep(name, None, &mut Issued::default(), at, 30).unwrap().fresh.unwrap().0
}

/// As a peer does it, with the webpki verifier.
fn verify(credentials: &Credentials, ca: &str, name: &str, at: SystemTime) -> std::result::Result<(), webpki::Error> {
    let ca: Vec<_> = CertificateDer::pem_slice_iter(ca.as_bytes()).map(|der| der.unwrap()).collect();
    let anchors: Vec<_> = ca.iter().map(|der| anchor_from_trusted_cert(der).unwrap()).collect();
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
    let authorities = authorities();
    let credentials = issue(&authorities, "beijing.edge-1", now());
    let ca = &credentials.ca;
    assert_eq!(verify(&credentials, ca, "beijing.edge-1", now()), Ok(()));
    assert_eq!(verify(&credentials, ca, "beijing.edge-1", now() - BACKDATE), Ok(()));
    assert_eq!(verify(&credentials, ca, "beijing.edge-1", now() + days(30)), Ok(()));
    let second = Duration::from_secs(1);
    assert!(verify(&credentials, ca, "beijing.edge-1", now() - BACKDATE - second).is_err());
    assert!(verify(&credentials, ca, "beijing.edge-1", now() + days(30) + second).is_err());
    assert!(verify(&credentials, ca, "beijing.edge-2", now()).is_err());
    let stranger = Authority::create("beijing", now()).unwrap();
    assert!(verify(&credentials, stranger.pem(), "beijing.edge-1", now()).is_err());
}

#[test]
fn reloaded_authorities_are_the_same() {
    let authorities = authorities();
    let reloaded = Authorities::load(&authorities.keep().unwrap()).unwrap();
    let credentials = issue(&reloaded, "beijing.edge-1", now());
    assert_eq!(verify(&credentials, &authorities.bundle(), "beijing.edge-1", now()), Ok(()));
    assert_eq!(upkeep(&authorities, &credentials, now()), None);
}

#[test]
fn every_certificate_has_its_own_key_and_serial_number() {
    let authorities = authorities();
    let (a, b) = (issue(&authorities, "c.n", now()), issue(&authorities, "c.n", now()));
    assert_ne!(a.key, b.key);
    assert_ne!(serial(&a.certificate), serial(&b.certificate));
    assert!(serial(&a.certificate).is_some());
}

/// Why these credentials are changed, if they are.
fn upkeep(authorities: &Authorities, credentials: &Credentials, at: SystemTime) -> Option<String> {
    let upkeep = authorities.upkeep("beijing.edge-1", Some(credentials), &mut Issued::default(), at, 30).unwrap();
    upkeep.fresh.map(|(_, reason)| reason)
}

#[test]
fn credentials_of_no_use_are_told_apart() {
    let (authorities, stranger) = (authorities(), authorities());
    let good = issue(&authorities, "beijing.edge-1", now());
    let other = issue(&authorities, "beijing.edge-2", now());
    let foreign = issue(&stranger, "beijing.edge-1", now());
    assert_eq!(upkeep(&authorities, &good, now()), None);
    let with = |certificate: &str, key: &str| {
        let credentials = Credentials { certificate: certificate.to_owned(), key: key.to_owned(), ..good.clone() };
        upkeep(&authorities, &credentials, now()).unwrap()
    };
    let by_another = "replaced: the certificate was issued by another authority";
    assert_eq!(with(&foreign.certificate, &foreign.key), by_another);
    assert_eq!(with(&other.certificate, &other.key), "replaced: the certificate is for another name");
    assert_eq!(with(&good.certificate, &other.key), "replaced: the key does not belong to the certificate");
    assert!(with(&good.certificate, "").starts_with("replaced: the key cannot be read: "));
    assert_eq!(with("", &good.key), "replaced: the certificate is no PEM");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(with(garbage, &good.key).starts_with("replaced: the certificate cannot be read: "));
    let ca = Credentials { ca: stranger.bundle(), ..good.clone() };
    let upkeep = authorities.upkeep("beijing.edge-1", Some(&ca), &mut Issued::default(), now(), 30).unwrap();
    assert!(upkeep.fresh.is_some_and(|(fresh, _)| fresh == good), "the certificate is kept");
}

#[test]
fn renewal_comes_after_two_thirds() {
    let authorities = authorities();
    let credentials = issue(&authorities, "beijing.edge-1", now());
    assert_eq!(upkeep(&authorities, &credentials, now()), None);
    assert_eq!(upkeep(&authorities, &credentials, now() + days(20) - Duration::from_secs(1)), None);
    assert_eq!(upkeep(&authorities, &credentials, now() + days(20)).as_deref(), Some("renewed"));
    let ahead = "made when the clock was ahead";
    assert_eq!(upkeep(&authorities, &credentials, now() - days(2)).as_deref(), Some("renewed"), "{ahead}");
}

#[test]
fn no_certificate_outlives_the_authority() {
    let authorities = authorities();
    let end = authorities.signing().not_after();
    assert_eq!(end, now() + days(3650));
    let late = authorities.upkeep("beijing.edge-1", None, &mut Issued::default(), now() + days(3640), 30).unwrap();
    assert_eq!(late.validity.not_after, end);
    assert!(authorities.upkeep("beijing.edge-1", None, &mut Issued::default(), end, 30).is_err());
}

#[test]
fn only_an_authority_with_its_own_key_is_loaded() {
    let authority = Authority::create("beijing", now()).unwrap();
    let other = Authority::create("beijing", now()).unwrap();
    assert!(Authority::load(authority.pem(), other.key()).is_err());
    assert!(Authority::load(authority.pem(), "").is_err());
    assert!(Authority::load("", authority.key()).is_err());
    let (node, key) = authority.issue("beijing.edge-1", now(), 30).unwrap();
    assert!(Authority::load(&node.pem, &key).is_err());
}

#[test]
fn the_longest_name_fits() {
    let name = format!("beijing.{}", ["a".repeat(61).as_str(); 4].join("."))[..253].trim_end_matches('.').to_owned();
    let authorities = authorities();
    let credentials = issue(&authorities, &name, now());
    assert_eq!(verify(&credentials, &credentials.ca, &name, now()), Ok(()));
    let kept = authorities.upkeep(&name, Some(&credentials), &mut Issued::default(), now(), 30).unwrap();
    assert!(kept.fresh.is_none());
}

const EVERYBODY: Everybody = Everybody { trusted: true, replaced: true };

/// One step of a change without grace.
fn step(authorities: &mut Authorities) -> Option<Step> {
    let kept = authorities.keep().unwrap();
    *authorities = Authorities::load(&kept).unwrap();
    authorities.advance("beijing", Some("now"), 0, &EVERYBODY, now()).unwrap().0
}

#[test]
fn at_every_step_of_a_change_all_certificates_in_use_are_accepted_by_all() {
    let mut authorities = authorities();
    let first = issue(&authorities, "beijing.edge-1", now());
    let accepted = |a: &Credentials, b: &Credentials| {
        assert_eq!(verify(a, &b.ca, "beijing.edge-1", now()), Ok(()));
        assert_eq!(verify(b, &a.ca, "beijing.edge-1", now()), Ok(()));
    };
    let refresh = |authorities: &Authorities, old: &Credentials| {
        let upkeep = authorities.upkeep("beijing.edge-1", Some(old), &mut Issued::default(), now(), 30).unwrap();
        upkeep.fresh.unwrap()
    };
    assert_eq!(step(&mut authorities), Some(Step::Introduce));
    let (introduced, why) = refresh(&authorities, &first);
    assert_eq!(why, "delivered with other authorities");
    assert_eq!((&introduced.certificate, &introduced.key), (&first.certificate, &first.key));
    accepted(&first, &introduced);

    assert_eq!(step(&mut authorities), Some(Step::Activate));
    assert_eq!(authorities.phase(), Phase::Replacing { since: None });
    let (replaced, why) = refresh(&authorities, &introduced);
    assert_eq!(why, "replaced: the certificate was issued by the previous authority");
    accepted(&introduced, &replaced);

    assert_eq!(step(&mut authorities), Some(Step::Retire));
    let (last, _) = refresh(&authorities, &replaced);
    assert_eq!(last.certificate, replaced.certificate);
    accepted(&replaced, &last);
    assert!(verify(&first, &last.ca, "beijing.edge-1", now()).is_err(), "the old one is trusted no longer");
    assert_eq!(step(&mut authorities), None);
}

#[test]
fn revocation_lists_are_by_all_authorities_and_change_only_with_reason() {
    let mut authorities = authorities();
    let mut issued = Issued::default();
    let issue = |authorities: &Authorities, issued: &mut Issued, old: Option<&Credentials>| {
        authorities.upkeep("beijing.edge-1", old, issued, now(), 30).unwrap().fresh
    };
    let (stolen, _) = issue(&authorities, &mut issued, None).unwrap();
    assert!(!authorities.revoke(issued.revoked(), now()).unwrap());
    assert_eq!(authorities.crl(), None);
    issued.revoke(&["beijing.edge-1".to_owned()].into(), seconds(now()));
    assert!(authorities.revoke(issued.revoked(), now()).unwrap());
    let lists = |authorities: &Authorities| authorities.crl().unwrap().matches("BEGIN X509 CRL").count();
    assert_eq!(lists(&authorities), 1);
    assert!(!authorities.revoke(issued.revoked(), now() + days(1)).unwrap());
    step(&mut authorities);
    assert!(authorities.revoke(issued.revoked(), now()).unwrap());
    assert_eq!(lists(&authorities), 2);
    let (again, why) = issue(&authorities, &mut issued, Some(&stolen)).unwrap();
    assert_eq!(why, "replaced: the certificate was revoked");
    assert_eq!(again.crl.as_deref(), authorities.crl());
    issued.revoke(&Default::default(), seconds(now() + days(31)));
    assert!(authorities.revoke(issued.revoked(), now() + days(31)).unwrap());
    assert_eq!(authorities.crl(), None, "what has ended need not be revoked");
}
