//! Uninstalling removes everything of ours and nothing of others.

use anyhow::{Context, Result, ensure};

use crate::fabric::Fabric;
use crate::snapshot::Snapshot;
use crate::table::Report;

/// Things of others, as they lie about on real nodes.
const FOREIGN: &str = "*filter
:FOREIGN - [0:0]
-A INPUT -p tcp -m tcp --dport 2222 -j ACCEPT
-A FORWARD -j FOREIGN
-A FOREIGN -s 192.0.2.0/24 -j DROP
COMMIT
*nat
-A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE
COMMIT
*mangle
-A FORWARD -s 192.0.2.0/24 -j ACCEPT
COMMIT
*raw
-A PREROUTING -s 192.0.2.0/24 -j ACCEPT
COMMIT
";

/// On an edge, the connector and a cloud node: snapshot, install, clean, snapshot.
pub fn run(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    for (number, name) in [("6a", "edge-1"), ("6b", "cloud-1"), ("6c", "cloud-2")] {
        report.check(number, &format!("clean on {name}"), || {
            let index = fabric.lab.nodes.iter().position(|node| node.name == name).context("no such node")?;
            let node = &mut fabric.lab.nodes[index];
            if name == "edge-1" {
                let network = crate::cni::Network::find(&node.cni_dir(), &node.cni_data())?;
                for pod in std::mem::take(&mut node.pods) {
                    pod.stop(&node.ns, &network)?;
                }
            }
            // The node as it was before: its very first installation is taken off.
            fabric.clean(name)?;
            let node = fabric.lab.node(name)?;
            let iptables = fabric.lab.iptables;
            iptables.load(&node.ns, FOREIGN)?;
            iptables.load6(&node.ns, &FOREIGN.replace("192.0.2.0/24", "2001:db8:ffff::/64"))?;
            node.ns.ip("link add foreign0 type bridge
                 rule add priority 300 to 192.0.2.0/24 lookup 300
                 route add unreachable 192.0.2.0/24 table 300
                 route add unreachable 198.18.0.0/15 table 220
                 xfrm policy add src 192.0.2.0/24 dst 198.18.0.0/15 dir out priority 7 action block")?;
            node.ns.run("ipset create FOREIGN hash:net")?;
            // A kernel without nftables holds none of others' either.
            let _ = node.ns.run("nft add table inet foreign");
            std::fs::write(node.cni_dir().join("zz-foreign.conflist"), "{}\n")
                .or_else(|error| if node.cni_dir().exists() { Err(error) } else { Ok(()) })?;
            let before = Snapshot::take(&node.ns, &[&node.dir.join("run"), &node.dir.join("state"), &node.cni_dir()])?;
            fabric.start_program(name)?;
            fabric.await_keyed(name)?;
            fabric.clean(name)?;
            let node = fabric.lab.node(name)?;
            let after = Snapshot::take(&node.ns, &[&node.dir.join("run"), &node.dir.join("state"), &node.cni_dir()])?;
            let difference = before.difference(&after);
            ensure!(difference.is_empty(), "{}", difference.join("\n"));
            let first = clean_of_ours(&before);
            ensure!(first.is_empty(), "left by the first installation: {}", first.join("\n"));
            fabric.start_program(name)?;
            Ok("as before".to_owned())
        });
    }
    Ok(())
}

/// Lines that bear our name in a snapshot where we are not installed.
fn clean_of_ours(snapshot: &Snapshot) -> Vec<String> {
    snapshot.lines().filter(|line| line.to_lowercase().contains("selvedge")).map(str::to_owned).collect()
}
