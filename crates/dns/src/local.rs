//! Answers from the cluster's own names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::message::{Asked, IN, Rcode, flag, kind};
use crate::name::Name;
use crate::view::{Found, Host, View};
use crate::writer::{Remarks, Section, Writer};

/// Seconds for which a client may keep what it is told, and that there is nothing.
pub(crate) const TTL: u32 = 5;

/// The schema that is followed.
const VERSION: &[u8] = b"\x051.1.0";

/// Whose "start of authority" goes with an answer that says there is nothing.
#[derive(Clone, Copy)]
pub(crate) enum SoaOwner<'a> {
    Zone(&'a Name),
    /// What is above the name.
    Parent,
}

/// What is to be answered.
pub(crate) struct Answer<'a> {
    pub(crate) view: &'a View,
    pub(crate) zone: &'a Name,
    pub(crate) owner: SoaOwner<'a>,
    pub(crate) asked: &'a Asked,
    /// The name that is looked at, in lower case.
    pub(crate) name: &'a Name,
    /// How it was asked for, and what that stands for, if it is an alias.
    pub(crate) alias: Option<(&'a Name, &'a Name)>,
}

impl Answer<'_> {
    pub(crate) fn write(&self, found: Found, out: &mut Vec<u8>) {
        let mut writer = Writer::answer(out, self.asked);
        if let Some((name, target)) = self.alias {
            put_alias(&mut writer, name, target);
        }
        let rcode = if found == Found::Nothing { Rcode::NxDomain } else { Rcode::NoError };
        if !self.records(&mut writer, &found) {
            writer.section(Section::Authority);
            self.soa(&mut writer);
        }
        writer.finish(self.asked, rcode, flag::AUTHORITATIVE, &Remarks { error: None, origin: "cluster" });
    }

    /// Writes the answers; false if there are none.
    fn records(&self, writer: &mut Writer<'_>, found: &Found) -> bool {
        let owner = self.alias.map_or(&self.asked.name, |(_, target)| target);
        let asked = |kind: u16| self.asked.kind == kind || self.asked.kind == kind::ANY;
        match found {
            Found::Service(service) => {
                let addresses = self.view.addresses(*service).iter().copied();
                let hosts = self.turned(self.view.hosts(*service)).map(|host| host.address);
                self.put_addresses(writer, owner, addresses.chain(hosts))
            }
            Found::Host(service, host) => {
                let hosts = self.view.hosts(*service);
                let Some(first) = hosts.get(*host) else { return false };
                let same = hosts.iter().filter(|host| self.view.same_name(first, host));
                self.put_addresses(writer, owner, same.map(|host| host.address))
            }
            Found::Pod(address) => self.put_addresses(writer, owner, [*address].into_iter()),
            Found::Port(service, port) if asked(kind::SRV) => self.put_port(writer, owner, *service, *port),
            Found::Pointers(first, end) if asked(kind::PTR) => {
                for (service, host) in self.view.pointers(*first, *end) {
                    let Some(name) = self.view.service_name(service, self.zone) else { continue };
                    let name = host.map_or(Some(name), |host| self.view.host_name(host, &name));
                    if let Some(name) = name {
                        writer.record(owner, kind::PTR, IN, TTL, |w| w.name(&name));
                    }
                }
                true
            }
            Found::Version if asked(kind::TXT) => {
                writer.record(owner, kind::TXT, IN, TTL, |w| w.octets(VERSION));
                true
            }
            Found::Apex if asked(kind::SOA) => {
                self.soa(writer);
                true
            }
            Found::Alias(target) => {
                put_alias(writer, owner, target);
                true
            }
            _ => false,
        }
    }

    fn put_addresses(&self, writer: &mut Writer<'_>, owner: &Name, addresses: impl Iterator<Item = IpAddr>) -> bool {
        let mut any = false;
        for address in addresses.filter(|address| wants(self.asked.kind, *address)) {
            writer.address(owner, TTL, address);
            any = true;
        }
        any
    }

    fn put_port(&self, writer: &mut Writer<'_>, owner: &Name, service: usize, port: usize) -> bool {
        let Some(name) = self.view.service_name(service, self.zone) else { return false };
        let Some((number, hosts)) = self.view.port(port) else { return false };
        if !self.view.is_headless(service) {
            put_target(writer, owner, number, &name);
            writer.section(Section::Additional);
            for address in self.view.addresses(service) {
                writer.address(&name, TTL, *address);
            }
            return true;
        }
        let mut told: Vec<&Host> = Vec::new();
        for host in self.turned(hosts) {
            // One name may have an address of each family.
            if told.iter().any(|before| self.view.same_name(before, host)) {
                continue;
            }
            if let Some(target) = self.view.host_name(host, &name) {
                put_target(writer, owner, host.port, &target);
                told.push(host);
            }
        }
        writer.section(Section::Additional);
        for host in hosts {
            if let Some(target) = self.view.host_name(host, &name) {
                writer.address(&target, TTL, host.address);
            }
        }
        !told.is_empty()
    }

    /// Not everybody is to begin with the same endpoint.
    fn turned<'h>(&self, hosts: &'h [Host]) -> impl Iterator<Item = &'h Host> {
        let (front, back) = hosts.split_at(usize::from(self.asked.id) % hosts.len().max(1));
        back.iter().chain(front)
    }

    fn soa(&self, writer: &mut Writer<'_>) {
        let parent = || Name::from_labels(self.name.labels().skip(1));
        let owner = match self.owner {
            SoaOwner::Zone(zone) => Some(*zone),
            SoaOwner::Parent => parent(),
        };
        let below = |label: &[u8]| Name::from_labels([label].into_iter().chain(self.zone.labels()));
        let (Some(owner), Some(server), Some(person)) = (owner, below(b"ns"), below(b"hostmaster")) else { return };
        writer.record(&owner, kind::SOA, IN, TTL, |w| {
            w.name(&server);
            w.name(&person);
            // Serial, refresh, retry, expire, and for how long nothing stays nothing: nobody copies this zone.
            for number in [1, 7200, 1800, 86_400, TTL] {
                w.octets(&number.to_be_bytes());
            }
        });
    }
}

/// The address that a reverse name stands for, if it is a whole one.
pub(crate) fn reverse(name: &Name) -> Option<IpAddr> {
    let mut labels = name.labels();
    if labels.pop()? != b"arpa" {
        return None;
    }
    match labels.pop()? {
        b"in-addr" => {
            let mut octets = [0; 4];
            for octet in &mut octets {
                let label = std::str::from_utf8(labels.pop()?).ok()?;
                *octet = label.parse().ok().filter(|_| label.len() == 1 || !label.starts_with(['0', '+']))?;
            }
            labels.wire().is_empty().then(|| Ipv4Addr::from(octets).into())
        }
        b"ip6" => {
            let mut address = 0_u128;
            for _ in 0..32 {
                let [digit] = labels.pop()? else { return None };
                address = address << 4 | u128::from(char::from(*digit).to_digit(16)?);
            }
            labels.wire().is_empty().then(|| Ipv6Addr::from(address).into())
        }
        _ => None,
    }
}

/// A Service of type `ExternalName` is an alias.
pub(crate) fn put_alias(writer: &mut Writer<'_>, name: &Name, target: &Name) {
    writer.record(name, kind::CNAME, IN, TTL, |w| w.name(target));
}

fn put_target(writer: &mut Writer<'_>, owner: &Name, port: u16, target: &Name) {
    writer.record(owner, kind::SRV, IN, TTL, |w| {
        w.words(&[0, 100, port]);
        w.plain_name(target);
    });
}

fn wants(kind: u16, address: IpAddr) -> bool {
    match kind {
        kind::ANY => true,
        kind::A => address.is_ipv4(),
        kind::AAAA => address.is_ipv6(),
        _ => false,
    }
}
