//! What is wrong on this node, what it means and what helps: `doctor`, and the `kernel` part of `status`.
//!
//! It looks and changes nothing; what it tries in the kernel it takes back.

#[cfg(feature = "api")]
mod api;
mod finding;
mod kernel;
#[cfg(feature = "dns")]
mod names;
mod platform;
mod running;
mod sources;
mod surroundings;

use selvedge_linux::capabilities::{self, Capability};
#[cfg(feature = "services")]
use selvedge_linux::netfilter::Missing;
use selvedge_linux::netfilter::probe_rule;
#[cfg(feature = "services")]
use selvedge_model::ServiceMode;
use selvedge_model::{DatapathMode, NodeConfig, Role};
#[cfg(feature = "services")]
use selvedge_plan::Backend;

use crate::cli::Program;
use crate::clock::Clock;
use crate::error::Context as _;
use crate::firewall::{Firewall, Tools};
use crate::source;
use crate::{Error, Options, Result};
use finding::{Finding, Level};
use platform::Platform;

pub(crate) use kernel::Kernel;

/// What a running program's kernel and tools lack, a line each: none in a build without the doctor. `kernel` is there once
/// tunnels were wanted.
pub(crate) fn lacks(kernel: Option<&Kernel>, wanted: DatapathMode, tools: &Tools) -> Vec<String> {
    if !cfg!(feature = "doctor") {
        return Vec::new();
    }
    let here = Platform::here();
    let mut findings = kernel.map(|kernel| kernel.findings(here, wanted)).unwrap_or_default();
    if tools.was_tried() {
        findings.extend(kernel::firewall(tools, here));
    }
    findings.extend(kernel::settings(here));
    findings.iter().filter(|finding| !finding.is_ok()).map(Finding::line).collect()
}

/// Looks at everything; what to print, and whether nothing is wrong.
pub(crate) fn examine(options: &Options, program: &Program, json: bool) -> Result<(String, bool)> {
    if !cfg!(feature = "doctor") {
        return Err(Error::new("this build has no doctor"));
    }
    if !capabilities::has(Capability::NetAdmin).context(|| "read the own capabilities".to_owned())? {
        return Err(Error::new("doctor needs root (or the capability CAP_NET_ADMIN) to look"));
    }
    let here = Platform::here();
    let delivered = source::delivered(options);
    #[cfg(feature = "api")]
    let delivered = match options.source.kind {
        crate::SourceKind::File => delivered,
        // The running program tells how its source is.
        _ => source::last_good(options),
    };
    let last_good = source::last_good(options).ok();
    let loaded = delivered.as_ref().ok().or(last_good.as_ref());
    let config = loaded.map(|loaded| &loaded.config);
    let mut findings = vec![surroundings::system(&std::fs::read_to_string("/proc/version").unwrap_or_default())];
    if config.is_none_or(|config| config.role != Role::Cloud) {
        let wanted = config.map(|config| config.datapath).unwrap_or_default();
        findings.extend(Kernel::probe().findings(here, wanted));
    }
    match surroundings::lock() {
        // No tool would answer.
        Some(held) => findings.push(held),
        None => findings.extend(firewall(config, here)),
    }
    findings.extend(kernel::settings(here));
    findings.extend(surroundings::findings(options));
    let now = Clock::new(&options.state_dir).now().wall;
    findings.extend(running::findings(options, program, &delivered, loaded, now)?);
    let healthy = finding::healthy(&findings);
    Ok((if json { finding::json(&findings) } else { finding::human(&findings) }, healthy))
}

/// The firewall that would be chosen, and what its rules need besides.
fn firewall(config: Option<&NodeConfig>, here: Platform) -> Vec<Finding> {
    let mut tools = Tools::default();
    let chosen = tools.choose(config.map(|config| config.firewall).unwrap_or_default());
    let mut findings = kernel::firewall(&tools, here);
    if let Some(Firewall::Iptables { v4, .. }) = &chosen {
        for (table, rule, meaning, source) in &sources::RULE_PARTS {
            if let Err(why) = probe_rule(v4, table, rule) {
                if let Some(held) = surroundings::lock() {
                    // Somebody took it meanwhile; each rule would wait for it.
                    findings.push(held);
                    break;
                }
                let text = format!("no {}: {meaning}", source.modules);
                let finding = Finding::new(Level::Warn, "iptables-part", text);
                findings.push(finding.remedy(here.remedy(source)).detail(why));
            }
        }
    }
    #[cfg(feature = "services")]
    if let Some(firewall) = chosen.as_ref().filter(|_| config.is_some_and(|c| c.services.mode == ServiceMode::Kernel)) {
        findings.extend(firewall.can_report().err().map(|why| reports(firewall.backend(), &why, here)));
        let remedy = match tools.nft {
            Some(_) => format!("{}; then nftables is used", here.remedy(&sources::NFT)),
            None => "set the firewall of this node to nftables".to_owned(),
        };
        let rival = firewall.rival().map(|text| Finding::new(Level::Warn, "kube-proxy", text).remedy(remedy));
        findings.extend(rival);
    }
    if Firewall::forward_drop() {
        let (level, text) = match chosen {
            Some(Firewall::Nftables(_)) => (
                Level::Fail,
                "the FORWARD policy of iptables is DROP: packets of pods are dropped, as nftables cannot overrule it",
            ),
            _ => (Level::Ok, "the FORWARD policy of iptables is DROP; rules of ours come before it"),
        };
        let finding = Finding::new(level, "forward-policy", text);
        let remedy = if level == Level::Ok { "" } else { "set the firewall of this node to iptables" };
        findings.push(finding.remedy(remedy));
    }
    findings
}

/// Rules cannot report endpoints that do not answer.
#[cfg(feature = "services")]
fn reports(backend: Backend, why: &Missing, here: Platform) -> Finding {
    let [nftables, iptables] = &sources::REPORTS;
    let source = if backend == Backend::Nftables { nftables } else { iptables };
    let text =
        "the kernel does not report endpoints that do not answer: only those that a Service has asked are watched";
    Finding::new(Level::Warn, "reports", text).remedy(here.remedy(source)).detail(why)
}

#[cfg(all(test, feature = "services"))]
mod tests {
    use super::*;

    #[test]
    fn what_brings_reports_depends_on_the_firewall() {
        let why = Missing::Kernel("no NFLOG".to_owned());
        let remedy = |backend, here| reports(backend, &why, here).remedy;
        assert_eq!(
            remedy(Backend::Iptables, Platform::OpenWrt { apk: false }),
            "opkg install iptables-mod-nflog; kernel: CONFIG_NETFILTER_NETLINK_LOG, CONFIG_NETFILTER_XT_TARGET_NFLOG, \
             CONFIG_NETFILTER_XT_MATCH_LIMIT"
        );
        assert_eq!(
            remedy(Backend::Nftables, Platform::Debian),
            "modprobe -a nfnetlink_log nft_log; kernel: CONFIG_NETFILTER_NETLINK_LOG, CONFIG_NFT_LOG"
        );
    }
}
