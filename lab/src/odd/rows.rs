//! What is taken away, and what must come of it.

use super::site::Obstacle;

/// A kernel.
pub struct Boot {
    /// Modules it cannot find.
    pub without: &'static [&'static str],
    /// More for its command line.
    pub argument: Option<&'static str>,
    /// What is tried on it.
    pub rows: &'static [Row],
}

/// Two agents on that kernel.
pub struct Row {
    /// What is odd, and what comes of it.
    pub what: &'static str,
    /// Shell commands in the mount namespace of each program before it starts.
    pub prepare: &'static str,
    /// What the programs are run under.
    pub under: &'static [&'static str],
    /// Who is in the way on the first node, until everything else is seen.
    pub obstacle: Option<Obstacle>,
    /// As in the configuration.
    pub datapath: &'static str,
    /// The status says so.
    pub chosen: (&'static str, &'static str),
    /// The cipher of the tunnel.
    pub cipher: &'static str,
    /// A rule that iptables must have; empty: nothing is asked.
    pub rule: &'static str,
    /// What `doctor` finds besides what holds for this guest in any case: level, id, part of the remedy on OpenWrt.
    pub findings: &'static [(&'static str, &'static str, &'static str)],
    /// Whether pods reach each other.
    pub reach: Reach,
}

/// Between the nodes' pod networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// IPv4 and IPv6.
    Both,
    /// IPv4; nothing is asked of IPv6.
    Ipv4,
    /// Nothing goes through, and nothing leaves in clear.
    Nothing,
}

const AES: &str = "AES-256-GCM";
const CHACHA: &str = "ChaCha20-Poly1305";

const PLAIN: Row = Row {
    what: "",
    prepare: "",
    under: &[],
    obstacle: None,
    datapath: "auto",
    chosen: ("kernel", "iptables"),
    cipher: AES,
    rule: "-A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-LOCAL src -m set --match-set SELVEDGE-REMOTE dst -j ACCEPT",
    findings: &[],
    reach: Reach::Both,
};

/// The same rule without ipset.
const SPELT: &str = "-A SELVEDGE-POSTROUTING -s 10.1.0.0/24 -d 10.2.0.0/24 -j ACCEPT";

const USER: Row = Row { chosen: ("user", "iptables"), ..PLAIN };

const fn without(without: &'static [&'static str], rows: &'static [Row]) -> Boot {
    Boot { without, argument: None, rows }
}

/// All kernels.
pub const BOOTS: [Boot; 14] = [
    without(
        &[],
        &[
            Row { what: "nothing is missing: kernel, iptables", ..PLAIN },
            Row {
                what: "no program ipset: spelt rules",
                prepare: "mount --bind /dev/null $(command -v ipset)",
                rule: SPELT,
                findings: &[("warn", "ipset-tool", "opkg install ipset")],
                ..PLAIN
            },
            Row {
                what: "no program iptables: no firewall",
                prepare: "for f in nft legacy; do mount --bind /dev/null /usr/sbin/xtables-$f-multi; done",
                chosen: ("kernel", ""),
                rule: "",
                findings: &[
                    ("fail", "firewall", ""),
                    ("fail", "nft-kernel", "kmod-nft-nat"),
                    ("fail", "iptables-tool", "opkg install iptables-nft"),
                    ("fail", "problem", ""),
                ],
                ..PLAIN
            },
            Row {
                what: "no node /dev/net/tun: kernel",
                prepare: "mount -t tmpfs none /dev/net",
                findings: &[("info", "tun", "mknod /dev/net/tun c 10 200, or opkg install kmod-tun")],
                ..PLAIN
            },
            Row {
                what: "no node /dev/net/tun, user space wanted: refused",
                prepare: "mount -t tmpfs none /dev/net",
                datapath: "user",
                chosen: ("user", "iptables"),
                findings: &[("fail", "tun", "kmod-tun"), ("fail", "problem", "")],
                reach: Reach::Nothing,
                ..PLAIN
            },
            Row {
                what: "IPv6 switched off by sysctl: IPv4 part",
                prepare: "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
                findings: &[("info", "ipv6", ""), ("warn", "note", "")],
                reach: Reach::Ipv4,
                ..PLAIN
            },
            Row {
                what: "/proc/sys read-only, forwarding off: said",
                prepare: "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
                          mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys",
                findings: &[("fail", "proc-sys", "ip_forward=1"), ("fail", "problem", "")],
                ..PLAIN
            },
            Row {
                what: "without CAP_NET_BIND_SERVICE: port 4500",
                under: &["setpriv", "--bounding-set", "-net_bind_service", "--inh-caps", "-net_bind_service"],
                findings: &[("warn", "capabilities", "root"), ("fail", "problem", "")],
                ..PLAIN
            },
            Row {
                what: "UDP 4500 is another's: named, then taken",
                obstacle: Some(Obstacle::Port),
                chosen: ("kernel", "iptables"),
                findings: &[("fail", "udp-4500", "stop that program"), ("fail", "problem", "")],
                ..PLAIN
            },
            Row {
                what: "the lock of iptables is held: named",
                obstacle: Some(Obstacle::Lock),
                findings: &[("fail", "xtables-lock", "end that process")],
                ..PLAIN
            },
        ],
    ),
    without(
        &["esp4"],
        &[
            Row {
                what: "no ESP: user space",
                findings: &[("warn", "esp", "opkg install kmod-ipsec4; kernel: CONFIG_INET_ESP")],
                ..USER
            },
            Row {
                what: "no ESP, kernel wanted: refused",
                datapath: "kernel",
                chosen: ("none", "iptables"),
                findings: &[("fail", "esp", "kmod-ipsec4"), ("fail", "problem", "")],
                reach: Reach::Nothing,
                ..USER
            },
            Row {
                what: "no ESP and no TUN: refused",
                prepare: "mount -t tmpfs none /dev/net",
                findings: &[("fail", "esp", "kmod-ipsec4"), ("fail", "tun", "kmod-tun"), ("fail", "problem", "")],
                reach: Reach::Nothing,
                ..USER
            },
        ],
    ),
    without(
        &["xfrm_user"],
        &[Row {
            what: "no IPsec at all: user space",
            findings: &[("warn", "ipsec", "opkg install kmod-ipsec; kernel: CONFIG_XFRM_USER")],
            ..USER
        }],
    ),
    without(
        &["gcm"],
        &[
            Row {
                what: "no AES-GCM: user space",
                findings: &[("warn", "aes-gcm", "opkg install kmod-crypto-gcm")],
                ..USER
            },
            Row {
                what: "no AES-GCM, kernel wanted: ChaCha20-Poly1305",
                datapath: "kernel",
                cipher: CHACHA,
                findings: &[("warn", "aes-gcm", "kmod-crypto-gcm")],
                ..PLAIN
            },
        ],
    ),
    without(
        &["chacha20poly1305"],
        &[Row {
            what: "no ChaCha20-Poly1305: AES-GCM",
            findings: &[("warn", "chacha20-poly1305", "opkg install kmod-crypto-chacha20poly1305")],
            ..PLAIN
        }],
    ),
    without(
        &["gcm", "chacha20poly1305"],
        &[Row {
            what: "no cipher: user space",
            findings: &[("warn", "ciphers", "opkg install kmod-ipsec4 kmod-crypto-gcm")],
            ..USER
        }],
    ),
    without(
        &["esp6"],
        &[Row {
            what: "no ESP over IPv6: IPv4 outside, both inside",
            findings: &[("info", "esp6", "opkg install kmod-ipsec6")],
            ..PLAIN
        }],
    ),
    without(
        &["dummy"],
        &[Row {
            what: "no dummy devices: user space",
            findings: &[("warn", "dummy", "opkg install kmod-dummy")],
            ..USER
        }],
    ),
    without(
        &["tun"],
        &[Row { what: "no TUN driver: kernel", findings: &[("info", "tun", "opkg install kmod-tun")], ..PLAIN }],
    ),
    without(
        &["ip_set"],
        &[Row {
            what: "no ipset in the kernel: spelt rules",
            rule: SPELT,
            findings: &[("warn", "ipset-kernel", "opkg install kmod-ipt-ipset")],
            ..PLAIN
        }],
    ),
    without(
        &["nf_tables", "ip_tables", "ip6_tables"],
        &[Row {
            what: "no firewall in the kernel: said",
            chosen: ("kernel", ""),
            rule: "",
            findings: &[
                ("fail", "firewall", ""),
                ("fail", "nft-kernel", "kmod-nft-core"),
                ("fail", "iptables-kernel", "kmod-ipt-nat"),
                ("fail", "problem", ""),
            ],
            ..PLAIN
        }],
    ),
    without(
        &["xt_TCPMSS", "iptable_raw"],
        &[Row {
            what: "parts of iptables missing: the others work",
            findings: &[
                ("warn", "iptables-part", "kmod-ipt-core"),
                ("warn", "iptables-part", "CONFIG_IP_NF_RAW"),
                ("fail", "problem", ""),
            ],
            ..PLAIN
        }],
    ),
    without(
        &["br_netfilter"],
        &[Row {
            what: "no bridge netfilter: pods are masqueraded",
            findings: &[("warn", "bridge-netfilter", "opkg install kmod-br-netfilter"), ("warn", "note", "")],
            ..PLAIN
        }],
    ),
    Boot {
        without: &[],
        argument: Some("ipv6.disable=1"),
        rows: &[Row {
            what: "a kernel without IPv6: IPv4 part",
            findings: &[("info", "ipv6", ""), ("warn", "note", "")],
            reach: Reach::Ipv4,
            ..PLAIN
        }],
    },
];

impl Boot {
    /// For the eye.
    pub fn title(&self) -> String {
        match (self.without, self.argument) {
            ([], None) => "a kernel that has everything".to_owned(),
            ([], Some(argument)) => format!("a kernel started with {argument}"),
            (modules, _) => format!("a kernel without {}", modules.join(", ")),
        }
    }
}
