//! The edge gateway in a network namespace of its own: real clients before it, real servers behind it. Needs root, curl,
//! openssl, socat, nghttpd, and Python with websockets.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const AGENT: &str = env!("CARGO_BIN_EXE_selvedge-agent");
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gateway");
/// Debian's, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

struct Site {
    namespace: String,
    root: tempfile::TempDir,
    running: Vec<Child>,
}

impl Site {
    fn new(name: &str) -> Site {
        let namespace = format!("gateway-{}-{name}", std::process::id());
        let mut site = Site { namespace, root: tempfile::tempdir().unwrap(), running: Vec::new() };
        selvedge_linux::netns::create(&site.namespace).unwrap();
        site.sh("ip link set lo up; for i in 1 2; do ip addr add 127.1.0.$i/8 dev lo; done
                 ip link add lan0 type veth peer name lan1; ip link set lan0 up; ip link set lan1 up; ip addr add 192.0.2.1/24 dev lan0
                 ip addr add 192.0.2.2/24 dev lan0");
        fs::create_dir_all(site.path("tls")).unwrap();
        fs::copy(format!("{FOLDER}/config.json"), site.path("config.json")).unwrap();
        site.certificate("shop.example");
        for (address, name) in [("127.1.0.1", "one"), ("127.1.0.2", "two")] {
            site.spawn(&format!("exec {PYTHON} {FOLDER}/backend.py {address} {name}"));
        }
        site.spawn("exec nghttpd --no-tls -a 127.1.0.1 -d . 8082");
        site.spawn("exec openssl s_server -accept 127.1.0.1:8443 -cert leaf.pem -key leaf.key -www -quiet");
        site.sh("for i in $(seq 200); do
                     [ -e ready-one ] && [ -e ready-two ] && ss -Hltn | grep -q :8081 && ss -Hltn | grep -q :8082 &&
                         ss -Hltn | grep -q 127.1.0.1:8443 && exit
                     sleep 0.05
                 done; exit 1");
        site.spawn(&format!(
            "RUST_LOG=debug exec {AGENT} run --config config.json --credentials tls --run-dir run --state-dir state \
             --cni-dir cni 2>agent.log"
        ));
        site.await_status(|status| status.contains("127.0.0.1:8000"));
        site
    }

    /// An authority, a certificate for the gateway, and one for a client.
    fn certificate(&self, name: &str) {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::default();
        ca.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let signed = |names: Vec<String>| {
            let key = rcgen::KeyPair::generate().unwrap();
            let leaf = rcgen::CertificateParams::new(names).unwrap();
            (leaf.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let (leaf, key) = signed(vec![name.to_owned(), format!("*.{name}"), "known.example".to_owned()]);
        let bundle = format!("# shop\n{leaf}{key}# shop.ca\n{authority}");
        let (client, client_key) = signed(vec!["client".to_owned()]);
        for (file, text) in [
            ("ca.pem", &authority),
            ("leaf.pem", &leaf),
            ("leaf.key", &key),
            ("client.pem", &client),
            ("client.key", &client_key),
            ("tls/gateway.pem", &bundle),
        ] {
            fs::write(self.path(file), text).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "sh", "-ec", script]).current_dir(self.root.path());
        command
    }

    fn spawn(&mut self, script: &str) {
        let child = self.command(script).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.running.push(child.unwrap());
    }

    fn output(&self, script: &str) -> Output {
        self.command(script).output().unwrap()
    }

    fn sh(&self, script: &str) -> String {
        let output = self.output(script);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// What curl prints for these words; certificates are checked, and hosts are here.
    fn curl(&self, words: &str) -> String {
        self.sh(&format!("curl -s -m 10 --cacert ca.pem --connect-to ::127.0.0.1: {words}"))
    }

    fn status_of(&self, words: &str) -> String {
        self.curl(&format!("-o /dev/null -w %{{http_code}} {words}"))
    }

    fn await_status(&self, fits: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let output = self.output(&format!("{AGENT} status --run-dir run"));
            let text = String::from_utf8(output.stdout).unwrap();
            if fits(&text) {
                return text;
            }
            let log = fs::read_to_string(self.path("agent.log")).unwrap_or_default();
            assert!(Instant::now() < end, "{text}\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = selvedge_linux::netns::delete(&self.namespace);
    }
}

/// The backends that so many requests met, in order.
fn backends(site: &Site, count: usize, words: &str) -> Vec<String> {
    (0..count)
        .map(|_| {
            site.curl(&format!("-o /dev/null -D - {words} | tr -d '\\r' | sed -n 's/^x-backend: //p'")).trim().into()
        })
        .collect()
}

#[test]
fn requests_meet_their_rules() {
    let site = Site::new("rules");
    let web = "http://shop.example:8000";
    // Round robin over keep-alive connections, too.
    let met = backends(&site, 6, &format!("{web}/"));
    assert_eq!(met.iter().filter(|b| *b == "one").count(), 3, "{met:?}");
    let met = backends(&site, 60, &format!("{web}/weights"));
    assert!((30..58).contains(&met.iter().filter(|b| *b == "one").count()), "{met:?}");
    for (words, backend) in [
        ("/match", "one"),
        ("/match/x -H 'x-team: two'", "two"),
        ("/match/x -H 'x-team: three'", "one"),
        ("'/match?team=two'", "two"),
        ("/match -d x", "two"),
    ] {
        assert_eq!(backends(&site, 1, &format!("{web}{words}")), [backend], "{words}");
    }
    for user in ["ann", "bob", "eve", "joe"] {
        let met = backends(&site, 4, &format!("{web}/hash -H 'user: {user}'"));
        assert!(met.iter().all(|b| *b == met[0]), "{user}: {met:?}");
    }
    let head = site.curl(&format!("-I '{web}/old/x?y'"));
    assert!(head.contains("301") && head.contains("location: https://shop.example:8443/new/x?y"), "{head}");
    let all = site.curl(&format!("-i '{web}/api/things?q=1' -H 'x-secret: 1'"));
    for part in ["\"path\": \"/v1/things?q=1\"", "\"host\": \"inner.example\"", "\"x-set\": \"1\"", "x-more: yes"] {
        assert!(all.contains(part), "{part}: {all}");
    }
    for part in ["x-secret", "server:"] {
        assert!(!all.contains(part), "{part}: {all}");
    }
    assert!(all.contains("\"x-forwarded-for\": \"127.0.0.1\""), "{all}");
    site.curl(&format!("{web}/mirrored -T ca.pem"));
    let length = fs::metadata(site.path("ca.pem")).unwrap().len();
    site.sh(&format!(
        "for i in $(seq 100); do grep -sq '\"length\": {length}' mirrored-two && exit; sleep 0.05; done; exit 1"
    ));
}

#[test]
fn what_cannot_be_answered_is_said() {
    let site = Site::new("errors");
    let web = "http://shop.example:8000";
    for (words, status) in
        [("/empty", "503"), ("/dead", "502"), ("/slow", "504"), ("/fails", "200"), ("/fails -d x", "200")]
    {
        let seen: Vec<String> = (0..2).map(|_| site.status_of(&format!("{web}{words}"))).collect();
        // A request with a body is not repeated.
        let right = if words.contains("-d") { seen.contains(&"503".into()) } else { seen.iter().all(|s| s == status) };
        assert!(right, "{words}: {seen:?}");
    }
    // An endpoint that is gone costs nobody an error.
    for _ in 0..4 {
        assert_eq!(site.status_of(&format!("{web}/half")), "200");
    }
    // It is left alone for a while, and tried all the same where there is no other.
    let text = site.await_status(|status| {
        site.status_of(&format!("{web}/dead"));
        status.contains("127.1.0.9:9 did not answer")
    });
    assert!(text.contains("taken: listen on 127.1.0.1:8082: Address already in use"), "{text}");
    // A body that is cut off must not look whole.
    assert_eq!(site.output(&format!("curl -s -m 10 {}/cut", "http://127.0.0.1:8000")).status.code(), Some(18));
    let cut = site.output("curl -s -m 10 --http2-prior-knowledge http://127.0.0.1:8000/cut");
    assert_eq!(cut.status.code(), Some(92), "an HTTP/2 stream that was reset");
    for (said, heard) in [
        ("GET / HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n", "400"),
        ("GET / HTTP/1.1\\r\\n\\r\\n", "400"),
        ("CONNECT a:1 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n", "40"),
        ("nonsense\\r\\n\\r\\n", "400"),
    ] {
        let text = site.sh(&format!("printf '{said}' | socat -t 3 - TCP:127.0.0.1:8000"));
        assert!(text.starts_with(&format!("HTTP/1.1 {heard}")), "{said}: {text}");
    }
    // Two requests at once on one connection are answered in order.
    let both = site.sh("printf 'GET /1 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\nGET /2 HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' | socat -t 3 - TCP:127.0.0.1:8000");
    assert!(both.find("\"/1\"").unwrap() < both.find("\"/2\"").unwrap(), "{both}");
}

#[test]
fn bodies_of_any_size_go_through_both_versions() {
    let site = Site::new("bodies");
    site.sh("head -c 3000000 /dev/urandom > blob");
    for version in ["--http1.1", "--http1.0", "--http2-prior-knowledge"] {
        let web = "http://127.0.0.1:8000";
        assert!(site.curl(&format!("{version} -T blob {web}/put")).contains("\"length\": 3000000"), "{version}");
        assert_eq!(site.curl(&format!("{version} {web}/big | wc -c")).trim(), "20000000", "{version}");
        assert_eq!(site.curl(&format!("{version} {web}/chunks")), "part0part1part2", "{version}");
        assert_eq!(site.curl(&format!("{version} -I {web}/x -o /dev/null -w %{{http_code}}")), "200", "{version}");
        // To an endpoint that speaks HTTP/2 only.
        site.curl(&format!("{version} -H 'Host: h2.shop.example' {web}/blob | cmp - blob"));
    }
    let web = "http://127.0.0.1:8000";
    let put = site.curl(&format!("-T blob -H 'Transfer-Encoding: chunked' -H 'Expect: 100-continue' {web}/put"));
    assert!(put.contains("\"length\": 3000000"), "{put}");
    // Many streams on one connection.
    let load = site.sh("h2load -n 500 -c 2 -m 50 http://127.0.0.1:8000/match");
    assert!(load.contains("500 succeeded, 0 failed"), "{load}");
    let load = site.sh("h2load --h1 -n 500 -c 10 http://127.0.0.1:8000/match");
    assert!(load.contains("500 succeeded, 0 failed"), "{load}");
}

#[test]
fn tls_ends_here_or_is_passed_on() {
    let site = Site::new("tls");
    let ask = |words: &str| site.curl(&format!("-o /dev/null -w '%{{http_version}} %{{http_code}}' {words}"));
    assert_eq!(ask("https://shop.example:8443/"), "2 200");
    assert_eq!(ask("--http1.1 https://a.shop.example:8443/"), "1.1 200");
    assert_eq!(ask("https://shop.example:8443/ -H 'Host: a.shop.example'"), "2 421");
    let speak = |version: &str| {
        site.output(&format!("openssl s_client -connect 127.0.0.1:8443 -servername shop.example {version} </dev/null"))
            .status
            .success()
    };
    assert_eq!(["-tls1_1", "-tls1_2", "-tls1_3"].map(speak), [false, true, true]);
    assert_ne!(
        site.output("curl -sk -m 5 --connect-to ::127.0.0.1: https://other.example:8443/").status.code(),
        Some(0)
    );
    let stranger = site.output("openssl s_client -connect 127.0.0.1:8443 -servername other.example </dev/null 2>&1");
    let stranger = String::from_utf8_lossy(&stranger.stdout).into_owned();
    assert!(stranger.contains("SSL alert number 112"), "{stranger}");
    let known = "https://known.example:8443/";
    assert_ne!(
        site.output(&format!("curl -s -m 5 --cacert ca.pem --connect-to ::127.0.0.1: {known}")).status.code(),
        Some(0)
    );
    assert_eq!(ask(&format!("--cert client.pem --key client.key {known}")), "2 200");
    let passed = site.curl("https://shop.example:8444/");
    assert!(passed.contains("s_server"), "{passed}");
    let raw = site.sh(
        "echo hello | socat -t 3 - OPENSSL:127.0.0.1:7001,cafile=ca.pem,snihost=shop.example,commonname=shop.example",
    );
    assert_eq!(raw, "one got 6");
    // Another certificate, without a restart, and without one refused connection on the way.
    let before = site.sh("cat leaf.pem");
    site.certificate("shop.example");
    assert_ne!(before, site.sh("cat leaf.pem"));
    let end = Instant::now() + Duration::from_secs(10);
    let new = || {
        site.output("curl -s -m 5 --cacert ca.pem --connect-to ::127.0.0.1: https://shop.example:8443/")
            .status
            .success()
    };
    while !new() {
        assert!(Instant::now() < end, "the old certificate is still shown");
    }
}

#[test]
fn a_connection_stays_with_the_host_it_was_made_for() {
    let site = Site::new("moved");
    // Where the site of the connection was another one is put, which asks for certificates of clients.
    let script = "import http.client, json, os, socket, ssl
context = ssl.create_default_context(cafile='ca.pem')
connection = http.client.HTTPConnection('shop.example')
connection.sock = context.wrap_socket(socket.create_connection(('127.0.0.1', 8443)), server_hostname='shop.example')
def ask(host):
    connection.request('GET', '/match', headers={'Host': host + '.example'})
    answer = connection.getresponse(); answer.read()
    return answer.status
print(ask('shop'), ask('known'), ask('other'))
config = json.load(open('config.json'))
sites = [l for l in config['gateway']['listeners'] if l['name'] == 'secure'][0]['sites']
sites.insert(0, dict(sites[-1])); sites[-1]['host'] = 'other.example'; config['generation'] += 1
open('config.new', 'w').write(json.dumps(config))
os.rename('config.new', 'config.json')
while ask('other') == 404: pass
print(ask('shop'), ask('known'))";
    assert_eq!(site.sh(&format!("timeout 20 {PYTHON} -c \"{script}\"")), "200 421 404\n200 421\n");
}

#[test]
fn what_nobody_waits_for_any_more_is_given_up() {
    let site = Site::new("given-up");
    // The answer has begun, and goes on for ever.
    let cut = site.output("curl -s -m 1 --http2-prior-knowledge http://127.0.0.1:8000/hang");
    assert_eq!((cut.status.code(), &*cut.stdout), (Some(28), &b"part"[..]));
    site.sh("for i in $(seq 100); do ss -Htn state established dport = :8080 | grep -q . || exit 0; sleep 0.05; done; exit 1");
    // A request that may have been done is not done again: the connection broke while it was.
    let once = "-o /dev/null -w '%{http_code} ' -X POST http://127.0.0.1:8000/match/once";
    assert_eq!(site.sh(&format!("curl -s {once} --next -s {once}")).trim(), "200 502");
    assert_eq!(site.sh("cat again-*"), "x");
    // The files of one descriptor per connection are not those of the rest of the program.
    let agent = site.running.last().unwrap().id();
    let limits = fs::read_to_string(format!("/proc/{agent}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(files.split_whitespace().nth(3).unwrap().parse::<u32>().unwrap() >= 8192, "{files}");
}

#[test]
fn endpoints_that_are_out_or_gone_get_nothing() {
    let site = Site::new("out");
    let web = "http://shop.example:8000";
    assert!(backends(&site, 4, &format!("{web}/")).contains(&"one".into()));
    let text = fs::read_to_string(site.path("config.json")).unwrap();
    let (head, tail) = text.split_at(text.find(r#""name": "web""#).unwrap());
    let tail = tail.replacen(r#""clusterIps": []"#, r#""clusterIps": ["10.96.0.7"], "health": "http:/fails""#, 1);
    let text = format!("{head}{tail}").replace(r#""mode": "off""#, r#""mode": "kernel", "cidrs": ["10.96.0.0/16"]"#);
    let session = "import json, os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5); s.connect(('127.0.0.1', 5300))
def ask(): s.send(b'x'); return s.recv(100).split(b':')[0].decode()
first = ask()
assert ask() == first
config = json.load(open('config.json'))
ports = [x for x in config['services']['list'] if x['name'] == 'udp'][0]['ports']
gone = {'one': '127.1.0.1', 'two': '127.1.0.2'}[first]
ports[0]['endpoints'] = [e for e in ports[0]['endpoints'] if e['address'] != gone]; config['generation'] += 1
open('config.new', 'w').write(json.dumps(config))
os.rename('config.new', 'config.json')
while ask() == first: pass";
    site.sh(&format!("timeout 20 {PYTHON} -c \"{session}\""));
    // Its probe is answered with 503: it is there, and not well.
    fs::write(site.path("config.json"), text.replace("n\": 3", "n\": 9")).unwrap();
    site.await_status(|status| status.contains("127.1.0.1:8080  out"));
    let met = backends(&site, 6, &format!("{web}/"));
    assert!(met.iter().all(|b| *b == "two"), "{met:?}");
    let told = site.sh(&format!("{AGENT} status gateway --run-dir run"));
    for part in [
        "  web  http at 127.0.0.1:8000\n",
        "    shop.example, certificate shop valid for ",
        "      header: /match/* X-Team=two or /match/* ?team=two",
        "        a/web:80: 127.1.0.1:8080 (out), 127.1.0.2:8080\n",
        "        a/one:80 (weight 3): 127.1.0.1:8080 (out)\n",
        "      redirect: /old/*: answers 301: somewhere else\n",
        "        copies to a/two:80: 127.1.0.2:8080\n",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(site.sh(&format!("{AGENT} status gateway --json --run-dir run")).contains("\"notAfter\":"));
}

#[test]
fn connections_datagrams_and_upgrades_go_through() {
    let site = Site::new("raw");
    // Half-closed: the answer comes after the client said it is done. One of the endpoints is not there.
    for _ in 0..4 {
        assert_eq!(site.sh("head -c 100000 /dev/zero | socat -t 5 - TCP:127.0.0.1:7000"), "one got 100000");
    }
    let mut met = Vec::new();
    for _ in 0..4 {
        met.push(site.sh("echo hi | socat -t 2 - UDP:127.0.0.1:5300"));
    }
    met.sort();
    assert_eq!(met, ["one:hi\n", "one:hi\n", "two:hi\n", "two:hi\n"]);
    // One client keeps its endpoint, and datagrams keep their size.
    let session = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5); s.connect(('127.0.0.1', 5300)); met = set()
for size in [1, 6000, 60000] * 3:
    s.send(b'x' * size); name, data = s.recv(65535).split(b':'); met.add(name); assert len(data) == size
print(len(met))";
    assert_eq!(site.sh(&format!("{PYTHON} -c \"{session}\"")).trim(), "1");
    let talk = site.sh(&format!("{PYTHON} {FOLDER}/websocket.py"));
    assert_eq!(talk, "one: first\n200005\n".repeat(2));
}

#[test]
fn requests_to_a_service_are_balanced_one_by_one() {
    let site = Site::new("service");
    let text = fs::read_to_string(site.path("config.json")).unwrap();
    let web = text.find(r#""name": "web""#).unwrap();
    let (head, tail) = text.split_at(web);
    let tail = tail.replacen(r#""clusterIps": []"#, r#""clusterIps": ["10.96.0.7"], "perRequest": "header:user""#, 1);
    let text = format!("{head}{tail}");
    assert!(text.contains("perRequest") && text.contains(r#""mode": "off""#));
    let text = text.replace(r#""mode": "off""#, r#""mode": "kernel", "cidrs": ["10.96.0.0/16"]"#);
    site.sh("ip addr add 169.254.25.10/32 dev lo; ip route add 10.96.0.0/16 dev lan0");
    fs::write(site.path("config.json"), text.replace("n\": 3", "n\": 4")).unwrap();
    site.await_status(|status| status.contains("Service a/web:80 (http) at 169.254.25.10:"));
    // On one connection, each by its own header; and the same for the same.
    let users: Vec<String> = (0..12).map(|i| format!("-H 'user: u{i}' http://10.96.0.7/")).collect();
    let once = |user: &String| site.sh(&format!("curl -s -m 10 {user}"))[..20].to_owned();
    let met: Vec<String> = users.iter().map(once).collect();
    assert!(met.iter().any(|b| b.contains("one")) && met.iter().any(|b| b.contains("two")), "{met:?}");
    assert_eq!(met, users.iter().map(once).collect::<Vec<_>>());
    let all = site.sh(&format!("curl -sv -m 10 {} 2>&1", users.join(" --next -s -v ")));
    assert_eq!(all.matches("Connected to").count(), 1, "{all}");
    let again: Vec<&str> = all.lines().filter(|l| l.contains("{\"backend\"")).collect();
    assert_eq!(again.len(), 12, "{all}");
    assert!(met.iter().zip(&again).all(|(first, line)| line.contains(first.as_str())), "{met:?} {again:?}");
}

#[test]
fn listeners_follow_addresses_and_configuration() {
    let site = Site::new("addresses");
    let lan = |address: &str| site.output(&format!("curl -s -m 5 http://{address}:8002/")).status.success();
    assert!(lan("192.0.2.1"));
    assert!(!lan("192.0.2.2"), "excluded");
    assert!(!lan("127.0.0.1"), "another interface");
    site.sh("ip addr add 192.0.2.3/24 dev lan0");
    site.await_status(|status| status.contains("192.0.2.3:8002"));
    assert!(lan("192.0.2.3"));
    site.sh("ip addr del 192.0.2.3/24 dev lan0");
    site.await_status(|status| !status.contains("192.0.2.3:8002"));
    // A changed rule counts from the next request; a refused configuration changes nothing.
    let text = fs::read_to_string(site.path("config.json")).unwrap();
    fs::write(site.path("config.json"), text.replace("\"port\": 8002", "\"port\": 0").replace("n\": 3", "n\": 4"))
        .unwrap();
    let refused = site.await_status(|status| status.contains("REFUSED"));
    assert!(refused.contains("gateway.listeners[6].port: 0 is not within 1 to 65535"), "{refused}");
    assert!(lan("192.0.2.1"));
    fs::write(site.path("config.json"), text.replace("\"port\": 8002", "\"port\": 8003").replace("n\": 3", "n\": 5"))
        .unwrap();
    site.await_status(|status| status.contains("192.0.2.1:8003"));
    assert!(!lan("192.0.2.1"));
    assert!(site.output("curl -s -m 5 http://192.0.2.1:8003/").status.success());
}
