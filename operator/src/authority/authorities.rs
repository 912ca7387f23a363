//! The authority that signs, the one that follows or precedes it while they change, and what both have revoked.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Authority, AuthorityError, Credentials, Result, check, error};
use crate::core::issued::{Issued, Serial};
use crate::core::renewal::Validity;
use crate::core::rotation::{Facts, Phase, Rotation, Step};

/// All authorities of a cluster.
pub(crate) struct Authorities {
    signing: Authority,
    /// Trusted, too: before its time while it is introduced, after it while it is replaced.
    other: Option<Authority>,
    notes: Notes,
    crl: Option<String>,
}

/// What is remembered beside keys and certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Notes {
    rotation: Rotation,
    /// What is on the revocation lists, and the fingerprints of those who signed them.
    revoked: Vec<(Serial, u64)>,
    signers: Vec<String>,
}

/// What becomes of the credentials of a node.
pub(crate) struct Upkeep {
    pub(crate) validity: Validity,
    /// New ones, and why.
    pub(crate) fresh: Option<(Credentials, String)>,
}

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const OTHER_CERTIFICATE: &str = "other.crt";
const OTHER_KEY: &str = "other.key";
const NOTES: &str = "rotation.json";
const CRL: &str = "crl.pem";

impl Authorities {
    /// What they are kept in.
    pub(crate) const FILES: [&str; 6] = [CERTIFICATE, KEY, OTHER_CERTIFICATE, OTHER_KEY, NOTES, CRL];

    /// The first authority of a cluster. `wanted`: see [`Facts::wanted`].
    pub(crate) fn create(cluster: &str, wanted: Option<&str>, now: SystemTime) -> Result<Authorities> {
        let notes = Notes { rotation: Rotation::new(wanted), ..Notes::default() };
        Ok(Authorities { signing: Authority::create(cluster, now)?, other: None, notes, crl: None })
    }

    /// Whether there is anything to be loaded: not if there is neither key nor certificate.
    pub(crate) fn are_kept(kept: &BTreeMap<String, String>) -> bool {
        kept.contains_key(CERTIFICATE) || kept.contains_key(KEY)
    }

    /// From what [`Authorities::keep`] made, by file name.
    pub(crate) fn load(kept: &BTreeMap<String, String>) -> Result<Authorities> {
        let get = |name: &str| {
            kept.get(name).map(String::as_str).ok_or_else(|| AuthorityError(format!("{name} is not there")))
        };
        let signing = Authority::load(get(CERTIFICATE)?, get(KEY)?)?;
        let other = match kept.get(OTHER_CERTIFICATE) {
            Some(certificate) => Some(Authority::load(certificate, get(OTHER_KEY)?)?),
            None => None,
        };
        let notes: Notes = match kept.get(NOTES) {
            Some(text) => serde_json::from_str(text).or_else(|e| error(format!("{NOTES}: {e}")))?,
            None => Notes::default(),
        };
        if (notes.rotation.phase() == Phase::Steady) != other.is_none() {
            return error(format!("{NOTES} and {OTHER_CERTIFICATE} do not belong together"));
        }
        Ok(Authorities { signing, other, notes, crl: kept.get(CRL).cloned() })
    }

    /// What must be kept, secret and as a whole, before any of it is used: contents by file name.
    pub(crate) fn keep(&self) -> Result<BTreeMap<String, String>> {
        let notes = serde_json::to_string(&self.notes).or_else(|e| error(e.to_string()))?;
        let mut kept = BTreeMap::from([
            (CERTIFICATE.to_owned(), self.signing.pem().to_owned()),
            (KEY.to_owned(), self.signing.key().to_owned()),
            (NOTES.to_owned(), notes),
        ]);
        if let Some(other) = &self.other {
            kept.insert(OTHER_CERTIFICATE.to_owned(), other.pem().to_owned());
            kept.insert(OTHER_KEY.to_owned(), other.key().to_owned());
        }
        kept.extend(self.crl.clone().map(|crl| (CRL.to_owned(), crl)));
        Ok(kept)
    }

    /// The authority that signs.
    pub(crate) fn signing(&self) -> &Authority {
        &self.signing
    }

    /// Those that are trusted, the one that signs first.
    pub(crate) fn trusted(&self) -> impl Iterator<Item = &Authority> {
        std::iter::once(&self.signing).chain(&self.other)
    }

    /// Their certificates: everybody's `ca.crt`.
    pub(crate) fn bundle(&self) -> String {
        self.trusted().map(Authority::pem).collect()
    }

    /// A revocation list by each authority, once anything was revoked: everybody's `crl.pem`.
    pub(crate) fn crl(&self) -> Option<&str> {
        self.crl.as_deref()
    }

    /// Whether a certificate is on the revocation lists.
    pub(crate) fn is_revoked(&self, serial: &Serial) -> bool {
        self.notes.revoked.iter().any(|(revoked, _)| revoked == serial)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.notes.rotation.phase()
    }

    /// Does what is due on the way to the next authority, and says when to look again. `grace` in seconds.
    pub(crate) fn advance(
        &mut self,
        cluster: &str,
        wanted: Option<&str>,
        grace: u64,
        everybody: &Everybody,
        now: SystemTime,
    ) -> Result<(Option<Step>, Option<SystemTime>)> {
        let mut rotation = self.notes.rotation.clone();
        let (step, wake) = rotation.advance(&Facts {
            now: seconds(now),
            wanted,
            ends: seconds(self.signing.not_after()),
            grace,
            trusted: everybody.trusted,
            replaced: everybody.replaced,
        });
        match step {
            Some(Step::Introduce) => self.other = Some(Authority::create(cluster, now)?),
            Some(Step::Activate) => {
                if let Some(next) = self.other.take() {
                    self.other = Some(std::mem::replace(&mut self.signing, next));
                }
            }
            Some(Step::Retire) => self.other = None,
            None => {}
        }
        self.notes.rotation = rotation;
        Ok((step, wake.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at))))
    }

    /// Brings the revocation lists to what is revoked. They are signed anew only if they change.
    /// Tells whether they did.
    pub(crate) fn revoke(&mut self, revoked: Vec<(Serial, u64)>, now: SystemTime) -> Result<bool> {
        let signers: Vec<String> = match revoked[..] {
            [] => Vec::new(),
            _ => self.trusted().map(|authority| super::fingerprint(authority.pem())).collect::<Result<_>>()?,
        };
        if (&self.notes.revoked, &self.notes.signers) == (&revoked, &signers) {
            return Ok(false);
        }
        // Serial numbers are random, so all of them are on everybody's list.
        let lists = self.trusted().map(|authority| authority.revoke(&revoked, now)).collect::<Result<Vec<_>>>()?;
        self.crl = Some(lists.concat()).filter(|_| !signers.is_empty());
        (self.notes.revoked, self.notes.signers) = (revoked, signers);
        Ok(true)
    }

    /// What these credentials of a node lack, made good. What is issued is recorded.
    pub(crate) fn upkeep(
        &self,
        name: &str,
        old: Option<&Credentials>,
        issued: &mut Issued,
        now: SystemTime,
        days: u32,
    ) -> Result<Upkeep> {
        let reason = match old.map(|old| (old, self.check(name, old, issued))) {
            Some((old, Ok(validity))) if !validity.is_due(now) => {
                let why = "delivered with other authorities".to_owned();
                let fresh = (!self.are_current(old)).then(|| (self.current(old), why));
                return Ok(Upkeep { validity, fresh });
            }
            Some((_, Ok(_))) => "renewed".to_owned(),
            Some((_, Err(e))) => format!("replaced: {e}"),
            None => "made".to_owned(),
        };
        let (fresh, validity) = self.issue(name, issued, now, days)?;
        Ok(Upkeep { validity, fresh: Some((fresh, reason)) })
    }

    /// New credentials, which are recorded.
    pub(crate) fn issue(
        &self,
        name: &str,
        issued: &mut Issued,
        now: SystemTime,
        days: u32,
    ) -> Result<(Credentials, Validity)> {
        let (certificate, key) = self.signing.issue(name, now, days)?;
        issued.record(name, certificate.serial, seconds(certificate.validity.not_after), false);
        let fresh = Credentials { ca: self.bundle(), certificate: certificate.pem, key, crl: self.crl.clone() };
        Ok((fresh, certificate.validity))
    }

    /// The same certificate with all authorities of now and what they have revoked.
    pub(crate) fn current(&self, credentials: &Credentials) -> Credentials {
        Credentials { ca: self.bundle(), crl: self.crl.clone(), ..credentials.clone() }
    }

    pub(crate) fn are_current(&self, credentials: &Credentials) -> bool {
        credentials.ca == self.bundle() && credentials.crl == self.crl
    }

    /// The validity of credentials, which are recorded; an error says why they are of no use.
    pub(crate) fn check(&self, name: &str, credentials: &Credentials, issued: &mut Issued) -> Result<Validity> {
        let validity = check(name, &credentials.certificate, &credentials.key)?;
        if !self.signing.signed(&credentials.certificate) {
            match (&self.other, self.phase()) {
                (Some(old), Phase::Replacing { .. }) if old.signed(&credentials.certificate) => {
                    return error("the certificate was issued by the previous authority");
                }
                _ => return error("the certificate was issued by another authority"),
            }
        }
        if let Some(serial) = super::serial(&credentials.certificate) {
            if issued.is_revoked(name, &serial) {
                return error("the certificate was revoked");
            }
            issued.record(name, serial, seconds(validity.not_after), false);
        }
        Ok(validity)
    }
}

/// What all nodes have, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Everybody {
    /// All know all authorities.
    pub(crate) trusted: bool,
    /// All have a certificate by the authority that signs.
    pub(crate) replaced: bool,
}

/// Since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
