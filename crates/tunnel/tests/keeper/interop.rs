//! ESP of the keeper against ESP of Linux, in user-mode Linux (Debian's `user-mode-linux`), whose kernel has it
//! whatever this machine's kernel has.

use crate::lab::{Lab, answered, pairs};
use crate::traffic::transfer;
use selvedge_esp::Suite;
use selvedge_tunnel::keeper::Mode;
use selvedge_tunnel::keeper::message::{Install, Request};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Mounts what a program expects and lets the kernel load modules from where Debian puts them.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/run RUST_BACKTRACE=0
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs run /run
mkdir -p /run/modules/lib/modules
ln -s /usr/lib/uml/modules/$(uname -r) /run/modules/lib/modules/
printf '#!/bin/sh\nexec /sbin/modprobe -d /run/modules "$@"\n' >/run/modprobe
chmod +x /run/modprobe; echo /run/modprobe >/proc/sys/kernel/modprobe
/run/modprobe -a tun ipv6 veth
ip link set lo up
( @PROGRAM@ --ignored --exact interop::inside ) </dev/null 2>&1
echo "@@exit $?"
echo o >/proc/sysrq-trigger
sleep 60
"#;

#[test]
fn user_space_and_kernel_understand_each_other() {
    let directory = std::env::temp_dir().join(format!("keeper-uml-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let init = directory.join("init");
    let program = std::env::current_exe().unwrap();
    std::fs::write(&init, INIT.replace("@PROGRAM@", program.to_str().unwrap())).unwrap();
    std::fs::set_permissions(&init, PermissionsExt::from_mode(0o755)).unwrap();
    // `timeout` ends the whole process group: user-mode Linux is several processes.
    let output = Command::new("timeout")
        .args(["-k", "5", "300", "linux.uml", "mem=256M", "rootfstype=hostfs", "rootflags=/", "ro"])
        .arg(format!("init={}", init.display()))
        .arg(format!("uml_dir={}", directory.display()))
        .args(["con=null", "con0=null,fd:1", "quiet"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("@@exit 0") && text.contains(" 1 passed"), "{text}");
}

#[test]
#[ignore = "runs in user-mode Linux"]
fn inside() {
    let lab = Lab::with(Mode::User, Mode::Kernel);
    // The kernel decapsulates as long as the keeper holds its port.
    let (mut a, _b) = (lab.a.client(), lab.b.client());
    a.send(&lab.peers(&lab.b)).unwrap();
    lab.b.ip("route add 10.1.0.0/16 dev veth0 src 10.2.0.1");
    lab.b.ip("-6 route add fd00:1::/32 dev veth0 src fd00:2::1");
    for (b, a) in [("10.2.0.0/16", "10.1.0.0/16"), ("fd00:2::/32", "fd00:1::/32")] {
        let [there, back] = ["src 192.0.2.2 dst 192.0.2.1", "src 192.0.2.1 dst 192.0.2.2"];
        let template = "proto esp reqid 1 mode tunnel";
        lab.b.ip(&format!("xfrm policy add src {b} dst {a} dir out tmpl {there} {template}"));
        lab.b.ip(&format!("xfrm policy add src {a} dst {b} dir in tmpl {back} {template}"));
    }
    let suites = [
        (Suite::Aes128Gcm, "rfc4106(gcm(aes))"),
        (Suite::Aes256Gcm, "rfc4106(gcm(aes))"),
        (Suite::ChaCha20Poly1305, "rfc7539esp(chacha20,poly1305)"),
    ];
    for (base, (suite, name)) in (0x1000..).step_by(0x1000).zip(suites) {
        let mut pair = Install { suite, ..lab.pair(&lab.a, base) };
        for key in [&mut pair.key_in, &mut pair.key_out] {
            key.truncate(suite.keymat_len());
        }
        lab.b.ip("xfrm state flush");
        for (src, dst, spi, key) in [(1, 2, pair.spi_out, &pair.key_out), (2, 1, pair.spi_in, &pair.key_in)] {
            let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            lab.b.ip(&format!(
                "xfrm state add src 192.0.2.{src} dst 192.0.2.{dst} proto esp spi {spi} reqid 1 mode tunnel flag af-unspec \
                 replay-window 32 aead {name} 0x{key} 128 encap espinudp 4500 4500 0.0.0.0"
            ));
        }
        a.send(&Request::Install(pair)).unwrap();
        assert!(pairs(&mut a).iter().any(|pair| pair.sending && pair.spi_in == base + 1));
        assert_eq!(answered(lab.a.ping("-c 3 -i 0.05 10.2.0.1")), (3, 3), "{suite:?}");
        assert_eq!(answered(lab.b.ping("-c 3 -i 0.05 -s 1300 fd00:1::1")), (3, 3), "{suite:?}");
        transfer(&lab, "10.2.0.1:0", 1 << 20);
    }
}
