//! The small types of fields: networks, words, names, selectors.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use schemars::JsonSchema;
use selvedge_model::{Balance, DatapathMode, Distribution, FirewallBackend, ServiceMode};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// A network in CIDR notation whose host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix(pub(super) IpNet);

impl Prefix {
    pub(super) fn parse(text: &str) -> Result<Prefix, String> {
        let net: IpNet = text.parse().map_err(|_| format!("\"{text}\" is not a network in CIDR notation"))?;
        if net.trunc() != net {
            return Err(format!("\"{text}\" has host bits set; the network is {}", net.trunc()));
        }
        Ok(Prefix(net))
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Prefix::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

pub(super) fn prefixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    Ok(Vec::<Prefix>::deserialize(deserializer)?.into_iter().map(|p| p.0).collect())
}

/// Labels that a node must all carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Selector(pub(crate) BTreeMap<String, String>);

impl Selector {
    /// The label `node-role.kubernetes.io/<role>` with an empty value.
    pub(super) fn role(role: &str) -> Self {
        Selector(BTreeMap::from([(format!("node-role.kubernetes.io/{role}"), String::new())]))
    }

    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&labels.join(","))
    }
}

/// A settings type that is written as one of a few words.
pub(super) trait Word: Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl Word for DatapathMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("kernel", Self::Kernel), ("user", Self::User)];
}

impl Word for FirewallBackend {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("iptables", Self::Iptables), ("nftables", Self::Nftables)];
}

impl Word for ServiceMode {
    const WORDS: &'static [(&'static str, Self)] = &[("off", Self::Off), ("kernel", Self::Kernel)];
}

impl Word for Balance {
    const WORDS: &'static [(&'static str, Self)] = &Balance::WORDS;
}

impl Word for Distribution {
    const WORDS: &'static [(&'static str, Self)] = &Distribution::WORDS;
}

/// As Kubernetes writes truth into annotations.
impl Word for bool {
    const WORDS: &'static [(&'static str, Self)] = &[("true", true), ("false", false)];
}

pub(super) fn parse_word<T: Word>(text: &str) -> Result<T, String> {
    T::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        format!("\"{text}\" is none of {}", known.join(", "))
    })
}

pub(super) fn word<'de, T: Word, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    parse_word(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn optional_word<'de, T: Word, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_word(&text).map_err(D::Error::custom)).transpose()
}

/// RFC 1123 as Kubernetes has it: what is usable as a file name and as part of a certificate's name.
pub(crate) fn dns_subdomain(name: &str) -> Result<(), String> {
    if name.len() <= 253 && name.split('.').all(is_dns_label) {
        return Ok(());
    }
    Err(format!("\"{name}\" is not a name of small letters, digits, '-' and '.' (RFC 1123)"))
}

pub(crate) fn is_dns_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}
