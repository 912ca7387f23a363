//! Giving up users, capabilities and files, in a process of its own, because there is no way back.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail as tests do")]
#![allow(unsafe_code, reason = "one test has threads of other users")]

mod common;

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{fresh_namespace, sh};
use selvedge_linux::capabilities::{self, Capability};
use selvedge_linux::landlock::{self, Access, Tcp};
use selvedge_linux::seqpacket::{Connection, Listener};
use selvedge_linux::user::{Right, User};
use selvedge_linux::{Family, UdpPort, netfilter, sysctl, tun};

const KEEP: [Capability; 3] = [Capability::NetAdmin, Capability::NetRaw, Capability::NetBindService];

/// What the process of its own is told by: the folder to work in.
const FOLDER: &str = "SELVEDGE_TEST_FOLDER";

/// What it says when it has no way back.
const RESTRICTED: &str = "restricted";

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("selvedge-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a_process_keeps_what_it_needs_and_nothing_else() {
    let folder = folder("privilege");
    for name in ["own", "foreign"] {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("file"), "1").unwrap();
    }
    // What only Landlock forbids.
    for path in ["foreign", "foreign/file"] {
        fs::set_permissions(folder.join(path), Permissions::from_mode(0o777)).unwrap();
    }
    fs::copy("/bin/true", folder.join("own/program")).unwrap();
    let mut child = Command::new("setpriv")
        .arg("--groups=5,6")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "confined", "--ignored", "--nocapture"])
        .env(FOLDER, &folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.ends_with(&format!("{RESTRICTED}\n")) && said.read_line(&mut text).unwrap() > 0 {}
    // What the kernel can make again it forgets now: at each time only what nothing else hangs on.
    for _ in 0..10 {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    }
    drop(child.stdin.take());
    said.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success() && text.contains("1 passed"), "{text}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
#[ignore = "is started by another test"]
fn confined() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    fresh_namespace();
    let user = User::named("nobody").unwrap();
    user.take(&folder.join("own")).unwrap();
    capabilities::keep_only(&KEEP, Some(&user)).unwrap();
    assert_eq!(User::current(), user);
    let rules =
        ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc"].map(|path| (Path::new(path), Access::Read));
    let own = folder.join("own");
    let writable = [own.as_path(), Path::new("/proc/sys/net")].map(|path| (path, Access::Write));
    let devices = ["/dev/net/tun", "/dev/null"].map(|path| (Path::new(path), Access::Device));
    let held = landlock::restrict(rules.into_iter().chain(writable).chain(devices), Tcp::Denied).unwrap();
    println!("{RESTRICTED}");
    io::stdin().read_to_end(&mut Vec::new()).unwrap();

    for who in ["self", "thread-self"] {
        let status = fs::read_to_string(format!("/proc/{who}/status")).unwrap();
        assert!(status.contains("Groups:\t \n"), "no other groups: {status}");
    }
    let child = sh("grep -E '^(Uid|Gid|Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status");
    let three = "0000000000003400";
    let ids = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join("\t");
    let expected = format!(
        "Uid:\t{}\nGid:\t{}\nCapPrm:\t{three}\nCapEff:\t{three}\nCapBnd:\t{three}\nCapAmb:\t{three}\nNoNewPrivs:\t1\n",
        ids(user.uid),
        ids(user.gid)
    );
    assert_eq!(child, expected, "programs have what is kept and no more");

    for value in ["1", "0"] {
        sysctl::set("net/ipv4/ip_forward", value).unwrap();
    }
    assert!(File::options().write(true).open("/proc/sys/kernel/core_pattern").is_err());
    UdpPort::bind(500, Family::V4).unwrap().set_ipsec_bypass().unwrap();
    drop(tun::Tun::open("confined0", tun::Options::default()).unwrap());
    netfilter::probe_nft().unwrap();
    netfilter::probe_iptables(Family::V4).unwrap();
    netfilter::probe_ipset().unwrap();

    fs::write(own.join("new"), "1").unwrap();
    fs::rename(own.join("new"), own.join("file")).unwrap();
    fs::create_dir(own.join("folder")).unwrap();
    fs::remove_dir(own.join("folder")).unwrap();
    if held.is_none() {
        println!("no Landlock in this kernel");
        return;
    }
    let foreign = folder.join("foreign");
    refused(fs::write(foreign.join("new"), "1"));
    refused(fs::read(foreign.join("file")).map(drop));
    refused(fs::read_dir(&foreign).map(drop));
    refused(fs::remove_file(foreign.join("file")));
    refused(Command::new(own.join("program")).status().map(drop));
    assert!(!Command::new("sh").arg("-c").arg(format!("echo >{}/file", foreign.display())).status().unwrap().success());
    if held >= Some(4) {
        refused(std::net::TcpListener::bind("127.0.0.1:0").map(drop));
    }
}

fn refused(outcome: io::Result<()>) {
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

/// Does it in a thread that is another user; the C library would change all threads.
fn as_user<T: Send>(uid: u32, job: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: takes no pointers.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }, 0);
            job()
        });
        thread.join().unwrap()
    })
}

#[test]
fn sockets_are_for_their_user_for_root_and_for_whom_root_gave_them() {
    let folder = folder("socket");
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    let nobody = User::named("nobody").unwrap();
    let [theirs, common, ours] = ["theirs", "common", "ours"].map(|name| folder.join(name));
    for path in [&theirs, &common, &ours] {
        fs::create_dir(path).unwrap();
    }
    nobody.take(&theirs).unwrap();
    fs::set_permissions(&common, Permissions::from_mode(0o777)).unwrap();

    let listener = as_user(nobody.uid, || Listener::bind(theirs.join("socket")).unwrap());
    Connection::connect(theirs.join("socket")).unwrap();
    assert!(as_user(nobody.uid, || listener.accept().is_ok()), "root may call anybody");
    fs::set_permissions(theirs.join("socket"), Permissions::from_mode(0o666)).unwrap();
    assert!(as_user(12345, || Connection::connect(theirs.join("socket")).is_err()), "who is not root may not");
    User::root().take(&theirs).unwrap();
    Connection::connect(theirs.join("socket")).unwrap();

    let _planted = as_user(nobody.uid, || Listener::bind(common.join("socket")).unwrap());
    let error = Connection::connect(common.join("socket")).unwrap_err().to_string();
    assert!(error.contains("the other end runs as user 65534, not as 0"), "{error}");
    fs::set_permissions(common.join("socket"), Permissions::from_mode(0o666)).unwrap();
    assert!(as_user(12345, || Connection::connect(common.join("socket")).is_err()), "whoever is not root");

    let listener = Listener::bind(ours.join("socket")).unwrap();
    fs::set_permissions(ours.join("socket"), Permissions::from_mode(0o666)).unwrap();
    let _caller = as_user(nobody.uid, || Connection::connect(ours.join("socket")).unwrap());
    let error = listener.accept().unwrap_err().to_string();
    assert!(error.contains("the other end runs as user 65534, not as 0"), "{error}");
    nobody.take(&ours).unwrap();
    let _caller = as_user(nobody.uid, || Connection::connect(ours.join("socket")).unwrap());
    assert!(listener.accept().unwrap().is_some());
    let _caller = as_user(12345, || Connection::connect(ours.join("socket")).map(drop));
    assert!(listener.accept().is_err(), "given to somebody else");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_is_given_away_leads_nowhere_else() {
    let (folder, outside) = (folder("take"), folder("take-outside"));
    let user = User::named("nobody").unwrap();
    let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    fs::create_dir(folder.join("sub")).unwrap();
    let [within, secret, link] = [folder.join("sub/file"), outside.join("secret"), folder.join("link")];
    fs::write(&within, "1").unwrap();
    fs::write(&secret, "1").unwrap();
    symlink(&secret, &link).unwrap();
    user.take(&folder).unwrap();
    assert_eq!([&folder, &within, &link, &secret].map(|path| owner(path)), [user.uid, user.uid, user.uid, 0]);
    fs::hard_link(&secret, folder.join("sub/second")).unwrap();
    let error = user.take(&folder).unwrap_err().to_string();
    assert!(error.ends_with("has a second name"), "{error}");
    assert_eq!(owner(&secret), 0);
    User::root().take(&within).unwrap();
    assert_eq!(owner(&within), 0);
    for path in [folder, outside] {
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn what_is_shared_is_readable_for_the_group_alone() {
    let folder = folder("share");
    let user = User::named("nobody").unwrap();
    let data = folder.join("..1");
    let [key, link, second] = [data.join("tls.key"), folder.join("tls.key"), folder.join("second")];
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let state = |path: &Path| {
        let data = fs::symlink_metadata(path).unwrap();
        (data.uid(), data.gid(), data.mode() & 0o7777)
    };
    fs::create_dir(&data).unwrap();
    fs::write(&key, "1").unwrap();
    symlink("..1/tls.key", &link).unwrap();
    for (path, mode) in [(&folder, 0o700), (&data, 0o700), (&key, 0o600)] {
        set(path, mode);
    }
    user.share_all(&folder).unwrap();
    for (path, mode) in [(&folder, 0o2750), (&data, 0o2750), (&key, 0o640)] {
        assert_eq!(state(path), (0, user.gid, mode), "{}", path.display());
    }
    fs::write(folder.join("later"), "1").unwrap();
    assert_eq!(state(&folder.join("later")).1, user.gid, "the group is handed down");
    fs::write(&second, "1").unwrap();
    set(&second, 0o600);
    fs::hard_link(&second, folder.join("third")).unwrap();
    user.share(&second, Right::Read).unwrap();
    assert_eq!(state(&second).2, 0o600, "it may stand for anything");
    let networks = folder.join("net.d");
    fs::create_dir(&networks).unwrap();
    set(&networks, 0o755);
    user.share(&networks, Right::Add).unwrap();
    assert_eq!(state(&networks), (0, user.gid, 0o1775));
    let foreign = folder.join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("secret"), "1").unwrap();
    set(&foreign.join("secret"), 0o600);
    std::os::unix::fs::chown(&foreign, Some(12345), None).unwrap();
    user.share_all(&foreign).unwrap();
    assert_eq!(state(&foreign.join("secret")).2, 0o600, "another's folder may lead anywhere");
    fs::remove_dir_all(folder).unwrap();
}
