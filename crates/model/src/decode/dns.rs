//! The part of a configuration that is about names.

use std::net::IpAddr;

use crate::dns::{Dns, NameServer, Stub, is_domain};
use crate::reader::{Reader, Result};

/// More addresses or servers are of no use.
const MANY: usize = 8;

pub(super) fn dns(r: &Reader<'_>) -> Result<Dns> {
    let addresses = r.optional("addresses")?.map(|list| few(&list, own_address)).transpose()?;
    Ok(Dns {
        addresses: addresses.unwrap_or_else(|| Dns::ADDRESSES.into()),
        zone: r.optional("zone")?.map_or_else(|| Ok(Dns::ZONE.to_owned()), |zone| domain(&zone))?,
        networks: r.list_or_empty("networks", Reader::prefix)?,
        upstreams: r.list_or_empty("upstreams", server)?,
        authorities: r.optional("authorities")?.map(|text| text.string()).transpose()?.unwrap_or_default(),
        stubs: r.list_or_empty("stubs", stub)?,
    })
}

fn stub(r: &Reader<'_>) -> Result<Stub> {
    Ok(Stub { zone: domain(&r.field("zone")?)?, upstreams: few(&r.field("upstreams")?, server)? })
}

/// One at least.
fn few<'a, T>(r: &Reader<'a>, item: impl Fn(&Reader<'a>) -> Result<T>) -> Result<Vec<T>> {
    let list = r.list(item)?;
    if (1..=MANY).contains(&list.len()) { Ok(list) } else { r.error(format!("must hold 1 to {MANY}")) }
}

fn own_address(r: &Reader<'_>) -> Result<IpAddr> {
    let address = r.address()?;
    let scoped = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || scoped {
        return r.error(format!("{address} is not an address that pods can ask"));
    }
    Ok(address)
}

fn server(r: &Reader<'_>) -> Result<NameServer> {
    let text = r.string()?;
    text.parse().or_else(|_| r.error(format!("\"{text}\" is no address, with or without a port")))
}

fn domain(r: &Reader<'_>) -> Result<String> {
    let text = r.string()?;
    if is_domain(&text) { Ok(text.to_ascii_lowercase()) } else { r.error(format!("\"{text}\" is no domain")) }
}
