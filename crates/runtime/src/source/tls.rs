//! TLS for [`super::http`], with the time as this node knows it: a gateway that booted in 1970 must still reach its
//! configuration, and nobody gains by setting its clock back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, ConfigBuilder, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use selvedge_tunnel::{Wall, sha256};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::error::Context as _;
use crate::{Error, Result};

/// A client certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<u8>,
    pub(crate) key: Zeroizing<Vec<u8>>,
}

/// Who a server must be.
#[derive(Clone, Copy)]
pub(crate) enum Trust<'a> {
    /// The host of the URL, by a certificate of one of these authorities (PEM).
    Host(&'a [u8]),
    /// The operator, wherever it is, by a certificate of one of these authorities (PEM).
    Operator(&'a [u8]),
    /// The operator, by the authority among the certificates it presents whose SHA-256 this is.
    Pin([u8; 32]),
}

/// The name in the operator's certificate. No node can have it: theirs are `<cluster>.<node>`.
const OPERATOR: &str = "selvedge-operator";

/// Wraps connections of `https` URLs.
pub(super) struct Tls {
    config: Option<Arc<ClientConfig>>,
    /// Whom to expect, if not the host of the URL.
    name: Option<&'static str>,
}

impl Tls {
    /// Without `trust` there is no TLS.
    pub(super) fn new(trust: Option<Trust<'_>>, identity: Option<&Identity>, clock: Clock) -> Result<Self> {
        let Some(trust) = trust else { return Ok(Tls { config: None, name: None }) };
        let what = || "certificate authorities of the server".to_owned();
        let mut roots = RootCertStore::empty();
        let (authorities, name, pin) = match trust {
            Trust::Host(authorities) => (authorities, None, None),
            Trust::Operator(authorities) => (authorities, Some(OPERATOR), None),
            Trust::Pin(pin) => (&[][..], Some(OPERATOR), Some(pin)),
        };
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            roots.add(certificate.context(what)?).context(what)?;
        }
        let known = match pin {
            Some(pin) => Known::Pin(pin),
            None => Known::Authorities(verifier(roots).context(what)?),
        };
        let builder = believing(known, clock)?;
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => {
                let what = || "certificate and key of this node".to_owned();
                let chain = CertificateDer::pem_slice_iter(chain).collect::<std::result::Result<_, _>>();
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error::new("the key cannot be read"))?;
                builder.with_client_auth_cert(chain.context(what)?, key).context(what)?
            }
        };
        Ok(Tls { config: Some(Arc::new(config)), name })
    }
}

/// For other protocols: a server must prove its name by a certificate of one of these authorities.
#[cfg(feature = "dns")]
pub(crate) fn client(roots: RootCertStore, clock: Clock) -> Result<ClientConfig> {
    let known = verifier(roots).context(|| "certificate authorities of the server".to_owned())?;
    Ok(believing(Known::Authorities(known), clock)?.with_no_client_auth())
}

fn believing(known: Known, clock: Clock) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier { known, schemes: provider.signature_verification_algorithms, clock };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context(|| "set up TLS".to_owned())?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
}

fn verifier(roots: RootCertStore) -> std::result::Result<Arc<WebPkiServerVerifier>, VerifierBuilderError> {
    let provider = Arc::new(ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, Encrypted>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> std::result::Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let config = self.config.clone().ok_or(ureq::Error::Tls("no certificate authority to trust (--ca-file)"))?;
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(self.name.unwrap_or(host))
            .map_err(|_| ureq::Error::Tls("not a server name"))?
            .to_owned();
        let mut conn = ClientConnection::new(config, name)?;
        let mut sock = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        sock.set_timeout(details.timeout);
        conn.complete_io(&mut sock)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Encrypted { buffers, stream: StreamOwned::new(conn, sock) })))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// A connection under TLS.
pub(super) struct Encrypted {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> std::result::Result<(), ureq::Error> {
        use std::io::Write as _;
        self.stream.get_mut().set_timeout(timeout);
        Ok(self.stream.write_all(self.buffers.output().get(..amount).unwrap_or_default())?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> std::result::Result<bool, ureq::Error> {
        use std::io::Read as _;
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encrypted")
    }
}

/// Certificates as usual, but for the time.
#[derive(Debug)]
struct Verifier {
    known: Known,
    schemes: WebPkiSupportedAlgorithms,
    clock: Clock,
}

/// What is known of the server before it speaks.
#[derive(Debug)]
enum Known {
    Authorities(Arc<WebPkiServerVerifier>),
    /// SHA-256 of an authority that it will present.
    Pin([u8; 32]),
}

impl Known {
    fn authorities(
        &self,
        presented: &[CertificateDer<'_>],
    ) -> std::result::Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        let pin = match self {
            Known::Authorities(authorities) => return Ok(authorities.clone()),
            Known::Pin(pin) => pin,
        };
        let Some(pinned) = presented.iter().find(|certificate| sha256(certificate) == *pin) else {
            return Err(rustls::Error::General("the server is not the one that the token is of".to_owned()));
        };
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        verifier(roots).map_err(|error| rustls::Error::General(error.to_string()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let authorities = self.known.authorities(intermediates)?;
        let verify = |time| authorities.verify_server_cert(end_entity, intermediates, name, ocsp, time);
        at_best_time(self.clock.now().wall, intermediates.len(), verify)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.supported_schemes()
    }
}

/// Where the clock is not set it says only what time it is at least: certificates that begin later may be valid already.
fn at_best_time<T>(
    wall: Wall,
    intermediates: usize,
    verify: impl Fn(UnixTime) -> std::result::Result<T, rustls::Error>,
) -> std::result::Result<T, rustls::Error> {
    let mut result = verify(UnixTime::since_unix_epoch(Duration::from_secs(wall.seconds())));
    // Once for each certificate of the chain.
    for _ in 0..=intermediates {
        let later = match (&result, wall) {
            (
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })),
                Wall::AtLeast(_),
            ) => *not_before,
            _ => break,
        };
        result = verify(later);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain whose certificates begin at 50 and 70, and end at 90.
    fn chain(time: UnixTime) -> std::result::Result<u64, rustls::Error> {
        let wrong = |error| Err(rustls::Error::InvalidCertificate(error));
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match time.as_secs() {
            now @ 0..50 => wrong(CertificateError::NotValidYetContext { time: at(now), not_before: at(50) }),
            now @ 50..70 => wrong(CertificateError::NotValidYetContext { time: at(now), not_before: at(70) }),
            now @ 70..90 => Ok(now),
            now => wrong(CertificateError::ExpiredContext { time: at(now), not_after: at(90) }),
        }
    }

    #[test]
    fn a_clock_that_is_not_set_locks_nobody_out() {
        assert_eq!(at_best_time(Wall::AtLeast(10), 1, chain), Ok(70));
        assert_eq!(at_best_time(Wall::AtLeast(80), 1, chain), Ok(80));
        assert!(at_best_time(Wall::AtLeast(100), 1, chain).is_err());
        // One that is set is believed.
        assert_eq!(at_best_time(Wall::Is(80), 1, chain), Ok(80));
        for time in [10, 60, 100] {
            assert!(at_best_time(Wall::Is(time), 1, chain).is_err(), "{time}");
        }
        // And it is not asked for ever.
        let never = |time: UnixTime| {
            let not_before = UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs() + 1));
            Err::<(), _>(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }))
        };
        assert!(at_best_time(Wall::AtLeast(10), 3, never).is_err());
    }
}
