//! Which IKE SA a datagram is for, and answers to those that are for none (RFC 7296 sections 2.6, 2.21.4 and 2.5).

use std::net::SocketAddr;

use crate::config::{Now, PeerId};
use crate::endpoint::Endpoint;
use crate::messages::Datagram;
use crate::path::Path;
use crate::sa_init::{self, Admission};
use crate::wire::{Chain, Exchange, HEADER_LEN, Header, WireError, notify, payload};

/// The version field follows both SPIs and the next payload.
const VERSION_AT: usize = 17;

impl Endpoint {
    pub(crate) fn dispatch(&mut self, now: Now, local: SocketAddr, remote: SocketAddr, message: &[u8]) {
        let (header, first) = match Header::parse(message) {
            Ok(parsed) => parsed,
            Err(WireError::Version(major)) => return self.other_version(now, local, remote, message, major),
            Err(_) => return,
        };
        let datagram = Datagram { local, remote, header, first, message };
        if header.exchange == Exchange::IkeSaInit && !header.response {
            return self.on_caller(now, datagram);
        }
        let ours = if header.from_initiator { header.spi_r } else { header.spi_i };
        if self.sas.contains_key(&ours) {
            self.with_sa(now, ours, |sa, ctx| sa.handle(ctx, datagram));
        } else if first == payload::NOTIFY && header.exchange == Exchange::Informational {
            self.on_hint(now, datagram);
        } else if !header.response && !self.stopping {
            let header = Header { response: true, from_initiator: !header.from_initiator, ..header };
            self.reply(now, local, remote, header, notify::INVALID_IKE_SPI, &[]);
        }
    }

    fn on_caller(&mut self, now: Now, datagram: Datagram<'_>) {
        let header = &datagram.header;
        if header.spi_r != 0 || header.spi_i == 0 || header.message_id != 0 || !header.from_initiator || self.stopping {
            return;
        }
        if let Some(key) = self.half_open.get(&(datagram.remote, header.spi_i)).copied() {
            self.with_sa(now, key, |sa, ctx| sa_init::repeat(sa, ctx, &datagram));
            return;
        }
        if self.half_open.len() >= self.config.max_half_open {
            return;
        }
        let admission = Admission { demand_cookie: self.half_open.len() >= self.config.cookie_threshold };
        let mut jar = std::mem::take(&mut self.jar);
        let sa = sa_init::answer(&mut self.ctx(now, &mut Vec::new()), &mut jar, admission, datagram);
        self.jar = jar;
        if let Some(sa) = sa {
            let key = sa.local_spi;
            self.half_open.insert((datagram.remote, header.spi_i), key);
            self.sas.insert(key, sa);
            self.with_sa(now, key, |_, _| ());
        }
    }

    /// An unprotected INVALID_SPI: somebody at the peer's address does not know an SPI we send with.
    fn on_hint(&mut self, now: Now, datagram: Datagram<'_>) {
        let Ok(payloads) = datagram.payloads() else { return };
        let spi = payloads.notify(notify::INVALID_SPI).and_then(|notify| notify.data.try_into().ok());
        let Some(spi) = spi.map(u32::from_be_bytes) else { return };
        if self.hints.allow(now.mono) {
            let meant = self.sends_with(datagram.remote, spi);
            if let Some(peer) = meant {
                self.handle_suspicion(now, peer);
            }
        }
    }

    fn sends_with(&self, remote: SocketAddr, spi_out: u32) -> Option<PeerId> {
        self.directory.iter().find_map(|entry| {
            let sa = self.sas.get(&entry.current?)?;
            let meant = sa.path.remote.ip() == remote.ip() && sa.children.iter().any(|child| child.spi_out == spi_out);
            meant.then_some(entry.config.id)
        })
    }

    fn other_version(&mut self, now: Now, local: SocketAddr, remote: SocketAddr, message: &[u8], major: u8) {
        let mut readable = message.to_vec();
        if major <= 2 || message.len() < HEADER_LEN {
            return;
        }
        readable[VERSION_AT] = 0x20;
        if let Ok((header, _)) = Header::parse(&readable) {
            if !header.response {
                let header = Header { response: true, from_initiator: !header.from_initiator, ..header };
                self.reply(now, local, remote, header, notify::INVALID_MAJOR_VERSION, &[]);
            }
        }
    }

    /// An unprotected answer that leaves no trace, rate-limited.
    fn reply(&mut self, now: Now, local: SocketAddr, remote: SocketAddr, header: Header, kind: u16, data: &[u8]) {
        if self.replies.allow(now.mono) {
            let mut chain = Chain::new();
            chain.notify(kind, data);
            self.out.transmits.push_back(Path::answering(local, remote).transmit(None, chain.message(header)));
        }
    }
}
