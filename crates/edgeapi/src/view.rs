use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_model::{Endpoint, Protocol, Service as Served, ServicePort};

use crate::object::{Meta, Object};
use crate::{EndpointSlice, Service, Store};

/// Services and their endpoints, as well as they are known.
#[derive(Debug, Default)]
pub struct View {
    /// Services with cluster IPs.
    pub services: Store<Service>,
    /// What serves them.
    pub slices: Store<EndpointSlice>,
}

impl View {
    /// Whether both halves were read: without endpoints every Service would refuse its clients.
    pub fn is_known(&self) -> bool {
        self.services.is_known() && self.slices.is_known()
    }

    /// Whether anything differs since the last time.
    pub fn take_changed(&mut self) -> bool {
        // Both, without stopping at the first.
        self.services.take_changed() | self.slices.take_changed()
    }

    /// What a node serves, in the order of namespace and name: Services whose addresses lie in `networks`.
    ///
    /// A Service one of whose endpoints is said to be on this machine is left to whoever serves it behind the tunnels.
    /// Of two with the same address the one that changed later has it.
    pub fn list(&self, networks: &[IpNet]) -> Vec<Served> {
        let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
        let of_slices: Vec<_> = self.slices.iter().collect();
        for (meta, slice) in &of_slices {
            slices.entry((&meta.key.0, &slice.service)).or_default().push(slice);
        }
        let within = |ip: &IpAddr| networks.iter().any(|network| network.contains(ip));
        let mut of_services: Vec<_> =
            self.services.iter().filter(|(_, service)| service.cluster_ips.iter().all(within)).collect();
        of_services.sort_by(|(a, _), (b, _)| b.version.cmp(&a.version).then_with(|| a.key.cmp(&b.key)));
        let mut taken = BTreeSet::new();
        let mut list = Vec::with_capacity(of_services.len());
        for (Meta { key: (namespace, name), .. }, service) in of_services {
            let slices = slices.get(&(namespace.as_str(), name.as_str())).map_or(&[][..], Vec::as_slice);
            if service.cluster_ips.iter().any(|ip| taken.contains(ip)) || slices.iter().any(|slice| slice.is_forged()) {
                continue;
            }
            taken.extend(service.cluster_ips.iter().copied());
            let ports = ports(service, slices);
            list.push(Served { namespace, name, cluster_ips: service.cluster_ips.clone(), ports });
        }
        list.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        list
    }

    /// Lines to keep over a restart, for [`read_kept`].
    pub fn keep(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (meta, service) in self.services.iter() {
            line(&mut out, SERVICE, &meta, service);
        }
        for (meta, slice) in self.slices.iter() {
            line(&mut out, SLICE, &meta, slice);
        }
        out
    }
}

const SERVICE: &str = "Service";
const SLICE: &str = "EndpointSlice";

/// What [`View::keep`] wrote; lines that cannot be read are left out.
pub fn read_kept(text: &str) -> View {
    let mut view = View::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some((SERVICE, line)) => restore(&mut view.services, line),
            Some((SLICE, line)) => restore(&mut view.slices, line),
            _ => None,
        };
    }
    view
}

/// `Service 265 default web …`
fn line<T: Object>(out: &mut Vec<u8>, kind: &str, meta: &Meta, object: &T) {
    let Meta { key: (namespace, name), version } = meta;
    out.extend_from_slice(format!("{kind} {version} {namespace} {name} {}\n", object.keep()).as_bytes());
}

fn restore<T: Object>(store: &mut Store<T>, line: &str) -> Option<()> {
    let mut words = line.splitn(4, ' ');
    let version = words.next()?.parse().ok()?;
    let key = (words.next()?.to_owned(), words.next()?.to_owned());
    let meta = Meta { key, version };
    meta.check().ok()?;
    store.restore(meta, T::restore(words.next()?)?);
    Some(())
}

fn ports(service: &Service, slices: &[&EndpointSlice]) -> Vec<ServicePort> {
    let mut served: Vec<ServicePort> = Vec::with_capacity(service.ports.len());
    for port in &service.ports {
        let Some(protocol) = port.protocol else { continue };
        if !served.iter().any(|other| (other.protocol, other.port) == (protocol, port.port)) {
            let endpoints = endpoints(&port.name, protocol, slices);
            served.push(ServicePort { name: port.name.clone(), protocol, port: port.port, endpoints });
        }
    }
    served
}

/// Sorted, each address and port once, though slices may repeat an endpoint while it moves between them.
fn endpoints(name: &str, protocol: Protocol, slices: &[&EndpointSlice]) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for slice in slices {
        for port in slice.ports.iter().filter(|port| port.name == name && port.protocol == Some(protocol)) {
            for endpoint in &slice.endpoints {
                endpoints.extend(endpoint.addresses.iter().map(|address| Endpoint {
                    address: *address,
                    port: port.port,
                    node: endpoint.node.clone(),
                }));
            }
        }
    }
    // A known node comes before an empty one, and so is the one that is kept.
    endpoints.sort_by(|a, b| (a.address, a.port, &b.node).cmp(&(b.address, b.port, &a.node)));
    endpoints.dedup_by_key(|endpoint| (endpoint.address, endpoint.port));
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    fn tell<T: Object>(store: &mut Store<T>, line: &str) {
        assert!(store.event(Event::read(line)));
        store.complete();
    }

    fn service(name: &str, version: u64, ip: &str) -> String {
        format!(
            r#"{{"type":"ADDED","object":{{"metadata":{{"namespace":"a","name":"{name}","resourceVersion":"{version}"}},
            "spec":{{"clusterIP":"{ip}","ports":[{{"name":"http","port":80}},{{"name":"old","port":80}},
            {{"name":"dns","port":53,"protocol":"UDP"}},{{"name":"x","port":9,"protocol":"SCTP"}}]}}}}}}"#
        )
        .replace('\n', " ")
    }

    fn slice(name: &str, service: &str, address: &str, node: &str) -> String {
        format!(
            r#"{{"type":"ADDED","object":{{"metadata":{{"namespace":"a","name":"{name}","resourceVersion":"5",
            "labels":{{"kubernetes.io/service-name":"{service}"}}}},"addressType":"IPv4","endpoints":[
            {{"addresses":["{address}"],"nodeName":"{node}"}}],"ports":[{{"name":"http","port":8080}}]}}}}"#
        )
        .replace('\n', " ")
    }

    fn view(services: &[String], slices: &[String]) -> View {
        let mut view = View::default();
        services.iter().for_each(|line| tell(&mut view.services, line));
        slices.iter().for_each(|line| tell(&mut view.slices, line));
        view
    }

    fn networks() -> Vec<IpNet> {
        vec!["10.96.0.0/16".parse().unwrap()]
    }

    #[test]
    fn ports_meet_their_endpoints_by_name_and_protocol() {
        let slices = [
            slice("w1", "web", "10.1.0.6", ""),
            slice("w2", "web", "10.1.0.6", "edge"),
            slice("w3", "web", "10.1.0.5", "c"),
        ];
        let list = view(&[service("web", 1, "10.96.0.7")], &slices).list(&networks());
        let [web] = &list[..] else { panic!("{list:?}") };
        let ports: Vec<_> = web.ports.iter().map(|p| (p.name.as_str(), p.port, p.endpoints.len())).collect();
        assert_eq!(ports, [("http", 80, 2), ("dns", 53, 0)]);
        let endpoints: Vec<_> =
            web.ports[0].endpoints.iter().map(|e| (e.address.to_string(), e.node.as_str())).collect();
        assert_eq!(endpoints, [("10.1.0.5".to_owned(), "c"), ("10.1.0.6".to_owned(), "edge")]);
    }

    #[test]
    fn only_addresses_of_the_cluster_and_each_once() {
        let services = [
            service("b", 1, "10.96.0.7"),
            service("a", 2, "10.96.0.8"),
            service("old", 1, "10.96.0.8"),
            service("far", 9, "10.99.0.1"),
        ];
        let view = view(&services, &[]);
        let names: Vec<_> = view.list(&networks()).into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(view.list(&[]).is_empty());
    }

    #[test]
    fn a_service_said_to_be_on_this_machine_is_left_alone() {
        let services = [service("kubernetes", 1, "10.96.0.1"), service("web", 1, "10.96.0.7")];
        let slices = [slice("k", "kubernetes", "127.0.0.1", ""), slice("w", "web", "10.1.0.5", "")];
        let names: Vec<_> = view(&services, &slices).list(&networks()).into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["web"]);
    }

    #[test]
    fn nothing_is_known_before_both_halves_are() {
        assert!(!view(&[service("web", 1, "10.96.0.7")], &[]).is_known());
        assert!(!view(&[], &[slice("w", "web", "10.1.0.5", "")]).is_known());
        assert!(view(&[service("web", 1, "10.96.0.7")], &[slice("w", "web", "10.1.0.5", "")]).is_known());
    }

    #[test]
    fn what_is_kept_comes_back() {
        let before = view(&[service("web", 3, "10.96.0.7")], &[slice("w", "web", "10.1.0.5", "edge")]);
        let kept = String::from_utf8(before.keep()).unwrap();
        assert_eq!(
            kept,
            "Service 3 a web 10.96.0.7 80/tcp/http,80/tcp/old,53/udp/dns,9//x\nEndpointSlice 5 a w web 8080/tcp/http 10.1.0.5@edge\n"
        );
        let after = read_kept(&format!("rubbish\nService x a b 10.96.0.8 \nService 3 a ../b 10.96.0.8 \n{kept}"));
        assert!(after.is_known());
        assert_eq!(after.list(&networks()), before.list(&networks()));
        assert_eq!(after.keep(), kept.as_bytes());
    }
}
