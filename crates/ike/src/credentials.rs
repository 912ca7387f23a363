//! Our certificate, its key and the certificate authorities we trust.

use std::fmt;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use webpki::{EndEntityCert, anchor_from_trusted_cert};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::{Crypto, public_key};
use crate::der;
use crate::validity;

/// A certificate chain with its private key (ECDSA P-256), and certificate authorities.
#[derive(Clone)]
pub struct Credentials {
    chain: Vec<Vec<u8>>,
    key_pkcs8: Zeroizing<Vec<u8>>,
    trust: Vec<Vec<u8>>,
    #[cfg(feature = "crl")]
    revoked: crate::crl::Revoked,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("chain", &self.chain.len())
            .field("trust", &self.trust.len())
            .finish_non_exhaustive()
    }
}

/// Why certificates and key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialError {
    /// There is no certificate of our own.
    NoCertificate,
    /// There is no certificate authority to trust.
    NoTrust,
    /// A file is not what it should be; the words say which and why.
    Unreadable(String),
    /// The private key is not a PKCS#8 key on P-256.
    Key,
    /// The private key is not that of the certificate.
    Mismatch,
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("no certificate of our own"),
            Self::NoTrust => f.write_str("no certificate authority to trust"),
            Self::Unreadable(what) => f.write_str(what),
            Self::Key => f.write_str("the private key is not a PKCS#8 ECDSA P-256 key"),
            Self::Mismatch => f.write_str("the private key does not belong to the certificate"),
        }
    }
}

impl std::error::Error for CredentialError {}

impl Credentials {
    /// `chain` is our certificate followed by intermediates, `trust` the certificate authorities, all in DER;
    /// `key_pkcs8` is the key of the first certificate.
    pub fn new(
        chain: Vec<Vec<u8>>,
        key_pkcs8: Zeroizing<Vec<u8>>,
        trust: Vec<Vec<u8>>,
    ) -> Result<Self, CredentialError> {
        let leaf = CertificateDer::from(chain.first().ok_or(CredentialError::NoCertificate)?.as_slice());
        let leaf = EndEntityCert::try_from(&leaf)
            .map_err(|error| CredentialError::Unreadable(format!("our certificate: {error}")))?;
        let public = public_key(&key_pkcs8).map_err(|_| CredentialError::Key)?;
        // The subject public key is the last field of its structure.
        if !leaf.subject_public_key_info().ends_with(&public) {
            return Err(CredentialError::Mismatch);
        }
        if trust.is_empty() {
            return Err(CredentialError::NoTrust);
        }
        for ca in &trust {
            anchor_from_trusted_cert(&CertificateDer::from(ca.as_slice()))
                .map_err(|error| CredentialError::Unreadable(format!("certificate authority: {error}")))?;
        }
        Ok(Self {
            chain,
            key_pkcs8,
            trust,
            #[cfg(feature = "crl")]
            revoked: Default::default(),
        })
    }

    /// The same from PEM texts. Revocation lists may follow the certificate authorities.
    pub fn from_pem(chain: &[u8], key: &[u8], trust: &[u8]) -> Result<Self, CredentialError> {
        let certificates = |pem: &[u8], what: &str| {
            CertificateDer::pem_slice_iter(pem)
                .map(|certificate| certificate.map(|der| der.to_vec()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| CredentialError::Unreadable(format!("{what}: {error}")))
        };
        let mut parsed = PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|_| CredentialError::Key)?;
        let key = Zeroizing::new(parsed.secret_pkcs8_der().to_vec());
        parsed.zeroize();
        let new =
            Self::new(certificates(chain, "our certificate")?, key, certificates(trust, "certificate authorities")?);
        #[cfg(feature = "crl")]
        let new = new.and_then(|credentials| credentials.with_lists(trust));
        new
    }

    /// Adds the revocation lists of a PEM text.
    #[cfg(feature = "crl")]
    fn with_lists(mut self, pem: &[u8]) -> Result<Self, CredentialError> {
        let unreadable = |what: &dyn fmt::Display| CredentialError::Unreadable(what.to_string());
        let crypto = crate::crypto::RingCrypto::new();
        for list in rustls_pki_types::CertificateRevocationListDer::pem_slice_iter(pem) {
            let list = list.map_err(|error| unreadable(&format_args!("revocation list: {error}")))?;
            self.revoked.add(&list, &self.trust, crypto.verifiers()).map_err(|error| unreadable(&error))?;
        }
        Ok(self)
    }

    #[cfg(feature = "crl")]
    pub(crate) fn revoked(&self) -> &crate::crl::Revoked {
        &self.revoked
    }

    /// When our certificate ends, in seconds since 1970.
    pub fn not_after(&self) -> Option<u64> {
        self.validity().map(|(_, end)| end)
    }

    /// When our certificate begins, in seconds since 1970.
    pub fn not_before(&self) -> Option<u64> {
        self.validity().map(|(begin, _)| begin)
    }

    /// Whether our certificate names the first of the authorities as its issuer: while authorities change, that is the
    /// one that signs.
    #[cfg(feature = "enrol")]
    pub fn is_by_first_authority(&self) -> bool {
        let (Some(leaf), Some(first)) = (self.chain.first(), self.trust.first()) else { return false };
        let (leaf, first) = (CertificateDer::from(leaf.as_slice()), CertificateDer::from(first.as_slice()));
        let (leaf, first) = (EndEntityCert::try_from(&leaf), anchor_from_trusted_cert(&first));
        leaf.is_ok_and(|leaf| first.is_ok_and(|first| leaf.issuer() == first.subject.as_ref()))
    }

    fn validity(&self) -> Option<(u64, u64)> {
        self.chain.first().and_then(|leaf| validity::validity(leaf))
    }

    /// Certificates to send, ours first.
    pub(crate) fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    pub(crate) fn key_pkcs8(&self) -> &[u8] {
        &self.key_pkcs8
    }

    /// Certificate authorities in DER.
    pub(crate) fn trust(&self) -> &[Vec<u8>] {
        &self.trust
    }

    /// What a CERTREQ asks for: the SHA-1 of each authority's SubjectPublicKeyInfo (RFC 7296 section 3.7).
    pub(crate) fn authority_hashes(&self, crypto: &dyn Crypto) -> Vec<u8> {
        let mut hashes = Vec::new();
        for ca in &self.trust {
            if let Ok(anchor) = anchor_from_trusted_cert(&CertificateDer::from(ca.as_slice())) {
                hashes.extend_from_slice(&crypto.sha1(&[&der::sequence(&anchor.subject_public_key_info)]));
            }
        }
        hashes
    }
}
