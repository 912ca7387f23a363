//! Certificates that count no longer: revocation lists (RFC 5280 section 5) of the authorities we trust.
//!
//! A list is in force from when it is there until another one takes its place: its `nextUpdate` is not looked at, for a
//! node that is cut off from the cloud must neither forget what was revoked nor lose its tunnels. Extensions are passed
//! over: a list speaks for the certificates of its own issuer.

use std::collections::BTreeSet;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use webpki::anchor_from_trusted_cert;

use crate::config::Now;
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::{CertificateFailure, Failure};
use crate::sa::IkeSa;
use crate::validity::{INTEGER, SEQUENCE, VERSION, element, time};

const BIT_STRING: u8 = 0x03;

/// Which certificate: the contents of its `issuer` and `serialNumber`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Which {
    issuer: Box<[u8]>,
    serial: Box<[u8]>,
}

impl Which {
    pub(crate) fn read(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = element(certificate, SEQUENCE)?;
        let (mut rest, _) = element(certificate, SEQUENCE)?;
        if let Some((_, after)) = element(rest, VERSION) {
            rest = after;
        }
        let (serial, rest) = element(rest, INTEGER)?;
        let (_, rest) = element(rest, SEQUENCE)?;
        let (issuer, _) = element(rest, SEQUENCE)?;
        Some(Self { issuer: issuer.into(), serial: serial.into() })
    }
}

/// What the lists say. A list of somebody whom we do not trust says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revoked(BTreeSet<Which>);

impl Revoked {
    /// Adds a list in DER, if it is by one of the authorities `trust`.
    pub(crate) fn add(
        &mut self,
        list: &[u8],
        trust: &[Vec<u8>],
        verifiers: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), &'static str> {
        const BAD: &str = "a revocation list cannot be read";
        let list = List::read(list).ok_or(BAD)?;
        for authority in trust {
            let Ok(anchor) =
                anchor_from_trusted_cert(&CertificateDer::from(authority.as_slice())).map(|anchor| anchor.to_owned())
            else {
                continue;
            };
            if anchor.subject.as_ref() == list.issuer && list.is_signed_by(&anchor.subject_public_key_info, verifiers) {
                return list.revoked(&mut self.0).ok_or(BAD);
            }
        }
        // While authorities change, there may be a list by one that is not trusted any more; one that claims to be by
        // one that is trusted must be.
        let forged = trust.iter().any(|authority| {
            let authority = CertificateDer::from(authority.as_slice());
            anchor_from_trusted_cert(&authority).is_ok_and(|anchor| anchor.subject.as_ref() == list.issuer)
        });
        if forged { Err("a revocation list is not signed by the authority it names") } else { Ok(()) }
    }

    pub(crate) fn contains(&self, which: &Which) -> bool {
        self.0.contains(which)
    }
}

/// The parts of a `CertificateList`.
struct List<'a> {
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    /// Contents of the issuer's name.
    issuer: &'a [u8],
    /// From `revokedCertificates` on, if there are any.
    rest: &'a [u8],
}

impl<'a> List<'a> {
    fn read(list: &'a [u8]) -> Option<Self> {
        let (list, _) = element(list, SEQUENCE)?;
        let (contents, after) = element(list, SEQUENCE)?;
        let signed = list.get(..list.len() - after.len())?;
        let (algorithm, after) = element(after, SEQUENCE)?;
        let signature = bits(after)?;
        let rest = element(contents, INTEGER).map_or(contents, |(_, rest)| rest);
        let (_, rest) = element(rest, SEQUENCE)?;
        let (issuer, rest) = element(rest, SEQUENCE)?;
        let (_, rest) = time(rest)?;
        let rest = time(rest).map_or(rest, |(_, rest)| rest);
        Some(Self { signed, algorithm, signature, issuer, rest })
    }

    fn is_signed_by(&self, key: &[u8], verifiers: &[&dyn SignatureVerificationAlgorithm]) -> bool {
        let Some((algorithm, after)) = element(key, SEQUENCE) else { return false };
        let Some(key) = bits(after) else { return false };
        let fits = |verifier: &&&dyn SignatureVerificationAlgorithm| {
            verifier.signature_alg_id().as_ref() == self.algorithm && verifier.public_key_alg_id().as_ref() == algorithm
        };
        let mut verifiers = verifiers.iter().filter(fits);
        verifiers.any(|verifier| verifier.verify_signature(key, self.signed, self.signature).is_ok())
    }

    fn revoked(&self, into: &mut BTreeSet<Which>) -> Option<()> {
        let Some((mut rest, _)) = element(self.rest, SEQUENCE) else { return Some(()) };
        while !rest.is_empty() {
            let (entry, after) = element(rest, SEQUENCE)?;
            let (serial, _) = element(entry, INTEGER)?;
            into.insert(Which { issuer: self.issuer.into(), serial: serial.into() });
            rest = after;
        }
        Some(())
    }
}

/// The whole octets of a BIT STRING.
fn bits(bytes: &[u8]) -> Option<&[u8]> {
    let (contents, _) = element(bytes, BIT_STRING)?;
    contents.split_first().filter(|(unused, _)| **unused == 0).map(|(_, octets)| octets)
}

impl Credentials {
    /// Whether the certificate was revoked.
    pub(crate) fn revokes(&self, which: &Which) -> bool {
        self.revoked().contains(which)
    }

    /// Whether an authority of that name is trusted.
    fn trusts(&self, which: &Which) -> bool {
        self.trust().iter().any(|authority| {
            let authority = CertificateDer::from(authority.as_slice());
            anchor_from_trusted_cert(&authority).is_ok_and(|anchor| *anchor.subject == *which.issuer)
        })
    }
}

impl Endpoint {
    /// After a change of credentials: whoever has been revoked is let go at once. Whoever is vouched for by an authority
    /// that is trusted no longer has to prove itself anew, make before break.
    pub(crate) fn recheck_certificates(&mut self, now: Now) {
        let config = self.config.clone();
        for id in self.directory.ids() {
            let Some(entry) = self.directory.get(id) else { continue };
            let current = entry.current;
            for key in entry.sas.clone() {
                let Some(sa) = self.sas.get(&key) else { continue };
                let Some(which) = &sa.certificate else { continue };
                if config.credentials.revokes(which) {
                    let failure = CertificateFailure::Revoked { of: sa.peer_name() };
                    self.on_down(now, key, &Failure::Certificate(failure));
                    self.with_sa(now, key, IkeSa::close);
                } else if current == Some(key) && !config.credentials.trusts(which) {
                    if let Some(entry) = self.directory.get_mut(id) {
                        entry.worn_out = true;
                    }
                    self.reconcile(now, id);
                }
            }
        }
    }

    /// Whether nobody whom we trust vouches for the peer any more.
    pub(crate) fn has_lost_trust(&self, sa: &IkeSa) -> bool {
        sa.certificate.as_ref().is_some_and(|which| !self.config.credentials.trusts(which))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
        KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
    };

    use super::*;
    use crate::crypto::{Crypto as _, RingCrypto};

    type Ca = CertifiedIssuer<'static, KeyPair>;

    fn authority(name: &str) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ca::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn list(ca: &Ca, serials: &[u8]) -> Vec<u8> {
        let certificate = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2050, 1, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(certificate).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(ca).unwrap().der().to_vec()
    }

    fn leaf(ca: &Ca, serial: u8) -> Which {
        let mut params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        Which::read(params.signed_by(&KeyPair::generate().unwrap(), ca).unwrap().der()).unwrap()
    }

    fn read(list: &[u8], trust: &[&Ca]) -> Result<Revoked, &'static str> {
        let trust: Vec<Vec<u8>> = trust.iter().map(|ca| ca.der().to_vec()).collect();
        let mut revoked = Revoked::default();
        revoked.add(list, &trust, RingCrypto::new().verifiers()).map(|()| revoked)
    }

    #[test]
    fn a_list_revokes_certificates_of_its_issuer_alone() {
        let (ours, other) = (authority("ours"), authority("other"));
        let revoked = read(&list(&ours, &[7, 9]), &[&other, &ours]).unwrap();
        assert!(revoked.contains(&leaf(&ours, 7)) && revoked.contains(&leaf(&ours, 9)));
        assert!(!revoked.contains(&leaf(&ours, 8)) && !revoked.contains(&leaf(&other, 7)));
        assert_eq!(read(&list(&ours, &[]), &[&ours]), Ok(Revoked::default()));
    }

    #[test]
    fn a_list_counts_only_by_an_authority_that_is_trusted() {
        let (ours, other, impostor) = (authority("ours"), authority("other"), authority("ours"));
        assert_eq!(read(&list(&other, &[7]), &[&ours]), Ok(Revoked::default()));
        let forged = "a revocation list is not signed by the authority it names";
        assert_eq!(read(&list(&impostor, &[7]), &[&ours]), Err(forged));
        let mut longer = list(&ours, &[7]);
        let at = longer.windows(3).position(|bytes| bytes == [0x02, 1, 7]).unwrap() + 2;
        longer[at] = 8;
        assert_eq!(read(&longer, &[&ours]), Err(forged));
    }

    #[test]
    fn anything_else_is_no_list() {
        let ours = authority("ours");
        let good = list(&ours, &[7, 9]);
        for length in 0..good.len() {
            assert!(read(&good[..length], &[&ours]).is_err());
        }
        for at in 0..good.len() {
            let mut spoilt = good.clone();
            spoilt[at] ^= 0xff;
            assert!(!read(&spoilt, &[&ours]).is_ok_and(|revoked| revoked != Revoked::default()), "{at}");
        }
    }
}
