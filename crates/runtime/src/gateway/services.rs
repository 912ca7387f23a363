//! Services whose requests are balanced one by one: the kernel sends their connections to the gateway, which sees what is in
//! them.

use std::net::{IpAddr, Ipv4Addr};

use selvedge_model::gateway::{Backend, GatewayBalance, Listener, ListenerProtocol, Rule, Site, TlsVersion};
use selvedge_model::{Endpoint, Protocol, Service, Services};

/// Where the gateway listens for them: the node's own address for its pods.
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 25, 10));

/// The ports that they get, from the first on.
const FIRST: u16 = 20_000;
const PORTS: u16 = 8_000;

/// The Services as the kernel is to serve them. `None`: as they are.
pub(crate) fn through_gateway(services: &Services, node: &str) -> Option<Services> {
    let ports = ports(services);
    if ports.is_empty() {
        return None;
    }
    let mut changed = services.clone();
    for (service, port, number) in ports {
        let Some(port) = changed.list.get_mut(service).and_then(|service| service.ports.get_mut(port)) else {
            continue;
        };
        // The gateway has no other address.
        port.endpoints.retain(|endpoint| endpoint.address.is_ipv6());
        port.endpoints.push(Endpoint::new(ADDRESS, number, node));
    }
    Some(changed)
}

/// What the gateway listens on for them.
pub(super) fn listeners(services: &Services) -> Vec<Listener> {
    let listener = |(service, port, number): (usize, usize, u16)| {
        let service = services.list.get(service)?;
        let backend = Backend {
            namespace: service.namespace.clone(),
            service: service.name.clone(),
            port: service.ports.get(port)?.port,
            weight: 1,
            balance: balance(service),
            http2: false,
            request_headers: Default::default(),
            response_headers: Default::default(),
            invalid: false,
        };
        let name = format!("Service {}/{}:{}", backend.namespace, backend.service, backend.port);
        let rule = Rule { name: name.clone(), backends: vec![backend], ..Rule::default() };
        Some(Listener {
            name,
            port: number,
            protocol: ListenerProtocol::Http,
            interfaces: Vec::new(),
            addresses: vec![ADDRESS.into()],
            excluded: Vec::new(),
            min_tls: TlsVersion::default(),
            sites: vec![Site { rules: vec![rule], ..Site::default() }],
        })
    };
    ports(services).into_iter().filter_map(listener).collect()
}

fn balance(service: &Service) -> GatewayBalance {
    match service.per_request.as_deref().and_then(|by| by.split_once(':')) {
        Some(("header", name)) => GatewayBalance::Header(name.to_owned()),
        Some((_, name)) => GatewayBalance::Cookie(name.to_owned()),
        None => GatewayBalance::default(),
    }
}

/// Service, port, and the number that stands for it: mostly the same, whatever other Services there are.
fn ports(services: &Services) -> Vec<(usize, usize, u16)> {
    let mut ports: Vec<(usize, usize, u16)> = Vec::new();
    let asking = services.list.iter().enumerate().filter(|(_, s)| s.per_request.is_some() && s.is_proxied());
    for (i, service) in asking {
        let served = service.ports.iter().enumerate();
        for (j, port) in served.filter(|(_, p)| p.protocol == Protocol::Tcp && !p.endpoints.is_empty()) {
            let text = format!("{}/{}:{}", service.namespace, service.name, port.port);
            let hash = text.bytes().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
            let start = (hash % u32::from(PORTS)) as u16;
            let tries = (0..PORTS).map(|step| FIRST + (start + step) % PORTS);
            let Some(number) = tries.into_iter().find(|n| ports.iter().all(|(.., taken)| taken != n)) else { continue };
            ports.push((i, j, number));
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use selvedge_model::ServicePort;

    use super::*;

    #[test]
    fn the_kernel_sends_them_to_where_the_gateway_listens() {
        let endpoint = Endpoint::new(IpAddr::from([10, 0, 0, 1]), 8080, "far");
        let port = ServicePort { port: 80, endpoints: vec![endpoint.clone()], ..ServicePort::default() };
        let service = |name: &str, by: Option<&str>| Service {
            namespace: "a".into(),
            name: name.into(),
            cluster_ips: vec![IpAddr::from([10, 96, 0, 1])],
            ports: vec![port.clone()],
            per_request: by.map(str::to_owned),
            ..Service::default()
        };
        let plain = Services { list: vec![service("plain", None)], ..Services::default() };
        assert_eq!(through_gateway(&plain, "me"), None);
        let services = Services {
            list: vec![service("plain", None), service("one", Some("header:user")), service("two", Some("cookie:id"))],
            ..Services::default()
        };
        let changed = through_gateway(&services, "me").unwrap();
        let listeners = listeners(&services);
        assert_eq!(changed.list[0].ports[0].endpoints, [endpoint]);
        for (service, listener) in changed.list[1..].iter().zip(&listeners) {
            assert_eq!(service.ports[0].endpoints, [Endpoint::new(ADDRESS, listener.port, "me")]);
        }
        let balance = |listener: &Listener| listener.sites[0].rules[0].backends[0].balance.clone();
        assert_eq!(balance(&listeners[0]), GatewayBalance::Header("user".into()));
        assert_eq!(balance(&listeners[1]), GatewayBalance::Cookie("id".into()));
        // Another Service that comes moves nobody.
        let two = Services { list: services.list[2..].to_vec(), ..Services::default() };
        assert_eq!(super::listeners(&two)[0].port, listeners[1].port);
    }
}
