use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn pool(network: &str, mask: u8) -> Pool {
    Pool::new(vec![net(network)], mask)
}

/// Gives a node a block of the pool, as admission does.
fn give(allocations: &mut Allocations, pool: &Pool, node: &str, taken: &[IpNet]) -> Result<IpNet, Exhausted> {
    let block = Allocator::new(allocations, taken.iter().copied()).allocate(allocations, pool, node)?;
    allocations.set(node, vec![block]);
    Ok(block)
}

#[test]
fn untouched_blocks_come_first_and_the_longest_free_one_next() {
    let pool = pool("10.0.0.0/22", 24);
    let mut allocations = Allocations::default();
    for (node, expected) in [("a", "10.0.0.0/24"), ("b", "10.0.1.0/24"), ("c", "10.0.2.0/24")] {
        assert_eq!(give(&mut allocations, &pool, node, &[]), Ok(net(expected)));
    }
    allocations.set("b", Vec::new());
    allocations.set("a", Vec::new());
    for (node, expected) in [("d", "10.0.3.0/24"), ("e", "10.0.1.0/24"), ("f", "10.0.0.0/24")] {
        assert_eq!(give(&mut allocations, &pool, node, &[]), Ok(net(expected)));
    }
    let error = give(&mut allocations, &pool, "g", &[]).unwrap_err();
    assert_eq!(error.to_string(), "the pool 10.0.0.0/22 has 4 blocks of /24, all in use");
}

#[test]
fn who_comes_back_gets_the_former_block() {
    let pool = pool("10.0.0.0/22", 24);
    let mut allocations = Allocations::default();
    give(&mut allocations, &pool, "a", &[]).unwrap();
    give(&mut allocations, &pool, "b", &[]).unwrap();
    allocations.retain(|_| false);
    assert_eq!(give(&mut allocations, &pool, "b", &[]), Ok(net("10.0.1.0/24")));
}

#[test]
fn networks_of_others_are_avoided_whatever_their_size() {
    let pool = pool("fd00::/48", 64);
    let mut allocations = Allocations::default();
    let taken = [net("fd00::/49"), net("fd00::5/128"), net("fd00:0:0:8000::5/128"), net("10.0.0.0/8")];
    assert_eq!(give(&mut allocations, &pool, "a", &taken), Ok(net("fd00:0:0:8001::/64")));
}

#[test]
fn the_ends_of_the_address_space_are_reached_and_not_passed() {
    for (network, mask, blocks) in
        [("255.255.255.0/24", 26, 4), ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124", 126, 4), ("0.0.0.0/0", 8, 256)]
    {
        let pool = pool(network, mask);
        let mut allocations = Allocations::default();
        for i in 0..blocks {
            give(&mut allocations, &pool, &format!("n{i}"), &[]).unwrap();
        }
        assert!(give(&mut allocations, &pool, "more", &[]).is_err(), "{network}");
    }
}

#[test]
fn what_survives_a_restart_is_all() {
    let pool = pool("10.0.0.0/23", 24);
    let mut allocations = Allocations::default();
    give(&mut allocations, &pool, "a", &[]).unwrap();
    give(&mut allocations, &pool, "b", &[]).unwrap();
    allocations.set("b", Vec::new());
    let text = serde_json::to_string(&allocations).unwrap();
    assert_eq!(serde_json::from_str::<Allocations>(&text).unwrap(), allocations);
}

#[test]
fn freed_blocks_of_another_pool_are_forgotten() {
    let old = pool("10.0.0.0/23", 24);
    let mut allocations = Allocations::default();
    give(&mut allocations, &old, "a", &[]).unwrap();
    allocations.set("a", Vec::new());
    let new = pool("10.0.0.0/22", 23);
    allocations.prune(std::slice::from_ref(&new));
    assert_eq!(give(&mut allocations, &new, "b", &[]), Ok(net("10.0.0.0/23")));
}

#[derive(Clone, Debug)]
enum Action {
    Add(u8),
    Remove(u8),
    /// Several nodes in one go, as one compilation does.
    AddMany(Vec<u8>),
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0u8..24).prop_map(Action::Add),
        3 => (0u8..24).prop_map(Action::Remove),
        2 => prop::collection::vec(0u8..24, 0..6).prop_map(Action::AddMany),
        1 => Just(Action::Restart),
    ]
}

proptest! {
    /// No block twice, none that is taken, none that moves; refused only when the pool is full.
    #[test]
    fn blocks_are_disjoint_and_stay(actions in prop::collection::vec(action(), 0..60), foreign in 0u8..16) {
        let pool = pool("10.0.0.0/20", 24);
        let taken = [net(&format!("10.0.{foreign}.64/26"))];
        let mut allocations = Allocations::default();
        let mut model: BTreeMap<String, IpNet> = BTreeMap::new();
        for action in actions {
            let nodes = match action {
                Action::Add(n) => vec![n],
                Action::AddMany(nodes) => nodes,
                Action::Remove(n) => {
                    allocations.set(&format!("n{n}"), Vec::new());
                    model.remove(&format!("n{n}"));
                    vec![]
                }
                Action::Restart => {
                    let text = serde_json::to_string(&allocations).unwrap();
                    allocations = serde_json::from_str(&text).unwrap();
                    vec![]
                }
            };
            let mut allocator = Allocator::new(&allocations, taken.iter().copied());
            for node in nodes.iter().map(|n| format!("n{n}")).filter(|node| allocations.blocks_of(node).is_empty()).collect::<std::collections::BTreeSet<_>>() {
                match allocator.allocate(&allocations, &pool, &node) {
                    Ok(block) => {
                        prop_assert!(pool.contains(block) && block.prefix_len() == 24);
                        prop_assert!(!overlap(block, taken[0]));
                        prop_assert!(model.values().all(|other| !overlap(*other, block)), "{block} twice");
                        allocations.set(&node, vec![block]);
                        model.insert(node, block);
                    }
                    Err(_) => prop_assert_eq!(model.len(), 15),
                }
            }
            let now: BTreeMap<String, IpNet> = allocations.nodes.iter().map(|(n, b)| (n.clone(), b[0])).collect();
            prop_assert_eq!(&now, &model);
        }
    }
}
