//! What this kernel can do, as far as it matters here.

use selvedge_linux::capabilities::{self, Capability};
use selvedge_linux::netfilter::Missing;
use selvedge_linux::netlink::{Protocol, Socket};
use selvedge_linux::xfrm::{self, Lack, Support};
use selvedge_linux::{Family, link, rule, sysctl, tun};
use selvedge_model::DatapathMode;

use super::finding::{Finding, Level};
use super::platform::{Platform, Source};
use super::sources;
use crate::firewall::Tools;

/// What the program needs besides `CAP_NET_ADMIN`, without which it does not start.
const CAPABILITIES: [(Capability, &str, &str); 2] = [
    (
        Capability::NetBindService,
        "CAP_NET_BIND_SERVICE",
        "UDP port 500 cannot be had: peers that call there, as other vendors' do, are not heard",
    ),
    (Capability::NetRaw, "CAP_NET_RAW", "the legacy flavour of iptables cannot be used"),
];

/// Found out once, by trying.
pub(crate) struct Kernel {
    pub(crate) ipsec: Support,
    /// Links that nothing comes out of, which the kernel datapath routes to.
    pub(crate) dummy: Result<(), String>,
    pub(crate) tun: Result<(), selvedge_linux::Error>,
    ipv6: bool,
    interfaces: bool,
    statistics: bool,
    rules: Result<(), String>,
    /// Missing ones, and what comes of it.
    capabilities: Vec<(&'static str, &'static str)>,
}

impl Kernel {
    /// Makes the kernel load the modules it needs, and leaves nothing else behind.
    pub(crate) fn probe() -> Self {
        let links = |kind: &str| Socket::open(Protocol::Route).and_then(|mut socket| link::probe(&mut socket, kind));
        let rules = Socket::open(Protocol::Route).and_then(|mut socket| rule::list(&mut socket, Family::V4));
        let missing = CAPABILITIES.into_iter().filter(|(wanted, ..)| capabilities::has(*wanted).is_ok_and(|has| !has));
        Kernel {
            ipsec: xfrm::probe(),
            dummy: links("dummy").map_err(|e| e.to_string()),
            tun: tun::probe(),
            ipv6: crate::kernel::ipv6_off().is_none(),
            interfaces: links("xfrm").is_ok(),
            statistics: std::path::Path::new("/proc/self/net/xfrm_stat").exists(),
            rules: rules.map(drop).map_err(|e| e.to_string()),
            capabilities: missing.map(|(_, name, meaning)| (name, meaning)).collect(),
        }
    }

    /// Why tunnels should not be in the kernel, if so. AES-GCM is the cipher that every end has; without it a peer may
    /// have none in common with this kernel. `outer_ipv6`: some peer can only be called by IPv6.
    pub(crate) fn suitable(&self, outer_ipv6: bool) -> Result<(), String> {
        self.possible()?;
        let text = |lack: &Lack| lack.to_string();
        self.ipsec.aes_gcm.as_ref().map_err(text)?;
        if outer_ipv6 {
            self.ipsec.ipv6.as_ref().map_err(text)?;
            self.ipsec.ipv6_encap.as_ref().map_err(text)?;
        }
        Ok(())
    }

    /// Why tunnels cannot be in the kernel, if so.
    pub(crate) fn possible(&self) -> Result<(), String> {
        self.ipsec.usable()?;
        self.dummy.clone()
    }

    /// The datapath first, then what is around it.
    pub(crate) fn findings(&self, here: Platform, wanted: DatapathMode) -> Vec<Finding> {
        let mut out = Vec::new();
        for (capability, meaning) in &self.capabilities {
            let text = format!("without {capability} {meaning}");
            out.push(Finding::new(Level::Warn, "capabilities", text).remedy("run as root, or grant it in the unit"));
        }
        self.datapath(here, wanted, &mut out);
        match &self.rules {
            Ok(()) => out.push(Finding::new(Level::Ok, "rules", "policy routing")),
            Err(why) => out.push(
                Finding::new(Level::Fail, "rules", "no policy routing: nothing can be routed to the peers")
                    .remedy(here.remedy(&sources::RULES))
                    .detail(why),
            ),
        }
        out
    }

    fn datapath(&self, here: Platform, wanted: DatapathMode, out: &mut Vec<Finding>) {
        let (user, instead) = match wanted {
            DatapathMode::User => (Level::Info, "not needed, as the configuration wants ESP in user space"),
            DatapathMode::Kernel => (Level::Fail, "no tunnels, as the configuration wants ESP in the kernel"),
            DatapathMode::Auto if self.tun.is_err() => (Level::Fail, "and without a TUN device there are no tunnels"),
            DatapathMode::Auto => (Level::Warn, "ESP is done in user space instead, which costs more CPU"),
        };
        let lack = |level, id: &str, what: &str, source: &Source, why: &dyn std::fmt::Display| {
            Finding::new(level, id, what).remedy(here.remedy(source)).detail(why)
        };
        let Support { aes_gcm, chacha20_poly1305, udp_encap, ipv6, ipv6_encap } = &self.ipsec;
        match (aes_gcm, chacha20_poly1305) {
            (Ok(()), Ok(())) => out.push(Finding::new(Level::Ok, "esp", "ESP with AES-GCM and ChaCha20-Poly1305")),
            (Ok(()), Err(why)) => {
                let text = "no ChaCha20-Poly1305 for ESP: AES-GCM is used, slow on CPUs without AES instructions";
                out.push(lack(Level::Warn, "chacha20-poly1305", text, &sources::CHACHA, why));
            }
            (Err(why), Ok(())) if wanted == DatapathMode::Kernel => {
                let text = "no AES-GCM for ESP: only peers that have ChaCha20-Poly1305 can be reached";
                out.push(lack(Level::Warn, "aes-gcm", text, &sources::AES_GCM, why));
            }
            (Err(why), Ok(())) => {
                let text = format!("no AES-GCM for ESP, the one cipher that all peers have: {instead}");
                out.push(lack(user, "aes-gcm", &text, &sources::AES_GCM, why));
            }
            (Err(why @ Lack::Ipsec(_)), Err(_)) => {
                out.push(lack(user, "ipsec", &format!("no IPsec: {instead}"), &sources::IPSEC, why));
            }
            (Err(why @ Lack::Cipher(_)), Err(_)) => {
                let text = format!("neither AES-GCM nor ChaCha20-Poly1305 for ESP: {instead}");
                out.push(lack(user, "ciphers", &text, &sources::CIPHERS, why));
            }
            (Err(why), Err(_)) => out.push(lack(user, "esp", &format!("no ESP: {instead}"), &sources::ESP, why)),
        }
        let esp = aes_gcm.is_ok() || chacha20_poly1305.is_ok();
        if let (true, Err(why)) = (esp, udp_encap) {
            out.push(lack(user, "udp-encap", &format!("no ESP in UDP: {instead}"), &sources::UDP_ENCAP, why));
        }
        match (esp && self.ipv6, ipv6, ipv6_encap) {
            (true, Err(why), _) => {
                let text = "no ESP over IPv6: peers are called at their IPv4 addresses";
                out.push(lack(Level::Info, "esp6", text, &sources::ESP6, why));
            }
            (true, Ok(()), Err(why)) => {
                let text = "no ESP in UDP over IPv6: peers are called at their IPv4 addresses first";
                out.push(lack(Level::Info, "esp6-in-udp", text, &sources::ESP6_UDP, why));
            }
            _ => {}
        }
        match &self.dummy {
            Ok(()) => out.push(Finding::new(Level::Ok, "dummy", "dummy devices")),
            Err(why) if esp => {
                out.push(lack(user, "dummy", &format!("no dummy devices: {instead}"), &sources::DUMMY, why));
            }
            Err(why) => {
                let text = "no dummy devices, which only ESP in the kernel needs";
                out.push(lack(Level::Info, "dummy", text, &sources::DUMMY, why));
            }
        }
        match &self.tun {
            Ok(()) => out.push(Finding::new(Level::Ok, "tun", "TUN devices")),
            Err(why) => {
                let kernel = match wanted {
                    DatapathMode::Auto => self.possible().is_ok(),
                    DatapathMode::Kernel => true,
                    DatapathMode::User => false,
                };
                let level = if kernel { Level::Info } else { Level::Fail };
                let meaning = match level {
                    Level::Info => "not needed, as ESP is done in the kernel",
                    _ => "ESP cannot be done in user space",
                };
                // ENOENT: the driver may be there, but nobody has made its node.
                let remedy = match why.is_not_found() {
                    true => format!("mknod /dev/net/tun c 10 200, or {}", here.remedy(&sources::TUN)),
                    false => here.remedy(&sources::TUN),
                };
                let text = format!("no TUN devices: {meaning}");
                out.push(Finding::new(level, "tun", text).remedy(remedy).detail(why));
            }
        }
        if esp && !self.interfaces {
            let text = "no xfrm interfaces: not needed, policies are used";
            out.push(Finding::new(Level::Info, "xfrm-interface", text).remedy(here.remedy(&sources::XFRM_INTERFACE)));
        }
        if esp && !self.statistics {
            let text = "no IPsec counters: status cannot say why the kernel dropped packets";
            out.push(Finding::new(Level::Info, "xfrm-statistics", text).remedy(here.remedy(&sources::STATISTICS)));
        }
    }
}

/// What the firewall tools and the kernel behind them can do.
pub(crate) fn firewall(tools: &Tools, here: Platform) -> Vec<Finding> {
    let mut out = Vec::new();
    let lack = |level, id: &str, text: &str, missing: &Missing, tool: &Source, kernel: &Source| {
        let (id, source) = match missing {
            Missing::Tool(_) => (format!("{id}-tool"), tool),
            Missing::Kernel(_) => (format!("{id}-kernel"), kernel),
        };
        let why = match missing {
            Missing::Tool(name) => format!("{name} is not installed"),
            Missing::Kernel(why) if why.contains("xtables lock") => "another program holds its lock".to_owned(),
            Missing::Kernel(_) => "the kernel does not support it".to_owned(),
        };
        let finding = Finding::new(level, &id, format!("{text} ({why})")).remedy(here.remedy(source));
        match missing {
            Missing::Tool(_) => finding,
            Missing::Kernel(why) => finding.detail(why),
        }
    };
    let some = tools.chosen.is_some();
    let worst = if some { Level::Info } else { Level::Fail };
    match tools.chosen {
        Some(chosen) => out.push(Finding::new(Level::Ok, "firewall", format!("firewall: {chosen}"))),
        None => {
            let text = "no firewall works: pods are not translated, Services not served, spoofed sources not dropped";
            out.push(Finding::new(Level::Fail, "firewall", text));
        }
    }
    if let Some(missing) = &tools.nft {
        out.push(lack(worst, "nft", "no nftables", missing, &sources::NFT, &sources::NF_TABLES));
    }
    if let Some(missing) = &tools.iptables {
        out.push(lack(worst, "iptables", "no iptables", missing, &sources::IPTABLES, &sources::IP_TABLES));
    }
    if let Some(missing) = &tools.ip6tables {
        let text = "no ip6tables: IPv6 is neither filtered nor translated";
        out.push(lack(Level::Warn, "ip6tables", text, missing, &sources::IP6TABLES, &sources::IP6_TABLES));
    }
    if let Some(missing) = &tools.ipset {
        let text = "no ipset: a rule for each network instead, slow with hundreds of peers";
        out.push(lack(Level::Warn, "ipset", text, missing, &sources::IPSET, &sources::IP_SET));
    }
    out
}

/// Settings of the kernel that others decide on.
pub(crate) fn settings(here: Platform) -> Vec<Finding> {
    let mut out = Vec::new();
    if sysctl::get("net/bridge/bridge-nf-call-iptables").is_err() {
        let text = "no bridge netfilter: a pod that is called through a Service by a pod of this node sees the node's \
                    address";
        out.push(Finding::new(Level::Warn, "bridge-netfilter", text).remedy(here.remedy(&sources::BRIDGE)));
    }
    if let Some(why) = crate::kernel::ipv6_off() {
        out.push(Finding::new(Level::Info, "ipv6", format!("IPv6 is off: {why}")));
    }
    if !sysctl::is_writable("net/ipv4/ip_forward") {
        let forwarding = sysctl::get("net/ipv4/ip_forward").is_ok_and(|value| value == "1");
        let (level, what) = match forwarding {
            true => (Level::Warn, "settings cannot be changed"),
            false => (Level::Fail, "packets of pods are not forwarded, and that cannot be changed"),
        };
        let remedy = "mount it writable, or set net.ipv4.ip_forward=1 at boot";
        out.push(Finding::new(level, "proc-sys", format!("/proc/sys is read-only: {what}")).remedy(remedy));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Kernel {
        Kernel {
            ipsec: Support {
                aes_gcm: Ok(()),
                chacha20_poly1305: Ok(()),
                udp_encap: Ok(()),
                ipv6: Ok(()),
                ipv6_encap: Ok(()),
            },
            dummy: Ok(()),
            tun: Ok(()),
            ipv6: true,
            interfaces: true,
            statistics: true,
            rules: Ok(()),
            capabilities: Vec::new(),
        }
    }

    fn bad(kernel: &Kernel) -> Vec<(String, String, String)> {
        wanting(kernel, DatapathMode::Auto)
    }

    fn wanting(kernel: &Kernel, wanted: DatapathMode) -> Vec<(String, String, String)> {
        let findings = kernel.findings(Platform::OpenWrt { apk: false }, wanted).into_iter();
        findings.filter(|f| !f.is_ok()).map(|f| (f.level, f.id, f.remedy)).collect()
    }

    fn is(found: &[(String, String, String)], wanted: &[(&str, &str, &str)]) {
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        for ((level, id, remedy), wanted) in found.iter().zip(wanted) {
            assert_eq!((level.as_str(), id.as_str()), (wanted.0, wanted.1));
            assert!(remedy.contains(wanted.2), "{remedy}");
        }
    }

    #[test]
    fn each_lack_has_its_name_weight_and_package() {
        is(&bad(&kernel()), &[]);
        let gone = |what: &str| Err(Lack::Esp(what.to_owned()));
        let mut none = kernel();
        (none.ipsec.aes_gcm, none.ipsec.chacha20_poly1305) = (gone("a"), gone("a"));
        is(&bad(&none), &[("warn", "esp", "kmod-ipsec4")]);
        assert!(none.suitable(false).is_err() && none.possible().is_err());
        is(&wanting(&none, DatapathMode::Kernel), &[("fail", "esp", "kmod-ipsec4")]);
        is(&wanting(&none, DatapathMode::User), &[("info", "esp", "kmod-ipsec4")]);
        none.tun = Err(selvedge_linux::Error::new("x"));
        is(&bad(&none), &[("fail", "esp", "kmod-ipsec4"), ("fail", "tun", "kmod-tun")]);
        let mut chacha = kernel();
        chacha.ipsec.aes_gcm = Err(Lack::Cipher("c".into()));
        is(&bad(&chacha), &[("warn", "aes-gcm", "kmod-crypto-gcm")]);
        assert!(chacha.suitable(false).is_err() && chacha.possible().is_ok());
        let mut aes = kernel();
        aes.ipsec.chacha20_poly1305 = Err(Lack::Cipher("c".into()));
        is(&bad(&aes), &[("warn", "chacha20-poly1305", "kmod-crypto-chacha20poly1305")]);
        assert!(aes.suitable(true).is_ok());
        let mut six = kernel();
        six.ipsec.ipv6_encap = Err(Lack::Other("c".into()));
        is(&bad(&six), &[("info", "esp6-in-udp", "Linux 5.8")]);
        assert!(six.suitable(false).is_ok() && six.suitable(true).is_err());
        let mut dummy = kernel();
        dummy.dummy = Err("d".into());
        is(&bad(&dummy), &[("warn", "dummy", "kmod-dummy")]);
        assert!(dummy.suitable(false).is_err());
        let tun = Kernel { tun: Err(selvedge_linux::Error::new("x")), ..kernel() };
        is(&bad(&tun), &[("info", "tun", "kmod-tun")]);
        is(&wanting(&tun, DatapathMode::User), &[("fail", "tun", "kmod-tun")]);
        let rest = Kernel { interfaces: false, statistics: false, rules: Err("r".into()), ..kernel() };
        is(
            &bad(&rest),
            &[
                ("info", "xfrm-interface", "kmod-xfrm-interface"),
                ("info", "xfrm-statistics", "XFRM_STATISTICS"),
                ("fail", "rules", "CONFIG_IP_MULTIPLE_TABLES"),
            ],
        );
    }

    #[test]
    fn a_missing_program_is_told_from_a_missing_module() {
        let kernel = |why: &str| Some(Missing::Kernel(why.to_owned()));
        let tools =
            Tools { chosen: Some("iptables"), nft: Some(Missing::Tool("nft")), ipset: kernel("x"), ..Tools::default() };
        let ids = |tools: &Tools| {
            let findings = firewall(tools, Platform::OpenWrt { apk: true }).into_iter();
            findings.map(|f| format!("{} {} {}", f.level, f.id, f.remedy)).collect::<Vec<_>>().join("\n")
        };
        let text = ids(&tools);
        assert!(text.contains("ok firewall") && text.contains("info nft-tool apk add nftables"), "{text}");
        assert!(text.contains("warn ipset-kernel apk add kmod-ipt-ipset"), "{text}");
        let none = Tools { nft: kernel("n"), iptables: Some(Missing::Tool("iptables-restore")), ..Tools::default() };
        let text = ids(&none);
        assert!(text.contains("fail firewall") && text.contains("fail nft-kernel apk add kmod-nft-core"), "{text}");
        assert!(text.contains("fail iptables-tool apk add iptables-nft"), "{text}");
    }
}
