//! Certificates and keys of a cluster's control plane, as files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// The cluster's certificate authority, with the folder where everything it issues is.
pub struct Pki {
    dir: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// Who a certificate is for.
#[derive(Debug, Default)]
pub struct Subject<'a> {
    /// The user name in Kubernetes.
    pub name: &'a str,
    /// Its group.
    pub group: Option<&'a str>,
    /// Names and addresses that a server answers to; a client has none.
    pub server: &'a [String],
}

impl Pki {
    /// A new authority and the key that service account tokens are signed by: `ca.crt`, `ca.key`, `sa.key`, `sa.pub`.
    pub fn create(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let key_pem = key.serialize_pem();
        let pki = Self { dir: dir.to_owned(), authority: CertifiedIssuer::self_signed(params, key)? };
        let accounts = KeyPair::generate()?;
        pki.write("ca.crt", &pki.authority())?;
        pki.write("ca.key", &key_pem)?;
        pki.write("sa.key", &accounts.serialize_pem())?;
        pki.write("sa.pub", &accounts.public_key_pem())?;
        Ok(pki)
    }

    /// The authority's certificate in PEM.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// Writes `<file>.crt` and `<file>.key`.
    pub fn issue(&self, file: &str, subject: &Subject<'_>) -> Result<()> {
        let mut params = CertificateParams::new(subject.server)?;
        params.distinguished_name.push(DnType::CommonName, subject.name);
        if let Some(group) = subject.group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !subject.server.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.authority)?;
        self.write(&format!("{file}.crt"), &certificate.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    /// Where a file is.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// What is in a file.
    pub fn read(&self, file: &str) -> Result<String> {
        let path = self.path(file);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path(file);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pki in {}", self.dir.display())
    }
}
