//! Steps lead from anything to the plan, touch nothing of others, and leave no gap.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use common::*;
use proptest::prelude::*;
use proptest::sample::subsequence;
use selvedge_plan::*;

/// What a kernel does with a step.
fn apply(mut state: Applied, steps: &[Step]) -> Applied {
    for step in steps {
        match step.clone() {
            Step::AddAddress(net) => {
                assert!(!state.addresses.contains(&net), "{step:?}");
                state.addresses.push(net);
            }
            Step::RemoveAddress(net) => remove(&mut state.addresses, &net),
            Step::SetRoute(route) => {
                let key = |r: &Route| (r.table, r.destination, r.metric);
                state.routes.retain(|r| key(r) != key(&route));
                state.routes.push(route);
            }
            Step::RemoveRoute(route) => remove(&mut state.routes, &route),
            Step::SetPolicy(policy) => {
                let key = |p: &Policy| (p.direction, p.source, p.destination);
                state.policies.retain(|p| key(p) != key(&policy));
                state.policies.push(policy);
            }
            Step::RemovePolicy(policy) => remove(&mut state.policies, &policy),
            Step::AddRule(rule) => {
                assert!(!state.rules.contains(&rule), "{step:?}");
                state.rules.push(rule);
            }
            Step::RemoveRule(rule) => remove(&mut state.rules, &rule),
        }
    }
    sorted(state)
}

fn remove<T: PartialEq + std::fmt::Debug>(list: &mut Vec<T>, item: &T) {
    let before = list.len();
    list.retain(|other| other != item);
    assert_eq!(list.len() + 1, before, "{item:?} was not there");
}

fn sorted(mut state: Applied) -> Applied {
    state.addresses.sort();
    state.routes.sort();
    state.rules.sort();
    state.policies.sort();
    state
}

/// Plans of one node under many circumstances.
fn plans() -> impl Strategy<Value = Plan> {
    let paths = prop::collection::btree_map(
        prop::sample::select(vec!["beijing.connector", "beijing.edge-2"]),
        (1u32..3, prop::sample::select(vec!["203.0.113.10", "198.51.100.7", "2001:db8::9"])),
        0..3,
    );
    let text = prop::sample::select(vec![EDGE, CONNECTOR, CLOUD]);
    (
        text,
        subsequence(vec![0usize, 1], 0..=2),
        subsequence((0..6).collect::<Vec<usize>>(), 0..=6),
        paths,
        any::<bool>(),
    )
        .prop_map(|(text, peers, prefixes, paths, kernel)| {
            let mut config = config(text);
            let mut index = 0..;
            config.peers.retain(|_| peers.contains(&index.next().unwrap()));
            for peer in &mut config.peers {
                let mut index = 0..;
                peer.prefixes.retain(|_| prefixes.contains(&index.next().unwrap()));
            }
            let mut facts = if text == CLOUD { cloud_facts() } else { edge_facts(Datapath::User) };
            facts.datapath = if kernel { Datapath::Kernel } else { Datapath::User };
            let path = |reqid, remote: &str| Path {
                reqid,
                local: "10.0.0.1".parse().unwrap(),
                remote: remote.parse().unwrap(),
            };
            facts.paths =
                paths.into_iter().map(|(name, (reqid, remote))| (name.to_owned(), path(reqid, remote))).collect();
            Plan::new(&config, &facts)
        })
}

/// What an administrator and other programs may have there, close to ours.
fn foreign() -> Applied {
    let net = |s: &str| s.parse().unwrap();
    let unicast = RouteKind::Unicast { gateway: None, onlink: false, device: "eth0".into(), source: None };
    let route = |table, metric, protocol| Route {
        table,
        destination: net("10.244.0.0/24"),
        metric,
        kind: unicast.clone(),
        protocol,
    };
    let rule = |priority, table| Rule { family: Family::V4, priority, from: None, table };
    let policy = |priority| Policy {
        direction: Direction::Out,
        source: net("10.9.0.0/24"),
        destination: net("10.8.0.0/24"),
        priority,
        action: Action::Block,
    };
    Applied {
        addresses: vec![net("fe80::1/64")],
        routes: vec![route(POD_TABLE, 7, 4), route(254, 7, PROTOCOL)],
        rules: vec![rule(100, POD_TABLE), rule(POD_TABLE, 254)],
        policies: vec![policy(371_327)],
    }
}

proptest! {
    #[test]
    fn steps_lead_to_the_plan(before in plans(), after in plans()) {
        let applied = before.applied();
        let steps = diff(&applied, &after);
        prop_assert_eq!(apply(applied, &steps), sorted(after.applied()));
    }

    #[test]
    fn nothing_to_do_once_there(plan in plans()) {
        prop_assert_eq!(diff(&plan.applied(), &plan), []);
    }

    #[test]
    fn what_others_made_stays(before in plans(), after in plans()) {
        let mut applied = foreign();
        let ours = before.applied();
        applied.addresses.extend(ours.addresses);
        applied.routes.extend(ours.routes);
        applied.rules.extend(ours.rules);
        applied.policies.extend(ours.policies);
        let result = apply(applied.clone(), &diff(&applied, &after));
        let mut wanted = after.applied();
        wanted.addresses.extend(foreign().addresses);
        wanted.routes.extend(foreign().routes);
        wanted.rules.extend(foreign().rules);
        wanted.policies.extend(foreign().policies);
        prop_assert_eq!(result, sorted(wanted));
    }

    /// At every moment, whatever both plans send into a tunnel has a way or a guard, and a policy.
    #[test]
    fn no_gap_on_the_way(before in plans(), after in plans()) {
        let steps = diff(&before.applied(), &after);
        let covered = |plan: &Applied| -> BTreeMap<_, ()> { plan.routes.iter().map(|r| ((r.table, r.destination), ())).collect() };
        let policed = |plan: &Applied| -> BTreeMap<_, ()> {
            plan.policies.iter().map(|p| ((p.direction, p.source, p.destination), ())).collect()
        };
        let (a, b) = (before.applied(), after.applied());
        for done in 0..=steps.len() {
            let now = apply(a.clone(), &steps[..done]);
            let (routes, policies) = (covered(&now), policed(&now));
            prop_assert!(covered(&a).keys().filter(|k| covered(&b).contains_key(*k)).all(|k| routes.contains_key(k)));
            prop_assert!(policed(&a).keys().filter(|k| policed(&b).contains_key(*k)).all(|k| policies.contains_key(k)));
        }
    }
}

#[test]
fn guards_come_first_and_go_last() {
    let plan = Plan::new(&config(EDGE), &edge_facts(Datapath::Kernel));
    let nothing = Plan::new(&config(CLOUD), &Facts::default());
    let kinds = |steps: &[Step]| -> Vec<&str> {
        let mut kinds: Vec<&str> = steps.iter().map(kind).collect();
        kinds.dedup();
        kinds
    };
    assert_eq!(
        kinds(&diff(&Applied::default(), &plan)),
        ["+address", "+block", "+protect", "+guard", "+route", "+rule"]
    );
    let mut empty = nothing.clone();
    (empty.routes, empty.rules) = (Vec::new(), Vec::new());
    assert_eq!(kinds(&diff(&plan.applied(), &empty)), ["-rule", "-route", "-guard", "-policy", "-address"]);
}

fn kind(step: &Step) -> &'static str {
    let guard = |route: &Route| route.kind == RouteKind::Unreachable;
    match step {
        Step::AddAddress(_) => "+address",
        Step::RemoveAddress(_) => "-address",
        Step::SetRoute(route) if guard(route) => "+guard",
        Step::SetRoute(_) => "+route",
        Step::RemoveRoute(route) if guard(route) => "-guard",
        Step::RemoveRoute(_) => "-route",
        Step::SetPolicy(policy) if policy.action == Action::Block => "+block",
        Step::SetPolicy(_) => "+protect",
        Step::RemovePolicy(_) => "-policy",
        Step::AddRule(_) => "+rule",
        Step::RemoveRule(_) => "-rule",
    }
}

#[test]
fn a_peer_that_goes_down_is_blocked_in_place() {
    let up = edge_facts(Datapath::Kernel);
    let mut down = up.clone();
    down.paths.clear();
    let steps = diff(&Plan::new(&config(EDGE), &up).applied(), &Plan::new(&config(EDGE), &down));
    // The Service network, which the node serves itself, is not blocked outwards.
    let removed: Vec<&Step> = steps.iter().filter(|s| matches!(s, Step::RemovePolicy(_))).collect();
    assert_eq!(removed.len(), 2);
    assert!(steps.iter().all(|s| matches!(kind(s), "+block" | "-policy")), "{steps:?}");
    assert_eq!(steps.len(), 8 * 3);
}
