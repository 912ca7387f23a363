//! The server over loopback, with clients that do what devices do, and what they must not.

mod client;

use std::io::Write as _;
use std::sync::PoisonError;

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::authority::seconds;
use crate::core::issued::Issued;
use client::{Answer, Client, Identity};

/// Tokens and certificates in memory.
#[derive(Default)]
struct Memory {
    tokens: Mutex<BTreeMap<String, Record>>,
    issued: Mutex<Issued>,
}

impl Registrar for Arc<Memory> {
    async fn redeem(&self, node: &str, secret: &str, key: &str, now: u64) -> Result<bool, RegistrarError> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = tokens.get(node) else { return Ok(false) };
        Ok(match record.redeem(secret, key, now) {
            Verdict::Spend(spent) => {
                tokens.insert(node.to_owned(), spent);
                true
            }
            Verdict::Repeat => true,
            Verdict::Refuse => false,
        })
    }

    async fn record(&self, name: &str, certificate: &Certificate) -> Result<(), RegistrarError> {
        let mut issued = self.issued.lock().unwrap();
        issued.record(name, certificate.serial, seconds(certificate.validity.not_after), true);
        Ok(())
    }
}

struct Bench {
    memory: Arc<Memory>,
    server: Arc<Server<Arc<Memory>>>,
    address: SocketAddr,
    authorities: Authorities,
}

impl Bench {
    fn new() -> Bench {
        let memory = Arc::new(Memory::default());
        let server = Server::new(Arc::clone(&memory), Metrics::default());
        let authorities = Authorities::create("beijing", None, SystemTime::now()).unwrap();
        let address = spawn(Arc::clone(&server), "127.0.0.1:0".parse().unwrap()).unwrap();
        let bench = Bench { memory, server, address, authorities };
        bench.publish(&[("edge-1", "one"), ("edge-2", "two")], &[]);
        bench
    }

    fn publish(&self, configs: &[(&str, &str)], revoked: &[&str]) {
        let entry = |(node, config): &(&str, &str)| {
            let digest = crate::core::digest(config.as_bytes());
            let name = format!("beijing.{node}");
            let config = (!self.server.has(&name, digest)).then(|| (*config).to_owned());
            (name, Entry { node: (*node).to_owned(), digest, config })
        };
        let common = Common {
            authorities: Arc::new(Authorities::load(&self.authorities.keep().unwrap()).unwrap()),
            days: 30,
            revoked: revoked.iter().map(|name| (*name).to_owned()).collect(),
        };
        let kept = BTreeSet::from(["beijing.kept".to_owned()]);
        self.server.publish(common, configs.iter().map(entry).collect(), &kept, SystemTime::now()).unwrap();
    }

    /// The secret of a token that is good for this many seconds.
    fn token(&self, node: &str, valid: u64) -> String {
        let token = Token::create("https://x", "", node).unwrap();
        let record = token.record(seconds(SystemTime::now()) + valid);
        self.memory.tokens.lock().unwrap().insert(node.to_owned(), record);
        token.to_string().rsplit('/').next().unwrap().to_owned()
    }

    fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.authorities.signing().issue(name, SystemTime::now(), 30).unwrap();
        Identity { chain: certificate.pem, key }
    }

    fn client(&self, identity: Option<&Identity>) -> std::io::Result<Client> {
        Client::connect(self.address, &self.authorities.bundle(), identity)
    }

    fn get(&self, identity: Option<&Identity>, path: &str, headers: &str) -> Answer {
        self.client(identity).unwrap().request("GET", path, headers, "")
    }

    fn post(&self, identity: Option<&Identity>, path: &str, body: &str) -> Answer {
        self.client(identity).unwrap().request("POST", path, "", body)
    }

    fn enroll(&self, node: &str, secret: &str, csr: &str) -> Answer {
        let body = serde_json::json!({ "node": node, "secret": secret, "csr": csr });
        self.post(None, "/v1/enroll", &body.to_string())
    }
}

/// A request that claims to be somebody else in every way it can.
fn request(key: &KeyPair) -> String {
    let mut params = CertificateParams::new(vec!["beijing.edge-2".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "beijing.edge-2");
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn names(certificate: &str) -> Option<String> {
    use rustls::pki_types::pem::PemObject as _;
    let der = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    bearer(&der).map(|(name, _)| name)
}

#[test]
fn a_device_enrols_with_its_own_key_reads_its_configuration_and_renews() {
    let bench = Bench::new();
    let secret = bench.token("edge-1", 60);
    let key = KeyPair::generate().unwrap();
    let answer = bench.enroll("edge-1", &secret, &request(&key));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let issue: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(issue["name"], "beijing.edge-1");
    assert_eq!(issue["trust"], bench.authorities.bundle());
    let chain = issue["certificate"].as_str().unwrap().to_owned();
    assert_eq!(names(&chain).as_deref(), Some("beijing.edge-1"), "whatever the request says");
    let identity = Identity { chain, key: key.serialize_pem() };
    assert_eq!(bench.get(Some(&identity), "/v1/config", "").body, "one");

    let next = KeyPair::generate().unwrap();
    let body = serde_json::json!({ "csr": request(&next) }).to_string();
    let answer = bench.post(Some(&identity), "/v1/renew", &body);
    let issue: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let renewed = Identity { chain: issue["certificate"].as_str().unwrap().to_owned(), key: next.serialize_pem() };
    assert_eq!(names(&renewed.chain).as_deref(), Some("beijing.edge-1"), "whatever the request says");
    assert_eq!(bench.get(Some(&renewed), "/v1/config", "").body, "one");
    let issued = serde_json::to_value(&*bench.memory.issued.lock().unwrap()).unwrap();
    assert_eq!(issued["beijing.edge-1"].as_object().unwrap().len(), 2, "both can be revoked");
}

#[test]
fn a_token_is_good_once_for_its_node_until_it_expires() {
    let bench = Bench::new();
    let secret = bench.token("edge-1", 60);
    let key = KeyPair::generate().unwrap();
    let csr = request(&key);
    let refused = |node: &str, secret: &str, csr: &str| {
        let answer = bench.enroll(node, secret, csr);
        (answer.status, answer.body)
    };
    let bad = (403, "the token is not good, or not any more".to_owned());
    assert_eq!(refused("edge-2", &secret, &csr), bad);
    assert_eq!(refused("nobody", &secret, &csr), bad);
    assert_eq!(refused("edge-1", &"0".repeat(64), &csr), bad);
    assert_eq!(refused("edge-1", "", &csr), bad);
    assert_eq!(refused("edge-1", &secret, "").0, 400, "not spent on a request that is not good");
    assert_eq!(bench.enroll("edge-1", &secret, &csr).status, 200);
    assert_eq!(bench.enroll("edge-1", &secret, &csr).status, 200, "the answer was lost");
    assert_eq!(refused("edge-1", &secret, &request(&KeyPair::generate().unwrap())), bad);
    let late = bench.token("edge-2", 0);
    assert_eq!(refused("edge-2", &late, &csr), bad);
}

#[test]
fn a_removed_or_revoked_node_cannot_enrol_with_a_token_from_before() {
    let bench = Bench::new();
    let (one, two) = (bench.token("edge-1", 60), bench.token("edge-2", 60));
    bench.publish(&[("edge-2", "two")], &["beijing.edge-2"]);
    let csr = request(&KeyPair::generate().unwrap());
    assert_eq!(bench.enroll("edge-1", &one, &csr).status, 403);
    assert_eq!(bench.enroll("edge-2", &two, &csr).status, 403);
}

#[test]
fn a_certificate_speaks_for_its_own_name_only() {
    let bench = Bench::new();
    let one = bench.identity("beijing.edge-1");
    for (path, headers) in [
        ("/v1/config", ""),
        ("/v1/config?node=edge-2&name=beijing.edge-2", ""),
        ("/v1/config", "X-Selvedge-Node: beijing.edge-2\r\nAuthorization: Bearer beijing.edge-2\r\n"),
        ("/v1/config", "Forwarded: for=beijing.edge-2\r\nX-SSL-Client-CN: beijing.edge-2\r\nHost: beijing.edge-2\r\n"),
    ] {
        assert_eq!(bench.get(Some(&one), path, headers).body, "one", "{path} {headers}");
    }
    for path in ["/v1/config/beijing.edge-2", "/v1/config/edge-2", "/v1/beijing.edge-2/config", "/"] {
        assert_eq!(bench.get(Some(&one), path, "").status, 404, "{path}");
    }
    let body = serde_json::json!({ "csr": request(&KeyPair::generate().unwrap()), "name": "beijing.edge-2" });
    let answer = bench.post(Some(&one), "/v1/renew", &body.to_string());
    let issue: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(names(issue["certificate"].as_str().unwrap()).as_deref(), Some("beijing.edge-1"));
    // The server's own name gets nothing either.
    assert_eq!(bench.get(Some(&bench.identity(tls::SERVER_NAME)), "/v1/config", "").status, 404);
    assert_eq!(bench.get(Some(&bench.identity("beijing.connector")), "/v1/config", "").status, 404);
}

#[test]
fn without_a_certificate_of_ours_there_is_nothing_but_enrolment() {
    let bench = Bench::new();
    for path in ["/v1/config", "/v1/trust"] {
        let answer = bench.get(None, path, "");
        assert_eq!((answer.status, answer.body.as_str()), (403, "this needs a certificate"));
    }
    assert_eq!(bench.post(None, "/v1/renew", "{}").status, 403);
    let stranger = Authorities::create("beijing", None, SystemTime::now()).unwrap();
    let (certificate, key) = stranger.signing().issue("beijing.edge-1", SystemTime::now(), 30).unwrap();
    let forged = Identity { chain: certificate.pem, key };
    assert!(
        bench.client(Some(&forged)).and_then(|mut client| client.try_request("GET", "/v1/config", "", "")).is_err()
    );
    let long_ago = SystemTime::now() - Duration::from_secs(40 * 24 * 3600);
    let (certificate, key) = bench.authorities.signing().issue("beijing.edge-1", long_ago, 30).unwrap();
    let expired = Identity { chain: certificate.pem, key };
    assert!(
        bench.client(Some(&expired)).and_then(|mut client| client.try_request("GET", "/v1/config", "", "")).is_err()
    );
}

#[test]
fn a_client_of_another_authority_does_not_talk_to_us() {
    let bench = Bench::new();
    let stranger = Authorities::create("beijing", None, SystemTime::now()).unwrap();
    let connected = Client::connect(bench.address, &stranger.bundle(), None);
    assert!(connected.and_then(|mut client| client.try_request("GET", "/v1/config", "", "")).is_err());
}

#[test]
fn a_change_ends_the_wait_of_the_node_it_concerns() {
    let bench = Bench::new();
    let one = bench.identity("beijing.edge-1");
    let first = bench.get(Some(&one), "/v1/config", "");
    let (etag, trust) = (first.header("etag").unwrap(), first.header("selvedge-trust").unwrap());
    let mut client = bench.client(Some(&one)).unwrap();
    client.send("GET", "/v1/config", &format!("If-None-Match: {etag}\r\n"), "").unwrap();
    bench.publish(&[("edge-1", "one"), ("edge-2", "two, changed")], &[]);
    bench.publish(&[("edge-1", "one, changed"), ("edge-2", "two, changed")], &[]);
    let second = client.receive().unwrap();
    assert_eq!((second.status, second.body.as_str()), (200, "one, changed"));
    assert_ne!(second.header("etag").unwrap(), etag);
    assert_eq!(second.header("selvedge-trust").unwrap(), trust);
    // An older version is not waited with.
    assert_eq!(client.request("GET", "/v1/config", &format!("If-None-Match: {etag}\r\n"), "").body, "one, changed");
}

#[test]
fn a_new_authority_ends_every_wait_and_is_told() {
    let mut bench = Bench::new();
    let one = bench.identity("beijing.edge-1");
    let before = bench.get(Some(&one), "/v1/config", "");
    let mut client = bench.client(Some(&one)).unwrap();
    client.send("GET", "/v1/config", &format!("If-None-Match: {}\r\n", before.header("etag").unwrap()), "").unwrap();
    let everybody = crate::authority::Everybody { trusted: true, replaced: true };
    bench.authorities.advance("beijing", Some("x"), 0, &everybody, SystemTime::now()).unwrap();
    bench.publish(&[("edge-1", "one")], &[]);
    let after = client.receive().unwrap();
    assert_eq!(after.body, "one");
    assert_ne!(after.header("selvedge-trust"), before.header("selvedge-trust"));
    let trust = client.request("GET", "/v1/trust", "", "");
    assert_eq!(trust.body, bench.authorities.bundle());
    assert_eq!(trust.body.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(trust.header("selvedge-trust"), after.header("selvedge-trust"));
}

#[test]
fn devices_are_waited_for_until_they_have_been_seen_with_everything() {
    let mut bench = Bench::new();
    let names = ["beijing.edge-1".to_owned(), "beijing.edge-2".to_owned()];
    let everybody = |bench: &Bench| {
        let all = bench.server.everybody(names.iter());
        (all.trusted, all.replaced)
    };
    let says = |bench: &Bench, identity: &Identity, trust: &str| {
        bench
            .get(Some(identity), "/v1/config", &format!("Selvedge-Trust: {trust}\r\n"))
            .header("selvedge-trust")
            .unwrap()
    };
    let (one, two) = (bench.identity("beijing.edge-1"), bench.identity("beijing.edge-2"));
    let trust = says(&bench, &one, "none");
    says(&bench, &one, &trust);
    assert_eq!(everybody(&bench), (false, false), "one has not been seen");
    says(&bench, &two, "older");
    assert_eq!(everybody(&bench), (false, true));
    says(&bench, &two, &trust);
    assert_eq!(everybody(&bench), (true, true));
    let all = Everybody { trusted: true, replaced: true };
    for _ in 0..2 {
        bench.authorities.advance("beijing", Some("x"), 0, &all, SystemTime::now()).unwrap();
    }
    bench.publish(&[("edge-1", "one"), ("edge-2", "two")], &[]);
    assert_eq!(everybody(&bench), (false, false), "both have certificates of the previous authority");
    let (one, two) = (bench.identity("beijing.edge-1"), bench.identity("beijing.edge-2"));
    let trust = says(&bench, &one, "none");
    says(&bench, &two, &trust);
    assert_eq!(everybody(&bench), (false, true));
}

#[test]
fn who_is_revoked_gets_nothing_from_then_on() {
    let mut bench = Bench::new();
    let (one, two) = (bench.identity("beijing.edge-1"), bench.identity("beijing.edge-2"));
    let etag = bench.get(Some(&one), "/v1/config", "").header("etag").unwrap();
    let mut waiting = bench.client(Some(&one)).unwrap();
    waiting.send("GET", "/v1/config", &format!("If-None-Match: {etag}\r\n"), "").unwrap();
    let serial = |identity: &Identity| {
        use rustls::pki_types::pem::PemObject as _;
        bearer(&rustls::pki_types::CertificateDer::from_pem_slice(identity.chain.as_bytes()).unwrap()).unwrap().1
    };
    bench.authorities.revoke(vec![(serial(&one), 1)], SystemTime::now()).unwrap();
    bench.publish(&[("edge-1", "one"), ("edge-2", "two")], &[]);
    let answer = waiting.receive().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (403, "the certificate was revoked"));
    let body = serde_json::json!({ "csr": request(&KeyPair::generate().unwrap()) }).to_string();
    assert_eq!(waiting.request("POST", "/v1/renew", "", &body).status, 403);
    assert_eq!(bench.get(Some(&one), "/v1/config", "").status, 403);
    assert_eq!(bench.get(Some(&one), "/v1/trust", "").status, 403);
    assert_eq!(bench.get(Some(&two), "/v1/config", "").status, 200);
    let again = bench.identity("beijing.edge-1");
    assert_eq!(bench.get(Some(&again), "/v1/config", "").status, 200, "a new certificate of the same name is good");
    bench.publish(&[("edge-1", "one"), ("edge-2", "two")], &["beijing.edge-1"]);
    assert_eq!(bench.get(Some(&again), "/v1/config", "").status, 403, "unless the name is");
}

#[test]
fn a_node_that_goes_is_told_and_cannot_renew() {
    let bench = Bench::new();
    let one = bench.identity("beijing.edge-1");
    let etag = bench.get(Some(&one), "/v1/config", "").header("etag").unwrap();
    let mut waiting = bench.client(Some(&one)).unwrap();
    waiting.send("GET", "/v1/config", &format!("If-None-Match: {etag}\r\n"), "").unwrap();
    bench.publish(&[("edge-2", "two")], &[]);
    assert_eq!(waiting.receive().unwrap().status, 404);
    let body = serde_json::json!({ "csr": request(&KeyPair::generate().unwrap()) }).to_string();
    assert_eq!(bench.post(Some(&one), "/v1/renew", &body).status, 404);
}

#[test]
fn a_node_that_is_refused_keeps_what_it_has() {
    let bench = Bench::new();
    let kept = bench.identity("beijing.kept");
    assert_eq!(bench.get(Some(&kept), "/v1/config", "").status, 404);
    bench.publish(&[("kept", "last good"), ("edge-1", "one")], &[]);
    bench.publish(&[("edge-1", "one")], &[]);
    assert_eq!(bench.get(Some(&kept), "/v1/config", "").body, "last good");
    bench.server.withdraw();
    assert!(bench.client(Some(&kept)).and_then(|mut client| client.try_request("GET", "/v1/config", "", "")).is_err());
}

#[test]
fn what_is_too_much_is_refused() {
    let bench = Bench::new();
    assert_eq!(bench.post(None, "/v1/enroll", &"x".repeat(routes_body() + 1)).status, 413);
    assert_eq!(bench.post(None, "/v1/enroll", "{}").status, 400);
    let long = format!("X-Long: {}\r\n", "x".repeat(2 * HEAD_BYTES));
    assert_eq!(bench.get(None, "/v1/config", &long).status, 431);
    let statuses: Vec<u16> = (0..20).map(|_| bench.post(None, "/v1/enroll", "{}").status).collect();
    assert_eq!(statuses.last(), Some(&429));
    let one = bench.identity("beijing.edge-1");
    assert_eq!(bench.get(Some(&one), "/v1/config", "").status, 200, "those who have a certificate are not concerned");
}

fn routes_body() -> usize {
    crate::authority::MAX_REQUEST + 1024
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let bench = Bench::new();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0x16, 3, 1, 0xff, 0xff, 1]] {
        let mut stream = std::net::TcpStream::connect(bench.address).unwrap();
        stream.write_all(bytes).unwrap();
        drop(stream);
    }
    let one = bench.identity("beijing.edge-1");
    assert_eq!(bench.get(Some(&one), "/v1/config", "").status, 200);
}
