//! The CNI network list (CNI specification 0.3.1 §Network Configuration Lists).

use std::fmt::Write;

use ipnet::IpNet;
use selvedge_model::Cni;

use crate::plan::File;

/// `<network>.conflist`: bridge with host-local addresses, port mappings, bandwidth.
pub(crate) fn conflist(cni: &Cni, pod_cidrs: &[IpNet]) -> File {
    let hairpin = if cni.hairpin { "\n      \"hairpinMode\": true," } else { "" };
    let mut ranges = String::new();
    for (i, cidr) in pod_cidrs.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(
            ranges,
            "{comma}\n          [\n            {{\n              \"subnet\": \"{cidr}\"\n            }}\n          ]"
        );
    }
    let text = format!(
        r#"{{
  "cniVersion": {version},
  "name": {network},
  "plugins": [
    {{
      "type": "bridge",
      "bridge": {bridge},
      "isDefaultGateway": true,
      "forceAddress": true,{hairpin}
      "mtu": {mtu},
      "ipam": {{
        "type": "host-local",
        "ranges": [{ranges}
        ]
      }}
    }},
    {{
      "type": "portmap",
      "capabilities": {{
        "portMappings": true
      }}
    }},
    {{
      "type": "bandwidth",
      "capabilities": {{
        "bandwidth": true
      }}
    }}
  ]
}}
"#,
        version = quoted(&cni.version),
        network = quoted(&cni.network),
        bridge = quoted(&cni.bridge),
        mtu = cni.mtu,
    );
    File { name: format!("{}.conflist", cni.network), text }
}

/// A JSON string (RFC 8259 §7).
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quoted("0.3.1"), r#""0.3.1""#);
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\"b\\c\u000ad""#);
    }
}
