//! Whether the node's pods ask the DNS server of the node.

use std::path::Path;

use super::finding::{Finding, Level};
use crate::status::DnsStatus;

/// Where kubelets read whom pods are to ask.
const KUBELETS: [(&str, &str); 3] = [
    ("/etc/kubeedge/config/edgecore.yaml", "set clusterDNS there, in modules.edged.tailoredKubeletConfig"),
    ("/etc/rancher/k3s/config.yaml", "set kubelet-arg there to cluster-dns"),
    ("/var/lib/kubelet/config.yaml", "set clusterDNS there"),
];

pub(super) fn findings(dns: &DnsStatus) -> Vec<Finding> {
    let mut out = Vec::new();
    let answers = format!("names are answered at {}", dns.addresses.join(", "));
    out.push(match dns.services {
        Some(services) => Finding::new(Level::Ok, "dns", format!("{answers}, those of {services} Services")),
        None => Finding::new(Level::Warn, "dns", format!("{answers}, but not those of Services: none are known yet")),
    });
    out.extend(dns.notes.iter().map(|note| Finding::new(Level::Warn, "dns-upstream", format!("names: {note}"))));
    let kubelets = KUBELETS.iter().filter_map(|(file, remedy)| {
        let text = std::fs::read_to_string(Path::new(file)).ok()?;
        Some(kubelet(file, &text, remedy, dns))
    });
    out.extend(kubelets);
    out
}

/// What a kubelet's configuration says. Only whether an address is in it: it may be written in many ways.
fn kubelet(file: &str, text: &str, remedy: &str, dns: &DnsStatus) -> Finding {
    let named =
        |address: &String| text.split(|c: char| !c.is_ascii_hexdigit() && !".:".contains(c)).any(|w| w == address);
    if dns.addresses.iter().any(named) {
        return Finding::new(Level::Ok, "dns-kubelet", format!("{file} has pods ask this node for names"));
    }
    let first = dns.addresses.first().map_or("", String::as_str);
    let text = format!("{file} does not have pods ask {first} for names: they ask somebody else, perhaps in the cloud");
    Finding::new(Level::Warn, "dns-kubelet", text).remedy(format!("{remedy}: {first}; then restart the pods"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_that_names_another_server_is_told_of() {
        let dns = DnsStatus { addresses: vec!["169.254.25.10".into()], ..DnsStatus::default() };
        for (text, good) in [
            ("clusterDNS:\n- 169.254.25.10\n", true),
            ("kubelet-arg: [\"cluster-dns=169.254.25.10\"]", true),
            ("clusterDNS: [169.254.25.100, 10.96.0.10]", false),
            ("", false),
        ] {
            assert_eq!(kubelet("file", text, "", &dns).is_ok(), good, "{text}");
        }
    }
}
