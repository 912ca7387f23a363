#!/usr/bin/env python3
"""Reads our .ipk and .apk without the code that writes them, and checks what package managers and base-files rely on.

read.py FILE...: each is checked; an .ipk and an .apk of the same package must hold the same files.
"""

import hashlib
import io
import struct
import sys
import tarfile
import zlib
from pathlib import Path

CONTROL = {"Package", "Version", "Architecture", "Description", "Installed-Size", "Maintainer", "License"}


def ipk(data):
    """(fields, scripts, conffiles, files) of an .ipk; files are path -> (mode, content or None)."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as outer:
        assert outer.getnames() == [".", "./debian-binary", "./data.tar.gz", "./control.tar.gz"][1:], outer.getnames()
        parts = {member.name: outer.extractfile(member).read() for member in outer}
    assert parts["./debian-binary"] == b"2.0\n"
    control = members(parts["./control.tar.gz"])
    fields = dict(line.split(": ", 1) for line in control["/control"][1].decode().splitlines())
    assert all(fields.values()), f"opkg crashes on an empty field: {fields}"
    assert CONTROL <= fields.keys(), CONTROL - fields.keys()
    conffiles = control["/conffiles"][1].decode().split() if "/conffiles" in control else []
    scripts = {}
    for name, (mode, content) in control.items():
        if content is not None and name not in ("/control", "/conffiles"):
            assert mode == 0o755 and content.startswith(b"#!/bin/sh\n"), name
            scripts[name[1:]] = content.decode()
    assert "default_postinst" in scripts["postinst"] and "default_prerm" in scripts["prerm"]
    files = members(parts["./data.tar.gz"])
    assert int(fields["Installed-Size"]) >= sum(len(c) for _, c in files.values() if c)
    return fields, scripts, conffiles, files


def members(data):
    entries = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for member in archive:
            assert (member.uid, member.gid) == (0, 0) and member.name.startswith("."), member
            name = member.name[1:] or "/"
            # A folder comes before what is in it.
            assert name == "/" or str(Path(name).parent) in entries, name
            entries[name] = (member.mode, None if member.isdir() else archive.extractfile(member).read())
    return entries


class Values:
    """Tagged values of an ADB (apk-v3(5))."""

    def __init__(self, data):
        self.data = data

    def read(self, value):
        kind, rest = value >> 28, value & 0x0FFFFFFF
        if kind == 0:
            return None
        if kind == 1:
            return rest
        if kind in (2, 3):
            return struct.unpack_from("<I" if kind == 2 else "<Q", self.data, rest)[0]
        if kind in (8, 9, 10):
            form = "_BHxI"[1:][kind - 8] if kind < 10 else "I"
            size = struct.unpack_from("<" + form, self.data, rest)[0]
            start = rest + struct.calcsize(form)
            return bytes(self.data[start : start + size])
        assert kind in (0xD, 0xE), hex(value)
        count = struct.unpack_from("<I", self.data, rest)[0]
        assert rest % 4 == 0, "slots are aligned"
        return [self.read(slot) for slot in struct.unpack_from(f"<{count - 1}I", self.data, rest + 4)]


def apk(data):
    """The same of an .apk, whose blocks all must be used and whose digests must fit."""
    assert data[:4] == b"ADBd"
    stream = zlib.decompress(data[4:], -15)
    assert stream[:8] == b"ADB.pckg"
    blocks, at = [], 8
    while at < len(stream):
        size = struct.unpack_from("<I", stream, at)[0] & 0x3FFFFFFF
        blocks.append((struct.unpack_from("<I", stream, at)[0] >> 30, stream[at + 4 : at + size]))
        at += size + -size % 8
    assert at == len(stream) and blocks[0][0] == 0 and all(kind == 2 for kind, _ in blocks[1:])
    adb = bytearray(blocks[0][1])
    values = Values(adb)
    info, paths, scripts = values.read(struct.unpack_from("<I", adb, 4)[0])
    names = ["name", "version", "hashes", "description", "arch", "license", "origin", "maintainer", "url", "commit",
             "build-time", "installed-size", "file-size", "priority", "depends"]
    fields = dict(zip(names, info))
    identity = adb.index(fields["hashes"])
    adb[identity : identity + 20] = bytes(20)
    assert hashlib.sha256(adb).digest()[:20] == fields["hashes"], "the package's identity"

    contents = {struct.unpack_from("<II", block): block[8:] for _, block in blocks[1:]}
    files, order = {}, []
    for i, (folder, acl, *rest) in enumerate(paths, 1):
        name = "/" + (folder or b"").decode()
        order.append(folder or b"")
        files[name] = (acl[0], None)
        assert acl[1:3] == [b"root", b"root"]
        inner = (rest + [None])[0] or []
        assert [f[0] for f in inner] == sorted(f[0] for f in inner)
        for j, (file, acl, size, _, digest) in enumerate(inner, 1):
            content = contents.pop((i, j), b"")
            assert len(content) == (size or 0) and hashlib.sha256(content).digest() == digest, file
            files[name.rstrip("/") + "/" + file.decode()] = (acl[0], content)
    assert order == sorted(order) and not contents, "folders in order, no data without a file"
    assert fields["installed-size"] == sum(len(c) for _, c in files.values() if c)
    kinds = ["trigger", "pre-install", "post-install", "pre-deinstall", "post-deinstall", "pre-upgrade", "post-upgrade"]
    scripts = {kind: text.decode() for kind, text in zip(kinds, scripts) if text}
    assert all(text.startswith("#!/bin/sh\n") for text in scripts.values())
    name = fields["name"].decode()
    records = f"/lib/apk/packages/{name}."
    listed = files.pop(records + "list")[1].decode().split()
    conffiles = files.pop(records + "conffiles", (0, b""))[1].decode().split()
    users = files.pop(records + "rusers", (0, b""))[1].decode().strip()
    static = files.pop(records + "conffiles_static", (0, b""))[1].decode().splitlines()
    assert static == [f"{path} {hashlib.sha256(files[path][1]).hexdigest()}" for path in conffiles]
    for folder in ("/lib/apk/packages", "/lib/apk"):
        del files[folder]
    if not any(path.startswith("/lib/") for path in files):
        del files["/lib"]
    assert listed == sorted(p for p, (_, c) in files.items() if c is not None), "default_postinst goes by this list"
    fields = {"Package": name, "Version": fields["version"].decode(), "Architecture": fields["arch"].decode(),
              "Description": fields["description"].decode(), "Require-User": users,
              "Depends": ", ".join(d[0].decode() for d in fields["depends"] or [])}
    return fields, scripts, conffiles, files


def check_scripts(kind, scripts):
    """A restart after an upgrade, which apk does not do; removing leaves no rule behind, upgrading leaves them alone."""
    after, before = ("postinst-pkg", "prerm-pkg") if kind == "ipk" else ("post-upgrade", "pre-deinstall")
    restart = '[ "${PKG_UPGRADE}" != 1 ] || ! /etc/init.d/selvedge running || /etc/init.d/selvedge restart'
    assert restart in scripts[after]
    assert 'uci -q delete "firewall.$section"' in scripts[before] and '"${PKG_UPGRADE}" != 1 ] || exit 0' in scripts[before]
    if kind == "apk":
        assert scripts["post-upgrade"].startswith("#!/bin/sh\nexport PKG_UPGRADE=1\n")
        assert 'export pkgname="selvedge"' in scripts["post-install"], "the name under which default_postinst finds the list"


def check_agent(conffiles, files):
    assert conffiles == ["/etc/config/selvedge"]
    for path, mode in {"/etc/config/selvedge": 0o600, "/etc/selvedge": 0o711, "/etc/selvedge/tls": 0o700,
                       "/etc/init.d/selvedge": 0o755, "/usr/libexec/rpcd/selvedge": 0o755, "/usr/sbin/selvedge-agent": 0o755,
                       "/etc/uci-defaults/95-selvedge": 0o755, "/lib/upgrade/keep.d/selvedge": 0o644}.items():
        assert files[path][0] == mode, f"{path}: {files[path][0]:o}"
    assert files["/lib/upgrade/keep.d/selvedge"][1] == b"/etc/selvedge/\n", "sysupgrade keeps keys and the last good copy"
    init = files["/etc/init.d/selvedge"][1].decode()
    code = [line for line in init.splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(code)
    # procd sends a reload_signal and keeps old arguments.
    assert "reload_signal" not in text and "procd_set_param respawn" in text and "procd_add_reload_trigger selvedge" in text
    # The agent watches files and addresses itself: a trigger and a hotplug script would only restart it once more.
    assert "procd_set_param file" not in text and "interface_trigger" not in text
    assert not [path for path in files if path.startswith("/etc/hotplug.d")]
    assert "/etc/selvedge/state" in text, "the state is on flash"


def main():
    packages = {}
    for argument in sys.argv[1:]:
        path = Path(argument)
        kind = path.suffix[1:]
        fields, scripts, conffiles, files = {"ipk": ipk, "apk": apk}[kind](path.read_bytes())
        arch = "noarch" if kind == "apk" and "_all." in path.name else fields["Architecture"]
        assert path.name == f"{fields['Package']}_{fields['Version']}_{arch.replace('noarch', 'all')}.{kind}", path.name
        assert fields["Architecture"] == arch
        if fields["Package"] == "selvedge":
            assert fields["Depends"] == "kmod-tun" and fields["Require-User"] == "selvedge:selvedge"
            check_scripts(kind, scripts)
            check_agent(conffiles, files)
        else:
            assert fields["Depends"].split(", ") == ["selvedge", "luci-base"] or kind == "apk"
        seen = packages.setdefault(path.stem, (fields["Version"], fields["Description"], conffiles, files))
        assert seen == (fields["Version"], fields["Description"], conffiles, files), f"{path} differs from the other format"


main()
