//! What this kernel's IPsec can do, found out by trying.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zeroize::Zeroizing;

use super::sa::{Aead, Algorithm, Encap, Limits, Sa, add, delete};
use crate::error::Error;
use crate::netlink::{Protocol, Socket};
use crate::{Family, UdpPort};

/// An SPI nobody picks by chance, between documentation addresses (RFC 5737, RFC 3849).
const SPI: u32 = 0x5e1f_5e1f;
const PAIR_V4: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 253)), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254))];
const PAIR_V6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x5e1f, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x5e1f, 2)),
];

/// What works, and why the rest does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Support {
    /// ESP over IPv4 with AES-GCM.
    pub aes_gcm: Result<(), Lack>,
    /// ESP over IPv4 with ChaCha20-Poly1305.
    pub chacha20_poly1305: Result<(), Lack>,
    /// ESP in UDP over IPv4, with whichever cipher works.
    pub udp_encap: Result<(), Lack>,
    /// ESP over IPv6, with whichever cipher works.
    pub ipv6: Result<(), Lack>,
    /// ESP in UDP over IPv6 (Linux 5.8), with whichever cipher works.
    pub ipv6_encap: Result<(), Lack>,
}

/// What of IPsec the kernel lacks, with the reason as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// All of it (`XFRM_USER`).
    Ipsec(String),
    /// ESP for this family (`esp4`, `esp6`).
    Esp(String),
    /// The cipher.
    Cipher(String),
    /// Something else.
    Other(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Lack::Ipsec(why) | Lack::Esp(why) | Lack::Cipher(why) | Lack::Other(why)) = self;
        f.write_str(why)
    }
}

impl Support {
    /// Whether tunnels can be in the kernel: ESP in UDP over IPv4 with one cipher at least. If not, why.
    pub fn usable(&self) -> Result<(), String> {
        match (&self.aes_gcm, &self.chacha20_poly1305, &self.udp_encap) {
            (Err(aes), Err(chacha), _) if aes == chacha => Err(aes.to_string()),
            (Err(aes), Err(chacha), _) => Err(format!("{aes}; {chacha}")),
            (_, _, udp_encap) => udp_encap.clone().map_err(|lack| lack.to_string()),
        }
    }
}

/// Adds and deletes SAs that match no packet. Makes the kernel load the modules it needs.
pub fn probe() -> Support {
    let mut socket = match Socket::open(Protocol::Xfrm) {
        Ok(socket) => socket,
        Err(e) => {
            let missing = Err(Lack::Ipsec(format!("no IPsec in this kernel (XFRM_USER): {e}")));
            return Support {
                aes_gcm: missing.clone(),
                chacha20_poly1305: missing.clone(),
                udp_encap: missing.clone(),
                ipv6: missing.clone(),
                ipv6_encap: missing,
            };
        }
    };
    let aes_gcm = attempt(&mut socket, Algorithm::AesGcm, PAIR_V4, None);
    let chacha20_poly1305 = attempt(&mut socket, Algorithm::ChaCha20Poly1305, PAIR_V4, None);
    let best = if aes_gcm.is_ok() { Algorithm::AesGcm } else { Algorithm::ChaCha20Poly1305 };
    let encap = Some(Encap { sport: 4500, dport: 4500 });
    let udp_encap = attempt(&mut socket, best, PAIR_V4, encap).and_then(|()| {
        UdpPort::bind(0, Family::V4)
            .and_then(|port| port.set_udp_encap(true))
            .map_err(|e| Lack::Other(format!("no ESP in UDP in this kernel: {e}")))
    });
    let ipv6 = attempt(&mut socket, best, PAIR_V6, None);
    let ipv6_encap = ipv6.clone().and_then(|()| attempt(&mut socket, best, PAIR_V6, encap));
    Support { aes_gcm, chacha20_poly1305, udp_encap, ipv6, ipv6_encap }
}

fn attempt(
    socket: &mut Socket,
    algorithm: Algorithm,
    [src, dst]: [IpAddr; 2],
    encap: Option<Encap>,
) -> Result<(), Lack> {
    let len = match algorithm {
        Algorithm::AesGcm => 20,
        Algorithm::ChaCha20Poly1305 => 36,
    };
    let sa = Sa {
        src,
        dst,
        spi: SPI,
        reqid: SPI,
        aead: Aead { algorithm, key: Zeroizing::new(vec![0; len]) },
        encap,
        replay_window: 1024,
        limits: Limits::default(),
    };
    let added = match add(socket, &sa) {
        // Left by a probe that was killed.
        Err(e) if e.errno() == Some(libc::EEXIST) => Ok(()),
        other => other,
    };
    added.map_err(|e| explain(&e, algorithm, Family::of(dst)))?;
    delete(socket, dst, SPI).map_err(|e| Lack::Other(e.to_string()))?;
    Ok(())
}

fn explain(error: &Error, algorithm: Algorithm, family: Family) -> Lack {
    match error.errno() {
        Some(libc::EPERM | libc::EACCES) => Lack::Other(format!("IPsec needs CAP_NET_ADMIN: {error}")),
        Some(libc::EPROTONOSUPPORT) => {
            let module = if family == Family::V4 { "esp4" } else { "esp6" };
            Lack::Esp(format!("no ESP over {family} in this kernel ({module}): {error}"))
        }
        Some(libc::ENOSYS | libc::ENOENT) => Lack::Cipher(format!("no {} in this kernel: {error}", algorithm.name())),
        _ => Lack::Other(error.to_string()),
    }
}
