//! Names asked over TLS, of a real server.

use super::*;

/// unbound, asked over TLS only, as `dns.example`.
fn unbound(site: &Site, address: &str) -> Running {
    let file = |name: &str| site.path(name).display().to_string();
    let text = format!(
        "server:\n interface: 192.0.2.1@853\n tls-port: 853\n tls-service-key: \"{}\"\n tls-service-pem: \"{}\"\n \
         access-control: 0.0.0.0/0 allow\n chroot: \"\"\n username: \"\"\n directory: \"{}\"\n pidfile: \"\"\n \
         use-syslog: no\n module-config: \"iterator\"\n local-zone: \"example.\" static\n \
         local-data: \"www.example. 0 IN A {address}\"\n local-data: \"mail.example. 0 IN A {address}\"\nremote-control:\n control-enable: no\n",
        file("server.key"),
        file("server.pem"),
        file(""),
    );
    fs::write(site.path("unbound.conf"), text).unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &site.namespace, "unbound", "-d", "-c"]).arg(site.path("unbound.conf"));
    let running = Running(command.stderr(fs::File::create(site.path("unbound.log")).unwrap()).spawn().unwrap());
    let end = Instant::now() + Duration::from_secs(20);
    while !site.sh("ss -Hltn").contains("192.0.2.1:853") {
        assert!(Instant::now() < end, "{}", site.sh("cat unbound.log"));
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

#[test]
fn a_server_is_asked_over_tls_if_it_proves_its_name() {
    let site = Site::new("dot", "nftables");
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&authority).unwrap().pem();
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["dns.example".to_owned()]).unwrap();
    let server = server.signed_by(&key, &rcgen::Issuer::new(params, authority)).unwrap();
    fs::write(site.path("server.key"), key.serialize_pem()).unwrap();
    fs::write(site.path("server.pem"), server.pem()).unwrap();
    let write = |generation: u32, name: &str| {
        let dns = format!("\"upstreams\": [\"tls://192.0.2.1#{name}\"], \"authorities\": {pem:?}");
        let text = CONFIG.replace("FIREWALL", "nftables").replace("\"upstreams\": [\"192.0.2.53\"]", &dns);
        let text = text.replace("\"generation\": 3", &format!("\"generation\": {generation}"));
        fs::write(site.path("etc/config.json"), text).unwrap();
    };
    let ask = |name: &str| site.command("dns").args(["query", name]).output().unwrap();

    write(3, "dns.example");
    let server = unbound(&site, "198.51.100.1");
    let _agent = site.start("agent.log");
    for _ in 0..3 {
        let text = good(ask("www.example"));
        assert!(text.contains("198.51.100.1") && text.contains("tls://192.0.2.1:853#dns.example"), "{text}");
    }
    let connections = site.sh("ss -Htn state established dport = :853");
    assert_eq!(connections.lines().count(), 1, "one for all questions: {connections}");

    // Another connection, when the server ended the one there was.
    drop(server);
    let server = unbound(&site, "198.51.100.2");
    let text = good(ask("www.example"));
    assert!(text.contains("198.51.100.2"), "{text}");

    // One that is not who it should be learns no name.
    write(4, "other.example");
    site.await_status("\"generation\":4");
    let output = ask("mail.example");
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = good(site.command("status").arg("dns").output().unwrap());
    assert!(text.contains("not valid for name") && text.contains("it is not asked in clear"), "{text}");
    drop(server);
}
