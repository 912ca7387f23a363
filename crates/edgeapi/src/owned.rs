use miniserde::{Deserialize, json};
use zeroize::{Zeroize as _, Zeroizing};

use crate::base64;
use crate::object::{Meta, RawMeta};

/// The `NodeConfig` in the ConfigMap of a node.
#[derive(Debug, PartialEq, Eq)]
pub enum ConfigMap {
    /// Key `config.json`.
    Text(String),
    /// Key `config.json.gz` of its binary data: a text that is too long for a ConfigMap, as gzip(1) packs it.
    Packed(Vec<u8>),
}

/// The Secret of a node, in PEM.
#[derive(PartialEq, Eq)]
pub struct Secret {
    /// Key `ca.crt`, and behind it key `crl.pem` if there is one.
    pub authorities: Zeroizing<Vec<u8>>,
    /// Key `tls.crt`.
    pub chain: Zeroizing<Vec<u8>>,
    /// Key `tls.key`.
    pub key: Zeroizing<Vec<u8>>,
    /// Key `gateway.pem`, empty if there is none.
    pub gateway: Zeroizing<Vec<u8>>,
}

#[derive(Deserialize)]
struct RawConfigMap {
    data: Option<RawConfigData>,
    #[serde(rename = "binaryData")]
    binary: Option<RawBinaryData>,
}

#[derive(Deserialize)]
struct RawConfigData {
    #[serde(rename = "config.json")]
    config: Option<String>,
}

#[derive(Deserialize)]
struct RawBinaryData {
    #[serde(rename = "config.json.gz")]
    packed: Option<String>,
}

#[derive(Deserialize)]
struct RawSecret {
    data: Option<RawSecretData>,
}

#[derive(Deserialize)]
struct RawSecretData {
    #[serde(rename = "ca.crt")]
    authorities: Option<String>,
    #[serde(rename = "crl.pem")]
    revoked: Option<String>,
    #[serde(rename = "gateway.pem")]
    gateway: Option<String>,
    #[serde(rename = "tls.crt")]
    chain: Option<String>,
    #[serde(rename = "tls.key")]
    key: Option<String>,
}

#[derive(Deserialize)]
struct RawOwned {
    kind: Option<String>,
    metadata: Option<RawMeta>,
}

/// Which object a text is, by name, version and `uid`. What it calls itself is not asked: MetaServer guesses kinds. A
/// `Status` is nobody's object.
pub(crate) fn identify(text: &str) -> Option<(Meta, String)> {
    let mut raw: RawOwned = json::from_str(text).ok()?;
    if raw.kind.as_deref() == Some("Status") {
        return None;
    }
    let uid = raw.metadata.as_mut().and_then(|metadata| metadata.uid.take()).unwrap_or_default();
    Some((raw.metadata.into(), uid))
}

impl ConfigMap {
    /// Reads its text.
    pub fn read(text: &str) -> Result<Self, String> {
        let raw: RawConfigMap = json::from_str(text).map_err(|_| "data[config.json] is no text".to_owned())?;
        match (raw.data.and_then(|data| data.config), raw.binary.and_then(|data| data.packed)) {
            (Some(text), _) => Ok(ConfigMap::Text(text)),
            (None, Some(text)) => {
                let packed = base64::decode(&text).ok_or("binaryData[config.json.gz] is not base64")?;
                Ok(ConfigMap::Packed(packed.to_vec()))
            }
            (None, None) => Err("data[config.json] is missing".to_owned()),
        }
    }
}

impl Secret {
    /// Reads its text, and leaves no other copy of the key behind.
    pub fn read(text: &str) -> Result<Self, String> {
        let raw: RawSecret = json::from_str(text).map_err(|_| "a value of data is no text".to_owned())?;
        let data = raw.data.ok_or("data is missing")?;
        let mut authorities = value("ca.crt", data.authorities)?;
        if data.revoked.is_some() {
            authorities.extend_from_slice(&value("crl.pem", data.revoked)?);
        }
        let gateway = if data.gateway.is_some() { value("gateway.pem", data.gateway)? } else { Zeroizing::default() };
        Ok(Secret { authorities, chain: value("tls.crt", data.chain)?, key: value("tls.key", data.key)?, gateway })
    }
}

fn value(name: &str, text: Option<String>) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut text = text.ok_or_else(|| format!("data[{name}] is missing"))?;
    let bytes = base64::decode(&text);
    text.zeroize();
    bytes.ok_or_else(|| format!("data[{name}] is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_known_by_name_not_by_kind() {
        let text = r#"{"kind":"Configmap","metadata":{"namespace":"s","name":"n","uid":"u","resourceVersion":"3"}}"#;
        let (meta, uid) = identify(text).unwrap();
        assert_eq!((meta.show().as_str(), meta.version, uid.as_str()), ("s/n", 3, "u"));
        assert_eq!(identify(r#"{"kind":"Status","metadata":{}}"#), None);
        assert_eq!(identify("dial tcp"), None);
    }

    #[test]
    fn the_configuration_is_one_key() {
        let text = r#"{"data":{"other":"x","config.json":"{\"version\":1}"}}"#;
        assert_eq!(ConfigMap::read(text).unwrap(), ConfigMap::Text("{\"version\":1}".to_owned()));
        let packed = r#"{"binaryData":{"config.json.gz":"H4s="}}"#;
        assert_eq!(ConfigMap::read(packed).unwrap(), ConfigMap::Packed(vec![0x1f, 0x8b]));
        let broken = ConfigMap::read(r#"{"data":{},"binaryData":{"config.json.gz":"*"}}"#);
        assert_eq!(broken.unwrap_err(), "binaryData[config.json.gz] is not base64");
        assert_eq!(ConfigMap::read(r#"{"data":{}}"#).unwrap_err(), "data[config.json] is missing");
        assert_eq!(ConfigMap::read("{}").unwrap_err(), "data[config.json] is missing");
        assert_eq!(ConfigMap::read(r#"{"data":{"config.json":7}}"#).unwrap_err(), "data[config.json] is no text");
    }

    #[test]
    fn errors_about_secrets_tell_no_secret() {
        let secret =
            |key: &str| Secret::read(&format!(r#"{{"data":{{"ca.crt":"YQ==","tls.crt":"Yg==","tls.key":{key}}}}}"#));
        let good = secret("\"Yw==\"").ok().unwrap();
        assert_eq!((&**good.authorities, &**good.chain, &**good.key), (&b"a"[..], &b"b"[..], &b"c"[..]));
        let text = r#"{"data":{"ca.crt":"YQ==","crl.pem":"ZA==","tls.crt":"Yg==","tls.key":"Yw=="}}"#;
        assert_eq!(&**Secret::read(text).ok().unwrap().authorities, b"ad");
        assert_eq!(secret("\"sesame\"").err().unwrap(), "data[tls.key] is not base64");
        assert_eq!(secret("null").err().unwrap(), "data[tls.key] is missing");
        assert_eq!(secret("[]").err().unwrap(), "a value of data is no text");
    }
}
