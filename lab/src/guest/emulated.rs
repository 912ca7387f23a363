//! A kernel of another architecture under QEMU, with tools of that architecture (`lab/tools/guest-files`) and our
//! programs built for it as its only root, in memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::arch::Arch;
use super::cpio::Archive;
use super::{Options, Wire, task};

/// Where `guest-files` leaves what it brings, and `cross/build` what it builds.
const FILES: &str = "target/arch";
const PROGRAMS: &str = "target/cross";
/// The guest's end of a cable, here.
const TAP: &str = "guest";
const EDGE: [&str; 2] = ["selvedge-lab", "selvedge-agent"];
/// What runs elsewhere if the guest is an edge on a wire.
const CLOUD: [&str; 2] = ["selvedge-connector", "selvedge-operator"];
const USERS: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const IPTABLES: [&str; 6] =
    ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];

/// What the command `iptables` writes its rules for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flavour {
    /// nf_tables in the kernel.
    Nft,
    /// The old tables.
    Legacy,
}

/// What boots it and runs `selvedge-lab` with the arguments.
pub fn command(
    arch: Arch,
    dir: &Path,
    options: &Options,
    arguments: &[String],
    wire: Option<&Wire<'_>>,
) -> Result<Command> {
    let files = folder("SELVEDGE_ARCH_DIR", FILES).join(arch.to_string());
    let kernel = files.join("boot/kernel");
    ensure!(kernel.exists(), "{} is not there: lab/tools/guest-files {arch}", kernel.display());
    let root = dir.join("root.cpio");
    write_root(&root, arch, &files.join("root"), options, arguments, wire)?;
    let machine = arch.machine();
    let mut command = match wire {
        None => Command::new(machine.qemu),
        Some(wire) => wire.wan.ns.command(machine.qemu),
    };
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-accel", "tcg"])
        .args(machine.arguments)
        .args(["-m", options.memory.as_deref().unwrap_or(machine.memory)])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(root)
        .args(["-append", &format!("console={} quiet panic=-1 mitigations=off rootfstype=ramfs", machine.console)]);
    match wire {
        // The clock on the board by the same time, or the kernel measures a wrong frequency.
        None => command.args(["-icount", machine.time, "-rtc", "clock=vm"]),
        Some(wire) => {
            wire.wan.attach_tap(TAP)?;
            command
                .args(["-netdev", &format!("tap,id=wan,ifname={TAP},script=no,downscript=no")])
                .args(["-device", "virtio-net-pci,netdev=wan,romfile="])
        }
    };
    Ok(command)
}

fn write_root(
    path: &Path,
    arch: Arch,
    tools: &Path,
    options: &Options,
    arguments: &[String],
    wire: Option<&Wire<'_>>,
) -> Result<()> {
    let mut archive = Archive::create(path)?;
    archive.tree(tools)?;
    for name in ["dev", "proc", "sys", "run", "tmp", "root", "usr/local", "usr/local/sbin", "usr/local/bin"] {
        archive.folder(name)?;
    }
    archive.device("dev/console", (5, 1))?;
    for applet in ["sh", "date"] {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    archive.file("etc/passwd", 0o644, USERS)?;
    let multi = if options.iptables == Flavour::Nft { "xtables-nft-multi" } else { "xtables-legacy-multi" };
    for name in IPTABLES {
        archive.link(&format!("usr/local/sbin/{name}"), &format!("/usr/sbin/{multi}"))?;
    }
    let programs = folder("SELVEDGE_CROSS_DIR", PROGRAMS).join(arch.target());
    for name in EDGE.iter().chain(wire.is_none().then_some(&CLOUD).into_iter().flatten()) {
        let path = programs.join(name);
        let program = std::fs::read(&path)
            .with_context(|| format!("{}: cross/build {} -p {name}", path.display(), arch.target()))?;
        archive.file(&format!("usr/local/bin/{name}"), 0o755, &program)?;
    }
    if let Some(Wire { delivery, folder, .. }) = wire {
        archive.folder(folder)?;
        archive.tree_at(delivery, folder)?;
    }
    archive.file("init", 0o755, script(options, arguments)?.as_bytes())?;
    Ok(archive.finish()?)
}

fn folder(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
}

/// Process 1 of the guest. The modules are those that nothing asks for, and the TUN device is everybody's as udev has it;
/// not every board has a clock. busybox finds its other applets through /proc.
fn script(options: &Options, arguments: &[String]) -> Result<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let slower = options.slower.unwrap_or(2);
    Ok(format!(
        "#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/run/lab
/bin/busybox mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755 run /run
mkdir -p /run/lab
date -s @{now} >/dev/null
modprobe -a tun br_netfilter virtio_pci virtio_net
chmod 0666 /dev/net/tun
{}",
        task("/usr/local/bin/selvedge-lab", slower, arguments, &["RUST_LOG"])
    ))
}
