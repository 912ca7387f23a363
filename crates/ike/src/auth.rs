//! Authentication by certificate: what is signed, how it is signed and how the peer is checked
//! (RFC 7296 section 2.15, RFC 7427, RFC 4945).

use rustls_pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert};

use crate::config::Wall;
use crate::credentials::Credentials;
use crate::crypto::{Crypto, CryptoError, Prf};
use crate::der;
use crate::error::CertificateFailure;
use crate::validity;
use crate::wire::{Auth, AuthMethod, CERT_X509_SIGNATURE, Chain, Id, Payloads, payload};

/// SHA2-256 in SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 7).
pub(crate) const HASH_SHA2_256: [u8; 2] = [0, 2];

/// AlgorithmIdentifier of ecdsa-with-SHA256 (RFC 7427 appendix A.3.2).
pub(crate) const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// Certificates that are looked at, the peer's own included.
const MAX_CERTS: usize = 8;

/// What an end signs: its first message, the other end's nonce and its own identity.
pub(crate) fn signed_octets(
    crypto: &dyn Crypto,
    prf: Prf,
    message: &[u8],
    other_nonce: &[u8],
    sk_p: &[u8],
    id: &Id<'_>,
) -> Vec<u8> {
    [message, other_nonce, &crypto.prf(prf, sk_p, &[&id.body()])].concat()
}

/// Appends our certificates.
pub(crate) fn emit_certs(credentials: &Credentials, chain: &mut Chain) {
    for data in credentials.chain() {
        chain.cert(payload::CERT, crate::wire::Cert { encoding: CERT_X509_SIGNATURE, data });
    }
}

/// Appends the request for certificates of the authorities we trust.
pub(crate) fn emit_certreq(crypto: &dyn Crypto, credentials: &Credentials, chain: &mut Chain) {
    let data = &credentials.authority_hashes(crypto);
    chain.cert(payload::CERTREQ, crate::wire::Cert { encoding: CERT_X509_SIGNATURE, data });
}

/// Appends our AUTH payload.
pub(crate) fn emit_auth(
    crypto: &dyn Crypto,
    credentials: &Credentials,
    octets: &[u8],
    chain: &mut Chain,
) -> Result<(), CryptoError> {
    let value = &crypto.sign(credentials.key_pkcs8(), octets)?;
    chain.auth(&Auth { method: AuthMethod::Signature(&ECDSA_WITH_SHA256), value });
    Ok(())
}

/// The certificates of a message, the peer's own first.
pub(crate) fn certs<'a>(payloads: &Payloads<'a>) -> Vec<CertificateDer<'a>> {
    let x509 = payloads.certs().filter(|cert| cert.encoding == CERT_X509_SIGNATURE);
    x509.take(MAX_CERTS).map(|cert| CertificateDer::from(cert.data)).collect()
}

/// The names a caller with this identity may go by: the name itself, or the names in the certificate whose subject it
/// states. Nothing is proved yet.
pub(crate) fn claimed_names(id: &Id<'_>, certs: &[CertificateDer<'_>]) -> Vec<String> {
    match id {
        Id::Fqdn(name) => vec![(*name).to_owned()],
        Id::Dn(dn) => certs
            .first()
            .and_then(|cert| EndEntityCert::try_from(cert).ok())
            .filter(|cert| der::sequence(cert.subject()) == *dn)
            .map(|cert| cert.valid_dns_names().map(str::to_owned).collect())
            .unwrap_or_default(),
        Id::Other(..) => Vec::new(),
    }
}

/// Whom a message claims to be from, for reports.
pub(crate) fn describe(id: &Id<'_>, certs: &[CertificateDer<'_>]) -> String {
    match (id, claimed_names(id, certs).first()) {
        (_, Some(name)) => name.clone(),
        (Id::Dn(_), None) => "a certificate without a name".to_owned(),
        (_, None) => "an identity of an unsupported kind".to_owned(),
    }
}

/// What an authenticated peer's certificate says about time, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// This time has come.
    pub(crate) wall: u64,
    /// The end of the certificate.
    pub(crate) until: u64,
    #[cfg(feature = "crl")]
    pub(crate) certificate: Option<crate::crl::Which>,
}

/// Proves that the sender of `auth` is `name`: its certificate leads to an authority we trust, is valid now, is made out
/// to `name`, and its key signed `octets`.
///
/// If the clock is not set and the certificates begin later, it is later: authorities do not issue for the future.
pub(crate) fn verify(
    crypto: &dyn Crypto,
    credentials: &Credentials,
    wall: Wall,
    name: &str,
    certs: &[CertificateDer<'_>],
    auth: &Auth<'_>,
    octets: &[u8],
) -> Result<Proof, CertificateFailure> {
    let of = || name.to_owned();
    let (leaf, intermediates) = certs.split_first().ok_or_else(|| CertificateFailure::Missing { of: of() })?;
    let failure = |error: webpki::Error| match error {
        webpki::Error::CertExpired { not_after, .. } => {
            CertificateFailure::Expired { of: of(), at: not_after.as_secs() }
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            CertificateFailure::NotYetValid { of: of(), from: not_before.as_secs() }
        }
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            CertificateFailure::OtherAuthority { of: of() }
        }
        error => CertificateFailure::Other { of: of(), error },
    };
    let until = validity::validity(leaf).map_or(0, |(_, end)| end);
    let leaf = EndEntityCert::try_from(leaf).map_err(failure)?;
    let trust: Vec<CertificateDer<'_>> = credentials.trust().iter().map(|ca| ca.as_slice().into()).collect();
    let anchors: Vec<_> = trust.iter().filter_map(|ca| anchor_from_trusted_cert(ca).ok()).collect();
    let valid_at = |seconds| {
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        leaf.verify_for_usage(crypto.verifiers(), &anchors, intermediates, time, AnyUsage, None, None).map(drop)
    };
    let mut seconds = wall.seconds();
    loop {
        match valid_at(seconds) {
            // Every round is later than the last, and there are no more rounds than certificates.
            Err(webpki::Error::CertNotValidYet { not_before, .. })
                if matches!(wall, Wall::AtLeast(_)) && not_before.as_secs() > seconds =>
            {
                seconds = not_before.as_secs();
            }
            done => break done.map_err(failure)?,
        }
    }

    let server_name = DnsName::try_from(name).map_err(|_| CertificateFailure::NotAName { name: of() })?;
    leaf.verify_is_valid_for_subject_name(&ServerName::DnsName(server_name)).map_err(|_| {
        let presented = leaf.valid_dns_names().next().unwrap_or("nobody").to_owned();
        CertificateFailure::OtherName { expected: of(), presented }
    })?;
    #[cfg(feature = "crl")]
    if certs.iter().filter_map(|cert| crate::crl::Which::read(cert)).any(|which| credentials.revokes(&which)) {
        return Err(CertificateFailure::Revoked { of: of() });
    }
    if signature_is_valid(crypto, &leaf, auth, octets) {
        Ok(Proof {
            wall: seconds,
            until,
            #[cfg(feature = "crl")]
            certificate: certs.first().and_then(|cert| crate::crl::Which::read(cert)),
        })
    } else {
        Err(CertificateFailure::BadSignature { of: of() })
    }
}

fn signature_is_valid(crypto: &dyn Crypto, leaf: &EndEntityCert<'_>, auth: &Auth<'_>, octets: &[u8]) -> bool {
    let converted;
    let (algorithm, signature) = match auth.method {
        AuthMethod::Signature(algorithm) => (algorithm, auth.value),
        AuthMethod::EcdsaP256Sha256 => {
            let Ok(raw) = auth.value.try_into() else { return false };
            converted = der::ecdsa_signature(raw);
            (&ECDSA_WITH_SHA256[..], converted.as_slice())
        }
        AuthMethod::Other(_) => return false,
    };
    crypto
        .verifiers()
        .iter()
        .filter(|verifier| der::sequence(verifier.signature_alg_id().as_ref()) == algorithm)
        .any(|verifier| leaf.verify_signature(*verifier, octets, signature).is_ok())
}

/// The name is what a certificate of our authorities is good for; extended key usages made for TLS say nothing about
/// IKE (RFC 4945 section 5.1.3.12).
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _iter: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}
