//! What brings each ability, by system: packages of OpenWrt, modules, programs, options of the kernel.

use super::platform::Source;

const fn kernel(openwrt: &'static str, modules: &'static str, options: &'static str) -> Source {
    Source { openwrt, modules, package: "", options }
}

const fn tool(openwrt: &'static str, package: &'static str) -> Source {
    Source { openwrt, modules: "", package, options: "" }
}

pub(super) const IPSEC: Source = kernel("kmod-ipsec", "xfrm_user", "CONFIG_XFRM_USER");
pub(super) const ESP: Source = kernel("kmod-ipsec4", "esp4", "CONFIG_INET_ESP");
pub(super) const ESP6: Source = kernel("kmod-ipsec6", "esp6", "CONFIG_INET6_ESP");
pub(super) const AES_GCM: Source = kernel("kmod-crypto-gcm", "gcm seqiv", "CONFIG_CRYPTO_GCM");
pub(super) const CHACHA: Source =
    kernel("kmod-crypto-chacha20poly1305", "chacha20poly1305", "CONFIG_CRYPTO_CHACHA20POLY1305");
/// Where no cipher is there, whether ESP is cannot be seen.
pub(super) const CIPHERS: Source = kernel(
    "kmod-ipsec4 kmod-crypto-gcm kmod-crypto-chacha20poly1305",
    "esp4 gcm seqiv chacha20poly1305",
    "CONFIG_INET_ESP, CONFIG_CRYPTO_GCM, CONFIG_CRYPTO_CHACHA20POLY1305",
);
pub(super) const UDP_ENCAP: Source = kernel("kmod-ipsec4", "esp4", "CONFIG_INET_ESP, CONFIG_XFRM");
pub(super) const ESP6_UDP: Source = kernel("", "", "Linux 5.8");
pub(super) const XFRM_INTERFACE: Source =
    kernel("kmod-xfrm-interface", "xfrm_interface", "CONFIG_XFRM_INTERFACE, Linux 4.19");
pub(super) const STATISTICS: Source = kernel("", "", "CONFIG_XFRM_STATISTICS");
pub(super) const DUMMY: Source = kernel("kmod-dummy", "dummy", "CONFIG_DUMMY");
pub(super) const TUN: Source = kernel("kmod-tun", "tun", "CONFIG_TUN");
pub(super) const RULES: Source = kernel("", "", "CONFIG_IP_MULTIPLE_TABLES");
pub(super) const BRIDGE: Source = kernel("kmod-br-netfilter", "br_netfilter", "CONFIG_BRIDGE_NETFILTER");
pub(super) const NFT: Source = tool("nftables", "nftables");
pub(super) const NF_TABLES: Source = kernel(
    "kmod-nft-core kmod-nft-nat kmod-nft-fib",
    "nft_chain_nat nft_fib_inet nft_reject_inet nft_numgen",
    "CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_FIB_INET, Linux 5.6",
);
pub(super) const IPTABLES: Source = tool("iptables-nft", "iptables");
pub(super) const IP6TABLES: Source = tool("ip6tables-nft", "iptables");
pub(super) const IP_TABLES: Source =
    kernel("kmod-ipt-nat", "iptable_nat xt_MASQUERADE", "CONFIG_IP_NF_NAT, CONFIG_NETFILTER_XT_TARGET_MASQUERADE");
pub(super) const IP6_TABLES: Source =
    kernel("kmod-ipt-nat6", "ip6table_nat xt_MASQUERADE", "CONFIG_IP6_NF_NAT, CONFIG_NETFILTER_XT_TARGET_MASQUERADE");
pub(super) const IPSET: Source = tool("ipset kmod-ipt-ipset", "ipset");
pub(super) const IP_SET: Source =
    kernel("kmod-ipt-ipset", "ip_set_hash_net xt_set", "CONFIG_IP_SET_HASH_NET, CONFIG_NETFILTER_XT_SET");
/// Rules that report endpoints which do not answer: of nftables, and of iptables.
#[cfg(feature = "services")]
pub(super) const REPORTS: [Source; 2] = [
    kernel("kmod-nfnetlink-log", "nfnetlink_log nft_log", "CONFIG_NETFILTER_NETLINK_LOG, CONFIG_NFT_LOG"),
    kernel(
        "iptables-mod-nflog",
        "nfnetlink_log xt_NFLOG xt_limit",
        "CONFIG_NETFILTER_NETLINK_LOG, CONFIG_NETFILTER_XT_TARGET_NFLOG, CONFIG_NETFILTER_XT_MATCH_LIMIT",
    ),
];

/// What our rules of iptables need besides NAT: table, rule, what it is for, what brings it.
pub(super) const RULE_PARTS: [(&str, &str, &str, Source); 6] = [
    (
        "raw",
        "-j DROP",
        "nothing drops what pretends to come from a peer",
        kernel("kmod-ipt-raw", "iptable_raw", "CONFIG_IP_NF_RAW"),
    ),
    (
        "mangle",
        "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
        "TCP through tunnels may hang where ICMP is filtered",
        kernel("kmod-ipt-core", "xt_TCPMSS iptable_mangle", "CONFIG_NETFILTER_XT_TARGET_TCPMSS"),
    ),
    (
        "filter",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "a connector forwards only what it knows by address, and Services lose their clients' way back",
        kernel("kmod-ipt-conntrack", "xt_conntrack", "CONFIG_NETFILTER_XT_MATCH_CONNTRACK"),
    ),
    (
        "filter",
        "-p tcp -j REJECT --reject-with tcp-reset",
        "clients of Services without endpoints wait instead of being refused",
        kernel("kmod-ipt-core", "ipt_REJECT", "CONFIG_IP_NF_TARGET_REJECT"),
    ),
    (
        "nat",
        "-m addrtype --src-type LOCAL -j MASQUERADE",
        "programs of this node may not reach Services behind other nodes",
        kernel("iptables-mod-extra", "xt_addrtype", "CONFIG_NETFILTER_XT_MATCH_ADDRTYPE"),
    ),
    (
        "nat",
        "-m statistic --mode nth --every 2 --packet 0 -j RETURN",
        "Services with several endpoints are not translated",
        kernel("iptables-mod-ipopt", "xt_statistic", "CONFIG_NETFILTER_XT_MATCH_STATISTIC"),
    ),
];
