//! TLS that ends here: certificates from `gateway.pem`, one configuration for each site.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use selvedge_gateway::Map;
use selvedge_model::gateway::{Listener, ListenerProtocol, Site, TlsVersion};

use crate::error::Context as _;
use crate::{Error, Result};

/// The sections of `gateway.pem`: what stands behind a line `# NAME`, up to the next.
pub(crate) fn sections(pem: &[u8]) -> Map<String, Vec<u8>> {
    let mut sections: Map<String, Vec<u8>> = Map::default();
    let mut current: Option<&mut Vec<u8>> = None;
    for line in pem.split_inclusive(|byte| *byte == b'\n') {
        if let Some(name) = line.strip_prefix(b"# ") {
            let name = String::from_utf8_lossy(name).trim().to_owned();
            current = Some(sections.or_insert(name, Vec::new()));
        } else if let Some(section) = &mut current {
            section.extend_from_slice(line);
        }
    }
    sections
}

/// The configuration of a site. `None`: its TLS does not end here.
pub(super) fn server(
    listener: &Listener,
    site: &Site,
    sections: &Map<String, Vec<u8>>,
) -> Result<Option<Arc<ServerConfig>>> {
    if !matches!(listener.protocol, ListenerProtocol::Https | ListenerProtocol::TlsTerminate) {
        return Ok(None);
    }
    let name = &site.certificate;
    let missing = |name: &str| Error::new(format!("there is no certificate {name}"));
    let pem = sections.get(name).ok_or_else(|| missing(name))?;
    let what = || format!("certificate {name}");
    let chain = CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<Vec<_>, _>>().context(what)?;
    if chain.is_empty() {
        return Err(missing(name));
    }
    let key =
        PrivateKeyDer::from_pem_slice(pem).map_err(|_| Error::new(format!("the key of {name} cannot be read")))?;
    let versions: &[_] = match listener.min_tls {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).context(what)?;
    let builder = if site.client_certificates {
        let name = format!("{name}.ca");
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(sections.get(&name).ok_or_else(|| missing(&name))?) {
            roots.add(authority.context(|| name.clone())?).context(|| name.clone())?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.context(|| name)?)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key).context(what)?;
    if listener.protocol == ListenerProtocol::Https {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(Some(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_begin_with_their_names() {
        let found = sections(b"lost\n# a\none\ntwo\n# a.ca\r\nthree\n# b\n");
        let expected = [("a", &b"one\ntwo\n"[..]), ("a.ca", b"three\n"), ("b", b"")];
        assert!(found.into_iter().eq(expected.map(|(name, text)| (name.to_owned(), text.to_vec()))));
    }
}
