use selvedge_ike::EspSuite;
use selvedge_linux::xfrm::Support;

/// What the datapath can do: only that is agreed on with the peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    pub(crate) suites: Vec<EspSuite>,
    /// ESP over IPv6.
    pub(crate) ipv6: bool,
    /// ESP in UDP over IPv6.
    pub(crate) ipv6_encap: bool,
}

impl Abilities {
    /// Those of ESP in user space.
    pub fn user() -> Self {
        Abilities {
            suites: vec![EspSuite::Aes256Gcm, EspSuite::Aes128Gcm, EspSuite::ChaCha20Poly1305],
            ipv6: true,
            ipv6_encap: true,
        }
    }

    /// Those of this kernel.
    pub fn kernel(support: &Support) -> Self {
        let Abilities { mut suites, .. } = Self::user();
        suites.retain(|suite| match suite {
            EspSuite::Aes128Gcm | EspSuite::Aes256Gcm => support.aes_gcm.is_ok(),
            EspSuite::ChaCha20Poly1305 => support.chacha20_poly1305.is_ok(),
        });
        Abilities { suites, ipv6: support.ipv6.is_ok(), ipv6_encap: support.ipv6_encap.is_ok() }
    }
}
