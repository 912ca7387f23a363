# Sourced by cross/build: brings the compiler, the library source and the linker, each pinned by hash or by a signed
# index, into $tools. Sets sysroot, and puts the linker on PATH.
# shellcheck shell=bash disable=SC2154,SC2034

targets=(
    armv7-unknown-linux-musleabihf
    aarch64-unknown-linux-musl
    mipsel-unknown-linux-musl
    mips-unknown-linux-musl
    x86_64-unknown-linux-musl
)

# The release builds are made with this compiler; another one works but gives other bytes.
rust=1.95.0
debian_src=pool/main/r/rustc/rust-src_1.95.0+dfsg1-2_all.deb
debian_src_sha256=8e39f55364384322c334f8453c1914b49de94c5a7eca02b427861a624d95854a
debian_mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

say() { echo "cross: $*" >&2; }
die() {
    say "$*"
    exit 1
}

# bring PACKAGE...: of Debian, where that can be done.
bring() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    say "installing $*"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >/dev/null
}

# need COMMAND PACKAGE: installs a Debian package if its command is missing.
need() {
    command -v "$1" >/dev/null || bring "$2"
    command -v "$1" >/dev/null || die "$1 is missing: install the Debian package $2"
}

has_source() { [ -e "$1/lib/rustlib/src/rust/library/std/Cargo.toml" ]; }

# The C compiler, linker and musl.
linker() {
    local venv stamp
    stamp=$(sha256sum "$root/cross/requirements.txt" | cut -c1-12)
    venv=$tools/zig-$stamp
    if [ ! -e "$venv/ready" ]; then
        need python3 python3
        python3 -c 'import ensurepip, venv' 2>/dev/null || bring python3-venv
        say "fetching ziglang and cargo-zigbuild from PyPI"
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
            -r "$root/cross/requirements.txt" ||
            die "PyPI gave no ziglang and cargo-zigbuild with the hashes of cross/requirements.txt"
        touch "$venv/ready"
    fi
    export PATH=$venv/bin:$PATH ZIG_GLOBAL_CACHE_DIR=$tools/zig-cache CARGO_ZIGBUILD_CACHE_DIR=$tools/zigbuild
}

# A compiler with the source of its own standard library, the first that can be had. Sets sysroot.
compiler() {
    command -v cargo >/dev/null || die "cargo is missing: install Rust $rust (https://rustup.rs, or Debian's packages)"
    # Build scripts are programs of this machine.
    command -v cc >/dev/null || bring gcc libc6-dev
    sysroot=$(rustc --print sysroot)
    has_source "$sysroot" || from_rustup || from_debian_src || from_nightly || from_debian_pair ||
        die "no source of the standard library: 'rustup component add rust-src' brings it"
    export RUSTC=$sysroot/bin/rustc
    say "$("$RUSTC" --version) in $sysroot"
    case $("$RUSTC" --version) in
    "rustc $rust "*) ;;
    *) say "not Rust $rust: the result is good, but not the bytes of a release" ;;
    esac
}

from_rustup() {
    command -v rustup >/dev/null || return 1
    say "asking rustup for rust-src"
    rustup component add rust-src >&2 && has_source "$sysroot"
}

# Debian's copy of the source of exactly the pinned version, beside hard links of the toolchain.
from_debian_src() {
    [ "$(rustc --version | cut -d' ' -f2)" = $rust ] || return 1
    command -v curl >/dev/null && command -v dpkg-deb >/dev/null || return 1
    local copy=$tools/rust-$rust
    if ! has_source "$copy"; then
        say "fetching Debian's rust-src $rust"
        rm -rf "$copy" "$tools/rust-src"
        curl -fsSL --retry 3 -o "$tools/rust-src.deb" "$debian_mirror/$debian_src" || return 1
        echo "$debian_src_sha256  $tools/rust-src.deb" | sha256sum --check --status || {
            say "rust-src.deb has another hash than it should"
            return 1
        }
        dpkg-deb -x "$tools/rust-src.deb" "$tools/rust-src"
        cp -al "$sysroot" "$copy" 2>/dev/null || { rm -rf "$copy" && cp -a "$sysroot" "$copy"; }
        rm -rf "$copy/lib/rustlib/src"
        mkdir -p "$copy/lib/rustlib/src/rust"
        mv "$tools/rust-src/usr/src/rustc-$rust/library" "$copy/lib/rustlib/src/rust/"
        rm -rf "$tools/rust-src" "$tools/rust-src.deb"
    fi
    sysroot=$copy
    has_source "$sysroot"
}

# A nightly of rustup that already has rust-src.
from_nightly() {
    local nightly
    nightly=$(rustc +nightly --print sysroot 2>/dev/null) || return 1
    has_source "$nightly" && sysroot=$nightly
}

# The compiler and library source that Debian builds its browsers with: always a pair, of the version of the day.
from_debian_pair() {
    command -v apt-get >/dev/null || return 1
    local copy=$tools/rustc-web
    if ! has_source "$copy/usr"; then
        say "fetching rustc-web and rust-web-src from Debian"
        rm -rf "$copy"
        mkdir -p "$copy"
        (
            cd "$copy" || exit 1
            apt-cache show rustc-web >/dev/null 2>&1 || apt-get -qq update
            apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-replaces --no-breaks \
                --no-enhances rustc-web rust-web-src | grep -E '^(rustc-web|(lib.*-)?rust-web-.*|libllvm.*)$' |
                xargs apt-get -qq download
            for package in *.deb; do dpkg-deb -x "$package" .; done
            rm -f ./*.deb
        )
    fi
    LD_LIBRARY_PATH=$(echo "$copy"/usr/lib/*-linux-gnu*)
    export LD_LIBRARY_PATH
    sysroot=$copy/usr
    has_source "$sysroot"
}

# no_unwind FLAGS: compiles the file of that name and prints where the result is.
no_unwind() {
    local zig=${target/-unknown/}
    case $zig in
    mips*) zig=${zig/musl/musleabi} ;;
    armv7*) zig=${zig/armv7/arm} ;;
    esac
    # shellcheck disable=SC2086
    python-zig cc -target "$zig" -Os $1 -c "$root/cross/no-unwind.c" -o "$tools/no-unwind-$target.o" >&2
    echo "$tools/no-unwind-$target.o"
}

# shrink FROM TO: drops sections that only debuggers read and that rustc's strip leaves on mips.
shrink() {
    local objcopy
    objcopy=$(find "$sysroot/lib/rustlib" -name rust-objcopy | head -n1)
    if [ -z "$objcopy" ]; then
        objcopy=$(command -v llvm-objcopy || find /usr/bin -name 'llvm-objcopy-*' | head -n1)
    fi
    if [ -z "$objcopy" ]; then
        need llvm-objcopy llvm
        objcopy=llvm-objcopy
    fi
    LD_LIBRARY_PATH=$sysroot/lib:${LD_LIBRARY_PATH:-} "$objcopy" --strip-all -R .pdr -R .mdebug.abi32 -R .comment "$1" "$2"
}
