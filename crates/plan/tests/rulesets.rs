//! The text of each backend for each role.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use expect_test::{Expect, expect};
use selvedge_plan::firewall::Ruleset;
use selvedge_plan::*;

fn edge() -> Ruleset {
    Plan::new(&config(EDGE), &edge_facts(Datapath::User)).ruleset
}

fn connector() -> Ruleset {
    Plan::new(&config(CONNECTOR), &connector_facts()).ruleset
}

fn cloud() -> Ruleset {
    Plan::new(&config(CLOUD), &cloud_facts()).ruleset
}

fn check_iptables(ruleset: &Ruleset, family: Family, expected: &Expect) {
    expected.assert_eq(&iptables::update("", &iptables::tables(ruleset, family)).unwrap());
}

#[test]
fn edge_iptables() {
    check_iptables(
        &edge(),
        Family::V4,
        &expect![[r#"
            *raw
            :SELVEDGE-PREROUTING - [0:0]
            -A SELVEDGE-PREROUTING -i lo -j RETURN
            -A SELVEDGE-PREROUTING ! -i selvedge0 -m set --match-set SELVEDGE-TUNNEL src -j DROP
            -I PREROUTING 1 -j SELVEDGE-PREROUTING
            COMMIT
            *mangle
            :SELVEDGE-FORWARD - [0:0]
            -A SELVEDGE-FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m set --match-set SELVEDGE-REMOTE dst -j TCPMSS --clamp-mss-to-pmtu
            -A SELVEDGE-FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m set --match-set SELVEDGE-REMOTE src -j TCPMSS --clamp-mss-to-pmtu
            -A SELVEDGE-FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m set --match-set SELVEDGE-REMOTE-NODE dst -j TCPMSS --clamp-mss-to-pmtu
            -A SELVEDGE-FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m set --match-set SELVEDGE-REMOTE-NODE src -j TCPMSS --clamp-mss-to-pmtu
            -I FORWARD 1 -j SELVEDGE-FORWARD
            COMMIT
            *nat
            :SELVEDGE-NODE-PORTS - [0:0]
            :SELVEDGE-OWN - [0:0]
            :SELVEDGE-POSTROUTING - [0:0]
            :SELVEDGE-SERVICES - [0:0]
            :SELVEDGE-SVC-03e6ec729b55fb9 - [0:0]
            :SELVEDGE-SVC-86997189d110831 - [0:0]
            -A SELVEDGE-OWN -s 10.234.1.5/32 -d 10.234.1.5/32 -j MASQUERADE
            -A SELVEDGE-OWN -s 10.234.1.6/32 -d 10.234.1.6/32 -j MASQUERADE
            -A SELVEDGE-POSTROUTING -j SELVEDGE-OWN
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-LOCAL src -m set --match-set SELVEDGE-LOCAL dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-LOCAL src -m set --match-set SELVEDGE-REMOTE dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-LOCAL src -m set --match-set SELVEDGE-REMOTE-NODE dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE src -m set --match-set SELVEDGE-LOCAL dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE dst -m addrtype --src-type LOCAL -j SNAT --to-source 10.234.1.1
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE dst -m conntrack --ctstate DNAT -j SNAT --to-source 10.234.1.1
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE dst -j ACCEPT
            -A SELVEDGE-POSTROUTING ! -o lo -m addrtype --src-type LOCAL -m conntrack --ctstate DNAT -j MASQUERADE
            -A SELVEDGE-POSTROUTING -m mark --mark 0x10000000/0x10000000 -m set --match-set SELVEDGE-LOCAL dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m mark --mark 0x10000000/0x10000000 -j MASQUERADE
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-LOCAL src -j MASQUERADE
            -A SELVEDGE-SERVICES -d 10.96.0.7/32 -p tcp -m tcp --dport 80 -m comment --comment "default/web:http" -j SELVEDGE-SVC-86997189d110831
            -A SELVEDGE-SERVICES -d 10.96.0.8/32 -p udp -m udp --dport 123 -m comment --comment "default/time:123" -j SELVEDGE-SVC-03e6ec729b55fb9
            -A SELVEDGE-SERVICES ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j SELVEDGE-NODE-PORTS
            -A SELVEDGE-SVC-03e6ec729b55fb9 -p udp -m statistic --mode random --probability 0.33333333333 -j DNAT --to-destination 10.244.1.5:123
            -A SELVEDGE-SVC-03e6ec729b55fb9 -p udp -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.244.2.5:123
            -A SELVEDGE-SVC-03e6ec729b55fb9 -p udp -j DNAT --to-destination 10.244.2.6:123
            -A SELVEDGE-SVC-86997189d110831 -p tcp -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.234.1.5:8080
            -A SELVEDGE-SVC-86997189d110831 -p tcp -j DNAT --to-destination 10.234.1.6:8080
            -I OUTPUT 1 -j SELVEDGE-SERVICES
            -I POSTROUTING 1 -j SELVEDGE-POSTROUTING
            -I PREROUTING 1 -j SELVEDGE-SERVICES
            COMMIT
            *filter
            :SELVEDGE-FORWARD - [0:0]
            :SELVEDGE-INPUT - [0:0]
            :SELVEDGE-REJECT - [0:0]
            :SELVEDGE-REJECT-PORTS - [0:0]
            -A SELVEDGE-FORWARD -m conntrack --ctstate NEW -j SELVEDGE-REJECT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-TUNNEL src -m set --match-set SELVEDGE-REMOTE-NODE dst -j DROP
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-LOCAL src -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE src -m set --match-set SELVEDGE-LOCAL dst -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE-NODE src -m set --match-set SELVEDGE-LOCAL dst -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-LOCAL dst -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-LOCAL dst -m conntrack --ctstate DNAT -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE dst -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE dst -m conntrack --ctstate DNAT -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-TUNNEL src -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-TUNNEL src -m conntrack --ctstate DNAT -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-TUNNEL src -j DROP
            -A SELVEDGE-INPUT -m conntrack --ctstate NEW -j SELVEDGE-REJECT
            -A SELVEDGE-INPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -m conntrack --ctstate NEW -j SELVEDGE-REJECT-PORTS
            -A SELVEDGE-INPUT -p udp -m udp --dport 500 -j ACCEPT
            -A SELVEDGE-INPUT -p udp -m udp --dport 4500 -j ACCEPT
            -A SELVEDGE-INPUT -p esp -j ACCEPT
            -A SELVEDGE-REJECT -d 10.96.0.9/32 -p tcp -m tcp --dport 80 -m comment --comment "default/gone:80" -j REJECT --reject-with tcp-reset
            -A SELVEDGE-REJECT -d 10.96.0.9/32 -p udp -m udp --dport 80 -m comment --comment "default/gone:80" -j REJECT --reject-with icmp-port-unreachable
            -I FORWARD 1 -j SELVEDGE-FORWARD
            -I INPUT 1 -j SELVEDGE-INPUT
            -I OUTPUT 1 -j SELVEDGE-REJECT
            COMMIT
        "#]],
    );
}

#[test]
fn edge_ip6tables() {
    check_iptables(
        &edge(),
        Family::V6,
        &expect![[r#"
            *raw
            :SELVEDGE-PREROUTING - [0:0]
            -A SELVEDGE-PREROUTING -i lo -j RETURN
            -A SELVEDGE-PREROUTING ! -i selvedge0 -m set --match-set SELVEDGE-TUNNEL6 src -j DROP
            -I PREROUTING 1 -j SELVEDGE-PREROUTING
            COMMIT
            *mangle
            :SELVEDGE-FORWARD - [0:0]
            -A SELVEDGE-FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m set --match-set SELVEDGE-REMOTE6 dst -j TCPMSS --clamp-mss-to-pmtu
            -A SELVEDGE-FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m set --match-set SELVEDGE-REMOTE6 src -j TCPMSS --clamp-mss-to-pmtu
            -I FORWARD 1 -j SELVEDGE-FORWARD
            COMMIT
            *nat
            :SELVEDGE-NODE-PORTS - [0:0]
            :SELVEDGE-OWN - [0:0]
            :SELVEDGE-POSTROUTING - [0:0]
            :SELVEDGE-SERVICES - [0:0]
            :SELVEDGE-SVC-9f47cd952672adb - [0:0]
            -A SELVEDGE-OWN -s fd00:234:0:1::5/128 -d fd00:234:0:1::5/128 -j MASQUERADE
            -A SELVEDGE-POSTROUTING -j SELVEDGE-OWN
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-LOCAL6 src -m set --match-set SELVEDGE-LOCAL6 dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-LOCAL6 src -m set --match-set SELVEDGE-REMOTE6 dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE6 src -m set --match-set SELVEDGE-LOCAL6 dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE6 dst -m addrtype --src-type LOCAL -j SNAT --to-source fd00:234:0:1::1
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE6 dst -m conntrack --ctstate DNAT -j SNAT --to-source fd00:234:0:1::1
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE6 dst -j ACCEPT
            -A SELVEDGE-POSTROUTING ! -o lo -m addrtype --src-type LOCAL -m conntrack --ctstate DNAT -j MASQUERADE
            -A SELVEDGE-POSTROUTING -m mark --mark 0x10000000/0x10000000 -m set --match-set SELVEDGE-LOCAL6 dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m mark --mark 0x10000000/0x10000000 -j MASQUERADE
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-LOCAL6 src -j MASQUERADE
            -A SELVEDGE-SERVICES -d fd00:96::7/128 -p tcp -m tcp --dport 80 -m comment --comment "default/web:http" -j SELVEDGE-SVC-9f47cd952672adb
            -A SELVEDGE-SERVICES ! -d ::1/128 -m addrtype --dst-type LOCAL -j SELVEDGE-NODE-PORTS
            -A SELVEDGE-SVC-9f47cd952672adb -p tcp -j DNAT --to-destination [fd00:234:0:1::5]:8080
            -I OUTPUT 1 -j SELVEDGE-SERVICES
            -I POSTROUTING 1 -j SELVEDGE-POSTROUTING
            -I PREROUTING 1 -j SELVEDGE-SERVICES
            COMMIT
            *filter
            :SELVEDGE-FORWARD - [0:0]
            :SELVEDGE-INPUT - [0:0]
            :SELVEDGE-REJECT - [0:0]
            :SELVEDGE-REJECT-PORTS - [0:0]
            -A SELVEDGE-FORWARD -m conntrack --ctstate NEW -j SELVEDGE-REJECT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-LOCAL6 src -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE6 src -m set --match-set SELVEDGE-LOCAL6 dst -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-LOCAL6 dst -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-LOCAL6 dst -m conntrack --ctstate DNAT -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE6 dst -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE6 dst -m conntrack --ctstate DNAT -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-TUNNEL6 src -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-TUNNEL6 src -m conntrack --ctstate DNAT -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-TUNNEL6 src -j DROP
            -A SELVEDGE-INPUT -m conntrack --ctstate NEW -j SELVEDGE-REJECT
            -A SELVEDGE-INPUT ! -d ::1/128 -m addrtype --dst-type LOCAL -m conntrack --ctstate NEW -j SELVEDGE-REJECT-PORTS
            -A SELVEDGE-INPUT -p udp -m udp --dport 500 -j ACCEPT
            -A SELVEDGE-INPUT -p udp -m udp --dport 4500 -j ACCEPT
            -A SELVEDGE-INPUT -p esp -j ACCEPT
            -A SELVEDGE-REJECT -d fd00:96::9/128 -p tcp -m tcp --dport 80 -m comment --comment "default/gone:80" -j REJECT --reject-with tcp-reset
            -A SELVEDGE-REJECT -d fd00:96::9/128 -p udp -m udp --dport 80 -m comment --comment "default/gone:80" -j REJECT --reject-with icmp6-port-unreachable
            -I FORWARD 1 -j SELVEDGE-FORWARD
            -I INPUT 1 -j SELVEDGE-INPUT
            -I OUTPUT 1 -j SELVEDGE-REJECT
            COMMIT
        "#]],
    );
}

#[test]
fn edge_ipset() {
    expect![[r#"
        create SELVEDGE-LOCAL hash:net family inet maxelem 1048576
        add SELVEDGE-LOCAL 10.234.1.0/24
        create SELVEDGE-LOCAL6 hash:net family inet6 maxelem 1048576
        add SELVEDGE-LOCAL6 fd00:234:0:1::/64
        create SELVEDGE-REMOTE hash:net family inet maxelem 1048576
        add SELVEDGE-REMOTE 10.96.0.0/16
        add SELVEDGE-REMOTE 10.234.2.0/24
        add SELVEDGE-REMOTE 10.244.0.0/23
        add SELVEDGE-REMOTE 10.244.2.0/24
        create SELVEDGE-REMOTE6 hash:net family inet6 maxelem 1048576
        add SELVEDGE-REMOTE6 fd00:96::/112
        add SELVEDGE-REMOTE6 fd00:234:0:2::/64
        add SELVEDGE-REMOTE6 fd00:244:0:1::/64
        create SELVEDGE-REMOTE-NODE hash:net family inet maxelem 1048576
        add SELVEDGE-REMOTE-NODE 172.16.0.11/32
        add SELVEDGE-REMOTE-NODE 172.16.0.12/32
        add SELVEDGE-REMOTE-NODE 192.168.12.2/32
        create SELVEDGE-TUNNEL hash:net family inet maxelem 1048576
        add SELVEDGE-TUNNEL 10.96.0.0/16
        add SELVEDGE-TUNNEL 10.234.2.0/24
        add SELVEDGE-TUNNEL 10.244.0.0/23
        add SELVEDGE-TUNNEL 10.244.2.0/24
        create SELVEDGE-TUNNEL6 hash:net family inet6 maxelem 1048576
        add SELVEDGE-TUNNEL6 fd00:96::/112
        add SELVEDGE-TUNNEL6 fd00:234:0:2::/64
        add SELVEDGE-TUNNEL6 fd00:244:0:1::/64
    "#]]
    .assert_eq(&ipset::update("", &edge()).unwrap());
}

#[test]
fn edge_nft() {
    expect![[r#"
        table inet selvedge
        delete table inet selvedge
        table inet selvedge {
        	chain digest-6b7c5425b8c2689b {
        	}
        	set local {
        		type ipv4_addr
        		flags interval
        		elements = { 10.234.1.0/24 }
        	}
        	set local6 {
        		type ipv6_addr
        		flags interval
        		elements = { fd00:234:0:1::/64 }
        	}
        	set remote {
        		type ipv4_addr
        		flags interval
        		elements = { 10.96.0.0/16, 10.234.2.0/24, 10.244.0.0/23, 10.244.2.0/24 }
        	}
        	set remote6 {
        		type ipv6_addr
        		flags interval
        		elements = { fd00:96::/112, fd00:234:0:2::/64, fd00:244:0:1::/64 }
        	}
        	set remote-node {
        		type ipv4_addr
        		flags interval
        		elements = { 172.16.0.11/32, 172.16.0.12/32, 192.168.12.2/32 }
        	}
        	set tunnel {
        		type ipv4_addr
        		flags interval
        		elements = { 10.96.0.0/16, 10.234.2.0/24, 10.244.0.0/23, 10.244.2.0/24 }
        	}
        	set tunnel6 {
        		type ipv6_addr
        		flags interval
        		elements = { fd00:96::/112, fd00:234:0:2::/64, fd00:244:0:1::/64 }
        	}
        	chain svc-default/time-udp-123 {
        		meta l4proto udp dnat ip addr . port to numgen random mod 3 map { 0 : 10.244.1.5 . 123, 1 : 10.244.2.5 . 123, 2 : 10.244.2.6 . 123 }
        	}
        	chain svc-default/web-tcp-80 {
        		meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.234.1.5 . 8080, 1 : 10.234.1.6 . 8080 }
        	}
        	chain svc-default/web-tcp-80-6 {
        		meta l4proto tcp dnat ip6 to [fd00:234:0:1::5]:8080
        	}
        	map services {
        		type ipv4_addr . inet_proto . inet_service : verdict
        		elements = { 10.96.0.7 . tcp . 80 comment "default/web:http" : goto svc-default/web-tcp-80, 10.96.0.8 . udp . 123 comment "default/time:123" : goto svc-default/time-udp-123 }
        	}
        	map node-ports {
        		type inet_proto . inet_service : verdict
        	}
        	map refused {
        		type ipv4_addr . inet_proto . inet_service : verdict
        		elements = { 10.96.0.9 . tcp . 80 comment "default/gone:80" : goto refuse, 10.96.0.9 . udp . 80 comment "default/gone:80" : goto refuse }
        	}
        	map refused-ports {
        		type inet_proto . inet_service : verdict
        	}
        	set own {
        		type ipv4_addr . ipv4_addr
        		elements = { 10.234.1.5 . 10.234.1.5, 10.234.1.6 . 10.234.1.6 }
        	}
        	map services6 {
        		type ipv6_addr . inet_proto . inet_service : verdict
        		elements = { fd00:96::7 . tcp . 80 comment "default/web:http" : goto svc-default/web-tcp-80-6 }
        	}
        	map node-ports6 {
        		type inet_proto . inet_service : verdict
        	}
        	map refused6 {
        		type ipv6_addr . inet_proto . inet_service : verdict
        		elements = { fd00:96::9 . tcp . 80 comment "default/gone:80" : goto refuse, fd00:96::9 . udp . 80 comment "default/gone:80" : goto refuse }
        	}
        	map refused-ports6 {
        		type inet_proto . inet_service : verdict
        	}
        	set own6 {
        		type ipv6_addr . ipv6_addr
        		elements = { fd00:234:0:1::5 . fd00:234:0:1::5 }
        	}
        	chain services {
        		ip daddr . meta l4proto . th dport vmap @services
        		ip6 daddr . meta l4proto . th dport vmap @services6
        		ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @node-ports
        		ip6 daddr != ::1 fib daddr type local meta l4proto . th dport vmap @node-ports6
        	}
        	chain refused {
        		ip daddr . meta l4proto . th dport vmap @refused
        		ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @refused-ports
        		ip6 daddr . meta l4proto . th dport vmap @refused6
        		ip6 daddr != ::1 fib daddr type local meta l4proto . th dport vmap @refused-ports6
        	}
        	chain refuse {
        		meta l4proto tcp reject with tcp reset
        		reject
        	}
        	chain permitted {
        		ip saddr @tunnel ip daddr @remote-node counter drop
        		ip saddr @local meta mark set meta mark | 0x20000000 accept
        		ip6 saddr @local6 meta mark set meta mark | 0x20000000 accept
        		ip saddr @remote ip daddr @local meta mark set meta mark | 0x20000000 accept
        		ip6 saddr @remote6 ip6 daddr @local6 meta mark set meta mark | 0x20000000 accept
        		ip saddr @remote-node ip daddr @local meta mark set meta mark | 0x20000000 accept
        		ip daddr @local ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip6 daddr @local6 ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip daddr @local ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip6 daddr @local6 ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip daddr @remote ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip6 daddr @remote6 ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip daddr @remote ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip6 daddr @remote6 ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip saddr @tunnel ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip6 saddr @tunnel6 ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip saddr @tunnel ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip6 saddr @tunnel6 ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip saddr @tunnel counter drop
        		ip6 saddr @tunnel6 counter drop
        	}
        	chain services-arriving {
        		type nat hook prerouting priority -101; policy accept;
        		jump services
        	}
        	chain services-local {
        		type nat hook output priority -101; policy accept;
        		jump services
        	}
        	chain called-local {
        		type filter hook output priority -1; policy accept;
        		ct state new jump refused
        	}
        	chain arriving {
        		type filter hook prerouting priority -301; policy accept;
        		iif "lo" return
        		ip saddr @tunnel iifname != "selvedge0" counter drop
        		ip6 saddr @tunnel6 iifname != "selvedge0" counter drop
        	}
        	chain incoming {
        		type filter hook input priority -1; policy accept;
        		ct state new jump refused
        		udp dport 500 accept
        		udp dport 4500 accept
        		meta l4proto esp accept
        	}
        	chain forwarded {
        		type filter hook forward priority -1; policy accept;
        		ct status assured goto permitted
        		meta l4proto udp ct state established goto permitted
        		ct state new jump refused
        		tcp flags & (syn | rst) == syn ip daddr @remote tcp option maxseg size set rt mtu
        		tcp flags & (syn | rst) == syn ip6 daddr @remote6 tcp option maxseg size set rt mtu
        		tcp flags & (syn | rst) == syn ip saddr @remote tcp option maxseg size set rt mtu
        		tcp flags & (syn | rst) == syn ip6 saddr @remote6 tcp option maxseg size set rt mtu
        		tcp flags & (syn | rst) == syn ip daddr @remote-node tcp option maxseg size set rt mtu
        		tcp flags & (syn | rst) == syn ip saddr @remote-node tcp option maxseg size set rt mtu
        		goto permitted
        	}
        	chain source {
        		type nat hook postrouting priority 99; policy accept;
        		ip saddr . ip daddr @own masquerade
        		ip saddr @local ip daddr @local snat ip to ip saddr
        		ip saddr @local ip daddr @remote snat ip to ip saddr
        		ip saddr @local ip daddr @remote-node snat ip to ip saddr
        		ip saddr @remote ip daddr @local snat ip to ip saddr
        		ip daddr @remote fib saddr type local snat ip to 10.234.1.1
        		ip daddr @remote ct status dnat snat ip to 10.234.1.1
        		ip daddr @remote snat ip to ip saddr
        		meta nfproto ipv4 oifname != "lo" fib saddr type local ct status dnat masquerade
        		meta mark & 0x10000000 != 0 ip daddr @local snat ip to ip saddr
        		meta nfproto ipv4 meta mark & 0x10000000 != 0 masquerade
        		ip saddr @local masquerade
        		ip6 saddr . ip6 daddr @own6 masquerade
        		ip6 saddr @local6 ip6 daddr @local6 snat ip6 to ip6 saddr
        		ip6 saddr @local6 ip6 daddr @remote6 snat ip6 to ip6 saddr
        		ip6 saddr @remote6 ip6 daddr @local6 snat ip6 to ip6 saddr
        		ip6 daddr @remote6 fib saddr type local snat ip6 to fd00:234:0:1::1
        		ip6 daddr @remote6 ct status dnat snat ip6 to fd00:234:0:1::1
        		ip6 daddr @remote6 snat ip6 to ip6 saddr
        		meta nfproto ipv6 oifname != "lo" fib saddr type local ct status dnat masquerade
        		meta mark & 0x10000000 != 0 ip6 daddr @local6 snat ip6 to ip6 saddr
        		meta nfproto ipv6 meta mark & 0x10000000 != 0 masquerade
        		ip6 saddr @local6 masquerade
        	}
        }
    "#]].assert_eq(&nft::replace(&edge()));
}

#[test]
fn a_gateways_network_is_let_through_to_and_from_peers_only() {
    let ruleset = Plan::new(&config(GATEWAY), &gateway_facts()).ruleset;
    let text = nft::replace(&ruleset);
    let chain = text.split("chain permitted {").nth(1).unwrap().split('}').next().unwrap();
    let rules: Vec<&str> = chain.lines().map(str::trim).filter(|l| l.starts_with("ip ")).collect();
    let expected = [
        "ip saddr @offered ip daddr @remote meta mark set meta mark | 0x20000000 accept",
        "ip saddr @remote ip daddr @offered meta mark set meta mark | 0x20000000 accept",
        "ip daddr @remote ct state established,related meta mark set meta mark | 0x20000000 accept",
        "ip daddr @remote ct status dnat meta mark set meta mark | 0x20000000 accept",
        "ip saddr @tunnel ct state established,related meta mark set meta mark | 0x20000000 accept",
        "ip saddr @tunnel ct status dnat meta mark set meta mark | 0x20000000 accept",
        "ip saddr @tunnel counter drop",
    ];
    assert_eq!(rules, expected);
    let text = iptables::update("", &iptables::tables(&ruleset, Family::V4)).unwrap();
    let filter = text.split("*filter").nth(1).unwrap();
    let rules: Vec<&str> =
        filter.lines().filter_map(|l| l.strip_prefix("-A SELVEDGE-FORWARD -m set --match-set ")).collect();
    let expected = [
        "SELVEDGE-OFFERED src -m set --match-set SELVEDGE-REMOTE dst -j ACCEPT",
        "SELVEDGE-REMOTE src -m set --match-set SELVEDGE-OFFERED dst -j ACCEPT",
        "SELVEDGE-REMOTE dst -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "SELVEDGE-REMOTE dst -m conntrack --ctstate DNAT -j ACCEPT",
        "SELVEDGE-TUNNEL src -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "SELVEDGE-TUNNEL src -m conntrack --ctstate DNAT -j ACCEPT",
        "SELVEDGE-TUNNEL src -j DROP",
    ];
    assert_eq!(rules, expected);
}

#[test]
fn connector_iptables() {
    check_iptables(
        &connector(),
        Family::V4,
        &expect![[r#"
            *raw
            :SELVEDGE-PREROUTING - [0:0]
            -A SELVEDGE-PREROUTING -i lo -j RETURN
            -A SELVEDGE-PREROUTING ! -i selvedge0 -m set --match-set SELVEDGE-TUNNEL src -j DROP
            -I PREROUTING 1 -j SELVEDGE-PREROUTING
            COMMIT
            *mangle
            :SELVEDGE-FORWARD - [0:0]
            -A SELVEDGE-FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m set --match-set SELVEDGE-REMOTE dst -j TCPMSS --clamp-mss-to-pmtu
            -A SELVEDGE-FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m set --match-set SELVEDGE-REMOTE src -j TCPMSS --clamp-mss-to-pmtu
            -A SELVEDGE-FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m set --match-set SELVEDGE-REMOTE-NODE dst -j TCPMSS --clamp-mss-to-pmtu
            -A SELVEDGE-FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m set --match-set SELVEDGE-REMOTE-NODE src -j TCPMSS --clamp-mss-to-pmtu
            -I FORWARD 1 -j SELVEDGE-FORWARD
            COMMIT
            *nat
            :SELVEDGE-POSTROUTING - [0:0]
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-LOCAL src -m set --match-set SELVEDGE-REMOTE dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-LOCAL src -m set --match-set SELVEDGE-REMOTE-NODE dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE src -m set --match-set SELVEDGE-LOCAL dst -j ACCEPT
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE src -m set --match-set SELVEDGE-LOCAL-NODE dst -j MASQUERADE
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE-NODE src -m set --match-set SELVEDGE-LOCAL dst -j MASQUERADE
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE dst -m addrtype --src-type LOCAL -j SNAT --to-source 10.244.1.0
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE dst -m conntrack --ctstate DNAT -j SNAT --to-source 10.244.1.0
            -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE dst -j ACCEPT
            -I POSTROUTING 1 -j SELVEDGE-POSTROUTING
            COMMIT
            *filter
            :SELVEDGE-FORWARD - [0:0]
            :SELVEDGE-INPUT - [0:0]
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-TUNNEL src -m set --match-set SELVEDGE-REMOTE-NODE dst -j DROP
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-LOCAL src -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE src -m set --match-set SELVEDGE-LOCAL dst -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE-NODE src -m set --match-set SELVEDGE-LOCAL dst -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-LOCAL-NODE src -m set --match-set SELVEDGE-LOCAL dst -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-LOCAL-NODE src -m set --match-set SELVEDGE-REMOTE dst -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE src -m set --match-set SELVEDGE-REMOTE dst -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE src -m set --match-set SELVEDGE-LOCAL-NODE dst -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-LOCAL dst -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-LOCAL dst -m conntrack --ctstate DNAT -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE dst -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE dst -m conntrack --ctstate DNAT -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-TUNNEL src -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-TUNNEL src -m conntrack --ctstate DNAT -j ACCEPT
            -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-TUNNEL src -j DROP
            -A SELVEDGE-INPUT -p udp -m udp --dport 500 -j ACCEPT
            -A SELVEDGE-INPUT -p udp -m udp --dport 4500 -j ACCEPT
            -A SELVEDGE-INPUT -p esp -j ACCEPT
            -I FORWARD 1 -j SELVEDGE-FORWARD
            -I INPUT 1 -j SELVEDGE-INPUT
            COMMIT
        "#]],
    );
}

#[test]
fn connector_nft() {
    expect![[r#"
        table inet selvedge
        delete table inet selvedge
        table inet selvedge {
        	chain digest-65dd49da115deeda {
        	}
        	set local {
        		type ipv4_addr
        		flags interval
        		elements = { 10.244.0.0/23, 10.244.2.0/24 }
        	}
        	set local6 {
        		type ipv6_addr
        		flags interval
        		elements = { fd00:244:0:1::/64 }
        	}
        	set local-node {
        		type ipv4_addr
        		flags interval
        		elements = { 172.16.0.11/32, 172.16.0.12/32 }
        	}
        	set remote {
        		type ipv4_addr
        		flags interval
        		elements = { 10.234.1.0/24, 10.234.2.0/24 }
        	}
        	set remote6 {
        		type ipv6_addr
        		flags interval
        		elements = { fd00:234:0:1::/64, fd00:234:0:2::/64 }
        	}
        	set remote-node {
        		type ipv4_addr
        		flags interval
        		elements = { 192.168.11.2/32, 192.168.12.2/32 }
        	}
        	set tunnel {
        		type ipv4_addr
        		flags interval
        		elements = { 10.234.1.0/24, 10.234.2.0/24 }
        	}
        	set tunnel6 {
        		type ipv6_addr
        		flags interval
        		elements = { fd00:234:0:1::/64, fd00:234:0:2::/64 }
        	}
        	chain permitted {
        		ip saddr @tunnel ip daddr @remote-node counter drop
        		ip saddr @local meta mark set meta mark | 0x20000000 accept
        		ip6 saddr @local6 meta mark set meta mark | 0x20000000 accept
        		ip saddr @remote ip daddr @local meta mark set meta mark | 0x20000000 accept
        		ip6 saddr @remote6 ip6 daddr @local6 meta mark set meta mark | 0x20000000 accept
        		ip saddr @remote-node ip daddr @local meta mark set meta mark | 0x20000000 accept
        		ip saddr @local-node ip daddr @local meta mark set meta mark | 0x20000000 accept
        		ip saddr @local-node ip daddr @remote meta mark set meta mark | 0x20000000 accept
        		ip saddr @remote ip daddr @remote meta mark set meta mark | 0x20000000 accept
        		ip6 saddr @remote6 ip6 daddr @remote6 meta mark set meta mark | 0x20000000 accept
        		ip saddr @remote ip daddr @local-node meta mark set meta mark | 0x20000000 accept
        		ip daddr @local ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip6 daddr @local6 ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip daddr @local ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip6 daddr @local6 ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip daddr @remote ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip6 daddr @remote6 ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip daddr @remote ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip6 daddr @remote6 ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip saddr @tunnel ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip6 saddr @tunnel6 ct state established,related meta mark set meta mark | 0x20000000 accept
        		ip saddr @tunnel ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip6 saddr @tunnel6 ct status dnat meta mark set meta mark | 0x20000000 accept
        		ip saddr @tunnel counter drop
        		ip6 saddr @tunnel6 counter drop
        	}
        	chain arriving {
        		type filter hook prerouting priority -301; policy accept;
        		iif "lo" return
        		ip saddr @tunnel iifname != "selvedge0" counter drop
        		ip6 saddr @tunnel6 iifname != "selvedge0" counter drop
        	}
        	chain incoming {
        		type filter hook input priority -1; policy accept;
        		udp dport 500 accept
        		udp dport 4500 accept
        		meta l4proto esp accept
        	}
        	chain forwarded {
        		type filter hook forward priority -1; policy accept;
        		ct status assured goto permitted
        		tcp flags & (syn | rst) == syn ip daddr @remote tcp option maxseg size set rt mtu
        		tcp flags & (syn | rst) == syn ip6 daddr @remote6 tcp option maxseg size set rt mtu
        		tcp flags & (syn | rst) == syn ip saddr @remote tcp option maxseg size set rt mtu
        		tcp flags & (syn | rst) == syn ip6 saddr @remote6 tcp option maxseg size set rt mtu
        		tcp flags & (syn | rst) == syn ip daddr @remote-node tcp option maxseg size set rt mtu
        		tcp flags & (syn | rst) == syn ip saddr @remote-node tcp option maxseg size set rt mtu
        		goto permitted
        	}
        	chain source {
        		type nat hook postrouting priority 99; policy accept;
        		ip saddr @local ip daddr @remote snat ip to ip saddr
        		ip saddr @local ip daddr @remote-node snat ip to ip saddr
        		ip saddr @remote ip daddr @local snat ip to ip saddr
        		ip saddr @remote ip daddr @local-node masquerade
        		ip saddr @remote-node ip daddr @local masquerade
        		ip daddr @remote fib saddr type local snat ip to 10.244.1.0
        		ip daddr @remote ct status dnat snat ip to 10.244.1.0
        		ip daddr @remote snat ip to ip saddr
        		ip6 saddr @local6 ip6 daddr @remote6 snat ip6 to ip6 saddr
        		ip6 saddr @remote6 ip6 daddr @local6 snat ip6 to ip6 saddr
        		ip6 daddr @remote6 fib saddr type local snat ip6 to fd00:244:0:1::1
        		ip6 daddr @remote6 ct status dnat snat ip6 to fd00:244:0:1::1
        		ip6 daddr @remote6 snat ip6 to ip6 saddr
        	}
        }
    "#]]
    .assert_eq(&nft::replace(&connector()));
}

#[test]
fn cloud_iptables() {
    check_iptables(
        &cloud(),
        Family::V4,
        &expect![[r#"
        *nat
        :SELVEDGE-POSTROUTING - [0:0]
        -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-LOCAL src -m set --match-set SELVEDGE-REMOTE dst -j ACCEPT
        -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE src -m conntrack --ctstate DNAT -j RETURN
        -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE src -j ACCEPT
        -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE dst -m addrtype --src-type LOCAL -j SNAT --to-source 10.244.2.0
        -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE dst -m conntrack --ctstate DNAT -j SNAT --to-source 10.244.2.0
        -A SELVEDGE-POSTROUTING -m set --match-set SELVEDGE-REMOTE dst -j ACCEPT
        -I POSTROUTING 1 -j SELVEDGE-POSTROUTING
        COMMIT
        *filter
        :SELVEDGE-FORWARD - [0:0]
        -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE src -j ACCEPT
        -A SELVEDGE-FORWARD -m set --match-set SELVEDGE-REMOTE dst -j ACCEPT
        -I FORWARD 1 -j SELVEDGE-FORWARD
        COMMIT
    "#]],
    );
}

#[test]
fn cloud_nft() {
    expect![[r#"
        table inet selvedge
        delete table inet selvedge
        table inet selvedge {
        	chain digest-6b2d9e757afddd25 {
        	}
        	set local {
        		type ipv4_addr
        		flags interval
        		elements = { 10.244.2.0/24 }
        	}
        	set local6 {
        		type ipv6_addr
        		flags interval
        		elements = { fd00:244:0:2::/64 }
        	}
        	set remote {
        		type ipv4_addr
        		flags interval
        		elements = { 10.234.1.0/24, 10.234.2.0/24 }
        	}
        	set remote6 {
        		type ipv6_addr
        		flags interval
        		elements = { fd00:234:0:1::/64, fd00:234:0:2::/64 }
        	}
        	chain forwarded {
        		type filter hook forward priority -1; policy accept;
        		ip saddr @remote meta mark set meta mark | 0x20000000 accept
        		ip6 saddr @remote6 meta mark set meta mark | 0x20000000 accept
        		ip daddr @remote meta mark set meta mark | 0x20000000 accept
        		ip6 daddr @remote6 meta mark set meta mark | 0x20000000 accept
        	}
        	chain source {
        		type nat hook postrouting priority 99; policy accept;
        		ip saddr @local ip daddr @remote snat ip to ip saddr
        		ip saddr @remote ct status dnat return
        		ip saddr @remote snat ip to ip saddr
        		ip daddr @remote fib saddr type local snat ip to 10.244.2.0
        		ip daddr @remote ct status dnat snat ip to 10.244.2.0
        		ip daddr @remote snat ip to ip saddr
        		ip6 saddr @local6 ip6 daddr @remote6 snat ip6 to ip6 saddr
        		ip6 saddr @remote6 ct status dnat return
        		ip6 saddr @remote6 snat ip6 to ip6 saddr
        		ip6 daddr @remote6 ct status dnat masquerade
        		ip6 daddr @remote6 snat ip6 to ip6 saddr
        	}
        }
    "#]]
    .assert_eq(&nft::replace(&cloud()));
}

#[test]
fn without_ipv6_nothing_is_asked_of_ip6tables() {
    let text = r#"{"version": 1, "generation": 1, "name": "a.edge-1", "node": "edge-1", "role": "edge",
        "podCidrs": ["10.234.1.0/24"], "local": {"prefixes": ["10.234.1.0/24"]}, "peers": []}"#;
    let mut facts =
        Facts { local_addresses: addresses(&[("eth0", "fe80::1/64"), ("lo", "::1/128")]), ..Facts::default() };
    let tables = |facts: &Facts| iptables::tables(&Plan::new(&config(text), facts).ruleset, Family::V6);
    assert!(tables(&facts).is_empty());
    facts.local_addresses.extend(addresses(&[("eth0", "2001:db8::5/64")]));
    assert!(!tables(&facts).is_empty());
}

#[test]
fn without_ipset_a_rule_is_there_for_each_pair_of_networks() {
    let text = r#"{"version": 1, "generation": 1, "name": "a.edge-1", "node": "edge-1", "role": "edge",
        "podCidrs": ["10.234.1.0/24"], "local": {"prefixes": ["10.234.1.0/24"]}, "peers": [{"name": "a.edge-2",
        "via": "tunnel", "addresses": [], "prefixes": ["10.234.2.0/24", "10.234.7.0/24"]}]}"#;
    let ruleset = Plan::new(&config(text), &Facts::default()).ruleset.spelt();
    let text = iptables::update("", &iptables::tables(&ruleset, Family::V4)).unwrap();
    assert!(!text.contains("--match-set"), "{text}");
    for line in [
        "-A SELVEDGE-PREROUTING -s 10.234.7.0/24 ! -i selvedge0 -j DROP",
        "-A SELVEDGE-POSTROUTING -s 10.234.1.0/24 -d 10.234.2.0/24 -j ACCEPT",
        "-A SELVEDGE-POSTROUTING -s 10.234.1.0/24 -d 10.234.7.0/24 -j ACCEPT",
        "-A SELVEDGE-POSTROUTING -s 10.234.1.0/24 -j MASQUERADE",
    ] {
        assert_eq!(text.lines().filter(|l| *l == line).count(), 1, "{line}: {text}");
    }
}

#[test]
fn names_cannot_break_out_of_a_comment() {
    let evil = EDGE.replace(r#""name": "web""#, r#""name": "we\"\nb; } $(x) \\""#);
    let ruleset = Plan::new(&config(&evil), &edge_facts(Datapath::User)).ruleset;
    let name = "default/we??b??????x???:http";
    assert!(nft::replace(&ruleset).contains(&format!("comment \"{name}\"")), "{}", nft::replace(&ruleset));
    let text = iptables::update("", &iptables::tables(&ruleset, Family::V4)).unwrap();
    assert!(text.contains(&format!("--comment \"{name}\"")), "{text}");
}

#[test]
fn the_kernel_datapath_leaves_spoofing_to_policies() {
    let kernel = Plan::new(&config(EDGE), &edge_facts(Datapath::Kernel)).ruleset;
    assert!(!nft::replace(&kernel).contains("chain arriving"));
    assert!(nft::replace(&edge()).contains("ip saddr @tunnel iifname != \"selvedge0\" counter drop"));
}

#[test]
fn without_bridge_netfilter_all_own_pods_are_masqueraded_to_each_other() {
    let facts = Facts { bridge_netfilter: false, ..edge_facts(Datapath::User) };
    let text = nft::replace(&Plan::new(&config(EDGE), &facts).ruleset);
    assert!(text.contains("ip saddr 10.234.1.0/24 ip daddr 10.234.1.0/24 ct status dnat masquerade"), "{text}");
    assert!(!text.contains("ip saddr 10.234.1.5/32"));
}

#[test]
fn the_order_of_endpoints_does_not_matter() {
    let a = r#"{"address": "10.234.1.5", "port": 8080, "node": "edge-1"}"#;
    let b = r#"{"address": "10.234.1.6", "port": 8080, "node": "edge-1"}"#;
    let swapped = EDGE.replace(a, "X").replace(b, a).replace('X', b);
    assert_ne!(swapped, EDGE);
    assert_eq!(Plan::new(&config(&swapped), &edge_facts(Datapath::User)).ruleset, edge());
}
