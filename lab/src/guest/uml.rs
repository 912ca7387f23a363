//! Debian's user-mode Linux, with this machine's files as its root, read-only.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Options, task};

const KERNEL: &str = "/usr/bin/linux.uml";
const MODULES: &str = "/usr/lib/uml/modules";

/// What boots it (Debian package user-mode-linux) and runs this program with the arguments.
pub fn command(dir: &Path, options: &Options, arguments: &[String]) -> Result<Command> {
    let init = dir.join("init.sh");
    std::fs::write(&init, script(options, arguments)?)?;
    std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut command = Command::new(KERNEL);
    command
        .args(["rootfstype=hostfs", "rootflags=/", "ro", "con=null", "con0=null,fd:1", "quiet"])
        .arg(format!("mem={}", options.memory.as_deref().unwrap_or("768M")))
        .args(&options.boot)
        .arg(format!("init={}", init.display()));
    Ok(command)
}

/// Process 1 of the guest. /run is the only place that can be written; the kernel loads modules by itself through a
/// modprobe that knows where user-mode Linux has them, br_netfilter and tun apart, which nothing asks for.
fn script(options: &Options, arguments: &[String]) -> Result<String> {
    let program = std::env::current_exe()?;
    let withheld: String = options.without.iter().map(|module| format!("install {module} /bin/false\\n")).collect();
    Ok(format!(
        "#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run/lab
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=0755 run /run
mkdir -p /run/lab /run/kmod/lib/modules
ln -s {MODULES}/$(uname -r) /run/kmod/lib/modules/
printf '{withheld}' >/run/modprobe.conf
printf '#!/bin/sh\\nexec /sbin/modprobe -C /run/modprobe.conf -d /run/kmod \"$@\"\\n' >/run/modprobe
chmod 0755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
/run/modprobe -a tun br_netfilter
{}",
        task(
            &program.display().to_string(),
            options.slower.unwrap_or(1),
            arguments,
            &["RUST_LOG", "SELVEDGE_BIN_DIR", "SELVEDGE_KUBE_BIN"]
        )
    ))
}
