//! The kernel's counters of packets that IPsec refused or lost.

use std::collections::BTreeMap;

use crate::error::{Context, Result};

/// The counters of this network namespace by name: `XfrmInNoPols`, `XfrmInTmplMismatch`, `XfrmInStateProtoError`,
/// `XfrmInNoStates`, `XfrmOutNoStates`, `XfrmOutPolBlock`, … (`Documentation/networking/xfrm_proc.rst`).
///
/// None of them where the kernel was built without `XFRM_STATISTICS`, as OpenWrt's is.
pub fn stats() -> Result<BTreeMap<String, u64>> {
    // /proc/net would be the namespace of the process's first thread.
    let path = "/proc/thread-self/net/xfrm_stat";
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(parse(&text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(e).context(|| path),
    }
}

fn parse(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, count) = line.split_once(char::is_whitespace)?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_by_name() {
        let stats = parse("XfrmInError             \t0\nXfrmInNoPols            \t12\nodd\n");
        assert_eq!(stats.into_iter().collect::<Vec<_>>(), [("XfrmInError".into(), 0), ("XfrmInNoPols".into(), 12)]);
    }
}
