//! The chain of payloads behind a header or inside the encrypted payload (RFC 7296 section 3.2).

use super::{Auth, Cert, Delete, Id, Ke, Notify, Proposal, Reader, WireError, sa, ts};
use crate::ts::TrafficSelector;

/// Payload types (RFC 7296 section 3.2).
pub(crate) mod payload {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const SA: u8 = 33;
    pub(crate) const KE: u8 = 34;
    pub(crate) const ID_I: u8 = 35;
    pub(crate) const ID_R: u8 = 36;
    pub(crate) const CERT: u8 = 37;
    pub(crate) const CERTREQ: u8 = 38;
    pub(crate) const AUTH: u8 = 39;
    pub(crate) const NONCE: u8 = 40;
    pub(crate) const NOTIFY: u8 = 41;
    pub(crate) const DELETE: u8 = 42;
    pub(crate) const VENDOR: u8 = 43;
    pub(crate) const TS_I: u8 = 44;
    pub(crate) const TS_R: u8 = 45;
    pub(crate) const SK: u8 = 46;
    pub(crate) const CP: u8 = 47;
    pub(crate) const EAP: u8 = 48;
}

/// More than any exchange of ours needs, certificates included.
const MAX_PAYLOADS: usize = 64;

/// Nonces are 16 to 256 octets (RFC 7296 section 3.9).
const NONCE_LEN: std::ops::RangeInclusive<usize> = 16..=256;

/// One payload of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    Sa(Vec<Proposal>),
    Ke(Ke<'a>),
    IdI(Id<'a>),
    IdR(Id<'a>),
    Cert(Cert<'a>),
    CertReq(Cert<'a>),
    Auth(Auth<'a>),
    Nonce(&'a [u8]),
    Notify(Notify<'a>),
    Delete(Delete),
    TsI(Vec<TrafficSelector>),
    TsR(Vec<TrafficSelector>),
    /// Known but without meaning for us (vendor id, configuration, EAP), or unknown and not critical.
    Ignored(u8),
}

/// All payloads of a chain, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Payloads<'a>(Vec<Payload<'a>>);

impl<'a> Payloads<'a> {
    /// Reads a whole chain; `first` is the type of the payload at the start of `bytes`.
    pub(crate) fn parse(first: u8, bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let mut kind = first;
        let mut payloads = Vec::new();
        while kind != payload::NONE {
            if payloads.len() == MAX_PAYLOADS {
                return Err(WireError::TooMany);
            }
            let (next, critical, body) = raw(&mut reader)?;
            payloads.push(parse(kind, critical, body)?);
            kind = next;
        }
        if reader.is_empty() { Ok(Self(payloads)) } else { Err(WireError::Length) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Payload<'a>> {
        self.0.iter()
    }

    pub(crate) fn notifies(&self) -> impl Iterator<Item = &Notify<'a>> {
        self.iter().filter_map(|p| if let Payload::Notify(notify) = p { Some(notify) } else { None })
    }

    pub(crate) fn notify(&self, kind: u16) -> Option<&Notify<'a>> {
        self.notifies().find(|notify| notify.kind == kind)
    }

    /// The first notification that reports an error (types below 16384).
    pub(crate) fn error(&self) -> Option<&Notify<'a>> {
        self.notifies().find(|notify| notify.is_error())
    }

    pub(crate) fn proposals(&self) -> Option<&[Proposal]> {
        self.iter().find_map(|p| if let Payload::Sa(proposals) = p { Some(proposals.as_slice()) } else { None })
    }

    pub(crate) fn ke(&self) -> Option<&Ke<'a>> {
        self.iter().find_map(|p| if let Payload::Ke(ke) = p { Some(ke) } else { None })
    }

    pub(crate) fn nonce(&self) -> Option<&'a [u8]> {
        self.iter().find_map(|p| if let Payload::Nonce(nonce) = p { Some(*nonce) } else { None })
    }

    pub(crate) fn auth(&self) -> Option<&Auth<'a>> {
        self.iter().find_map(|p| if let Payload::Auth(auth) = p { Some(auth) } else { None })
    }

    pub(crate) fn id_i(&self) -> Option<&Id<'a>> {
        self.iter().find_map(|p| if let Payload::IdI(id) = p { Some(id) } else { None })
    }

    pub(crate) fn id_r(&self) -> Option<&Id<'a>> {
        self.iter().find_map(|p| if let Payload::IdR(id) = p { Some(id) } else { None })
    }

    pub(crate) fn certs(&self) -> impl Iterator<Item = &Cert<'a>> {
        self.iter().filter_map(|p| if let Payload::Cert(cert) = p { Some(cert) } else { None })
    }

    pub(crate) fn ts_i(&self) -> Option<&[TrafficSelector]> {
        self.iter().find_map(|p| if let Payload::TsI(ts) = p { Some(ts.as_slice()) } else { None })
    }

    pub(crate) fn ts_r(&self) -> Option<&[TrafficSelector]> {
        self.iter().find_map(|p| if let Payload::TsR(ts) = p { Some(ts.as_slice()) } else { None })
    }
}

/// The generic payload header: type of the next payload, critical bit, body.
pub(super) fn raw<'a>(reader: &mut Reader<'a>) -> Result<(u8, bool, &'a [u8]), WireError> {
    let next = reader.u8()?;
    let critical = reader.u8()? & 0x80 != 0;
    let length = usize::from(reader.u16()?).checked_sub(4).ok_or(WireError::Length)?;
    Ok((next, critical, reader.bytes(length)?))
}

fn parse(kind: u8, critical: bool, body: &[u8]) -> Result<Payload<'_>, WireError> {
    Ok(match kind {
        payload::SA => Payload::Sa(sa::parse(body)?),
        payload::KE => Payload::Ke(Ke::parse(body)?),
        payload::ID_I => Payload::IdI(Id::parse(body)?),
        payload::ID_R => Payload::IdR(Id::parse(body)?),
        payload::CERT => Payload::Cert(Cert::parse(body)?),
        payload::CERTREQ => Payload::CertReq(Cert::parse(body)?),
        payload::AUTH => Payload::Auth(Auth::parse(body)?),
        payload::NONCE if NONCE_LEN.contains(&body.len()) => Payload::Nonce(body),
        payload::NONCE => return Err(WireError::Malformed("nonce")),
        payload::NOTIFY => Payload::Notify(Notify::parse(body)?),
        payload::DELETE => Payload::Delete(Delete::parse(body)?),
        payload::TS_I => Payload::TsI(ts::parse(body)?),
        payload::TS_R => Payload::TsR(ts::parse(body)?),
        payload::VENDOR | payload::CP | payload::EAP => Payload::Ignored(kind),
        _ if critical => return Err(WireError::UnknownCritical(kind)),
        _ => Payload::Ignored(kind),
    })
}

/// Payloads being written: the bytes of a chain and the type of its first payload.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    first: u8,
    /// Where the type of the payload to come is to be written.
    next_at: Option<usize>,
    bytes: Vec<u8>,
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Bytes as they are, however broken.
    #[cfg(test)]
    pub(crate) fn raw(first: u8, bytes: &[u8]) -> Self {
        Self { first, next_at: None, bytes: bytes.to_vec() }
    }

    pub(crate) fn first(&self) -> u8 {
        self.first
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a payload whose body is written by `body`.
    pub(crate) fn push(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        match self.next_at {
            Some(at) => self.bytes[at] = kind,
            None => self.first = kind,
        }
        let start = self.bytes.len();
        self.next_at = Some(start);
        self.bytes.extend_from_slice(&[0; 4]);
        body(&mut self.bytes);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    pub(crate) fn sa(&mut self, proposals: &[Proposal]) {
        self.push(payload::SA, |out| sa::emit(proposals, out));
    }

    pub(crate) fn ke(&mut self, ke: Ke<'_>) {
        self.push(payload::KE, |out| ke.emit(out));
    }

    pub(crate) fn nonce(&mut self, nonce: &[u8]) {
        self.push(payload::NONCE, |out| out.extend_from_slice(nonce));
    }

    pub(crate) fn cert(&mut self, kind: u8, cert: Cert<'_>) {
        self.push(kind, |out| cert.emit(out));
    }

    pub(crate) fn auth(&mut self, auth: &Auth<'_>) {
        self.push(payload::AUTH, |out| auth.emit(out));
    }

    pub(crate) fn notify(&mut self, kind: u16, data: &[u8]) {
        self.notification(Notify { data, ..Notify::new(kind) });
    }

    pub(crate) fn notification(&mut self, notify: Notify<'_>) {
        self.push(payload::NOTIFY, |out| notify.emit(out));
    }

    pub(crate) fn delete(&mut self, delete: &Delete) {
        self.push(payload::DELETE, |out| delete.emit(out));
    }

    /// Both traffic selector payloads.
    pub(crate) fn ts(&mut self, ts_i: &[TrafficSelector], ts_r: &[TrafficSelector]) {
        self.push(payload::TS_I, |out| ts::emit(ts_i, out));
        self.push(payload::TS_R, |out| ts::emit(ts_r, out));
    }

    /// The unprotected message with this chain.
    pub(crate) fn message(&self, header: super::Header) -> Vec<u8> {
        let mut out = Vec::with_capacity(super::HEADER_LEN + self.bytes.len());
        header.emit(self.first, self.bytes.len(), &mut out);
        out.extend_from_slice(&self.bytes);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_links_types_and_lengths() {
        let mut chain = Chain::new();
        chain.nonce(&[7; 16]);
        chain.notify(16390, &[1, 2]);
        let mut expected = vec![41, 0, 0, 20];
        expected.extend_from_slice(&[7; 16]);
        expected.extend_from_slice(&[0, 0, 0, 10, 0, 0, 0x40, 0x06, 1, 2]);
        assert_eq!((chain.first(), chain.bytes()), (40, expected.as_slice()));
        let parsed = Payloads::parse(chain.first(), chain.bytes()).unwrap();
        assert_eq!(parsed.nonce(), Some([7; 16].as_slice()));
        assert_eq!(parsed.notify(16390).unwrap().data, [1, 2]);
    }

    #[test]
    fn unknown_payloads_are_skipped_unless_critical() {
        assert_eq!(Payloads::parse(99, &[0, 0, 0, 5, 1]).unwrap().iter().next(), Some(&Payload::Ignored(99)));
        assert_eq!(Payloads::parse(99, &[0, 0x80, 0, 5, 1]), Err(WireError::UnknownCritical(99)));
        assert!(Payloads::parse(43, &[0, 0x80, 0, 5, 1]).is_ok());
    }

    #[test]
    fn broken_chains_are_refused() {
        assert_eq!(Payloads::parse(43, &[0, 0, 0, 3]), Err(WireError::Length));
        assert_eq!(Payloads::parse(43, &[0, 0, 0, 9, 1]), Err(WireError::Truncated));
        assert_eq!(Payloads::parse(43, &[0, 0, 0, 4, 1]), Err(WireError::Length));
        assert_eq!(Payloads::parse(43, &[43, 0, 0, 4]), Err(WireError::Truncated));
        assert_eq!(Payloads::parse(40, &[0, 0, 0, 19].repeat(5)[..19]), Err(WireError::Malformed("nonce")));
        let endless = [43, 0, 0, 4].repeat(100);
        assert_eq!(Payloads::parse(43, &endless), Err(WireError::TooMany));
    }
}
