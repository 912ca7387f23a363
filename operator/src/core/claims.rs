//! Who owns which network: no two owners may share an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Networks with their owners, disjoint.
#[derive(Default)]
pub(super) struct Claims(BTreeMap<Key, (IpNet, String)>);

/// Address family and first address.
type Key = (u8, u128);

/// A network that is another owner's already.
pub(super) struct Conflict {
    pub(super) network: IpNet,
    pub(super) other: IpNet,
    pub(super) owner: String,
}

impl Claims {
    /// Claims all the networks or none.
    pub(super) fn claim(&mut self, networks: &[IpNet], owner: &str) -> Result<(), Conflict> {
        for (i, network) in networks.iter().enumerate() {
            if let Some((other, holder)) = self.find(*network) {
                let conflict = Conflict { network: *network, other, owner: holder.to_owned() };
                self.release(&networks[..i]);
                return Err(conflict);
            }
            self.0.insert(key(*network), (*network, owner.to_owned()));
        }
        Ok(())
    }

    /// Gives up networks that were claimed.
    pub(super) fn release(&mut self, networks: &[IpNet]) {
        for network in networks {
            self.0.remove(&key(*network));
        }
    }

    /// A claimed network that shares addresses with this one, and its owner.
    pub(super) fn find(&self, network: IpNet) -> Option<(IpNet, &str)> {
        // The claims are disjoint, so only the neighbours can overlap.
        let below = self.0.range(..=key(network)).next_back();
        let above = self.0.range(key(network)..).next();
        let mut neighbours = below.into_iter().chain(above).map(|(_, claim)| claim);
        neighbours.find(|(other, _)| overlap(*other, network)).map(|(other, owner)| (*other, owner.as_str()))
    }

    pub(super) fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.0.values().map(|(network, _)| *network)
    }
}

pub(super) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// 4 or 6.
pub(super) fn family(network: IpNet) -> u8 {
    if network.addr().is_ipv4() { 4 } else { 6 }
}

/// The first address as a number.
pub(super) fn first(network: IpNet) -> u128 {
    match network.network() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The last address as a number.
pub(super) fn last(network: IpNet) -> u128 {
    match network.broadcast() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn key(network: IpNet) -> Key {
    (family(network), first(network))
}
