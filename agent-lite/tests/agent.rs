//! The binary in a network namespace of its own, as a person runs it. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "agent/over_tls.rs"]
mod over_tls;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const AGENT: &str = env!("CARGO_BIN_EXE_selvedge-agent");

/// A configuration for one edge; its only peer does not answer.
const CONFIG: &str = r#"{
  "version": 1, "generation": 3, "name": "here.edge", "node": "edge", "role": "edge",
  "podCidrs": ["10.234.0.0/24", "fd00:234::/64"],
  "local": {"prefixes": ["10.234.0.0/24", "fd00:234::/64"], "nodeAddresses": ["192.0.2.1"]},
  "peers": [{"name": "here.connector", "via": "tunnel", "addresses": ["192.0.2.99"], "initiate": true,
             "prefixes": ["10.96.0.0/16", "10.244.0.0/24", "fd00:244::/64"], "nodeAddresses": ["172.16.0.1"]}],
  "services": {"mode": "kernel", "cidrs": ["10.96.0.0/16"], "list": [
    {"namespace": "a", "name": "web", "clusterIps": ["10.96.0.7"], "ports": [
      {"protocol": "tcp", "port": 80, "endpoints": [{"address": "10.244.0.5", "port": 8080, "node": "c"}]}]}]},
  "dns": {"upstreams": ["192.0.2.53"]},
  "cni": {"version": "0.3.1", "network": "selvedge", "bridge": "br-selvedge", "mtu": 1400},
  "datapath": "user", "firewall": "FIREWALL"
}"#;

/// A namespace with a link to nowhere, and the folders of one agent.
struct Site {
    namespace: String,
    root: tempfile::TempDir,
}

impl Site {
    fn new(name: &str, firewall: &str) -> Site {
        let site =
            Site { namespace: format!("agent-{}-{name}", std::process::id()), root: tempfile::tempdir().unwrap() };
        selvedge_linux::netns::create(&site.namespace).unwrap();
        site.sh("ip link set lo up; ip link add up0 type veth peer name up1; ip addr add 192.0.2.1/24 dev up0");
        site.sh("ip link set up0 up; ip link set up1 up");
        fs::create_dir_all(site.path("etc/tls")).unwrap();
        fs::write(site.path("etc/config.json"), CONFIG.replace("FIREWALL", firewall)).unwrap();
        credentials(&site.path("etc/tls"), "here.edge");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, verb: &str) -> Command {
        self.command_in(":", verb)
    }

    /// After a shell script in the program's own mount namespace.
    fn command_in(&self, script: &str, verb: &str) -> Command {
        let mut command = Command::new("ip");
        let script = format!("{script}\nexec \"$@\"");
        command.args(["netns", "exec", &self.namespace, "sh", "-ec", &script, "sh", AGENT, verb]);
        command.current_dir(self.root.path());
        for (option, folder) in [("--run-dir", "run"), ("--state-dir", "state"), ("--cni-dir", "cni")] {
            command.arg(option).arg(self.path(folder));
        }
        command.arg("--config").arg(self.path("etc/config.json"));
        command.arg("--credentials").arg(self.path("etc/tls"));
        command
    }

    /// Starts the agent and waits until it has brought the node to its configuration.
    fn start(&self, log: &str) -> Running {
        self.start_in(":", log)
    }

    fn start_in(&self, script: &str, log: &str) -> Running {
        let child = self
            .command_in(script, "run")
            .env("RUST_LOG", "debug")
            .stderr(fs::File::create(self.path(log)).unwrap())
            .spawn()
            .unwrap();
        let running = Running(child);
        self.await_status("\"generation\":3");
        running
    }

    fn await_status(&self, wanted: &str) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let output = self.command("status").arg("--json").stderr(Stdio::null()).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            if text.contains(wanted) {
                return text;
            }
            assert!(Instant::now() < end, "no {wanted} in status: {text}\n{}", self.sh("cat -- *.log || true"));
        }
    }

    fn sh(&self, script: &str) -> String {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.namespace, "sh", "-ec", script])
            .current_dir(self.root.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// All that could be left behind in the kernel.
    fn snapshot(&self) -> String {
        self.sh(
            "ip -o link | cut -d: -f2; ip -o addr show scope global | cut -d' ' -f2-7; ip rule; ip -6 rule
             ip route show table all | grep -v 'proto kernel' | sort; ip -6 route show table all | grep -v 'proto kernel' | grep -v fe80 | sort
             ip xfrm policy; ip xfrm state; nft list ruleset | sed 's/counter packets.*bytes [0-9]*//'; iptables-legacy-save | grep -v '^#' | sed 's/\\[.*//'; ipset save",
        )
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ =
            Command::new("sh").args(["-c", &format!("ip netns pids {0} | xargs -r kill -9", self.namespace)]).status();
        let _ = selvedge_linux::netns::delete(&self.namespace);
    }
}

struct Running(Child);

impl Running {
    fn hang_up(&self) {
        let done = Command::new("kill").args(["-HUP", &self.0.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn credentials(dir: &Path, name: &str) {
    credentials_until(dir, name, 4096);
}

/// A certificate that ends with the year before.
fn credentials_until(dir: &Path, name: &str, year: i32) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(dir.join("ca.crt"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    leaf.not_after = rcgen::date_time_ymd(year, 1, 1);
    fs::write(dir.join("tls.crt"), leaf.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)).unwrap().pem()).unwrap();
    fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
}

fn good(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A second run finds everything as it should be, and `clean` leaves everything as it was.
fn life(name: &str, firewall: &str) {
    let site = Site::new(name, firewall);
    // What others made, in every chain that we jump from.
    site.sh("nft add table inet others; nft add chain inet others keep
         for tool in iptables ip6tables; do
             for place in raw:PREROUTING mangle:FORWARD filter:INPUT filter:FORWARD filter:OUTPUT \\
                          nat:PREROUTING nat:OUTPUT nat:POSTROUTING; do
                 $tool -t ${place%:*} -A ${place#*:} -p tcp --dport 7 -j ACCEPT
             done
         done
         iptables-legacy -A FORWARD -s 203.0.113.7 -j DROP; ipset create others hash:net");
    let before = site.snapshot();
    let first = site.start("first.log");
    let applied = site.snapshot();
    assert!(applied.contains("220:\tfrom all lookup 220"), "{applied}");
    assert!(applied.contains("unreachable 10.244.0.0/24"), "{applied}");
    assert!(site.path("cni/selvedge.conflist").exists());
    first.kill();
    assert_eq!(site.snapshot(), applied, "after the agent was killed");
    let second = site.start("second.log");
    assert_eq!(site.snapshot(), applied, "after the second run");
    let log = fs::read_to_string(site.path("second.log")).unwrap();
    for change in ["Route", "Rule", "Policy", "Address(", "rules written", "written"] {
        assert!(!log.contains(change), "the second run changed something ({change}):\n{log}");
    }
    good(site.command("clean").output().unwrap());
    assert_eq!(site.snapshot(), before, "after clean");
    for left in ["run", "state", "cni/selvedge.conflist"] {
        assert!(!site.path(left).exists(), "{left} is left");
    }
    drop(second);
}

#[test]
fn a_second_run_changes_nothing_and_clean_leaves_nothing_nftables() {
    life("nft", "nftables");
}

#[test]
fn a_second_run_changes_nothing_and_clean_leaves_nothing_iptables() {
    life("ipt", "iptables");
}

#[test]
fn a_boot_without_any_delivery_comes_up_with_the_last_good_configuration() {
    let site = Site::new("boot", "nftables");
    site.start("first.log").kill();
    fs::remove_dir_all(site.path("etc")).unwrap();
    let _second = site.start("second.log");
    let status = site.await_status("last good copy");
    assert!(status.contains("config.json"), "the missing file is not named: {status}");
}

#[test]
fn credentials_that_do_not_fit_are_refused_by_name() {
    let site = Site::new("keys", "nftables");
    let _agent = site.start("agent.log");
    fs::write(site.path("etc/tls/tls.key"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let status = site.await_status("credentials in");
    assert!(status.contains("\"generation\":3"), "{status}");
}

/// As over NFS, or when the lower file system of an overlay changes under it.
#[test]
fn a_hangup_has_read_again_what_the_kernel_tells_nothing_about() {
    let site = Site::new("hup", "nftables");
    let agent = site.start_in(
        "mkdir upper
         mount -t tmpfs tmpfs upper
         mkdir upper/changes upper/work
         mount -t overlay -o lowerdir=etc,upperdir=upper/changes,workdir=upper/work overlay etc",
        "agent.log",
    );
    let config = fs::read_to_string(site.path("etc/config.json")).unwrap();
    fs::write(site.path("etc/config.json"), config.replace("\"generation\": 3", "\"generation\": 4")).unwrap();
    assert!(site.await_status("\"generation\"").contains("\"generation\":3"), "the kernel told");
    agent.hang_up();
    site.await_status("\"generation\":4");
    fs::write(site.path("etc/tls/tls.key"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(!site.await_status("\"generation\"").contains("credentials in"), "the kernel told");
    agent.hang_up();
    site.await_status("credentials in");
}

#[test]
fn what_is_in_the_way_of_tunnels_is_named_and_waited_for() {
    let site = Site::new("way", "nftables");
    site.sh("ip link add selvedge0 type veth peer name other0");
    let _agent = site.start("agent.log");
    let status = site.await_status("make the TUN device");
    assert!(status.contains("selvedge0"), "{status}");
    assert!(site.snapshot().contains("unreachable 10.244.0.0/24"), "without tunnels nothing may leave in clear");
    site.sh("ip link del selvedge0");
    site.await_status("\"state\":\"connecting\"");
}

#[test]
fn a_port_of_others_is_named_and_waited_for() {
    let site = Site::new("port", "nftables");
    let thief = site.sh("python3 -c 'import socket,time; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
s.bind((\"\",4500)); print(\"bound\", flush=True); time.sleep(60)' >thief.out 2>&1 &
         echo $!; until grep -q bound thief.out; do sleep 0.1; done");
    let _agent = site.start("agent.log");
    site.await_status("UDP port 4500 (IPv4) is not ours");
    let text = String::from_utf8(site.command("doctor").output().unwrap().stdout).unwrap();
    let held = format!("UDP port 4500 (IPv4) is held by python3 (process {})", thief.trim());
    assert!(text.contains(&held), "{text}");
    site.sh(&format!("kill {thief}"));
    site.await_status("\"state\":\"connecting\"");
}

#[test]
fn doctor_names_what_ails_the_agent_and_changes_nothing() {
    let site = Site::new("doctor", "nftables");
    let doctor = || {
        let output = site.command("doctor").arg("--json").output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    // Nothing runs: nothing fails.
    let before = site.snapshot();
    let (code, text) = doctor();
    assert!(text.contains("\"id\":\"running\",\"level\":\"warn\""), "{text}");
    assert!(text.contains("configuration of here.edge, generation 3") && code == 0, "{text}");
    assert_eq!(site.snapshot(), before);
    // The only peer is on a link where nobody answers.
    let _agent = site.start("agent.log");
    let applied = site.snapshot();
    let (code, text) = doctor();
    assert!(text.contains("here.connector: connecting, no way to 192.0.2.99 (no route to host") && code == 1, "{text}");
    assert_eq!(site.snapshot(), applied);
    fs::write(site.path("etc/config.json"), CONFIG.replace("10.96.0.0/16", "10.96.0.0/40")).unwrap();
    credentials(&site.path("etc/tls"), "here.edge");
    let (code, text) = doctor();
    assert!(text.contains("the last good one is in force") && text.contains("peers[0].prefixes[0]"), "{text}");
    assert_eq!(code, 1);
    let human = String::from_utf8(site.command("doctor").output().unwrap().stdout).unwrap();
    assert!(human.contains("FAIL  the configuration cannot be used") && human.contains("\nok    "), "{human}");
}

#[test]
fn doctor_names_what_is_around_the_agent() {
    let site = Site::new("around", "nftables");
    let doctor = || String::from_utf8(site.command("doctor").output().unwrap().stdout).unwrap();
    let text = doctor();
    assert!(!text.contains("MTU") && !text.contains("pluto") && !text.contains("expired"), "{text}");
    let pluto = site.sh("cp $(command -v sleep) pluto; ./pluto 60 >/dev/null 2>&1 & echo $!");
    credentials_until(&site.path("etc/tls"), "here.edge", 2020);
    site.sh("ip link set up0 mtu 1400");
    let _agent = site.start("agent.log");
    let text = doctor();
    site.sh(&format!("kill {pluto}"));
    assert!(text.contains(&format!("warn  pluto runs here (process {})", pluto.trim())), "{text}");
    assert!(text.contains("warn  a link to peers has an MTU of 1400"), "{text}");
    assert!(text.contains("FAIL  the own certificate expired at 2020-01-01"), "{text}");
}

#[test]
fn doctor_says_when_it_cannot_look() {
    let doctor = Command::new("setpriv").args(["--bounding-set", "-net_admin", AGENT, "doctor"]).output().unwrap();
    assert_eq!(doctor.status.code(), Some(2));
    assert!(String::from_utf8(doctor.stderr).unwrap().contains("CAP_NET_ADMIN"));
}

#[test]
fn without_ipv6_the_ipv4_part_is_applied() {
    let site = Site::new("four", "iptables");
    site.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    let _agent = site.start("agent.log");
    let status = site.await_status("IPv6 is off");
    assert!(status.contains("\"problems\":[]"), "{status}");
    assert!(site.snapshot().contains("unreachable 10.244.0.0/24"));
    assert!(!site.snapshot().contains("fd00"), "{}", site.snapshot());
}

#[test]
fn check_tells_good_from_bad() {
    let site = Site::new("check", "auto");
    let config = site.path("etc/config.json");
    let check = || Command::new(AGENT).arg("check").arg(&config).output().unwrap();
    assert!(good(check()).contains("good: here.edge (generation 3, 1 peers, 1 Services)"));
    fs::write(&config, CONFIG.replace("10.96.0.0/16", "10.96.0.0/40")).unwrap();
    let bad = check();
    assert!(!bad.status.success());
    let text = String::from_utf8(bad.stderr).unwrap();
    assert!(text.contains("config.json: peers[0].prefixes[0]: \"10.96.0.0/40\" is not a network"), "{text}");
}

#[test]
fn names_are_answered_with_their_origin() {
    let site = Site::new("dns", "nftables");
    let _agent = site.start("agent.log");
    let ask = |words: &[&str]| site.command("dns").arg("query").args(words).output().unwrap();
    let text = good(ask(&["web.a.svc.cluster.local"]));
    assert!(text.contains("10.96.0.7") && text.contains("from: cluster"), "{text}");
    let none = ask(&["nobody.a.svc.cluster.local", "AAAA"]);
    let text = String::from_utf8_lossy(&none.stdout);
    assert!(text.contains("NXDOMAIN") && none.status.code() == Some(1), "{text}");
    let text = good(site.command("status").arg("dns").output().unwrap());
    assert!(text.contains("169.254.25.10, fd73:656c:7665::53") && text.contains("1 Services"), "{text}");
    assert!(text.contains("192.0.2.53:53") && text.contains("of the cluster 2"), "{text}");
    // Another Service, and one less.
    let config = fs::read_to_string(site.path("etc/config.json")).unwrap();
    let config = config.replace("\"web\"", "\"shop\"").replace("\"generation\": 3", "\"generation\": 4");
    fs::write(site.path("etc/config.json"), config).unwrap();
    site.await_status("\"generation\":4");
    good(ask(&["shop.a.svc.cluster.local"]));
    assert_eq!(ask(&["web.a.svc.cluster.local"]).status.code(), Some(1));
}
