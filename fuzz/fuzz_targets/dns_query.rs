//! Questions from strangers: whatever comes is answered within its bounds, or not at all.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use selvedge_dns::{Handled, Name, Server, Settings, View};
use selvedge_model::{Endpoint, Protocol, Service, ServicePort};

static SERVICES: LazyLock<Vec<Service>> = LazyLock::new(|| {
    let port = |name: &str, endpoints| ServicePort {
        name: name.into(),
        protocol: Protocol::Tcp,
        port: 80,
        endpoints,
        ..ServicePort::default()
    };
    let endpoint = |i: u8| Endpoint {
        hostname: if i % 2 == 0 { format!("h{i}") } else { String::new() },
        ..Endpoint::new([10, 0, 0, i].into(), 80, "")
    };
    let service = |name: &str| Service { namespace: "b".into(), name: name.into(), ..Service::default() };
    vec![
        Service { cluster_ips: vec![[10, 96, 0, 1].into()], ports: vec![port("p", vec![])], ..service("a") },
        Service { ports: vec![port("p", (0..100).map(endpoint).collect())], ..service("h") },
        Service { external_name: Some("a.b.svc.c".into()), ..service("e") },
        Service { external_name: Some("x.y".into()), ..service("f") },
    ]
});

fuzz_target!(|bytes: &[u8]| {
    let settings = Settings {
        zone: Name::parse("c").expect("name"),
        networks: vec!["10.0.0.0/8".parse().expect("network")],
        upstreams: vec!["192.0.2.1:53".parse().expect("address")],
        stubs: Vec::new(),
    };
    let mut server = Server::new(settings);
    server.set_view(View::new(&SERVICES));
    for tcp in [false, true] {
        let mut out = b"before".to_vec();
        if server.handle_query(Duration::ZERO, 0, tcp, bytes, &mut out) == Handled::Answered {
            assert!(out.starts_with(b"before") && out.len() >= 6 + 12);
            assert_eq!(out[6..8], bytes[..2], "the number of the question");
            assert!(out[8] & 0x80 != 0);
            assert!(tcp || out.len() - 6 <= 1232, "{} octets over UDP", out.len() - 6);
        } else {
            assert_eq!(out, b"before");
        }
    }
    while server.wants_transmit() {
        server.poll_transmit(Duration::ZERO, [7; 10]);
    }
});
