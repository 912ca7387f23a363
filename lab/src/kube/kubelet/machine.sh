# The first process of a machine: makes its mounts, then waits for orphans.
#   machine.sh NAME DISK LEASES HIERARCHY...
hostname "$1"
disk=$2 leases=$3
shift 3
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /sys/fs/cgroup
for hierarchy; do
    mkdir "/sys/fs/cgroup/$hierarchy"
    case $hierarchy in
    systemd) mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd ;;
    *) mount -t cgroup -o "$hierarchy" cgroup "/sys/fs/cgroup/$hierarchy" ;;
    esac
done
mount -t tmpfs tmpfs /run
mount --bind "$disk" /var/lib
mkdir -p /var/lib/cni/networks
mount --bind "$leases" /var/lib/cni/networks
# A kubelet sets these, and they are those of all machines on this kernel.
for key in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
    kernel/keys/root_maxbytes; do
    copy=/run/sysctl/$key
    mkdir -p "${copy%/*}"
    cat "/proc/sys/$key" >"$copy"
    mount --bind "$copy" "/proc/sys/$key"
done
echo ready
while :; do sleep 3600; done
