"""A package as its Makefile describes it, staged without an SDK; shared by mkipk and mkapk."""

import argparse
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

# A default_postinst or default_prerm without them is a root being built or an image without base-files.
FUNCTIONS = '[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0\n. ${IPKG_INSTROOT}/lib/functions.sh\n'


class Package:
    """Control fields, scripts and files (sorted, without the root itself) of one package."""

    def __init__(self, name, arch, stage):
        self.name = name
        self.stage = stage
        self.root = stage / "root"
        self.version = self.field("version")
        self.arch = self.field("arch") or arch
        self.depends = self.field("depends").split()
        self.users = self.field("users")
        self.conffiles = self.field("conffiles").split()
        self.description = " ".join(self.field("description").split())
        self.section, self.url = self.field("section"), self.field("url")
        self.license, self.maintainer = self.field("license"), self.field("maintainer")
        if not self.arch:
            sys.exit(f"{name}: --arch is needed")

    def field(self, name):
        return (self.stage / name).read_text().strip()

    def script(self, name):
        """A maintainer script without its first line, empty if there is none."""
        path = self.stage / name
        return path.read_text().removeprefix("#!/bin/sh\n").strip("\n") + "\n" if path.exists() else ""

    def entries(self):
        return sorted(self.root.rglob("*"), key=lambda path: path.relative_to(self.root).as_posix().encode())

    def files(self):
        """Paths on the device of all that are not folders."""
        return ["/" + path.relative_to(self.root).as_posix() for path in self.entries() if not path.is_dir()]


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def epoch():
    """One time for everything in a package: SOURCE_DATE_EPOCH, or that of the commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if not given:
        command = ["git", "-C", HERE, "log", "-1", "--format=%ct"]
        given = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(given)


def main(kind, build):
    """Reads the command line, stages the package and writes build(package)."""
    parser = argparse.ArgumentParser(description=f"Builds an {kind} package of OpenWrt without an SDK.")
    parser.add_argument("--package", default="selvedge", choices=["selvedge", "luci-app-selvedge"])
    parser.add_argument("--arch", help="architecture of the package, as in /etc/openwrt_release: mipsel_24kc")
    parser.add_argument("--binary", type=Path, help="selvedge-agent, built for it")
    parser.add_argument("--release", help="release of the package, if not that of its Makefile")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the result")
    options = parser.parse_args()
    if options.package == "selvedge" and not (options.arch and options.binary):
        parser.error("selvedge needs --arch and --binary")
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        (stage / "bin").mkdir()
        if options.binary:
            shutil.copy(options.binary, stage / "bin/selvedge-agent")
        variables = {"TOPDIR": HERE / "sdkless", "PACKAGE": options.package, "STAGE": stage, "PKG_INSTALL_DIR": stage}
        if options.release:
            variables["PKG_RELEASE"] = options.release
        os.umask(0o022)
        subprocess.run(
            ["make", "-s", "-C", HERE / "selvedge", "stage"] + [f"{k}={v}" for k, v in variables.items()],
            check=True, stdout=sys.stderr,
        )
        package = Package(options.package, options.arch, stage)
        check_version(package.version)
        options.out.mkdir(parents=True, exist_ok=True)
        result = options.out / f"{package.name}_{package.version}_{package.arch}.{kind}"
        result.write_bytes(build(package))
    print(result)


def check_version(version):
    manifest = (HERE.parent / "Cargo.toml").read_text()
    workspace = re.search(r'^\[workspace\.package\]\nversion = "([^"]+)"', manifest, re.M).group(1)
    if version.rsplit("-r", 1)[0] != workspace:
        sys.exit(f"openwrt/selvedge/Makefile has version {version}, Cargo.toml {workspace}")
