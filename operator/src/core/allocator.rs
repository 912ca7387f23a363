//! Pod networks for edge nodes that Kubernetes gave none.
//!
//! A node keeps its block as long as it exists. A block that was never used comes first, in address order; freed blocks
//! come last, the longest free one first, because peers and caches may still know the old owner. A node that comes back
//! gets its former block if nobody took it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::claims::{family, first, last, overlap};

/// Who has which block, and which were freed: what must survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allocations {
    nodes: BTreeMap<String, Vec<IpNet>>,
    /// In the order of freeing.
    freed: Vec<Freed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Freed {
    block: IpNet,
    node: String,
}

/// The networks of one family that are divided into blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    networks: Vec<IpNet>,
    mask: u8,
}

/// Every block of the pool is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exhausted {
    pool: Pool,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks: Vec<String> = self.pool.networks.iter().map(IpNet::to_string).collect();
        let Pool { mask, .. } = self.pool;
        write!(f, "the pool {} has {} blocks of /{mask}, all in use", networks.join(", "), self.pool.blocks())
    }
}

impl Pool {
    /// `networks` of one family, each wider than `mask`.
    pub(super) fn new(networks: Vec<IpNet>, mask: u8) -> Self {
        Pool { networks, mask }
    }

    /// How many blocks the pool has.
    pub(super) fn blocks(&self) -> u128 {
        self.networks.iter().map(|n| 1u128 << self.mask.saturating_sub(n.prefix_len())).sum()
    }

    pub(super) fn contains(&self, network: IpNet) -> bool {
        self.networks.iter().any(|pool| pool.contains(&network))
    }

    pub(super) fn family(&self) -> Option<u8> {
        self.networks.first().map(|n| family(*n))
    }
}

impl Allocations {
    /// What nodes are known to have.
    pub(crate) fn of(nodes: impl IntoIterator<Item = (String, Vec<IpNet>)>) -> Allocations {
        let nodes = nodes.into_iter().filter(|(_, blocks)| !blocks.is_empty()).collect();
        Allocations { nodes, freed: Vec::new() }
    }

    /// The blocks of a node.
    pub(super) fn blocks_of(&self, node: &str) -> &[IpNet] {
        self.nodes.get(node).map_or(&[], Vec::as_slice)
    }

    /// Records what a node has; what it had before and has no more is free.
    pub(super) fn set(&mut self, node: &str, blocks: Vec<IpNet>) {
        let old = if blocks.is_empty() { self.nodes.remove(node) } else { self.nodes.insert(node.to_owned(), blocks) };
        let now = self.blocks_of(node).to_vec();
        self.freed.retain(|freed| !now.iter().any(|block| overlap(*block, freed.block)));
        let dropped = old.unwrap_or_default().into_iter().filter(|block| !now.contains(block));
        self.freed.extend(dropped.map(|block| Freed { block, node: node.to_owned() }));
    }

    /// Frees the blocks of every node that is not wanted any more.
    pub(super) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.nodes.keys().filter(|node| !wanted(node)).cloned().collect();
        for node in gone {
            self.set(&node, Vec::new());
        }
    }

    /// Forgets freed blocks that the pools would not give again.
    pub(super) fn prune(&mut self, pools: &[Pool]) {
        let is_block = |b: IpNet| pools.iter().any(|pool| pool.contains(b) && b.prefix_len() == pool.mask);
        self.freed.retain(|freed| is_block(freed.block));
    }

    /// Every block that some node has.
    pub(super) fn blocks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.nodes.values().flatten().copied()
    }
}

/// Gives out blocks, among networks that are taken by others.
pub(super) struct Allocator {
    taken: Ranges,
    /// Taken ones and those that only were used before.
    touched: Ranges,
    /// Nothing below is untouched, by network: one pass over a pool serves all nodes.
    cursors: BTreeMap<IpNet, u128>,
}

impl Allocator {
    pub(super) fn new(allocations: &Allocations, taken: impl Iterator<Item = IpNet>) -> Self {
        let mut ranges = Ranges::default();
        taken.chain(allocations.blocks()).for_each(|network| ranges.insert(network));
        let mut touched = ranges.clone();
        allocations.freed.iter().for_each(|freed| touched.insert(freed.block));
        Allocator { taken: ranges, touched, cursors: BTreeMap::new() }
    }

    /// A block for the node. It is the node's once it is recorded with [`Allocations::set`].
    pub(super) fn allocate(&mut self, allocations: &Allocations, pool: &Pool, node: &str) -> Result<IpNet, Exhausted> {
        let usable = |block: IpNet| {
            pool.contains(block) && block.prefix_len() == pool.mask && self.taken.end_of_overlap(block).is_none()
        };
        let mut free = allocations.freed.iter().filter(|freed| usable(freed.block));
        let own = free.clone().find(|freed| freed.node == node).map(|freed| freed.block);
        let oldest = free.next().map(|freed| freed.block);
        let block = own.or_else(|| self.untouched(pool)).or(oldest).ok_or_else(|| Exhausted { pool: pool.clone() })?;
        self.touched.insert(block);
        Ok(block)
    }

    fn untouched(&mut self, pool: &Pool) -> Option<IpNet> {
        for network in &pool.networks {
            let size = 1u128 << (network.max_prefix_len() - pool.mask);
            let cursor = self.cursors.entry(*network).or_insert(first(*network));
            while *cursor <= last(*network) {
                let block = block(*network, *cursor, pool.mask)?;
                let Some(end) = self.touched.end_of_overlap(block) else { return Some(block) };
                let Some(next) = (end / size).checked_add(1).and_then(|n| n.checked_mul(size)) else { break };
                *cursor = next;
            }
        }
        None
    }
}

/// The block of a network's family that starts at an address.
fn block(network: IpNet, start: u128, mask: u8) -> Option<IpNet> {
    match network {
        IpNet::V4(_) => Some(IpNet::V4(Ipv4Net::new(Ipv4Addr::from(u32::try_from(start).ok()?), mask).ok()?)),
        IpNet::V6(_) => Some(IpNet::V6(Ipv6Net::new(Ipv6Addr::from(start), mask).ok()?)),
    }
}

/// Disjoint ranges of addresses: from (family, first) to last.
#[derive(Clone, Default)]
struct Ranges(BTreeMap<(u8, u128), u128>);

impl Ranges {
    fn insert(&mut self, network: IpNet) {
        let family = family(network);
        let (mut start, mut end) = (first(network), last(network));
        while let Some((&(_, other), &other_end)) = self.overlapping(family, start, end) {
            self.0.remove(&(family, other));
            start = start.min(other);
            end = end.max(other_end);
        }
        self.0.insert((family, start), end);
    }

    /// The last address of a range that shares addresses with the network.
    fn end_of_overlap(&self, network: IpNet) -> Option<u128> {
        self.overlapping(family(network), first(network), last(network)).map(|(_, end)| *end)
    }

    fn overlapping(&self, family: u8, start: u128, end: u128) -> Option<(&(u8, u128), &u128)> {
        self.0.range((family, 0)..=(family, end)).next_back().filter(|(_, other_end)| **other_end >= start)
    }
}

#[cfg(test)]
mod tests;
