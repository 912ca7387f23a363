//! What a client asks of the keeper.

use super::wire::{Malformed, Reader, Result, Writer};
use selvedge_esp::{PeerPrefixes, Suite};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use zeroize::Zeroizing;

/// From client to keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The first message; answered by [`Welcome`](super::Welcome). Of equal versions it makes the sender the client
    /// in place of an older one.
    Hello {
        /// The client's version.
        version: u16,
    },
    /// End the process: sockets, TUN device and Security Associations go.
    Stop,
    /// The peers and their prefixes, in place of those before (see [`selvedge_esp::SaTable::set_peers`]).
    SetPeers {
        /// Neighbours with the same number are one peer.
        peers: Vec<PeerPrefixes>,
        /// The list goes on in the next such message and counts when it is complete.
        more: bool,
    },
    /// Add a pair of Security Associations.
    Install(Install),
    /// Send the peer's traffic on this pair.
    UseOutbound {
        /// The peer.
        peer: u32,
        /// Inbound SPI of the pair.
        spi_in: u32,
    },
    /// Stop receiving on this SPI.
    RemoveInbound {
        /// The SPI.
        spi_in: u32,
    },
    /// Stop sending on this pair.
    RemoveOutbound {
        /// Inbound SPI of the pair.
        spi_in: u32,
    },
    /// Send an IKE datagram.
    SendIke(SendIke),
    /// Answered by [`Report::SaList`](super::Report::SaList).
    List,
    /// Answered by [`Report::Counters`](super::Report::Counters).
    Counters,
    /// Answered, once, by [`Report::Counters`](super::Report::Counters) two seconds after a packet of a tunnel went
    /// through, so that nobody has to wake up to find that none did.
    CountersAfterTraffic,
    /// Where to send NAT keepalives (RFC 3948 section 2.3), in place of those before.
    SetKeepalives {
        /// One for each remote address.
        keepalives: Vec<Keepalive>,
        /// The list goes on in the next such message and counts when it is complete.
        more: bool,
    },
}

/// A pair of Security Associations and its keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Install {
    /// The peer at the other end.
    pub peer: u32,
    /// The SPI chosen here.
    pub spi_in: u32,
    /// The SPI the peer chose.
    pub spi_out: u32,
    /// The cipher of both directions.
    pub suite: Suite,
    /// Key and salt of what the peer sends.
    pub key_in: Zeroizing<Vec<u8>>,
    /// Key and salt of what is sent to it.
    pub key_out: Zeroizing<Vec<u8>>,
    /// Where to send from.
    pub local: SocketAddr,
    /// Where to send to.
    pub remote: SocketAddr,
    /// Whether to send on it at once.
    pub send: bool,
}

impl fmt::Debug for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Install")
            .field("peer", &self.peer)
            .field("spi_in", &self.spi_in)
            .field("spi_out", &self.spi_out)
            .field("suite", &self.suite)
            .field("local", &self.local)
            .field("remote", &self.remote)
            .field("send", &self.send)
            .finish_non_exhaustive()
    }
}

/// An IKE datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendIke {
    /// Own address to send from; `None`: the kernel chooses.
    pub local: Option<IpAddr>,
    /// Own port to send from.
    pub local_port: u16,
    /// Where to.
    pub remote: SocketAddr,
    /// Whether to put the non-ESP marker (RFC 3948 section 2.2) before it.
    pub marker: bool,
    /// The IKE message.
    pub payload: Vec<u8>,
}

/// A NAT mapping to keep open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Where to.
    pub remote: SocketAddr,
    /// Own address to send from; `None`: the kernel chooses.
    pub local: Option<IpAddr>,
    /// Seconds of silence after which one is sent.
    pub interval_s: u16,
}

impl Request {
    /// The message's bytes; wiped on drop.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Writer::new(self.kind(), 256);
        match self {
            Request::Hello { version } => out.u16(*version),
            Request::Stop | Request::List | Request::Counters | Request::CountersAfterTraffic => {}
            Request::SetPeers { peers, more } => {
                out.bool(*more);
                out.list(peers, |out, peer| {
                    out.u32(peer.id);
                    out.list(&peer.prefixes, |out, prefix| out.prefix(*prefix));
                });
            }
            Request::Install(install) => {
                out.u32(install.peer);
                out.u32(install.spi_in);
                out.u32(install.spi_out);
                out.u8(match install.suite {
                    Suite::Aes128Gcm => 0,
                    Suite::Aes256Gcm => 1,
                    Suite::ChaCha20Poly1305 => 2,
                });
                out.bytes(&install.key_in);
                out.bytes(&install.key_out);
                out.socket(install.local);
                out.socket(install.remote);
                out.bool(install.send);
            }
            Request::UseOutbound { peer, spi_in } => {
                out.u32(*peer);
                out.u32(*spi_in);
            }
            Request::RemoveInbound { spi_in } | Request::RemoveOutbound { spi_in } => out.u32(*spi_in),
            Request::SendIke(send) => {
                out.option(send.local, Writer::ip);
                out.u16(send.local_port);
                out.socket(send.remote);
                out.bool(send.marker);
                out.bytes(&send.payload);
            }
            Request::SetKeepalives { keepalives, more } => {
                out.bool(*more);
                out.list(keepalives, |out, keepalive| {
                    out.socket(keepalive.remote);
                    out.option(keepalive.local, Writer::ip);
                    out.u16(keepalive.interval_s);
                });
            }
        }
        out.0
    }

    /// Reads a message.
    pub fn decode(message: &[u8]) -> Result<Self> {
        let mut from = Reader(message);
        let request = match from.u8()? {
            1 => {
                // Later versions may add to it.
                let version = from.u16()?;
                from.0 = &[];
                Request::Hello { version }
            }
            2 => Request::Stop,
            3 => Request::SetPeers {
                more: from.bool()?,
                peers: from.list(|from| Ok(PeerPrefixes { id: from.u32()?, prefixes: from.list(Reader::prefix)? }))?,
            },
            4 => Request::Install(Install {
                peer: from.u32()?,
                spi_in: from.u32()?,
                spi_out: from.u32()?,
                suite: match from.u8()? {
                    0 => Suite::Aes128Gcm,
                    1 => Suite::Aes256Gcm,
                    2 => Suite::ChaCha20Poly1305,
                    _ => return Err(Malformed("unknown suite")),
                },
                key_in: Zeroizing::new(from.bytes()?.to_vec()),
                key_out: Zeroizing::new(from.bytes()?.to_vec()),
                local: from.socket()?,
                remote: from.socket()?,
                send: from.bool()?,
            }),
            5 => Request::UseOutbound { peer: from.u32()?, spi_in: from.u32()? },
            6 => Request::RemoveInbound { spi_in: from.u32()? },
            7 => Request::RemoveOutbound { spi_in: from.u32()? },
            8 => Request::SendIke(SendIke {
                local: from.option(Reader::ip)?,
                local_port: from.u16()?,
                remote: from.socket()?,
                marker: from.bool()?,
                payload: from.bytes()?.to_vec(),
            }),
            9 => Request::List,
            10 => Request::Counters,
            11 => Request::SetKeepalives {
                more: from.bool()?,
                keepalives: from.list(|from| {
                    Ok(Keepalive { remote: from.socket()?, local: from.option(Reader::ip)?, interval_s: from.u16()? })
                })?,
            },
            12 => Request::CountersAfterTraffic,
            _ => return Err(Malformed("unknown request")),
        };
        from.end()?;
        Ok(request)
    }

    fn kind(&self) -> u8 {
        match self {
            Request::Hello { .. } => 1,
            Request::Stop => 2,
            Request::SetPeers { .. } => 3,
            Request::Install(_) => 4,
            Request::UseOutbound { .. } => 5,
            Request::RemoveInbound { .. } => 6,
            Request::RemoveOutbound { .. } => 7,
            Request::SendIke(_) => 8,
            Request::List => 9,
            Request::Counters => 10,
            Request::SetKeepalives { .. } => 11,
            Request::CountersAfterTraffic => 12,
        }
    }
}
