//! Whether anybody touched the firewall, found out without starting a program.

use std::mem;
use std::os::fd::AsRawFd as _;

use libc::{c_int, c_void, socklen_t};

use crate::error::{Context, Result};
use crate::netlink::{Attributes, Protocol, Request, Socket, u32_from};
use crate::{Family, sys};

/// `NFNL_SUBSYS_NFTABLES`, in the upper octet of the message type.
const NFTABLES: u16 = 10 << 8;
const GETCHAIN: u16 = NFTABLES | 4;
const GETGEN: u16 = NFTABLES | 16;
const NFTA_GEN_ID: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: c_int = 64;

/// State of the firewalls of a network namespace: equal states mean that no rule came or went in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Transactions of nftables so far, those of the nft flavour of iptables among them; `None` without nftables.
    nft: Option<u32>,
    legacy: Vec<Option<TableInfo>>,
}

/// `struct ipt_getinfo`, `struct ip6t_getinfo`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TableInfo {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}

impl Generation {
    /// Reads it. `legacy`: families whose `tables` are in use in the legacy flavour; asking for others would make them.
    pub fn read(legacy: &[Family], tables: &[&str]) -> Result<Self> {
        let of = |family: &Family| tables.iter().map(|table| table_info(*family, table).ok()).collect::<Vec<_>>();
        Ok(Self { nft: transactions()?, legacy: legacy.iter().flat_map(of).collect() })
    }

    /// Whether this is `before` and one transaction of nftables.
    pub fn follows(&self, before: &Generation) -> bool {
        self.nft.map(|n| n.wrapping_sub(1)) == before.nft && self.legacy == before.legacy
    }
}

/// Whether a table of nftables has this chain; without a family, one of the family `inet`.
pub fn has_chain(family: Option<Family>, table: &str, chain: &str) -> Result<bool> {
    let family = match family {
        None => NFPROTO_INET,
        Some(Family::V4) => NFPROTO_IPV4,
        Some(Family::V6) => NFPROTO_IPV6,
    };
    let mut request = request(GETCHAIN, family);
    request.attribute_text(NFTA_CHAIN_TABLE, table).attribute_text(NFTA_CHAIN_NAME, chain);
    let what = || format!("look for the chain {chain}");
    match Socket::open(Protocol::Netfilter)?.get(&mut request, |_, _| Some(())) {
        Ok(found) => Ok(!found.is_empty()),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error).context(what),
    }
}

/// `struct nfgenmsg` follows the header.
pub(crate) fn request(kind: u16, family: u8) -> Request {
    let mut request = Request::new(kind, 0);
    request.u8(family).zeros(3);
    request
}

fn transactions() -> Result<Option<u32>> {
    let number = |_, body: &[u8]| Attributes::after(body, 4).find(NFTA_GEN_ID).and_then(u32_from).map(u32::from_be);
    match Socket::open(Protocol::Netfilter)?.get(&mut request(GETGEN, 0), number) {
        Ok(found) => Ok(found.first().copied()),
        // What a kernel without nftables says.
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT)) => {
            Ok(None)
        }
        Err(error) => Err(error).context(|| "ask for the generation of nftables"),
    }
}

fn table_info(family: Family, table: &str) -> Result<TableInfo> {
    let what = || format!("ask for the {family} table {table}");
    let (domain, level) = match family {
        Family::V4 => (libc::AF_INET, libc::IPPROTO_IP),
        Family::V6 => (libc::AF_INET6, libc::IPPROTO_IPV6),
    };
    let socket = sys::socket(domain, libc::SOCK_DGRAM, 0).context(what)?;
    // SAFETY: all octets of the structure may be zero.
    let mut info: TableInfo = unsafe { mem::zeroed() };
    for (place, byte) in info.name.iter_mut().zip(table.bytes().take(31)) {
        *place = byte;
    }
    let mut length = mem::size_of::<TableInfo>() as socklen_t;
    let place = (&raw mut info).cast::<c_void>();
    // SAFETY: the kernel writes no more than `length` octets to `place`, which has as many.
    sys::check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, place, &raw mut length) })
        .context(what)?;
    Ok(info)
}
