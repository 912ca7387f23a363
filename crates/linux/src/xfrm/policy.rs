//! Policies: which packets go through a tunnel, and which may come out of one.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::layout::{POLICY_INFO, UNLIMITED, put_address, put_id, put_selector, read_address, selector};
use crate::Family;
use crate::error::{Context, Result};
use crate::netlink::{Attributes, Reader, Request, Socket};

/// Octets of `struct xfrm_userpolicy_info`.
pub(crate) const POLICY_INFO_LEN: usize = POLICY_INFO;

const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_DELPOLICY: u16 = 0x14;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_MSG_UPDPOLICY: u16 = 0x19;

const XFRMA_TMPL: u16 = 5;
const XFRMA_MARK: u16 = 21;
const XFRMA_IF_ID: u16 = 31;
/// Octets of `struct xfrm_user_tmpl`.
const TEMPLATE: usize = 64;
const XFRM_MODE_TUNNEL: u8 = 1;

/// A policy. The kernel knows it by direction and selectors.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Policy {
    /// Where packets come from.
    pub src: IpNet,
    /// Where they go to; of the same family.
    pub dst: IpNet,
    /// When it is asked.
    pub direction: Direction,
    /// The lowest of the matching ones decides.
    pub priority: u32,
    /// What happens.
    pub action: Action,
    /// The tunnel that packets must go through, or must have come through.
    pub template: Option<Template>,
}

/// Which packets a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To this machine.
    In = 0,
    /// From this machine, and forwarded ones as they leave.
    Out = 1,
    /// Forwarded, as they come.
    Forward = 2,
}

/// What a policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Lets packets pass: through the tunnel of the template, or in clear without one.
    Allow = 0,
    /// Drops them.
    Block = 1,
}

/// A tunnel: ESP in tunnel mode between two outer addresses, which may be of another family than the selectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Template {
    /// The outer source.
    pub src: IpAddr,
    /// The outer destination.
    pub dst: IpAddr,
    /// Only SAs with this reqid.
    pub reqid: u32,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Forward => "fwd",
        };
        write!(f, "{direction} {} to {}", self.src, self.dst)
    }
}

/// Adds a policy. One with the same direction and selectors gives `EEXIST`.
pub fn add(socket: &mut Socket, policy: &Policy) -> Result<()> {
    socket.request(&mut encode(XFRM_MSG_NEWPOLICY, policy)).context(|| format!("add policy {policy}"))
}

/// Sets a policy, in place of one with the same direction and selectors.
pub fn update(socket: &mut Socket, policy: &Policy) -> Result<()> {
    socket.request(&mut encode(XFRM_MSG_UPDPOLICY, policy)).context(|| format!("set policy {policy}"))
}

/// Removes the policy with this direction and these selectors. Returns whether it was there.
pub fn delete(socket: &mut Socket, policy: &Policy) -> Result<bool> {
    // struct xfrm_userpolicy_id
    let mut request = Request::new(XFRM_MSG_DELPOLICY, 0);
    put_selector(&mut request, policy.src, policy.dst);
    request.u32(0).u8(policy.direction as u8).zeros(3);
    match socket.request(&mut request) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e.context(format!("delete policy {policy}"))),
    }
}

/// All policies that select by source and destination alone, whoever made them; not those of single sockets, nor
/// those with a mark or an interface.
pub fn list(socket: &mut Socket) -> Result<Vec<Policy>> {
    socket.dump(&mut Request::new(XFRM_MSG_GETPOLICY, 0), decode).context(|| "list policies")
}

/// Removes all policies whose template has a reqid in the range. Returns how many there were.
pub fn flush(socket: &mut Socket, reqids: RangeInclusive<u32>) -> Result<usize> {
    let mut count = 0;
    for policy in list(socket)?.iter().filter(|p| p.template.is_some_and(|t| reqids.contains(&t.reqid))) {
        count += usize::from(delete(socket, policy)?);
    }
    Ok(count)
}

/// `struct xfrm_userpolicy_info` of a policy that lets everything of this family pass in clear.
pub(crate) fn bypass_policy(family: Family, direction: Direction) -> [u8; POLICY_INFO_LEN] {
    let all = match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    };
    let policy = Policy { src: all, dst: all, direction, priority: 0, action: Action::Allow, template: None };
    let mut octets = [0; POLICY_INFO_LEN];
    octets.iter_mut().zip(encode(XFRM_MSG_NEWPOLICY, &policy).body()).for_each(|(to, from)| *to = *from);
    octets
}

fn encode(kind: u16, policy: &Policy) -> Request {
    let mut request = Request::new(kind, 0);
    // struct xfrm_userpolicy_info
    put_selector(&mut request, policy.src, policy.dst);
    for _ in 0..4 {
        request.u64(UNLIMITED);
    }
    request.zeros(32 + 32).u32(policy.priority).u32(0);
    request.u8(policy.direction as u8).u8(policy.action as u8).zeros(2 + 4);
    if let Some(template) = policy.template {
        request.wrap(XFRMA_TMPL, |r| {
            put_id(r, template.dst, 0);
            r.u16(Family::of(template.dst).raw().into()).zeros(2);
            put_address(r, template.src);
            r.u32(template.reqid).u8(XFRM_MODE_TUNNEL).zeros(3).u32(u32::MAX).u32(u32::MAX).u32(u32::MAX);
        });
    }
    request
}

fn decode(kind: u16, body: &[u8]) -> Option<Policy> {
    if kind != XFRM_MSG_NEWPOLICY {
        return None;
    }
    let mut fields = Reader(body.get(..POLICY_INFO)?);
    let (src, dst) = selector(&mut fields)?;
    fields.take(64 + 32)?;
    let (priority, _index, direction, action) = (fields.u32()?, fields.u32()?, fields.u8()?, fields.u8()?);
    let attributes = Attributes::after(body, POLICY_INFO);
    if attributes.find(XFRMA_MARK).is_some() || attributes.find(XFRMA_IF_ID).is_some() {
        return None;
    }
    let template = match attributes.find(XFRMA_TMPL) {
        Some(value) => Some(decode_template(value)?),
        None => None,
    };
    Some(Policy {
        src,
        dst,
        direction: [Direction::In, Direction::Out, Direction::Forward].into_iter().find(|d| *d as u8 == direction)?,
        priority,
        action: if action == Action::Allow as u8 { Action::Allow } else { Action::Block },
        template,
    })
}

/// The first template.
fn decode_template(value: &[u8]) -> Option<Template> {
    let mut fields = Reader(value.get(..TEMPLATE)?);
    let dst: [u8; 16] = fields.take(16)?.try_into().ok()?;
    fields.take(8)?;
    let family = Family::from_raw(u8::try_from(fields.u16()?).ok()?)?;
    fields.take(2)?;
    let src: [u8; 16] = fields.take(16)?.try_into().ok()?;
    Some(Template { src: read_address(src, family), dst: read_address(dst, family), reqid: fields.u32()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            src: "10.1.0.0/24".parse().unwrap(),
            dst: "10.2.0.0/16".parse().unwrap(),
            direction: Direction::Out,
            priority: 1234,
            action: Action::Allow,
            template: Some(Template {
                src: "192.0.2.1".parse().unwrap(),
                dst: "192.0.2.2".parse().unwrap(),
                reqid: 0x5e00_0001,
            }),
        }
    }

    #[test]
    fn fields_are_where_the_header_has_them() {
        let request = encode(XFRM_MSG_NEWPOLICY, &policy());
        let body = request.body();
        assert_eq!((&body[..4], &body[16..20]), (&[10, 2, 0, 0][..], &[10, 1, 0, 0][..]));
        assert_eq!(body[40..45], [&2u16.to_ne_bytes()[..], &[16, 24, 0]].concat());
        assert_eq!(body[152..156], 1234u32.to_ne_bytes());
        assert_eq!(body[160..168], [1, 0, 0, 0, 0, 0, 0, 0]);
        let template = Attributes::after(body, POLICY_INFO).find(XFRMA_TMPL).unwrap();
        assert_eq!((template.len(), template[20]), (TEMPLATE, 50));
        assert_eq!(template[24..26], 2u16.to_ne_bytes());
        assert_eq!(template[28..32], [192, 0, 2, 1]);
        assert_eq!(template[44..48], 0x5e00_0001u32.to_ne_bytes());
        assert_eq!(template[48..64], [&[1, 0, 0, 0][..], &[0xff; 12]].concat());
    }

    #[test]
    fn round_trip() {
        let outer6 = Template { src: "2001:db8::1".parse().unwrap(), dst: "2001:db8::2".parse().unwrap(), reqid: 7 };
        let inner6 = Policy { src: "fd00::/64".parse().unwrap(), dst: "fd00:1::/48".parse().unwrap(), ..policy() };
        for policy in [
            policy(),
            Policy { template: Some(outer6), direction: Direction::Forward, ..policy() },
            Policy { template: None, action: Action::Block, direction: Direction::In, ..policy() },
            inner6,
        ] {
            assert_eq!(decode(XFRM_MSG_NEWPOLICY, encode(XFRM_MSG_NEWPOLICY, &policy).body()), Some(policy));
        }
    }

    #[test]
    fn those_that_say_more_are_not_listed() {
        let request = encode(XFRM_MSG_NEWPOLICY, &policy());
        for (at, value) in [(44, 17), (32, 1), (48, 1), (52, 1), (160, 3)] {
            let mut body = request.body().to_vec();
            body[at] = value;
            assert_eq!(decode(XFRM_MSG_NEWPOLICY, &body), None, "octet {at}");
        }
        let mut marked = encode(XFRM_MSG_NEWPOLICY, &policy());
        marked.attribute(XFRMA_MARK, &[0; 8]);
        assert_eq!(decode(XFRM_MSG_NEWPOLICY, marked.body()), None);
        for len in 0..POLICY_INFO {
            assert_eq!(decode(XFRM_MSG_NEWPOLICY, &request.body()[..len]), None);
        }
    }

    #[test]
    fn bypass_has_no_template() {
        let octets = bypass_policy(Family::V6, Direction::Out);
        let policy = decode(XFRM_MSG_NEWPOLICY, &octets).unwrap();
        assert_eq!((policy.src.to_string().as_str(), policy.action, policy.template), ("::/0", Action::Allow, None));
    }
}
