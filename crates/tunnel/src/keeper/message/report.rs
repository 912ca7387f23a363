//! What the keeper tells its client.

use super::VERSION;
use super::wire::{Malformed, Reader, Result, Writer};
use crate::keeper::Mode;
use selvedge_esp::{DropReason, Drops, Event, PairStatus, PeerStatus, Traffic};
use std::net::SocketAddr;
use std::time::Duration;

/// From keeper to client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The answer to [`Request::Hello`](super::Request::Hello).
    Welcome(Welcome),
    /// An IKE datagram came.
    Ike(Ike),
    /// Authentic ESP came from a new address, or an SPI is unknown, or a pair is nearly used up.
    Esp(Event),
    /// The pairs of Security Associations.
    SaList {
        /// Ordered by inbound SPI; ages in whole seconds.
        pairs: Vec<PairStatus>,
        /// The list goes on in the next such message.
        more: bool,
    },
    /// What was dropped, and what each peer sent and received.
    Counters {
        /// Drops that belong to no peer.
        drops: Drops,
        /// Ordered by number.
        peers: Vec<PeerStatus>,
        /// The list of peers goes on in the next such message.
        more: bool,
    },
    /// A request could not be carried out.
    Refused {
        /// Which and why, in words.
        reason: String,
    },
}

/// What the keeper is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its version of the protocol. If it is another, nothing below is known.
    pub version: u16,
    /// Who carries ESP.
    pub mode: Mode,
    /// Its process.
    pub pid: u32,
    /// Its UDP ports.
    pub ports: Vec<PortState>,
    /// Why there is no TUN device although the mode wants one.
    pub tun_problem: Option<String>,
}

/// A UDP port of the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortState {
    /// Its number.
    pub port: u16,
    /// Bound on IPv6, else on IPv4.
    pub v6: bool,
    /// Whether it is bound.
    pub bound: bool,
    /// What went wrong with it.
    pub problem: Option<String>,
}

/// An IKE datagram, without the non-ESP marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ike {
    /// Own address and port it came to.
    pub local: SocketAddr,
    /// Where it came from.
    pub remote: SocketAddr,
    /// The IKE message.
    pub payload: Vec<u8>,
}

impl Report {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(self.kind(), 64);
        match self {
            Report::Welcome(welcome) => {
                out.u16(welcome.version);
                out.u8(match welcome.mode {
                    Mode::Kernel => 0,
                    Mode::User => 1,
                });
                out.u32(welcome.pid);
                out.list(&welcome.ports, |out, port| {
                    out.u16(port.port);
                    out.bool(port.v6);
                    out.bool(port.bound);
                    out.option(port.problem.as_deref().map(str::as_bytes), Writer::bytes);
                });
                out.option(welcome.tun_problem.as_deref().map(str::as_bytes), Writer::bytes);
            }
            Report::Ike(ike) => {
                out.socket(ike.local);
                out.socket(ike.remote);
                out.bytes(&ike.payload);
            }
            Report::Esp(Event::Moved { peer, spi_in, remote }) => {
                out.u32(*peer);
                out.u32(*spi_in);
                out.socket(*remote);
            }
            Report::Esp(Event::UnknownSpi { spi, remote }) => {
                out.u32(*spi);
                out.socket(*remote);
            }
            Report::Esp(Event::SoftLimit { peer, spi_in }) => {
                out.u32(*peer);
                out.u32(*spi_in);
            }
            Report::SaList { pairs, more } => {
                out.bool(*more);
                out.list(pairs, write_pair);
            }
            Report::Counters { drops, peers, more } => {
                out.bool(*more);
                write_drops(&mut out, drops);
                out.list(peers, write_peer);
            }
            Report::Refused { reason } => out.bytes(reason.as_bytes()),
        }
        std::mem::take(&mut *out.0)
    }

    /// Reads a message.
    pub fn decode(message: &[u8]) -> Result<Self> {
        let mut from = Reader(message);
        let report = match from.u8()? {
            1 => {
                let version = from.u16()?;
                if version != VERSION {
                    let unknown = Welcome { version, mode: Mode::Kernel, pid: 0, ports: vec![], tun_problem: None };
                    return Ok(Report::Welcome(unknown));
                }
                Report::Welcome(Welcome {
                    version,
                    mode: match from.u8()? {
                        0 => Mode::Kernel,
                        1 => Mode::User,
                        _ => return Err(Malformed("unknown mode")),
                    },
                    pid: from.u32()?,
                    ports: from.list(|from| {
                        Ok(PortState {
                            port: from.u16()?,
                            v6: from.bool()?,
                            bound: from.bool()?,
                            problem: from.option(Reader::text)?,
                        })
                    })?,
                    tun_problem: from.option(Reader::text)?,
                })
            }
            2 => Report::Ike(Ike { local: from.socket()?, remote: from.socket()?, payload: from.bytes()?.to_vec() }),
            3 => Report::Esp(Event::Moved { peer: from.u32()?, spi_in: from.u32()?, remote: from.socket()? }),
            4 => Report::Esp(Event::UnknownSpi { spi: from.u32()?, remote: from.socket()? }),
            5 => Report::Esp(Event::SoftLimit { peer: from.u32()?, spi_in: from.u32()? }),
            6 => Report::SaList { more: from.bool()?, pairs: from.list(read_pair)? },
            7 => Report::Counters { more: from.bool()?, drops: read_drops(&mut from)?, peers: from.list(read_peer)? },
            8 => Report::Refused { reason: from.text()? },
            _ => return Err(Malformed("unknown report")),
        };
        from.end()?;
        Ok(report)
    }

    fn kind(&self) -> u8 {
        match self {
            Report::Welcome(_) => 1,
            Report::Ike(_) => 2,
            Report::Esp(Event::Moved { .. }) => 3,
            Report::Esp(Event::UnknownSpi { .. }) => 4,
            Report::Esp(Event::SoftLimit { .. }) => 5,
            Report::SaList { .. } => 6,
            Report::Counters { .. } => 7,
            Report::Refused { .. } => 8,
        }
    }
}

fn write_pair(out: &mut Writer, pair: &PairStatus) {
    out.u32(pair.peer);
    out.u32(pair.spi_in);
    out.u32(pair.spi_out);
    out.socket(pair.local);
    out.socket(pair.remote);
    out.u64(pair.age.as_secs());
    out.bool(pair.receiving);
    out.bool(pair.sending);
    write_traffic(out, pair.received);
    write_traffic(out, pair.sent);
}

fn read_pair(from: &mut Reader<'_>) -> Result<PairStatus> {
    Ok(PairStatus {
        peer: from.u32()?,
        spi_in: from.u32()?,
        spi_out: from.u32()?,
        local: from.socket()?,
        remote: from.socket()?,
        age: Duration::from_secs(from.u64()?),
        receiving: from.bool()?,
        sending: from.bool()?,
        received: read_traffic(from)?,
        sent: read_traffic(from)?,
    })
}

fn write_peer(out: &mut Writer, peer: &PeerStatus) {
    out.u32(peer.id);
    out.option(peer.outbound, Writer::u32);
    write_traffic(out, peer.received);
    write_traffic(out, peer.sent);
    write_drops(out, &peer.drops);
}

fn read_peer(from: &mut Reader<'_>) -> Result<PeerStatus> {
    Ok(PeerStatus {
        id: from.u32()?,
        outbound: from.option(Reader::u32)?,
        received: read_traffic(from)?,
        sent: read_traffic(from)?,
        drops: read_drops(from)?,
    })
}

fn write_traffic(out: &mut Writer, traffic: Traffic) {
    out.u64(traffic.packets);
    out.u64(traffic.bytes);
}

fn read_traffic(from: &mut Reader<'_>) -> Result<Traffic> {
    Ok(Traffic { packets: from.u64()?, bytes: from.u64()? })
}

fn write_drops(out: &mut Writer, drops: &Drops) {
    let happened: Vec<_> = drops.iter().collect();
    out.list(&happened, |out, (reason, count)| {
        out.u8(*reason as u8);
        out.u64(*count);
    });
}

fn read_drops(from: &mut Reader<'_>) -> Result<Drops> {
    let happened = from.list(|from| {
        let reason = usize::from(from.u8()?);
        Ok((*DropReason::ALL.get(reason).ok_or(Malformed("unknown drop reason"))?, from.u64()?))
    })?;
    Ok(happened.into_iter().collect())
}
