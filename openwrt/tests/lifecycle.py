#!/usr/bin/env python3
"""Two OpenWrt devices with their real package manager, procd, ubus, uci, rpcd and firewall: the life of the package.

OWRT_ROOT: root file system as device.py wants it. SELVEDGE_AGENT: the agent for this machine. As root.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from device import Device, until  # noqa: E402
from stub import stub  # noqa: E402

AGENT = os.environ["SELVEDGE_AGENT"]
ROOT = Path(os.environ["OWRT_ROOT"])
KIND = "apk" if (ROOT / "usr/bin/apk").exists() else "ipk"
FIREWALL = ["selvedge_ike", "selvedge_esp", "selvedge_forward", "selvedge_ping", "selvedge_input"]

# Zones by device, as there is no netifd.
ZONES = """
uci -q delete firewall.@zone[0].network; uci -q delete firewall.@zone[1].network
uci add_list firewall.@zone[0].device=lan0; uci add_list firewall.@zone[1].device=wan0
uci commit firewall; /etc/init.d/firewall restart 2>/dev/null
ip addr add {wan}/24 dev wan0; ip link set wan0 up
ip addr add 192.168.{site}0.1/24 dev lan0; ip link set lan0 up
"""

SECTIONS = """
uci -q batch <<-END
	set selvedge.main.source=uci
	set selvedge.node=node
	set selvedge.node.name=home.gate-{site}
	add_list selvedge.node.prefix=192.168.{site}0.0/24
	set selvedge.other=peer
	set selvedge.other.name=home.gate-{other}
	add_list selvedge.other.address={remote}
	set selvedge.other.initiate=1
	add_list selvedge.other.prefix=192.168.{other}0.0/24
	commit selvedge
END
# Looks at what changed since boot, and at nothing that was not there then.
reload_config
service selvedge reload
"""


def say(text):
    print(f"  {text}", flush=True)


class Laboratory:
    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="owrt-"))
        self.devices, self.clients = [], []

    def package(self, name="selvedge", release=None):
        command = [HERE.parent / f"mk{KIND}", "--package", name, "--out", self.folder]
        if name == "selvedge":
            command += ["--arch", "x86_64", "--binary", AGENT]
        if release:
            command += ["--release", release]
        return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())

    def stub(self, name):
        return stub(KIND, name, self.folder)

    def device(self, name):
        device = Device(ROOT, name)
        self.devices.append(device)
        device.boot()
        return device

    def client(self, device, site):
        """A host in the device's LAN."""
        name = f"owrt-{os.getpid()}-{site}"
        ip("netns", "add", name)
        self.clients.append(name)
        ip("link", "add", "lan0", "netns", str(device.pid), "type", "veth", "peer", "name", "eth0", "netns", name)
        for command in ("link set lo up", f"addr add 192.168.{site}0.9/24 dev eth0", "link set eth0 up",
                        f"route add default via 192.168.{site}0.1"):
            # The last needs the device's end to be up.
            until(command, lambda: subprocess.run(["ip", "-n", name, *command.split()], capture_output=True).returncode == 0
                  if "route" not in command else True)
        return name

    def end(self):
        for device in self.devices:
            device.end()
        for name in self.clients:
            ip("netns", "delete", name)
        subprocess.run(["rm", "-rf", self.folder], check=True)


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def pings(client, address):
    return subprocess.run(
        ["ip", "netns", "exec", client, "ping", "-c1", "-W1", address], stdout=subprocess.DEVNULL
    ).returncode == 0


def connects(client, address, port):
    script = f"exec 3<>/dev/tcp/{address}/{port}"
    return subprocess.run(
        ["ip", "netns", "exec", client, "timeout", "2", "bash", "-c", script], stderr=subprocess.DEVNULL
    ).returncode == 0


def install(device, *packages):
    for package in packages:
        (device.root / "tmp-packages").mkdir(exist_ok=True)
        subprocess.run(["cp", package, device.root / "tmp-packages"], check=True)
    names = " ".join(f"/tmp-packages/{package.name}" for package in packages)
    return device.sh(f"apk add --allow-untrusted {names}" if KIND == "apk" else f"opkg install {names}")


def remove(device, name):
    return device.sh(f"apk del {name}" if KIND == "apk" else f"opkg remove {name}")


def sections(device):
    return [name for name in FIREWALL if device.sh(f"uci -q get firewall.{name}", check=False)[0] == 0]


def credentials(lab, device, name):
    folder = lab.folder
    if not (folder / "ca.key").exists():
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-subj", "/CN=test", "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    (folder / "name").write_text(f"subjectAltName=DNS:{name}\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", folder / "tls.key", "-out", folder / "csr")
    openssl("x509", "-req", "-in", folder / "csr", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial",
            "-days", "30", "-extfile", folder / "name", "-out", folder / "tls.crt")
    for file in ("ca.crt", "tls.crt", "tls.key"):
        device.write(f"/etc/selvedge/tls/{file}", (folder / file).read_text())


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def status(device):
    return device.ubus("selvedge", "status")


def may_ask(device):
    """Whether somebody who logged in to LuCI may see the status."""
    login = {"username": "root", "password": ""}
    session = device.ubus("session", "login", message=login)["ubus_rpc_session"]
    wanted = {"ubus_rpc_session": session, "scope": "ubus", "object": "selvedge", "function": "status"}
    return device.ubus("session", "access", message=wanted)["access"]


def check_install(lab, device):
    refused = device.sh(f"true; opkg install /tmp-packages/none.ipk" if KIND == "ipk" else "apk add selvedge", check=False)
    assert refused[0] != 0, refused
    install(device, lab.stub("kmod-tun"), lab.package())
    assert sections(device) == FIREWALL
    assert device.sh("uci get firewall.selvedge_input.enabled").strip() == "0"
    assert device.sh("ls /etc/uci-defaults").strip() == "", "the defaults ran once"
    assert device.sh("ls /etc/rc.d | grep selvedge").split() == ["K10selvedge", "S90selvedge"]
    until("the service", device.service_pid)
    assert device.sh("/etc/init.d/selvedge status").strip() == "running"
    modes = device.sh("stat -c '%a %n' /etc/config/selvedge /etc/selvedge /etc/selvedge/tls").split("\n")
    assert modes[:3] == ["600 /etc/config/selvedge", "711 /etc/selvedge", "700 /etc/selvedge/tls"], modes
    device.sh("/etc/init.d/rpcd reload")
    until("the object of ubus", lambda: "selvedge" in device.sh("ubus list").split())
    until("the running agent", lambda: status(device)["running"])
    assert not may_ask(device), "nobody may before there is a page"
    install(device, lab.stub("luci-base"), lab.package("luci-app-selvedge"))
    until("the right to ask", lambda: may_ask(device))
    say("install: firewall sections, links, service, modes, ubus")


def check_configuration(lab, a, b):
    """A network made by hand, brought up by UCI alone, through the firewalls of both ends."""
    for device, site in ((a, 1), (b, 2)):
        credentials(lab, device, f"home.gate-{site}")
        device.sh(SECTIONS.format(site=site, other=3 - site, remote=f"198.51.100.{3 - site}"))
    for device in (a, b):
        until("the tunnel", lambda: [p["state"] for p in status(device).get("peers", [])] == ["up"])
    assert status(a)["name"] == "home.gate-1"
    say(f"UCI alone: tunnel up, {status(a)['datapath']} datapath, {status(a)['firewall']}")


def check_firewall(lab, a, b, here, there):
    until("a ping from LAN to LAN", lambda: pings(here, "192.168.20.9"))
    assert pings(here, "192.168.20.1"), "a peer may ping the gateway"
    b.sh("(nc -ll -p 8080 -e cat >/dev/null 2>&1 &)")
    until("the listener", lambda: connects(there, "192.168.20.1", 8080))
    assert not connects(here, "192.168.20.1", 8080), "but reach none of its services"
    b.sh("uci set firewall.selvedge_input.enabled=1; uci commit firewall; /etc/init.d/firewall reload 2>/dev/null")
    until("the open gateway", lambda: connects(here, "192.168.20.1", 8080))
    b.sh("uci set firewall.selvedge_input.enabled=0; uci set firewall.selvedge_forward.enabled=0; uci commit firewall")
    b.sh("/etc/init.d/firewall reload 2>/dev/null")
    # New connections are the question: those the firewall knows already pass.
    assert not connects(here, "192.168.20.1", 8080) and not pings(here, "192.168.20.9"), "the firewall has no rule for it"
    b.sh("uci set firewall.selvedge_forward.enabled=1; uci commit firewall; /etc/init.d/firewall reload 2>/dev/null")
    until("a ping from LAN to LAN", lambda: pings(here, "192.168.20.9"))
    before = a.sh("nft list tables")
    assert "table inet selvedge" in before
    a.sh("/etc/init.d/firewall restart 2>/dev/null")
    assert "table inet selvedge" in a.sh("nft list tables"), "a restart of the firewall leaves our table"
    until("a ping from LAN to LAN", lambda: pings(here, "192.168.20.9"))
    say("firewall: LAN to LAN, ping, services of the gateway only when opened")


def check_reload(device, here):
    pid = device.service_pid()
    device.sh("reload_config")
    device.sh("/etc/init.d/selvedge reload")
    assert device.service_pid() == pid, "nothing changed, nothing restarted"

    generation = status(device)["config"]["generation"]
    device.sh("uci add_list selvedge.other.prefix=192.168.77.0/24; uci commit selvedge; reload_config")
    until("the changed sections", lambda: status(device)["config"]["generation"] == generation + 1)
    assert device.service_pid() == pid, "the agent reads the rendered file by itself"
    assert device.sh("stat -c %a /var/etc/selvedge/config.json").strip() == "600"

    device.sh("uci add_list selvedge.other.prefix=300.1.2.3/8; uci commit selvedge; reload_config")
    until("the refusal", lambda: status(device).get("uciError"))
    refused = status(device)
    assert "peers[0].prefixes[2]" in refused["uciError"], refused["uciError"]
    assert refused["config"]["generation"] == generation + 1, "the last good one is in force"
    assert "is not used: peers[0].prefixes[2]" in device.sh("/sbin/logread")
    device.sh("uci del_list selvedge.other.prefix=300.1.2.3/8; uci commit selvedge; reload_config")
    until("the repaired sections", lambda: "uciError" not in status(device))

    device.sh("uci set selvedge.main.log_level=debug; uci commit selvedge; reload_config")
    until("a restart with the new arguments", lambda: device.service_pid() not in (None, pid))
    new = device.service_pid()
    assert "RUST_LOG=debug" in device.sh(f"tr '\\0' '\\n' </proc/{new}/environ")
    until("the tunnel", lambda: [p["state"] for p in status(device)["peers"]] == ["up"])
    assert pings(here, "192.168.20.9")
    say("reload: sections without a restart, a refused one leaves the last good, arguments restart")


def check_respawn(device, here):
    pid = device.service_pid()
    device.sh(f"kill -9 {pid}")
    assert pings(here, "192.168.20.9"), "tunnels outlive the program"
    new = until("the respawn", lambda: device.service_pid() not in (None, pid) and device.service_pid())
    until("the tunnel", lambda: [p["state"] for p in status(device)["peers"]] == ["up"])
    say(f"kill -9: pid {pid} -> {new}, traffic all the while")


def check_upgrade(lab, device, here):
    pid = device.service_pid()
    device.sh("uci set firewall.selvedge_input.enabled=1; uci commit firewall")
    lost = subprocess.Popen(
        ["ip", "netns", "exec", here, "ping", "-q", "-i", "0.1", "-w", "60", "-c", "80", "192.168.20.9"],
        stdout=subprocess.PIPE, text=True,
    )
    install(device, lab.package(release="2"))
    until("the new program", lambda: device.service_pid() not in (None, pid))
    until("the tunnel", lambda: [p["state"] for p in status(device)["peers"]] == ["up"])
    summary = lost.communicate()[0].splitlines()[-2]
    assert " 0% packet loss" in summary, summary
    new = "/etc/config/selvedge.apk-new" if KIND == "apk" else "/etc/config/selvedge-opkg"
    assert device.sh("uci get selvedge.main.source").strip() == "uci", "the changed conffile is kept"
    say(f"upgrade: {summary}; new conffile beside: {device.sh(f'ls {new} 2>/dev/null', check=False)[1].strip() or 'unchanged'}")
    assert device.sh("uci get firewall.selvedge_input.enabled").strip() == "1", "so is the owner's firewall"


def check_sysupgrade(device):
    kept = device.sh("/sbin/sysupgrade -l").split()
    for path in ("/etc/config/selvedge", "/etc/selvedge/tls/tls.key", "/etc/selvedge/state/config.json"):
        assert path in kept, f"{path} is lost by sysupgrade: {kept}"
    say("sysupgrade keeps configuration, credentials and the last good copy")


def check_file_source(device):
    text = device.sh("cat /var/etc/selvedge/config.json")
    device.write("/etc/selvedge/config.json", text)
    pid = device.service_pid()
    device.sh("uci set selvedge.main.source=file; uci commit selvedge; reload_config")
    until("the other source", lambda: device.service_pid() not in (None, pid))
    generation = until("the file", lambda: status(device)["config"]["generation"])
    pid = device.service_pid()
    device.write("/etc/selvedge/config.json", text.replace(f'"generation": {generation}', '"generation": 900'))
    until("the edited file", lambda: status(device)["config"]["generation"] == 900)
    assert device.service_pid() == pid, "no reload and no restart for an edited file"
    checked = device.ubus("selvedge", "check")
    assert checked["good"] and "generation 900" in checked["text"], checked
    device.sh("uci set selvedge.main.enabled=0; uci commit selvedge; reload_config")
    until("the end of the service", lambda: device.service_pid() is None)
    answer = status(device)
    assert not answer["running"] and answer["error"], answer
    device.sh("uci set selvedge.main.enabled=1; uci commit selvedge; reload_config")
    until("the service", device.service_pid)
    say("file: edits are seen without a reload; enabled=0 stops")


def check_user(device, here):
    """The agent gives up root; files delivered by root are made readable for it at the start."""
    device.sh("uci set selvedge.main.user=selvedge; uci set selvedge.main.source=uci; uci set selvedge.main.metered=1")
    device.sh("uci commit selvedge; reload_config")
    until("the other user", lambda: device.sh(f"stat -c %U /proc/{device.service_pid()}").strip() == "selvedge")
    until("the tunnel", lambda: [p["state"] for p in status(device)["peers"]] == ["up"])
    assert pings(here, "192.168.20.9") and status(device)["peers"][0]["metered"]
    findings = {finding["id"]: finding["level"] for finding in device.ubus("selvedge", "doctor")["findings"]}
    assert "fail" not in findings.values(), findings
    device.sh("service selvedge clean; service selvedge start")
    until("the tunnel from nothing", lambda: [p["state"] for p in status(device)["peers"]] == ["up"])
    until("a ping from LAN to LAN", lambda: pings(here, "192.168.20.9"))
    generation = status(device)["config"]["generation"]
    device.sh("uci add_list selvedge.other.prefix=192.168.78.0/24; uci commit selvedge; reload_config")
    until("the changed sections", lambda: status(device)["config"]["generation"] > generation)
    say("user: tunnels, firewall and changed sections without root; metered; the doctor finds nothing broken")


def check_reboot(device):
    """The first start after a boot finds what was in force, and writes nothing to flash."""
    state = device.root / "etc/selvedge/state/config.json"
    generation, written = status(device)["config"]["generation"], state.stat()
    firewall = device.sh("uci show firewall")
    device.reboot()
    until("the configuration", lambda: status(device)["config"]["generation"] == generation)
    now = state.stat()
    assert (now.st_ino, now.st_mtime_ns) == (written.st_ino, written.st_mtime_ns), "flash was written"
    assert device.sh("uci show firewall") == firewall
    say(f"reboot: generation {generation} again, nothing written")


def check_remove(device):
    device.sh("uci set selvedge.main.log_level=warn; uci commit selvedge")
    remove(device, "luci-app-selvedge")
    remove(device, "selvedge")
    assert sections(device) == []
    assert device.sh("ls /etc/rc.d | grep selvedge", check=False)[0] != 0
    assert "selvedge" not in device.sh("nft list ruleset"), "nothing is left in the firewall"
    assert "selvedge0" not in device.sh("/sbin/ip -o link"), "nor the device"
    assert "selvedge" not in device.sh("ps w | grep -v grep | grep selvedge-agent || true"), "nor a process"
    if KIND == "ipk":
        assert device.sh("uci get selvedge.main.log_level").strip() == "warn", "the changed conffile is kept"
    say("remove: no section, table, device or process is left")


def main():
    lab = Laboratory()
    try:
        a, b = lab.device("a"), lab.device("b")
        ip("link", "add", "wan0", "netns", str(a.pid), "type", "veth", "peer", "name", "wan0", "netns", str(b.pid))
        clients = []
        for device, site in ((a, 1), (b, 2)):
            clients.append(lab.client(device, site))
            device.sh(ZONES.format(wan=f"198.51.100.{site}", site=site))
            ip("-n", clients[-1], "route", "replace", "default", "via", f"192.168.{site}0.1")
        check_install(lab, a)
        install(b, lab.stub("kmod-tun"), lab.package())
        check_configuration(lab, a, b)
        check_firewall(lab, a, b, *clients)
        check_reload(a, clients[0])
        check_respawn(a, clients[0])
        check_upgrade(lab, a, clients[0])
        check_sysupgrade(a)
        check_file_source(a)
        check_user(a, clients[0])
        check_reboot(a)
        check_remove(a)
    except BaseException:
        for device in lab.devices:
            print(device.sh("/sbin/logread | tail -30; nft list ruleset | head -150", check=False)[1], file=sys.stderr)
        raise
    finally:
        lab.end()


main()
