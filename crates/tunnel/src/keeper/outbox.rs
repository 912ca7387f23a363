//! ESP packets waiting for the UDP socket: neighbours of one size to one peer go out in one piece (UDP GSO).

use super::ports::Ports;
use selvedge_esp::{HEADROOM, Route, TAILROOM};
use selvedge_linux::{BATCH, Outgoing};
use std::io;
use std::net::{IpAddr, SocketAddr};

const ARENA: usize = 192 * 1024;
const MAX_RUNS: usize = 512;
/// `UDP_MAX_SEGMENTS` of `linux/udp.h` when it was least.
const MAX_SEGMENTS: usize = 64;
/// What UDP can carry over IPv4.
const MAX_DATAGRAM: usize = 65_507;

pub(super) struct Outbox {
    arena: Vec<u8>,
    used: usize,
    runs: Vec<Run>,
    /// Runs already sent.
    sent: usize,
}

/// Packets of equal size to one place, one behind the other; the last may be shorter.
struct Run {
    start: usize,
    len: usize,
    segment: usize,
    count: usize,
    port: usize,
    local: Option<IpAddr>,
    remote: SocketAddr,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Outbox { arena: vec![0; ARENA], used: 0, runs: Vec::with_capacity(MAX_RUNS), sent: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether a large frame might no longer fit.
    pub(super) fn is_half_full(&self) -> bool {
        self.used > ARENA / 2 || self.runs.len() > MAX_RUNS / 2
    }

    /// Room for an inner packet of `len` bytes and all around it, behind what is there.
    pub(super) fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        let end = self.used.checked_add(HEADROOM + len + TAILROOM)?;
        if self.runs.len() == MAX_RUNS {
            return None;
        }
        self.arena.get_mut(self.used..end)
    }

    /// Takes the first `len` bytes of the room as a packet to send from `port`, which can do `gso` or not.
    pub(super) fn commit(&mut self, port: usize, gso: bool, route: &Route, len: usize) {
        let local = Some(route.local.ip()).filter(|ip| !ip.is_unspecified());
        match self.runs.last_mut() {
            Some(run)
                if gso
                    && (run.port, run.remote, run.local) == (port, route.remote, local)
                    && run.len == run.segment * run.count
                    && len <= run.segment
                    && run.count < MAX_SEGMENTS
                    && run.len + len <= MAX_DATAGRAM =>
            {
                run.len += len;
                run.count += 1;
            }
            _ => {
                let remote = route.remote;
                self.runs.push(Run { start: self.used, len, segment: len, count: 1, port, local, remote });
            }
        }
        self.used += len;
    }

    /// Sends as much as the sockets take; false if some is left. Adds packets the network refused to `lost`.
    pub(super) fn flush(&mut self, ports: &Ports, lost: &mut usize) -> bool {
        while let Some(first) = self.runs.get(self.sent) {
            let Some(port) = ports.open.get(first.port) else {
                self.sent += 1;
                continue;
            };
            let nothing = Outgoing { local: None, remote: first.remote, segment: None, payload: &[] };
            let mut list = [nothing; BATCH];
            let mut count = 0;
            for (out, run) in list.iter_mut().zip(&self.runs[self.sent..]) {
                if run.port != first.port {
                    break;
                }
                *out = run.outgoing(&self.arena);
                count += 1;
            }
            match port.socket.send_many(&list[..count]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {
                    // The route may be narrower than the packets or the device unable to do checksums (udp(7)).
                    *lost += first.count - first.send_singly(&self.arena, ports);
                    self.sent += 1;
                }
            }
        }
        self.runs.clear();
        (self.used, self.sent) = (0, 0);
        true
    }

    /// The port whose socket is full.
    pub(super) fn waiting_for(&self) -> Option<usize> {
        self.runs.get(self.sent).map(|run| run.port)
    }
}

impl Run {
    fn outgoing<'a>(&self, arena: &'a [u8]) -> Outgoing<'a> {
        let segment = (self.count > 1).then_some(self.segment as u16);
        let payload = &arena[self.start..self.start + self.len];
        Outgoing { local: self.local, remote: self.remote, segment, payload }
    }

    /// How many went.
    fn send_singly(&self, arena: &[u8], ports: &Ports) -> usize {
        if self.count == 1 {
            return 0;
        }
        let packets = arena[self.start..self.start + self.len].chunks(self.segment);
        packets.filter(|packet| ports.open[self.port].socket.send_from(self.local, self.remote, packet).is_ok()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(remote: u8) -> Route {
        let local = "192.0.2.9:4500".parse().unwrap();
        Route { peer: 1, spi_in: 1000, local, remote: SocketAddr::new([192, 0, 2, remote].into(), 4500) }
    }

    /// Offsets and packet lengths of the runs made of `(remote, length)`.
    fn runs(gso: bool, packets: &[(u8, usize)]) -> Vec<(usize, Vec<usize>)> {
        let mut outbox = Outbox::new();
        for &(remote, len) in packets {
            assert!(outbox.room(len).is_some());
            outbox.commit(0, gso, &route(remote), len);
        }
        let lengths = |run: &Run| outbox.arena[..run.len].chunks(run.segment).map(<[u8]>::len).collect();
        outbox.runs.iter().map(|run| (run.start, lengths(run))).collect()
    }

    #[test]
    fn neighbours_of_one_size_to_one_place_go_together_with_a_shorter_last() {
        let packets = [(1, 100), (1, 100), (1, 60), (1, 60), (2, 60), (2, 100), (1, 100)];
        let together = [(0, vec![100, 100, 60]), (260, vec![60]), (320, vec![60]), (380, vec![100]), (480, vec![100])];
        assert_eq!(runs(true, &packets), together);
        assert_eq!(runs(false, &packets).len(), packets.len());
    }

    #[test]
    fn a_run_keeps_within_what_the_kernel_takes_at_once() {
        let longest = |len, count| runs(true, &vec![(1, len); count]).iter().map(|run| run.1.len()).max();
        assert_eq!(longest(100, 200), Some(64));
        assert_eq!(longest(1448, 100), Some(45));
    }

    #[test]
    fn room_ends_with_the_arena_and_with_the_number_of_runs() {
        let mut outbox = Outbox::new();
        assert!(outbox.room(ARENA - HEADROOM - TAILROOM).is_some());
        assert!(outbox.room(ARENA - HEADROOM - TAILROOM + 1).is_none());
        for _ in 0..MAX_RUNS {
            assert!(outbox.room(1).is_some());
            outbox.commit(0, false, &route(1), 38);
        }
        assert!(outbox.room(1).is_none());
    }
}
