"""An OpenWrt device in namespaces: a copy of a given root file system with its own procd as PID 1.

The root holds base-files, busybox, procd, ubus, uci, rpcd, ubox, firewall4 with ucode and nft, and opkg or apk, all built
for this machine; `udevtrigger` in it must do nothing.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

# Nothing of the machine's own devices is inside; procd leaves /dev alone in what says it is a container.
BOOT = r"""
mount --make-rprivate /
mount -t proc proc "$0/proc"
mount -t tmpfs tmpfs "$0/dev"
mount -t tmpfs tmpfs "$0/tmp"
mkdir -p "$0/dev/net" "$0/dev/pts" "$0/tmp/run" "$0/tmp/lock" "$0/tmp/log" "$0/tmp/state" "$0/tmp/.uci"
mknod -m 666 "$0/dev/null" c 1 3
mknod -m 666 "$0/dev/zero" c 1 5
mknod -m 666 "$0/dev/urandom" c 1 9
mknod -m 666 "$0/dev/random" c 1 8
mknod -m 600 "$0/dev/net/tun" c 10 200
ln -s /proc/self/fd "$0/dev/fd"
ln -s /proc/self/fd/0 "$0/dev/stdin"
ln -s /proc/self/fd/1 "$0/dev/stdout"
ln -s /proc/self/fd/2 "$0/dev/stderr"
: >"$0/dev/console"
ip link set lo up
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test chroot "$0" /sbin/procd
"""


class Device:
    """`root` is copied; what the test does to the copy ends with it."""

    def __init__(self, root, name):
        self.folder = Path(tempfile.mkdtemp(prefix=f"owrt-{name}-"))
        self.root = self.folder / "root"
        subprocess.run(["cp", "-a", "--reflink=auto", root, self.root], check=True)
        booted = self.root / "etc/init.d/booted"
        booted.write_text("#!/bin/sh /etc/rc.common\nSTART=99\nboot() { touch /tmp/booted; }\n")
        booted.chmod(0o755)
        (self.root / "etc/rc.d/S99booted").symlink_to("../init.d/booted")
        self.pid = None

    def boot(self):
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-ec", BOOT, self.root],
            stdin=subprocess.DEVNULL,
        )
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.pid = until("the child of unshare", lambda: int((children.read_text().split() or [0])[0]))
        until("procd", lambda: Path(f"/proc/{self.pid}/comm").read_text() == "procd\n")
        until("the end of boot", lambda: Path(f"/proc/{self.pid}/root/tmp/booted").exists())

    def sh(self, script, check=True):
        """Runs a script in the device's own shell; its output, or with check=False (status, output)."""
        command = ["nsenter", "-t", str(self.pid), "-a", "-r", "-w", "/bin/ash", "-c", script]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        text = done.stdout + done.stderr
        if not check:
            return done.returncode, text
        assert done.returncode == 0, f"{script}\nexit {done.returncode}: {text}"
        return text

    def ubus(self, *words, message=None):
        command = " ".join(words) + (f" '{json.dumps(message)}'" if message else "")
        return json.loads(self.sh(f"ubus call {command}") or "null")

    def service_pid(self):
        instances = self.ubus("service", "list", message={"name": "selvedge"}).get("selvedge", {}).get("instances", {})
        return next((i["pid"] for i in instances.values() if i.get("running")), None)

    def write(self, path, text, mode=0o600):
        """Replaces a file as a careful deliverer does."""
        target = Path(f"/proc/{self.pid}/root{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(target.name + ".new")
        new.write_text(text)
        new.chmod(mode)
        os.replace(new, target)

    def reboot(self):
        """Without a warning, as when the power fails."""
        self.process.kill()
        self.process.wait()
        self.boot()

    def end(self):
        if self.pid:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def until(what, condition, seconds=40):
    end = time.monotonic() + seconds
    while True:
        try:
            value = condition()
        except (AssertionError, OSError, ValueError):
            value = None
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)
