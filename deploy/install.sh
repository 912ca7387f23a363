#!/bin/sh
# Installs, upgrades and removes one program of Selvedge from its unpacked tarball. Runs in busybox.
set -eu

usage() {
    cat <<'END'
usage: ./install.sh [OPTIONS]            install, or upgrade in place: tunnels keep carrying traffic
       ./install.sh uninstall [OPTIONS]  stop, remove what the program made on this machine, remove its files

  --prefix DIR   where the files go [/usr/local]
  --init KIND    systemd, openrc, procd, sysv, none; auto finds it out [auto]
  --user         let the service run as the user "selvedge", made if it is not there (always so with systemd)
  --purge        uninstall: also remove configuration, keys and state (but no certificate authority)
  --dry-run      only say what would be done

A configuration in /etc is never touched, except by --purge. With DESTDIR=DIR in the environment the files go below
that folder and nothing is enabled or started, for those who build images.
END
}

say() { echo "install.sh: $*"; }
die() {
    echo "install.sh: $*" >&2
    exit 1
}

# run COMMAND...: does it, or says it with --dry-run.
run() {
    if [ "$dry" = yes ]; then
        echo "would run: $*"
    else
        "$@"
    fi
}

# try COMMAND...: like run; goes on after a failure, which the exit status tells.
try() {
    run "$@" && return
    echo "install.sh: failed: $*" >&2
    failed=1
}

main() {
    here=$(cd "$(dirname "$0")" && pwd)
    verb=install prefix='' init=auto user=no purge=no dry=no failed=0
    while [ $# -gt 0 ]; do
        case $1 in
        install | uninstall) verb=$1 ;;
        --prefix) prefix=${2:?--prefix needs a folder} && shift ;;
        --prefix=*) prefix=${1#*=} ;;
        --init) init=${2:?--init needs a kind} && shift ;;
        --init=*) init=${1#*=} ;;
        --user) user=yes ;;
        --purge) purge=yes ;;
        --dry-run) dry=yes ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
        esac
        shift
    done
    dest=${DESTDIR:-}
    dest=${dest%/}
    name=$(program) || die "no program of Selvedge is beside this script"
    # A copy of this script is kept in PREFIX/share/PROGRAM.
    case $prefix$here in */share/"$name") prefix=${here%/share/*} ;; esac
    prefix=${prefix:-/usr/local}
    case $prefix in
    /) prefix= ;;
    *[!A-Za-z0-9/._+-]*) die "--prefix has characters that paths here must not have" ;;
    /*) prefix=${prefix%/} ;;
    *) die "--prefix must begin with /" ;;
    esac
    [ "$(id -u)" = 0 ] || [ -n "$dest" ] || [ "$dry" = yes ] || die "must run as root"
    folder=$prefix/share/$name
    list=$folder/files
    case $name in
    selvedge-agent) etc=selvedge ;;
    *) etc=$name ;;
    esac
    case $verb in
    install) install ;;
    uninstall) uninstall ;;
    esac
    exit $failed
}

program() {
    for candidate in selvedge-agent selvedge-connector selvedge-operator; do
        if [ -f "$here/$candidate" ] || [ "${here##*/}" = $candidate ]; then
            echo $candidate
            return
        fi
    done
    return 1
}

find_init() {
    if [ -d /run/systemd/system ]; then
        echo systemd
    elif [ -x /sbin/procd ] && [ -f /etc/rc.common ]; then
        echo procd
    elif [ -x /sbin/openrc-run ] || [ -x /usr/sbin/openrc-run ]; then
        echo openrc
    elif [ -d /etc/init.d ]; then
        echo sysv
    else
        echo none
    fi
}

# --- install ---

install() {
    [ -f "$here/$name" ] || die "run it from the unpacked tarball"
    if [ "$init" = auto ]; then
        init=$(find_init)
        # The operator has a unit for systemd only.
        case $init in openrc | procd | sysv) [ -f "$here/$init/$name" ] || init=none ;; esac
    fi
    case $init in
    systemd | none) ;;
    openrc | procd | sysv) [ -f "$here/$init/$name" ] || die "there is no service of $name for $init: use --init none" ;;
    *) die "unknown init \"$init\"" ;;
    esac
    [ "$user" = no ] || [ "$init" != none ] || die "--user is for the service, and --init none has none"
    if [ -f /etc/openwrt_release ]; then
        say "this is OpenWrt: the packages (.ipk, .apk) bring UCI, the firewall's rules and the kernel modules; this does not"
    fi
    old=
    [ ! -f "$dest$list" ] || old=$(cat "$dest$list")
    for other in "$prefix/sbin/$name" "/usr/sbin/$name"; do
        if [ -z "$dest" ] && [ -e "$other" ] && ! echo "$old" | grep -qxF "$other"; then
            die "$other is there and not in $list: remove it first with what installed it"
        fi
    done

    # The list first: should the power fail among the renames, the next run knows whose files these are.
    staged='' files=$list
    trap 'unstage' EXIT
    trap 'exit 130' INT TERM HUP
    stage_all
    check_program
    if [ -z "$dest" ] && { [ "$user" = yes ] || [ "$init" = systemd ]; }; then
        make_user
    fi
    run sync
    for file in $files; do
        run mv -f "$dest$file.new" "$dest$file"
    done
    staged=
    for file in $old; do
        case " $files " in
        *" $file "*) ;;
        *) run rm -f "$dest$file" ;;
        esac
    done
    if [ -n "$dest" ]; then
        say "$name is below $dest; nothing was enabled"
        return
    fi
    run mkdir -p "/etc/$etc"
    case $init in
    systemd) start_systemd ;;
    openrc) start_openrc ;;
    procd) start_procd ;;
    sysv) start_sysv ;;
    none) say "start it with: $prefix/sbin/$name run" ;;
    esac
    say "$name is installed; what it works on is awaited in /etc/$etc"
}

# Files are written beside their places first: what fails, fails before anything is changed.
stage_all() {
    stage "$name" "$prefix/sbin/$name" 755
    stage install.sh "$folder/install.sh" 755
    stage config.example.json "$folder/config.example.json" 644
    if wanted man; then
        for page in "$here"/man/*; do
            [ ! -f "$page" ] || stage "man/${page##*/}" "$prefix/share/man/man${page##*.}/${page##*/}" 644
        done
    fi
    ! wanted bash || stage "completion/bash/$name" "$prefix/share/bash-completion/completions/$name" 644
    ! wanted zsh || stage "completion/zsh/_$name" "$prefix/share/zsh/site-functions/_$name" 644
    ! wanted fish || stage "completion/fish/$name.fish" "$prefix/share/fish/vendor_completions.d/$name.fish" 644
    case $init in
    systemd)
        stage "systemd/$name.service" "/etc/systemd/system/$name.service" 644
        stage "sysusers.d/$name.conf" "/etc/sysusers.d/$name.conf" 644
        stage "tmpfiles.d/$name.conf" "/etc/tmpfiles.d/$name.conf" 644
        ;;
    openrc | procd | sysv) stage "$init/$name" "/etc/init.d/$name" 755 ;;
    esac
    if [ "$dry" = no ]; then
        staged="$staged $list"
        echo "$files" | tr ' ' '\n' >"$dest$list.new"
    fi
}

# Manuals and completions only where something reads them: flash is small.
wanted() { [ -n "$dest" ] || command -v "$1" >/dev/null; }

# stage FILE PLACE MODE
stage() {
    [ -f "$here/$1" ] || return 0
    files="$files $2"
    if [ "$dry" = yes ]; then
        echo "would write: $dest$2"
        return
    fi
    mkdir -p "$dest${2%/*}"
    staged="$staged $2"
    case $1 in
    systemd/* | openrc/* | sysv/* | procd/*)
        sed "s|/usr/sbin/$name|$prefix/sbin/$name|g" "$here/$1" >"$dest$2.new"
        ;;
    *) cp "$here/$1" "$dest$2.new" ;;
    esac
    chmod "$3" "$dest$2.new"
}

# shellcheck disable=SC2317,SC2329
unstage() {
    for file in $staged; do
        rm -f "$dest$file.new"
    done
    [ -z "$staged" ] || say "nothing was changed"
}

# Run where it will live: /tmp may forbid it.
check_program() {
    [ -z "$dest" ] && [ "$dry" = no ] || return 0
    version=$("$prefix/sbin/$name.new" --version 2>/dev/null) ||
        die "this $name does not run on this machine ($(uname -m)): take the tarball of its architecture"
    say "$version"
}

make_user() {
    if [ "$init" = systemd ]; then
        run systemd-sysusers "$here/sysusers.d/$name.conf"
        return
    fi
    if grep -q "^selvedge:" /etc/passwd; then
        :
    elif command -v useradd >/dev/null; then
        run useradd --system --user-group --no-create-home --home-dir / --shell /bin/false selvedge
    else
        id=990
        while grep -q "^[^:]*:[^:]*:$id:" /etc/passwd /etc/group; do
            id=$((id - 1))
        done
        append /etc/passwd "selvedge:x:$id:$id::/:/bin/false"
        append /etc/group "selvedge:x:$id:"
        [ ! -e /etc/shadow ] || append /etc/shadow 'selvedge:!:::::::'
    fi
    case $init in
    openrc) settings=/etc/conf.d/$name ;;
    *) settings=/etc/default/$name ;;
    esac
    # shellcheck disable=SC2016
    grep -q -e '--user' "$settings" 2>/dev/null || append "$settings" 'OPTIONS="${OPTIONS:-} --user selvedge"'
}

# append FILE LINE
append() {
    if [ "$dry" = yes ]; then
        echo "would append to $1: $2"
        return
    fi
    mkdir -p "${1%/*}"
    echo "$2" >>"$1"
}

start_systemd() {
    try systemd-tmpfiles --create "/etc/tmpfiles.d/$name.conf"
    try systemctl enable "$name.service"
    # Not in a chroot.
    [ -d /run/systemd/system ] || return 0
    try systemctl daemon-reload
    try systemctl restart "$name.service"
}

start_openrc() {
    try rc-update add "$name" default
    # Not in a chroot.
    [ -d /run/openrc ] || return 0
    try rc-service "$name" restart
}

start_procd() {
    try "/etc/init.d/$name" enable
    # Not in an image.
    [ -S /var/run/ubus/ubus.sock ] || [ -S /var/run/ubus.sock ] || return 0
    try "/etc/init.d/$name" restart
}

start_sysv() {
    if command -v update-rc.d >/dev/null; then
        try update-rc.d "$name" defaults
    elif command -v chkconfig >/dev/null; then
        try chkconfig --add "$name"
    elif grep -q 'init\.d/S' /etc/init.d/rcS 2>/dev/null; then
        run ln -sf "$name" "/etc/init.d/S95$name"
    else
        say "nothing here starts /etc/init.d/$name at boot; with busybox init, add to /etc/inittab:"
        say "  ::respawn:$prefix/sbin/$name run"
    fi
    try "/etc/init.d/$name" restart
}

# --- uninstall ---

uninstall() {
    [ -f "$dest$list" ] || die "$name is not installed in ${prefix:-/}"
    files=$(cat "$dest$list")
    if [ -z "$dest" ]; then
        stop
        case $name in
        selvedge-operator) ;;
        *) clean ;;
        esac
    fi
    # Itself last: a second try must be possible.
    for file in $files; do
        [ "$file" = "$list" ] || [ "$file" = "$folder/install.sh" ] || run rm -f "$dest$file"
    done
    if [ -z "$dest" ] && [ -d /run/systemd/system ]; then
        try systemctl daemon-reload
    fi
    if [ "$purge" = yes ]; then
        run rm -rf "$dest/etc/$etc" "$dest/etc/default/$name" "$dest/etc/conf.d/$name"
        if [ "$name" = selvedge-operator ]; then
            # Every node of the cluster trusts the key in it, and nothing can make it again.
            say "the cluster's certificate authority stays in $dest/var/lib/$etc"
        else
            run rm -rf "$dest/var/lib/$etc"
        fi
    fi
    run rm -f "$dest$folder/install.sh" "$dest$list"
    run rmdir "$dest$folder"
    say "$name is removed"
    [ "$purge" = yes ] || say "configuration and keys stay in /etc/$etc; --purge removes them too"
}

# By whatever started it: the files say.
stop() {
    for file in $files; do
        case $file in
        /etc/systemd/system/*)
            try systemctl disable "$name.service"
            [ ! -d /run/systemd/system ] || try systemctl stop "$name.service"
            ;;
        /etc/init.d/*)
            if [ -x /sbin/openrc-run ] || [ -x /usr/sbin/openrc-run ]; then
                [ ! -d /run/openrc ] || try rc-service "$name" stop
                try rc-update delete "$name" default
                continue
            fi
            try "$file" stop
            if grep -q rc.common "$file"; then
                try "$file" disable
            elif command -v update-rc.d >/dev/null; then
                try update-rc.d -f "$name" remove
            elif command -v chkconfig >/dev/null; then
                try chkconfig --del "$name"
            fi
            run rm -f "/etc/init.d/S95$name"
            ;;
        esac
    done
}

# Tunnels, routes and rules outlive the program until it is told to clean.
clean() {
    case $files in
    */etc/init.d/*)
        ! grep -q rc.common "/etc/init.d/$name" || set -- --run-dir "/var/run/$etc" --state-dir "/etc/$etc/state"
        ;;
    esac
    try "$prefix/sbin/$name" clean "$@"
}

main "$@"
