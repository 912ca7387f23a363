//! TLS 1.3 on both sides by certificates of our own authority. Callers need none, but only enrolment is open to them
//! then.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};

use crate::authority::{Authorities, AuthorityError};
use crate::core::renewal::Validity;

/// Whom a device expects. No node can have this name: theirs are `<cluster>.<node>`.
pub(crate) const SERVER_NAME: &str = "selvedge-operator";

/// Validity of the server's own certificate; the key is made anew with each.
const DAYS: u32 = 30;

/// The server's own side of TLS.
pub(super) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    bundle: String,
    validity: Validity,
}

impl Identity {
    pub(super) fn new(authorities: &Authorities, now: SystemTime) -> Result<Identity, AuthorityError> {
        let (certificate, key) = authorities.signing().issue(SERVER_NAME, now, DAYS)?;
        let wrong = |e: &dyn std::fmt::Display| AuthorityError::new(format!("the server's certificate: {e}"));
        let own = CertificateDer::from_pem_slice(certificate.pem.as_bytes()).map_err(|e| wrong(&e))?;
        let authority = |der: &[u8]| CertificateDer::from(der.to_vec());
        let authorities_der: Vec<_> = authorities.trusted().map(|a| authority(a.der())).collect();
        let mut roots = RootCertStore::empty();
        for der in &authorities_der {
            roots.add(der.clone()).map_err(|e| wrong(&e))?;
        }
        let provider = Arc::new(default_provider());
        let callers = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|e| wrong(&e))?;
        // Devices that enrol find the authority they were told of in the chain.
        let chain = std::iter::once(own).chain(authorities_der).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| wrong(&e))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| wrong(&e))?
            .with_client_cert_verifier(callers)
            .with_single_cert(chain, key)
            .map_err(|e| wrong(&e))?;
        // Who resumes a session is not asked for a certificate again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Identity { config: Arc::new(config), bundle: authorities.bundle(), validity: certificate.validity })
    }

    /// Whether it must be made anew.
    pub(super) fn is_stale(&self, authorities: &Authorities, now: SystemTime) -> bool {
        self.bundle != authorities.bundle() || self.validity.is_due(now)
    }
}
