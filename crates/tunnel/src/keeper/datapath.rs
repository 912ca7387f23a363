//! ESP in user space: packets from the TUN device to UDP and back, with buffers made once.

use super::Options;
use super::outbox::Outbox;
use super::ports::Ports;
use selvedge_esp::offload::{Coalescer, FEATURES, Segments, VNET_HEADER};
use selvedge_esp::{DropReason, SaTable};
use selvedge_linux::netlink::{Protocol, Socket};
use selvedge_linux::{BATCH, Batch, Context, Error, Result};
use selvedge_linux::{link, sysctl, tun};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

/// Frames read from the device before the other direction has its turn.
const FRAMES: usize = 64;

pub(super) struct Datapath {
    pub(super) table: SaTable,
    pub(super) tun: tun::Tun,
    /// The same device, for gathering writes.
    writer: File,
    frame: Vec<u8>,
    pub(super) outbox: Outbox,
    /// A packet of a tunnel went through since this was last put back.
    pub(super) moved: bool,
    /// Which part of which datagram is an inner packet.
    opened: Vec<(usize, std::ops::Range<usize>)>,
}

/// A datagram on the encapsulation port that is no ESP.
pub(super) struct NotEsp<'a> {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// The IKE message.
    pub(super) payload: &'a [u8],
}

impl Datapath {
    pub(super) fn open(options: &Options) -> Result<Self> {
        let tun = tun::Tun::open(&options.tun, tun::Options { persist: false, vnet_header: true })?;
        if let Err(error) = tun.set_offload(FEATURES) {
            log::info!("packets come one by one: {error}");
        }
        let mut netlink = Socket::open(Protocol::Route)?;
        let device = link::by_name(&mut netlink, &options.tun)?;
        let device = device.ok_or_else(|| Error::new(format!("TUN device {} has vanished", options.tun)))?;
        link::set_mtu(&mut netlink, device.index, options.mtu.into())?;
        // No link-local address: nobody is there to be solicited, and each solicitation wakes the CPU.
        let _ = sysctl::set(&format!("net/ipv6/conf/{}/addr_gen_mode", options.tun), "1");
        link::set_up(&mut netlink, device.index)?;
        let writer = tun.as_fd().try_clone_to_owned().context(|| "open the TUN device twice")?;
        Ok(Datapath {
            table: SaTable::default(),
            tun,
            writer: writer.into(),
            frame: vec![0; VNET_HEADER + 65_535],
            outbox: Outbox::new(),
            moved: false,
            opened: Vec::with_capacity(1024),
        })
    }

    /// Moves what the device has, as much as the outbox takes, to the sockets. To be called with an empty outbox: so a
    /// full socket holds the device back, and with it the programs that send.
    ///
    /// An error means that there is no device any more.
    pub(super) fn pump_out(&mut self, now: Duration, ports: &Ports) -> io::Result<()> {
        for _ in 0..FRAMES {
            if self.outbox.is_half_full() {
                break;
            }
            match self.tun.recv(&mut self.frame) {
                Ok(len) => self.seal_frame(now, ports, len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.flush(ports);
        Ok(())
    }

    /// Sends what waits; false if some still does.
    pub(super) fn flush(&mut self, ports: &Ports) -> bool {
        flush(&mut self.outbox, &mut self.table, ports)
    }

    fn seal_frame(&mut self, now: Duration, ports: &Ports, len: usize) {
        let Some(mut segments) = Segments::new(&self.frame[..len]) else {
            return self.table.count_drops(DropReason::NotIp, 1);
        };
        let Ok(route) = self.table.route(segments.packet()) else { return };
        let Some(port) = ports.encap_towards(route.remote) else {
            return self.table.count_drops(DropReason::NotSent, 1);
        };
        let gso = ports.open[port].gso;
        while let Some(len) = segments.next_len() {
            if self.outbox.room(len).is_none() {
                flush(&mut self.outbox, &mut self.table, ports);
            }
            let Some(room) = self.outbox.room(len) else { return self.table.count_drops(DropReason::NotSent, 1) };
            let (_, inner) = room.split_at_mut(selvedge_esp::HEADROOM);
            if segments.write_next(inner).is_none() {
                return;
            }
            match self.table.seal(now, &route, room, len) {
                Ok(sealed) => {
                    self.moved = true;
                    self.outbox.commit(port, gso, &route, sealed);
                }
                Err(_) => return,
            }
        }
    }

    /// Moves what was received on the encapsulation port `number` to the device; hands what is no ESP to `other`.
    pub(super) fn receive(&mut self, now: Duration, number: u16, batch: &mut Batch, mut other: impl FnMut(NotEsp<'_>)) {
        self.opened.clear();
        let mut buffers: [&[u8]; BATCH] = [&[]; BATCH];
        for (index, datagram) in batch.datagrams().enumerate().take(BATCH) {
            let (remote, local) = (datagram.remote, SocketAddr::new(datagram.local, number));
            let size = datagram.segment.map_or(datagram.payload.len(), usize::from).max(1);
            for (nth, packet) in datagram.payload.chunks_mut(size).enumerate() {
                match packet {
                    [0, 0, 0, 0, payload @ ..] => other(NotEsp { local, remote, payload }),
                    [0xff] => {}
                    _ => {
                        if let Ok(opened) = self.table.open(now, remote, packet) {
                            let start = nth * size;
                            self.opened.push((index, start + opened.inner.start..start + opened.inner.end));
                        }
                    }
                }
            }
            buffers[index] = datagram.payload;
        }

        self.moved |= !self.opened.is_empty();
        let (mut writer, mut refused) = (&self.writer, 0);
        let mut coalescer = Coalescer::new(|pieces: &[IoSlice<'_>]| {
            if retry(|| writer.write_vectored(pieces)).is_err() {
                refused += 1;
            }
        });
        for (index, range) in &self.opened {
            coalescer.push(&buffers[*index][range.clone()]);
        }
        coalescer.flush();
        self.table.count_drops(DropReason::NotTaken, refused);
    }
}

fn flush(outbox: &mut Outbox, table: &mut SaTable, ports: &Ports) -> bool {
    let mut lost = 0;
    let done = outbox.flush(ports, &mut lost);
    table.count_drops(DropReason::NotSent, lost);
    done
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
