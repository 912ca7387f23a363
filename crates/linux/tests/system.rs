//! Namespaces, firewall tools, settings, files and processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]
#![allow(unsafe_code, reason = "one test makes a descriptor that is not close-on-exec")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use common::{fresh_namespace, sh};
use selvedge_linux::poll::{Interest, poll};
use selvedge_linux::timer::Timer;
use selvedge_linux::watch::Watch;
use selvedge_linux::{Family, capabilities, file, netfilter, netns, process, sysctl};

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("selvedge-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a_timer_can_be_read_once_its_time_has_come_and_not_after_it_is_set_again() {
    let timer = Timer::new().unwrap();
    let ready = |patience| poll(&mut [Interest::readable(&timer)], Some(patience)).unwrap() == 1;
    assert!(!ready(Duration::ZERO));
    for pause in [Duration::ZERO, Duration::from_millis(20)] {
        timer.set(Some(pause)).unwrap();
        assert!(ready(Duration::from_secs(20)));
        timer.set(Some(Duration::from_secs(3600))).unwrap();
        assert!(!ready(Duration::ZERO));
    }
    timer.set(Some(Duration::ZERO)).unwrap();
    timer.set(None).unwrap();
    assert!(!ready(Duration::from_millis(20)));
}

#[test]
fn namespaces_are_those_of_ip_netns() {
    let name = format!("selvedge-test-{}", std::process::id());
    netns::create(&name).unwrap();
    let error = netns::create(&name).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EEXIST));
    sh(&format!("ip -n {name} link add br0 type bridge"));
    let here = || sh("readlink /proc/self/ns/net");
    let (before, outside) = (netns::current().unwrap(), here());
    netns::enter(&name).unwrap();
    assert!(sh("ip link show br0").contains("br0"));
    assert_ne!(here(), outside);
    before.enter().unwrap();
    assert_eq!(here(), outside);
    assert!(netns::delete(&name).unwrap());
    assert!(!netns::delete(&name).unwrap());
    assert!(!sh("ip netns list").contains(&name));
    for bad in ["", "a/b", ".."] {
        assert!(netns::create(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn firewall_tools_work_as_probed() {
    fresh_namespace();
    let nft = netfilter::probe_nft().unwrap();
    assert_eq!(sh("nft list ruleset"), "", "the probe leaves nothing");
    let iptables = [Family::V4, Family::V6].map(|family| netfilter::probe_iptables(family).unwrap());
    assert!(!sh("nft list ruleset").contains("SELVEDGE"), "the probe leaves nothing");
    nft.apply("table ip selvedge-t { chain c { counter accept; }; }\n").unwrap();
    assert!(nft.list_table("ip", "selvedge-t").unwrap().unwrap().contains("chain c"));
    assert_eq!(nft.list_table("ip", "selvedge-u").unwrap(), None);
    nft.check("table ip selvedge-u { }\n").unwrap();
    assert_eq!(nft.list_table("ip", "selvedge-u").unwrap(), None);
    let error = nft.apply("table ip selvedge-t { nonsense }\n").unwrap_err().to_string();
    assert!(error.contains("nft -f -: ") && error.contains("nonsense"), "{error}");
    let rules = "*filter\n:SELVEDGE-T - [0:0]\n-A SELVEDGE-T -j DROP\nCOMMIT\n";
    for tool in iptables {
        tool.restore(rules).unwrap();
        assert!(tool.save("filter").unwrap().contains("-A SELVEDGE-T -j DROP"));
        let error = tool.restore("*filter\n-A NO-SUCH -j DROP\nCOMMIT\n").unwrap_err().to_string();
        assert!(error.contains("restore -w"), "{error}");
    }
    assert!(sh("iptables -S SELVEDGE-T; ip6tables -S SELVEDGE-T").contains("-A SELVEDGE-T -j DROP"));
    let ipset = netfilter::probe_ipset().unwrap();
    let members = "create SELVEDGE-T hash:net family inet\nadd SELVEDGE-T 10.1.0.0/24\n";
    ipset.restore(members).unwrap();
    ipset.restore(members).unwrap();
    assert!(ipset.save("SELVEDGE-T").unwrap().unwrap().contains("add SELVEDGE-T 10.1.0.0/24"));
    assert_eq!(ipset.save("SELVEDGE-U").unwrap(), None);
    assert_eq!(ipset.names().unwrap(), ["SELVEDGE-T"]);
}

#[test]
fn every_flavour_of_iptables_is_a_candidate() {
    assert!(netfilter::Iptables::candidates(Family::V4).len() >= 2);
    assert!(netfilter::Iptables::candidates(Family::V6).len() >= 2);
}

#[test]
fn settings_are_written_only_when_different() {
    fresh_namespace();
    sh("sysctl -qw net.ipv4.ip_forward=0");
    assert!(sysctl::set("net/ipv4/ip_forward", "1").unwrap());
    assert!(!sysctl::set("net/ipv4/ip_forward", "1").unwrap());
    assert_eq!(sh("sysctl -n net.ipv4.ip_forward"), "1\n");
    for bad in ["", "net/../kernel/hostname", "/etc/passwd"] {
        assert!(sysctl::get(bad).is_err(), "{bad:?}");
    }
    let error = sysctl::set("net/ipv4/no_such_key", "1").unwrap_err();
    assert_eq!(error.to_string(), "read sysctl net/ipv4/no_such_key: no such file or directory (ENOENT)");
}

#[test]
fn files_are_written_whole_and_only_when_changed() {
    let directory = directory("file");
    let path = directory.join("last.json");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert!(file::write(&path, b"one", 0o600).unwrap());
    assert!(!file::write(&path, b"one", 0o600).unwrap());
    assert_eq!(mode(), 0o600);
    assert!(file::write(&path, b"one", 0o644).unwrap());
    assert_eq!(mode(), 0o644);
    assert!(file::write(&path, b"two!", 0o644).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"two!");
    let elsewhere = directory.join("elsewhere");
    assert!(file::write(&elsewhere, b"mine", 0o600).unwrap());
    let link = directory.join("link");
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    assert!(file::write(&link, b"mine", 0o600).unwrap());
    assert!(file::write(&link, b"other", 0o600).unwrap());
    assert_eq!(fs::read(&elsewhere).unwrap(), b"mine");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 3, "no temporary file stays");
    let error = file::write(directory.join("no/such"), b"x", 0o600).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOENT));
    assert!(file::remove(&path).unwrap());
    assert!(!file::remove(&path).unwrap());
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn watch_sees_writes_renames_and_config_map_swaps() {
    let directory = directory("watch");
    let path = directory.join("config.json");
    let mut watch = Watch::new(&path).unwrap();
    assert!(!watch.drain().unwrap());
    let mut seen = |what: &str| {
        poll(&mut [Interest::readable(&watch)], Some(Duration::from_secs(5))).unwrap();
        assert!(watch.drain().unwrap(), "{what}");
        assert!(!watch.drain().unwrap(), "{what}: once");
    };
    fs::write(&path, "1").unwrap();
    seen("written");
    file::write(&path, b"2", 0o600).unwrap();
    seen("renamed");
    fs::remove_file(&path).unwrap();
    seen("removed");
    for generation in ["..1", "..2"] {
        fs::create_dir(directory.join(generation)).unwrap();
        fs::write(directory.join(generation).join("config.json"), generation).unwrap();
        std::os::unix::fs::symlink(generation, directory.join("..data_tmp")).unwrap();
        fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
        seen("swapped");
    }
    fs::write(directory.join("other"), "x").unwrap();
    assert!(!watch.drain().unwrap());
    fs::remove_dir_all(&directory).unwrap();
    // The kernel tells when the last program that has the directory open lets go of it.
    while watch.drain().is_ok() {
        let ready = poll(&mut [Interest::readable(&watch)], Some(Duration::from_secs(10))).unwrap();
        assert_eq!(ready, 1, "the directory is away");
    }
    assert!(Watch::new(&path).is_err());
}

#[test]
fn watch_follows_a_directory_that_is_replaced() {
    let directory = directory("replaced");
    let path = directory.join("config.json");
    let mut watch = Watch::new(&path).unwrap();
    let old = directory.with_extension("old");
    let _ = fs::remove_dir_all(&old);
    fs::rename(&directory, &old).unwrap();
    fs::create_dir(&directory).unwrap();
    assert!(watch.drain().unwrap());
    fs::write(&path, "1").unwrap();
    assert!(watch.drain().unwrap());
    fs::remove_dir_all(&directory).unwrap();
    fs::remove_dir_all(&old).unwrap();
}

#[test]
fn detached_helper_outlives_holds_nothing_and_logs() {
    let directory = directory("process");
    let (log, fifo) = (directory.join("log"), directory.join("fifo"));
    sh(&format!("mkfifo {}", fifo.display()));
    let leak = fs::File::open("/dev/null").unwrap();
    // Not close-on-exec, as a careless library would leave it.
    // SAFETY: takes no pointers.
    unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&leak), libc::F_SETFD, 0) };
    let script = format!(
        "echo sid $(ps -o sid= -p $$) ppid $(ps -o ppid= -p $$) pid $$; ls -l /proc/$$/fd | grep -c null
         sh -c 'kill -HUP $$; echo unmoved'; echo x >{}",
        fifo.display()
    );
    process::spawn_detached("/bin/sh".as_ref(), &["-c", &script], Some(&log)).unwrap();
    fs::read(&fifo).unwrap();
    let text = fs::read_to_string(&log).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let own_session = sh("ps -o sid= -p $$").trim().to_owned();
    assert_ne!(words[1], own_session, "{text}");
    assert_ne!(words[3], std::process::id().to_string(), "{text}");
    assert_eq!(words[6], "1", "only standard input is /dev/null: {text}");
    assert_eq!(words.get(7), Some(&"unmoved"), "a hangup that was meant for us ended it: {text}");
    let error = process::spawn_detached("/no/such".as_ref(), &["x"], None).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOENT));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn root_may_administer_the_network() {
    assert!(capabilities::has(capabilities::Capability::NetAdmin).unwrap());
}

#[test]
fn who_holds_a_lock_is_told() {
    use std::os::fd::AsRawFd;
    let path = directory("lock").join("lock");
    assert_eq!(file::lock_holder(&path).unwrap(), None, "a file that is not there");
    let held = fs::File::create(&path).unwrap();
    assert_eq!(file::lock_holder(&path).unwrap(), None);
    // SAFETY: takes no pointers.
    assert_eq!(unsafe { libc::flock(held.as_raw_fd(), libc::LOCK_EX) }, 0);
    assert_eq!(file::lock_holder(&path).unwrap(), Some(Some(std::process::id())));
}

#[test]
fn kinds_of_links_are_tried_without_a_trace() {
    use selvedge_linux::netlink::{Protocol, Socket};
    fresh_namespace();
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let before = sh("ip -o link");
    selvedge_linux::link::probe(&mut socket, "bridge").unwrap();
    assert!(selvedge_linux::link::probe(&mut socket, "no-such-kind").unwrap_err().is_unsupported());
    assert_eq!(sh("ip -o link"), before);
    assert!(selvedge_linux::tun::probe().is_ok());
}

#[test]
fn settings_that_cannot_be_written_are_known() {
    fresh_namespace();
    assert!(sysctl::is_writable("net/ipv4/ip_forward"));
    assert!(!sysctl::is_writable("net/ipv4/no_such_key"));
    assert!(!sysctl::is_writable("kernel/osrelease"), "read-only");
}

#[test]
fn one_rule_of_iptables_is_tried_without_a_trace() {
    fresh_namespace();
    let tool = netfilter::probe_iptables(Family::V4).unwrap();
    netfilter::probe_rule(&tool, "filter", "-p tcp -j REJECT --reject-with tcp-reset").unwrap();
    let missing = netfilter::probe_rule(&tool, "filter", "-m no-such-match -j ACCEPT").unwrap_err();
    assert!(missing.to_string().contains("no-such-match"), "{missing}");
    let saved = tool.save("filter").unwrap();
    assert!(!saved.contains("SELVEDGE"), "{saved}");
}
