use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_model::{Endpoint, Service as Served, ServicePort};

use crate::object::{Meta, Object};
use crate::{EndpointSlice, Port, Service, Store};

/// Services and their endpoints, as well as they are known.
#[derive(Debug, Default)]
pub struct View {
    /// Services that are served or have a name.
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

    /// What a node serves or names, in the order of namespace and name: Services whose cluster IPs, if they have any, lie
    /// in `networks`.
    ///
    /// A Service one of whose endpoints is said to be on this machine is left to whoever serves it behind the tunnels.
    /// Of two with the same address the one that changed later has it.
    pub fn list(&self, networks: &[IpNet]) -> Vec<Served> {
        let mut slices: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for ((namespace, _), _, kept) in self.slices.iter() {
            slices.entry((namespace, EndpointSlice::service_of(kept))).or_default().push(kept);
        }
        let within = |ip: &IpAddr| networks.iter().any(|network| network.contains(ip));
        let services =
            self.services.iter().filter_map(|(key, version, kept)| Some((key, version, Service::restore(kept)?)));
        let mut of_services: Vec<_> =
            services.filter(|(_, _, service)| service.spec.cluster_ips.iter().all(within)).collect();
        of_services.sort_by(|(a, old, _), (b, new, _)| new.cmp(old).then_with(|| a.cmp(b)));
        let mut taken = BTreeSet::new();
        let mut list = Vec::with_capacity(of_services.len());
        for ((namespace, name), _, service) in of_services {
            let slices = slices.get(&(namespace.as_str(), name.as_str())).into_iter().flatten();
            let slices: Vec<EndpointSlice> = slices.filter_map(|kept| EndpointSlice::restore(kept)).collect();
            if service.spec.cluster_ips.iter().any(|ip| taken.contains(ip))
                || slices.iter().any(EndpointSlice::is_forged)
            {
                continue;
            }
            taken.extend(service.spec.cluster_ips.iter().copied());
            list.push(serve(namespace, name, &service, &Vec::from_iter(&slices)));
        }
        list.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        list
    }

    /// Lines to keep over a restart, for [`read_kept`].
    pub fn keep(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let lines = self.services.iter().map(|line| (SERVICE, line));
        for (kind, ((namespace, name), version, kept)) in lines.chain(self.slices.iter().map(|line| (SLICE, line))) {
            // Writing to memory cannot fail.
            let _ = writeln!(out, "{kind} {version} {namespace} {name} {kept}");
        }
        out
    }
}

/// A Service with its endpoints.
pub fn serve(namespace: &str, name: &str, service: &Service, slices: &[&EndpointSlice]) -> Served {
    let mut served = Served { namespace: namespace.to_owned(), name: name.to_owned(), ..service.spec.clone() };
    for port in &mut served.ports {
        let same = |other: &&Port| other.name == port.name && other.protocol == port.protocol;
        let ports = |slice: &EndpointSlice| slice.ports.iter().filter(same).map(|port| port.port).collect();
        port.endpoints = endpoints(service, slices, ports);
    }
    if served.is_headless() && served.ports.is_empty() {
        let endpoints = endpoints(service, slices, |_| vec![0]);
        served.ports.push(ServicePort { endpoints, ..ServicePort::default() });
    }
    served
}

/// Sorted, each address and port once, though slices may repeat an endpoint while it moves between them.
fn endpoints(
    service: &Service,
    slices: &[&EndpointSlice],
    ports: impl Fn(&EndpointSlice) -> Vec<u16>,
) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for slice in slices {
        for port in ports(slice) {
            for endpoint in &slice.endpoints {
                endpoints.extend(endpoint.addresses.iter().map(|address| Endpoint {
                    address: *address,
                    port,
                    node: endpoint.node.clone(),
                    zone: endpoint.zone.clone(),
                    hostname: endpoint.hostname.clone(),
                    terminating: endpoint.terminating,
                    weight: service.weights.get(&endpoint.node).copied().unwrap_or(1),
                }));
            }
        }
    }
    // A ready one comes before one that ends, a known node before an empty one, and so is the one that is kept.
    endpoints
        .sort_by(|a, b| (a.address, a.port, a.terminating, &b.node).cmp(&(b.address, b.port, b.terminating, &a.node)));
    endpoints.dedup_by_key(|endpoint| (endpoint.address, endpoint.port));
    endpoints.shrink_to_fit();
    endpoints
}

/// Of each line, the second form; the first is still read.
const SERVICE: &str = "Service/2";
const SLICE: &str = "EndpointSlice/2";
const FIRST_SERVICE: &str = "Service";
const FIRST_SLICE: &str = "EndpointSlice";

/// What [`View::keep`] wrote; lines that cannot be read are left out.
pub fn read_kept(text: &str) -> View {
    let mut view = View::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some((SERVICE | FIRST_SERVICE, line)) => restore(&mut view.services, line),
            Some((SLICE | FIRST_SLICE, line)) => restore(&mut view.slices, line),
            _ => None,
        };
    }
    view
}

/// `265 default web …`
fn restore<T: Object>(store: &mut Store<T>, line: &str) -> Option<()> {
    let mut words = line.splitn(4, ' ');
    let version = words.next()?.parse().ok()?;
    let key = (words.next()?.to_owned(), words.next()?.to_owned());
    let meta = Meta { key, version };
    meta.check().ok()?;
    store.restore(meta, &T::restore(words.next()?)?);
    Some(())
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
            {{"name":"dns","port":53,"protocol":"UDP"}},{{"name":"x","port":9,"protocol":"DCCP"}}]}}}}}}"#
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
    fn names_without_cluster_ips_are_known_wherever_they_lead() {
        let headless = service("db", 1, "None").replace(r#"{"name":"dns","port":53,"protocol":"UDP"},"#, "");
        let bare = r#"{"type":"ADDED","object":{"metadata":{"namespace":"a","name":"bare","resourceVersion":"2",
            "annotations":{"selvedge.dev/weights":"edge=7"}},"spec":{"clusterIP":"None"}}}"#;
        let alias = r#"{"type":"ADDED","object":{"metadata":{"namespace":"a","name":"alias","resourceVersion":"2"},
            "spec":{"type":"ExternalName","externalName":"example.org"}}}"#;
        let ends = slice("d2", "db", "10.1.0.6", "edge").replace(
            "\"nodeName\"",
            "\"conditions\":{\"ready\":false,\"serving\":true,\"terminating\":true},\"nodeName\"",
        );
        let slices = [
            slice("d1", "db", "10.1.0.5", "edge"),
            ends.clone(),
            ends.replace("d2", "d3").replace("10.1.0.6", "10.1.0.5"),
            slice("b1", "bare", "10.1.0.7", "edge"),
        ];
        let list = view(&[headless, bare.replace('\n', " "), alias.replace('\n', " ")], &slices).list(&[]);
        let [alias, bare, db] = &list[..] else { panic!("{list:?}") };
        assert_eq!(alias.external_name.as_deref(), Some("example.org"));
        let port = &bare.ports[0];
        assert_eq!((port.port, port.endpoints[0].port, port.endpoints[0].weight), (0, 0, 7));
        let http: Vec<_> = db.ports[0].endpoints.iter().map(|e| (e.address.to_string(), e.terminating)).collect();
        assert_eq!(http, [("10.1.0.5".to_owned(), false), ("10.1.0.6".to_owned(), true)]);
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
            "Service/2 3 a web 10.96.0.7 80/tcp/http,53/udp/dns\nEndpointSlice/2 5 a w web 8080/tcp/http 10.1.0.5@edge\n"
        );
        let after = read_kept(&format!("rubbish\nService x a b 10.96.0.8 \nService 3 a ../b 10.96.0.8 \n{kept}"));
        assert!(after.is_known());
        assert_eq!(after.list(&networks()), before.list(&networks()));
        assert_eq!(after.keep(), kept.as_bytes());
        let first = "Service 3 a web 10.96.0.7 80/tcp/http,53/udp/dns,9//x\nEndpointSlice 5 a w web 8080/tcp/http 10.1.0.5@edge\n";
        assert_eq!(read_kept(first).list(&networks()), before.list(&networks()));
    }
}
