//! The steps from what a kernel holds to what it should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::plan::Plan;
use crate::policy::{Action, BLOCK_PRIORITY, Direction, PROTECT_PRIORITY, Policy};
use crate::route::{NODE_TABLE, POD_TABLE, PROTOCOL, Route, RouteKind, Rule};

/// What was read back from the kernel; it may hold what others made, which [`diff`] leaves alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Addresses of [`crate::DEVICE`].
    pub addresses: Vec<IpNet>,
    /// Routes of tables [`POD_TABLE`] and [`NODE_TABLE`].
    pub routes: Vec<Route>,
    /// Rules of both families.
    pub rules: Vec<Rule>,
    /// xfrm policies.
    pub policies: Vec<Policy>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Adds an address to the device.
    AddAddress(IpNet),
    /// Adds a route, or replaces the one of the same table, destination and metric.
    SetRoute(Route),
    /// Adds a policy, or replaces the one of the same direction and selector.
    SetPolicy(Policy),
    /// Adds a rule.
    AddRule(Rule),
    /// Deletes a rule.
    RemoveRule(Rule),
    /// Deletes a route.
    RemoveRoute(Route),
    /// Deletes a policy.
    RemovePolicy(Policy),
    /// Deletes an address from the device.
    RemoveAddress(IpNet),
}

impl Plan {
    /// The part of the plan that [`diff`] compares, as if it had been read back.
    pub fn applied(&self) -> Applied {
        Applied {
            addresses: self.addresses.clone(),
            routes: self.routes.clone(),
            rules: self.rules.clone(),
            policies: self.policies.clone(),
        }
    }
}

/// The steps from `applied` to `plan`, in an order without gaps: what guards comes before what it guards and goes
/// after it, what is new comes before what is old goes. Only what is ours is removed.
pub fn diff(applied: &Applied, plan: &Plan) -> Vec<Step> {
    let mut steps = Vec::new();

    let link_local = |net: &IpNet| matches!(net.addr(), IpAddr::V6(a) if a.is_unicast_link_local());
    let addresses: BTreeSet<IpNet> = applied.addresses.iter().copied().filter(|net| !link_local(net)).collect();
    let wanted_addresses: BTreeSet<IpNet> = plan.addresses.iter().copied().collect();
    steps.extend(wanted_addresses.difference(&addresses).copied().map(Step::AddAddress));

    let policies: BTreeMap<_, _> =
        applied.policies.iter().filter(|p| ours_policy(p)).map(|p| (selector(p), p)).collect();
    let wanted_policies: BTreeMap<_, _> = plan.policies.iter().map(|p| (selector(p), p)).collect();
    let (block, protect): (Vec<&Policy>, Vec<&Policy>) = wanted_policies
        .iter()
        .filter(|(key, p)| policies.get(*key) != Some(*p))
        .map(|(_, p)| *p)
        .partition(|p| p.action == Action::Block);
    steps.extend(block.into_iter().chain(protect).copied().map(Step::SetPolicy));

    let routes: BTreeMap<_, _> = applied.routes.iter().filter(|r| ours_route(r)).map(|r| (place(r), r)).collect();
    let wanted_routes: BTreeMap<_, _> = plan.routes.iter().map(|r| (place(r), r)).collect();
    let (guards, ways): (Vec<&Route>, Vec<&Route>) = wanted_routes
        .iter()
        .filter(|(key, r)| routes.get(*key) != Some(*r))
        .map(|(_, r)| *r)
        .partition(|r| r.kind == RouteKind::Unreachable);
    steps.extend(guards.into_iter().chain(ways).cloned().map(Step::SetRoute));

    let rules: BTreeSet<&Rule> = applied.rules.iter().filter(|r| ours_rule(r)).collect();
    let wanted_rules: BTreeSet<&Rule> = plan.rules.iter().collect();
    steps.extend(wanted_rules.difference(&rules).map(|r| Step::AddRule((*r).clone())));
    steps.extend(rules.difference(&wanted_rules).map(|r| Step::RemoveRule((*r).clone())));

    let (guards, ways): (Vec<&Route>, Vec<&Route>) = routes
        .iter()
        .filter(|(key, _)| !wanted_routes.contains_key(*key))
        .map(|(_, r)| *r)
        .partition(|r| r.kind == RouteKind::Unreachable);
    steps.extend(ways.into_iter().chain(guards).cloned().map(Step::RemoveRoute));
    let stale = policies.iter().filter(|(key, _)| !wanted_policies.contains_key(*key));
    steps.extend(stale.map(|(_, p)| Step::RemovePolicy(**p)));
    steps.extend(addresses.difference(&wanted_addresses).copied().map(Step::RemoveAddress));
    steps
}

/// What makes a route one route to the kernel.
fn place(route: &Route) -> (u32, IpNet, u32) {
    (route.table, route.destination, route.metric)
}

/// What makes a policy one policy to the kernel.
fn selector(policy: &Policy) -> (Direction, IpNet, IpNet) {
    (policy.direction, policy.source, policy.destination)
}

fn ours_route(route: &Route) -> bool {
    matches!(route.table, POD_TABLE | NODE_TABLE) && route.protocol == PROTOCOL
}

fn ours_rule(rule: &Rule) -> bool {
    matches!((rule.priority, rule.table), (POD_TABLE, POD_TABLE) | (NODE_TABLE, NODE_TABLE))
}

fn ours_policy(policy: &Policy) -> bool {
    matches!(policy.priority, PROTECT_PRIORITY | BLOCK_PRIORITY)
}
