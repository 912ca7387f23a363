# Sourced by the tests that install into a root of their own. Needs $programs and $work; sets $root.
# shellcheck shell=bash disable=SC2154

fail() {
    echo "FAIL ${0##*/}: $*" >&2
    exit 1
}

# A folder for everything, in memory; what is mounted below it ends with the namespace.
work_folder() {
    work=$(mktemp -d)
    root=$work/root
    trap 'cd /; umount -R -l "$work"; rmdir "$work"' EXIT
    mount -t tmpfs tmpfs "$work"
}

# busybox_root PROGRAM...: busybox and nothing else, its shell, its start-stop-daemon; and the libraries of the programs.
busybox_root() {
    mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc/init.d,proc,dev,run,tmp,var/lib,root}
    ln -s /run "$root/var/run"
    cp /bin/busybox "$root/bin/"
    chroot "$root" /bin/busybox --install -s
    libraries "$@"
    echo 'root:x:0:0::/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    mount --bind /dev "$root/dev"
    mount -t proc proc "$root/proc"
}

# What PROGRAM... need of this machine.
libraries() {
    for library in $(ldd "$@" | grep -oE '[[:space:]]/[^ ]+' | sort -u); do
        [ -e "$root$library" ] || install -D "$library" "$root$library"
    done
}

# What the operator delivers to a gateway: configuration and credentials.
deliver() {
    [ -d "$work/out" ] || "$programs/selvedge-operator" run --once --manifests examples/standalone --out "$work/out" 2>/dev/null
    mkdir -p "$root/etc/selvedge"
    cp -rL "$work/out/edge-1"/{config.json,tls} "$root/etc/selvedge/"
}

# Numbers of the processes with this verb: run, keeper.
agent() { pgrep -f "^[^ ]*/selvedge-agent $1( |\$)" || true; }

# await COMMAND...: until it succeeds.
await() {
    for _ in $(seq 200); do
        ! "$@" >"$work/answer" 2>&1 || return 0
        sleep 0.05
    done
    fail "in vain: $*: $(cat "$work/answer")"
}
