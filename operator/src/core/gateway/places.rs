//! Which node listens where, for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_model::gateway::{Gateway as Section, Listener, ListenerProtocol, Rule, Site, TlsVersion};

use super::doc::Doc;
use super::{Input, SecretName, section_name};
use crate::api::GatewayObject;

/// Where a gateway listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) interfaces: Vec<String>,
    pub(super) addresses: Vec<IpNet>,
    pub(super) excluded: Vec<IpNet>,
}

/// Who listens for which host.
pub(super) struct Claim {
    /// Namespace, name and listener.
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) port: u16,
    pub(super) protocol: ListenerProtocol,
    pub(super) min_tls: TlsVersion,
    pub(super) host: String,
    pub(super) certificate: Option<SecretName>,
    pub(super) client_certificates: bool,
    pub(super) in_order: bool,
}

/// Why a claim is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    Protocol(String),
    Host(String),
}

type Key = (u16, bool, Place);

#[derive(Default)]
pub(super) struct Places {
    listeners: BTreeMap<String, BTreeMap<Key, Listener>>,
    owners: BTreeMap<(String, Key, String), String>,
    secrets: BTreeMap<String, BTreeSet<SecretName>>,
    pub(super) named: BTreeSet<SecretName>,
}

/// A site of a listener on a node.
pub(super) type Spot = (String, Key, usize);

impl Places {
    /// Takes a host at a port of a node.
    pub(super) fn claim(&mut self, node: &str, claim: &Claim) -> Result<Spot, Conflict> {
        let udp = claim.protocol == ListenerProtocol::Udp;
        let key: Key = (claim.port, udp, claim.place.clone());
        let owner = (node.to_owned(), key.clone(), claim.host.clone());
        let listener =
            self.listeners.entry(node.to_owned()).or_default().entry(key.clone()).or_insert_with(|| Listener {
                name: claim.name.clone(),
                port: claim.port,
                protocol: claim.protocol,
                interfaces: claim.place.interfaces.clone(),
                addresses: claim.place.addresses.clone(),
                excluded: claim.place.excluded.clone(),
                min_tls: claim.min_tls,
                sites: Vec::new(),
            });
        if listener.protocol != claim.protocol {
            return Err(Conflict::Protocol(listener.name.clone()));
        }
        if let Some(first) = self.owners.get(&owner).filter(|first| **first != claim.name) {
            return Err(Conflict::Host(first.clone()));
        }
        self.owners.insert(owner, claim.name.clone());
        listener.min_tls = listener.min_tls.max(claim.min_tls);
        if let Some(i) = listener.sites.iter().position(|site| site.host == claim.host) {
            return Ok((node.to_owned(), key, i));
        }
        listener.sites.push(Site {
            host: claim.host.clone(),
            certificate: claim.certificate.as_ref().map(section_name).unwrap_or_default(),
            client_certificates: claim.client_certificates,
            in_order: claim.in_order,
            rules: Vec::new(),
        });
        self.secrets.entry(node.to_owned()).or_default().extend(claim.certificate.clone());
        Ok((node.to_owned(), key, listener.sites.len() - 1))
    }

    pub(super) fn add(&mut self, (node, key, site): &Spot, rules: &[Rule]) {
        let listener = self.listeners.get_mut(node).and_then(|listeners| listeners.get_mut(key));
        if let Some(site) = listener.and_then(|listener| listener.sites.get_mut(*site)) {
            site.rules.extend_from_slice(rules);
        }
    }

    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    pub(super) fn finish(
        self,
    ) -> (BTreeMap<String, Section>, BTreeMap<String, BTreeSet<SecretName>>, BTreeSet<SecretName>) {
        let section = |listeners: BTreeMap<Key, Listener>| Section { listeners: listeners.into_values().collect() };
        let sections = self.listeners.into_iter().map(|(node, listeners)| (node, section(listeners))).collect();
        (sections, self.secrets.into_iter().filter(|(_, secrets)| !secrets.is_empty()).collect(), self.named)
    }
}

/// Annotations `selvedge.dev/interfaces`, `selvedge.dev/addresses` and `selvedge.dev/excluded-addresses`.
pub(super) fn place(object: &GatewayObject, doc: &Doc<'_>) -> Place {
    let words = |name: &str| {
        let text = object.annotations.get(&format!("selvedge.dev/{name}"));
        text.into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|word| !word.is_empty())
    };
    let networks = |name: &str| {
        words(name)
            .filter_map(|word| {
                network(word, || doc.note(&format!("(annotation selvedge.dev/{name}) \"{word}\" is no address")))
            })
            .collect()
    };
    Place {
        interfaces: words("interfaces").map(str::to_owned).collect(),
        addresses: networks("addresses"),
        excluded: networks("excluded-addresses"),
    }
}

/// An address or a network.
pub(super) fn network(text: &str, wrong: impl FnOnce()) -> Option<IpNet> {
    let network =
        text.parse::<IpAddr>().map(IpNet::from).ok().or_else(|| text.parse::<IpNet>().ok().map(|n| n.trunc()));
    if network.is_none() {
        wrong();
    }
    network
}

/// The nodes whose labels meet `label=value, ...`; a label alone must be there.
pub(super) fn chosen(input: &Input<'_>, selector: &str) -> Vec<String> {
    let wanted: Vec<&str> = selector.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let meets = |labels: &BTreeMap<String, String>| {
        wanted.iter().all(|word| match word.split_once('=') {
            Some((label, value)) => labels.get(label.trim()).is_some_and(|v| v == value.trim()),
            None => labels.contains_key(*word),
        })
    };
    let nodes = input.nodes.iter().filter(|(_, node)| !wanted.is_empty() && meets(&node.labels));
    nodes.map(|(name, _)| (*name).to_owned()).collect()
}
