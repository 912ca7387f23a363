//! Two namespaces and a veth pair: what every tunnel is laid over.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::netns::{self, Netns};

/// One end.
#[derive(Debug)]
pub struct End {
    /// `a` or `b`.
    pub letter: &'static str,
    /// Its namespace.
    pub ns: Netns,
    /// Address on the veth device.
    pub outer: &'static str,
    /// Address inside the tunnel.
    pub inner: &'static str,
    /// Network that the tunnel speaks for.
    pub network: &'static str,
    /// Files of what runs here.
    pub dir: PathBuf,
}

/// Both ends.
#[derive(Debug)]
pub struct Link {
    /// The one that calls and sends.
    pub a: End,
    /// The one that answers.
    pub b: End,
}

/// Whether packets larger than the MTU may cross the link, to be segmented by whoever takes them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// As veth devices have it.
    On,
    /// As on simple network cards.
    Off,
}

impl Link {
    /// A link of its own for what `name` names; at most six characters.
    pub fn create(name: &str, dir: &Path) -> Result<Self> {
        let end = |letter, outer, inner, network| -> Result<End> {
            let dir = dir.join(format!("{name}-{letter}"));
            std::fs::create_dir_all(&dir)?;
            Ok(End { letter, ns: Netns::create(&format!("{name}{letter}"))?, outer, inner, network, dir })
        };
        let a = end("a", "192.0.2.1", "10.1.0.1", "10.1.0.0/24")?;
        let b = end("b", "192.0.2.2", "10.2.0.1", "10.2.0.0/24")?;
        netns::join(&a.ns, "eth0", &b.ns, "eth0")?;
        for end in [&a, &b] {
            end.ns.ip(&format!("address add {}/24 dev eth0\nlink set eth0 up", end.outer))?;
        }
        Ok(Self { a, b })
    }

    /// Switches segmentation offload of the link.
    pub fn set_offload(&self, offload: Offload) -> Result<()> {
        let word = match offload {
            Offload::On => "on",
            Offload::Off => "off",
        };
        for (end, _) in self.ends() {
            end.ns.run(&format!("ethtool -K eth0 tso {word} tx-udp-segmentation {word}"))?;
        }
        Ok(())
    }

    /// Both, each with the other.
    pub fn ends(&self) -> [(&End, &End); 2] {
        [(&self.a, &self.b), (&self.b, &self.a)]
    }
}
