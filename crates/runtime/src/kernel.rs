//! The kernel's links, addresses, routes, rules and policies: read into the plan's words, changed by its steps.

use std::collections::BTreeMap;
use std::net::IpAddr;

use selvedge_linux::netlink::{Protocol, Socket};
use selvedge_linux::{Error, Family as LinuxFamily, Result, address, link, route, rule, sysctl, xfrm};
use selvedge_plan::{
    Action, Applied, DEVICE, Device, Direction, Family, MTU, NODE_TABLE, NextHop, POD_TABLE, Policy, Route, RouteKind,
    Rule, Step, Template,
};

/// The netlink sockets and the names of the links.
pub(crate) struct Kernel {
    route: Socket,
    xfrm: Option<Socket>,
    links: Vec<link::Link>,
}

impl Kernel {
    pub(crate) fn open() -> Result<Self> {
        // A kernel without IPsec has no policies to read.
        Ok(Kernel { route: Socket::open(Protocol::Route)?, xfrm: Socket::open(Protocol::Xfrm).ok(), links: Vec::new() })
    }

    /// Reads the links anew; everything below works with what was read last.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        self.links = link::list(&mut self.route)?;
        Ok(())
    }

    pub(crate) fn addresses(&self) -> Vec<(String, ipnet::IpNet)> {
        self.links.iter().flat_map(|l| l.addresses.iter().map(|a| (l.name.clone(), *a))).collect()
    }

    /// The way to an address, if there is one.
    pub(crate) fn next_hop(&mut self, to: IpAddr) -> Option<NextHop> {
        let path = route::lookup(&mut self.route, to).ok()?;
        Some(NextHop { gateway: path.gateway, device: self.name(path.dev?)?.to_owned() })
    }

    /// The largest packet of the link that leads to an address.
    pub(crate) fn mtu_towards(&mut self, to: IpAddr) -> Option<u32> {
        let device = route::lookup(&mut self.route, to).ok()?.dev?;
        self.links.iter().find(|l| l.index == device).map(|l| l.mtu)
    }

    /// The own address that packets to `to` come from.
    pub(crate) fn source_for(&mut self, to: IpAddr) -> Option<IpAddr> {
        route::lookup(&mut self.route, to).ok()?.src
    }

    /// Makes the device what it should be; a TUN is the keeper's to make.
    pub(crate) fn ensure_device(&mut self, device: Option<Device>) -> Result<()> {
        let present = self.links.iter().find(|l| l.name == DEVICE).cloned();
        let dummy = present.as_ref().is_some_and(|l| l.kind.as_deref() == Some("dummy"));
        match device {
            None if dummy => {
                link::delete(&mut self.route, DEVICE)?;
            }
            None => return Ok(()),
            Some(Device::Tun) => match present {
                Some(found) if !dummy => return self.bring_up(&found),
                _ => return Err(Error::new(format!("device {DEVICE} is not there: the keeper has not made it"))),
            },
            Some(Device::Dummy) => match present {
                Some(found) if dummy => return self.bring_up(&found),
                Some(_) => return Err(Error::new(format!("a device {DEVICE} of another kind is in the way"))),
                None => {
                    link::create(&mut self.route, DEVICE, "dummy")?;
                }
            },
        }
        self.refresh()?;
        match self.links.iter().find(|l| l.name == DEVICE).cloned() {
            Some(found) => self.bring_up(&found),
            None => Ok(()),
        }
    }

    /// Deletes the device if it is a dummy; used before a TUN of the same name is made.
    pub(crate) fn remove_dummy(&mut self) -> Result<()> {
        self.refresh()?;
        if self.links.iter().any(|l| l.name == DEVICE && l.kind.as_deref() == Some("dummy")) {
            link::delete(&mut self.route, DEVICE)?;
        }
        Ok(())
    }

    /// Deletes a bridge, if it is there and nothing hangs on it.
    pub(crate) fn delete_idle_bridge(&mut self, name: &str) -> Result<()> {
        self.refresh()?;
        let bridge = self.links.iter().find(|l| l.name == name && l.kind.as_deref() == Some("bridge"));
        match bridge.map(|l| l.index) {
            Some(index) if self.links.iter().all(|l| l.master != Some(index)) => {
                link::delete(&mut self.route, name).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// What the plan's parts look like in the kernel.
    pub(crate) fn applied(&mut self) -> Result<Applied> {
        let mut applied = Applied::default();
        if let Some(device) = self.links.iter().find(|l| l.name == DEVICE) {
            applied.addresses = device.addresses.clone();
        }
        for table in [POD_TABLE, NODE_TABLE] {
            for found in route::list(&mut self.route, table)? {
                applied.routes.extend(self.planned_route(&found));
            }
        }
        for family in [LinuxFamily::V4, LinuxFamily::V6] {
            match rule::list(&mut self.route, family) {
                Ok(rules) => applied.rules.extend(rules.iter().filter_map(planned_rule)),
                // A kernel without IPv6 has no rules for it.
                Err(error) if family == LinuxFamily::V6 && error.is_unsupported() => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(socket) = &mut self.xfrm {
            applied.policies = xfrm::list_policies(socket)?.iter().filter_map(planned_policy).collect();
        }
        Ok(applied)
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::AddAddress(net) => {
                let device = self.index(DEVICE)?;
                address::add(&mut self.route, device, *net).map(drop)
            }
            Step::RemoveAddress(net) => {
                let device = self.index(DEVICE)?;
                address::delete(&mut self.route, device, *net).map(drop)
            }
            Step::SetRoute(planned) => {
                let route = self.kernel_route(planned)?;
                route::replace(&mut self.route, &route)
            }
            Step::RemoveRoute(planned) => {
                let route = self.kernel_route(planned)?;
                route::delete(&mut self.route, &route).map(drop)
            }
            Step::AddRule(planned) => rule::add(&mut self.route, &kernel_rule(planned)).map(drop),
            Step::RemoveRule(planned) => rule::delete(&mut self.route, &kernel_rule(planned)).map(drop),
            Step::SetPolicy(planned) => xfrm::update_policy(self.xfrm()?, &kernel_policy(planned)),
            Step::RemovePolicy(planned) => xfrm::delete_policy(self.xfrm()?, &kernel_policy(planned)).map(drop),
        }
    }

    /// By link name, `accept_ra` of the links that a default route learnt from router advertisements uses.
    pub(crate) fn accept_ra(&mut self) -> BTreeMap<String, u8> {
        /// `RTPROT_RA` of linux/rtnetlink.h.
        const LEARNT: u8 = 9;
        const MAIN: u32 = 254;
        let routes = route::list(&mut self.route, MAIN).unwrap_or_default();
        let devices = routes
            .iter()
            .filter(|r| r.protocol == LEARNT && r.dst.prefix_len() == 0)
            .filter_map(|r| Some(self.name(r.dev?)?.to_owned()));
        let setting = |name: String| {
            let value = sysctl::get(&format!("net/ipv6/conf/{name}/accept_ra")).ok()?;
            Some((name, value.parse().ok()?))
        };
        devices.filter_map(setting).collect()
    }

    fn bring_up(&mut self, device: &link::Link) -> Result<()> {
        if device.mtu != MTU {
            link::set_mtu(&mut self.route, device.index, MTU)?;
        }
        if !device.up {
            link::set_up(&mut self.route, device.index)?;
        }
        Ok(())
    }

    fn xfrm(&mut self) -> Result<&mut Socket> {
        self.xfrm.as_mut().ok_or_else(|| Error::new("this kernel has no IPsec (CONFIG_XFRM_USER)"))
    }

    fn name(&self, index: u32) -> Option<&str> {
        self.links.iter().find(|l| l.index == index).map(|l| l.name.as_str())
    }

    fn index(&self, name: &str) -> Result<u32> {
        let found = self.links.iter().find(|l| l.name == name).map(|l| l.index);
        found.ok_or_else(|| Error::new(format!("device {name} is not there")))
    }

    fn planned_route(&self, found: &route::Route) -> Option<Route> {
        let kind = match found.kind {
            route::Kind::Unicast => RouteKind::Unicast {
                gateway: found.gateway,
                onlink: found.onlink,
                device: self.name(found.dev?)?.to_owned(),
                source: found.src,
            },
            route::Kind::Unreachable => RouteKind::Unreachable,
            route::Kind::Blackhole => return None,
        };
        let metric = match found.dst {
            // The kernel does not say the metric that IPv6 routes have without one.
            ipnet::IpNet::V6(_) if found.metric == 0 => IPV6_DEFAULT_METRIC,
            _ => found.metric,
        };
        Some(Route { table: found.table, destination: found.dst, metric, kind, protocol: found.protocol })
    }

    fn kernel_route(&self, planned: &Route) -> Result<route::Route> {
        let (kind, gateway, onlink, dev, src) = match &planned.kind {
            RouteKind::Unicast { gateway, onlink, device, source } => {
                (route::Kind::Unicast, *gateway, *onlink, Some(self.index(device)?), *source)
            }
            RouteKind::Unreachable => (route::Kind::Unreachable, None, false, None, None),
        };
        Ok(route::Route {
            dst: planned.destination,
            table: planned.table,
            kind,
            gateway,
            dev,
            src,
            metric: planned.metric,
            onlink,
            protocol: planned.protocol,
        })
    }
}

const IPV6_DEFAULT_METRIC: u32 = 1024;

/// Why there is no IPv6 to be had, if so.
pub(crate) fn ipv6_off() -> Option<&'static str> {
    if !std::path::Path::new("/proc/thread-self/net/if_inet6").exists() {
        return Some("the kernel has none (CONFIG_IPV6), or was told so (ipv6.disable=1)");
    }
    let off = |key: &str| sysctl::get(key).is_ok_and(|value| value == "1");
    // Links made from now on follow `default`, and ours is one.
    if off("net/ipv6/conf/all/disable_ipv6") || off("net/ipv6/conf/default/disable_ipv6") {
        return Some("by net.ipv6.conf.all.disable_ipv6 or net.ipv6.conf.default.disable_ipv6");
    }
    let rules = Socket::open(Protocol::Route).and_then(|mut socket| rule::list(&mut socket, LinuxFamily::V6));
    rules.is_err_and(|e| e.is_unsupported()).then_some("the kernel has no rules for it (CONFIG_IPV6_MULTIPLE_TABLES)")
}

fn planned_rule(found: &rule::Rule) -> Option<Rule> {
    found.to.is_none().then_some(Rule {
        family: match found.family {
            LinuxFamily::V4 => Family::V4,
            LinuxFamily::V6 => Family::V6,
        },
        priority: found.priority,
        from: found.from,
        table: found.table,
    })
}

fn kernel_rule(planned: &Rule) -> rule::Rule {
    rule::Rule {
        family: match planned.family {
            Family::V4 => LinuxFamily::V4,
            Family::V6 => LinuxFamily::V6,
        },
        priority: planned.priority,
        table: planned.table,
        from: planned.from,
        to: None,
    }
}

fn planned_policy(found: &xfrm::Policy) -> Option<Policy> {
    Some(Policy {
        direction: match found.direction {
            xfrm::Direction::In => Direction::In,
            xfrm::Direction::Out => Direction::Out,
            xfrm::Direction::Forward => Direction::Forward,
        },
        source: found.src,
        destination: found.dst,
        priority: found.priority,
        action: match (found.action, found.template) {
            (xfrm::Action::Block, _) => Action::Block,
            (xfrm::Action::Allow, Some(t)) => {
                Action::Protect(Template { source: t.src, destination: t.dst, reqid: t.reqid })
            }
            (xfrm::Action::Allow, None) => return None,
        },
    })
}

fn kernel_policy(planned: &Policy) -> xfrm::Policy {
    let (action, template) = match planned.action {
        Action::Block => (xfrm::Action::Block, None),
        Action::Protect(t) => {
            (xfrm::Action::Allow, Some(xfrm::Template { src: t.source, dst: t.destination, reqid: t.reqid }))
        }
    };
    xfrm::Policy {
        src: planned.source,
        dst: planned.destination,
        direction: match planned.direction {
            Direction::In => xfrm::Direction::In,
            Direction::Out => xfrm::Direction::Out,
            Direction::Forward => xfrm::Direction::Forward,
        },
        priority: planned.priority,
        action,
        template,
    }
}
