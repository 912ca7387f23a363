//! Certificates for both ends, in the files that Selvedge and strongSwan read.

use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate (ECDSA P-256) with its key and whom it trusts, in PEM.
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// PKCS#8.
    pub key: String,
    /// The authority's certificate.
    pub authority: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "bench");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// A certificate for this name (subject alternative name and common name).
    pub fn issue(&self, name: &str) -> Result<Credentials> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Credentials { certificate: certificate.pem(), key: key.serialize_pem(), authority: self.0.pem() })
    }
}

impl Credentials {
    /// As the operator delivers them.
    pub fn write(&self, folder: &Path) -> Result<()> {
        self.write_as(folder, "ca.crt", "tls.crt", "tls.key")
    }

    /// Under other names, the folders of which are made.
    pub fn write_as(&self, folder: &Path, authority: &str, certificate: &str, key: &str) -> Result<()> {
        for (name, text) in [(authority, &self.authority), (certificate, &self.certificate), (key, &self.key)] {
            let path = folder.join(name);
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}
