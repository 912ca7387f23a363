use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use selvedge_esp::{Event as EspEvent, PeerPrefixes};
use selvedge_ike::{self as ike, Child, Credentials, Endpoint, Event, Now, PeerId, PeerState};
use selvedge_linux::netlink::Notice;
use selvedge_linux::poll::{Interest, poll};
use selvedge_linux::xfrm;
use selvedge_model::{NodeConfig, Peer as ConfigPeer, Via};

use crate::abilities::Abilities;
use crate::convert::{ike_config, remotes, selectors};
use crate::counters::Counters;
use crate::error::{Context as _, Error, Result};
use crate::ids::{self, Ids};
use crate::keeper::message::{Keepalive, Report, Request, SendIke};
use crate::keeper::{self, Mode};
use crate::kernel::Kernel;
use crate::pair::{Pair, Traffic, TunnelPath, Use};
use crate::silence::{Doubt, Silence};

/// Callers turned away that are remembered.
const MAX_REFUSED: usize = 16;

/// What failed is a problem for this long, unless it fails again: much is done once more a little later, and succeeds.
const CURRENT: Duration = Duration::from_secs(60);

/// A keeper that does not answer within this time hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// A NAT forgets a UDP mapping after 30 s at the earliest.
const KEEPALIVE_SECONDS: u16 = 20;

/// RFC 4787 REQ-5: not before 2 minutes. Not every NAT heeds it.
const METERED_KEEPALIVE_SECONDS: u16 = 110;

/// A caller that was turned away.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Where it called from.
    pub remote: SocketAddr,
    /// The name it gave.
    pub claimed: Option<String>,
    /// Why it was refused.
    pub reason: String,
    /// How often in a row.
    pub times: u32,
}

/// All tunnels of a node: the key exchange, the datapath and what joins them.
pub struct Tunnels {
    pub(crate) endpoint: Endpoint,
    pub(crate) keeper: keeper::Client,
    pub(crate) kernel: Option<Kernel>,
    abilities: Abilities,
    pub(crate) ids: Ids,
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    refused: VecDeque<Refusal>,
    keepalives: Vec<Keepalive>,
    /// Something happened since `keepalives` were set.
    keepalives_stale: bool,
    pub(crate) paths_changed: bool,
    later: Option<u64>,
    pub(crate) silence: Silence,
    pub(crate) counters: Counters,
    /// When each was last seen.
    problems: BTreeMap<String, Duration>,
}

/// What there is with one peer.
#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) pairs: Vec<Pair>,
    /// Keys of a pair that is received on, until it is sent on.
    pub(crate) waiting: Option<Child>,
    /// At the last look.
    pub(crate) seen: Traffic,
    pub(crate) doubt: Doubt,
}

impl Tunnels {
    /// Takes over what an earlier run left: pairs of peers in `config` go on being used until new ones are keyed, all
    /// others end.
    pub fn open(
        now: Now,
        config: &NodeConfig,
        credentials: Credentials,
        client: keeper::Client,
        abilities: Abilities,
    ) -> Result<Self> {
        let mode = client.mode();
        let kernel = match mode {
            Mode::Kernel => Some(Kernel::open().context(|| "open the kernel's IPsec".to_owned())?),
            Mode::User => None,
        };
        let mut tunnels = Tunnels {
            endpoint: Endpoint::new(
                ike_config(config, credentials, mode, &abilities),
                Box::new(ike::RingCrypto::new()),
            ),
            keeper: client,
            kernel,
            abilities,
            ids: Ids::default(),
            peers: BTreeMap::new(),
            refused: VecDeque::new(),
            keepalives: Vec::new(),
            keepalives_stale: false,
            paths_changed: true,
            later: None,
            silence: Silence::default(),
            counters: Counters::default(),
            problems: BTreeMap::new(),
        };
        tunnels.set_peers(now, config)?;
        tunnels.take_over(now)?;
        tunnels.drain(now);
        Ok(tunnels)
    }

    /// A new configuration or renewed credentials.
    pub fn set_config(&mut self, now: Now, config: &NodeConfig, credentials: Credentials) -> Result<()> {
        self.endpoint.set_config(now, ike_config(config, credentials, self.mode(), &self.abilities));
        self.set_peers(now, config)?;
        self.drain(now);
        Ok(())
    }

    /// Who carries ESP.
    pub fn mode(&self) -> Mode {
        self.keeper.mode()
    }

    /// The keeper's connection: readable when [`Tunnels::handle_keeper`] has something to do.
    pub fn keeper_fd(&self) -> BorrowedFd<'_> {
        self.keeper.as_fd()
    }

    /// The kernel's IPsec events, in kernel mode.
    pub fn kernel_fd(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.as_ref().map(|k| k.events.as_fd())
    }

    /// Takes all that the keeper has sent. An error means that the keeper is gone.
    pub fn handle_keeper(&mut self, now: Now) -> Result<()> {
        let before = self.counters.reports;
        while let Some(report) = self.keeper.recv().context(|| "the keeper".to_owned())? {
            self.take(now, report);
        }
        if self.counters.reports != before {
            self.look_for_silence(now);
        }
        self.drain(now);
        Ok(())
    }

    /// Takes all that the kernel has told about SAs.
    pub fn handle_kernel(&mut self, now: Now) -> Result<()> {
        while let Some(kernel) = &mut self.kernel {
            let Some(notice) = kernel.events.take().context(|| "the kernel's IPsec events".to_owned())? else { break };
            match notice {
                Notice::Event(xfrm::Event::Expire { reqid, hard: false, .. }) => {
                    if let Some(peer) = ids::peer_of(reqid) {
                        self.endpoint.rekey_child(now, peer);
                    }
                }
                Notice::Event(xfrm::Event::Mapping { reqid, new, .. }) => {
                    if let Some(peer) = ids::peer_of(reqid) {
                        self.endpoint.handle_peer_moved(now, peer, new);
                    }
                }
                Notice::Event(xfrm::Event::Expire { hard: true, .. }) | Notice::Lost => {}
            }
        }
        self.drain(now);
        Ok(())
    }

    /// Time has come for something.
    pub fn handle_timeout(&mut self, now: Now) {
        self.endpoint.handle_timeout(now);
        self.end_retired(now);
        if self.silence.at.is_some_and(|at| at <= now.mono) {
            self.look_for_silence(now);
        }
        self.drain(now);
    }

    /// The addresses, routes or links of this machine changed.
    pub fn handle_routes(&mut self, now: Now, source_for: &mut dyn FnMut(IpAddr) -> Option<IpAddr>) {
        let remotes: Vec<(PeerId, IpAddr)> =
            self.endpoint.peers().filter_map(|p| Some((p.id, remote(&p)?.ip()))).collect();
        for (peer, remote) in remotes {
            if let Some(local) = source_for(remote) {
                self.endpoint.handle_local_address(now, peer, local);
            }
        }
        self.drain(now);
    }

    /// When [`Tunnels::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let retired = self.peers.values().flat_map(|p| &p.pairs).filter_map(|pair| match pair.use_ {
            Use::Retired(until) => Some(until),
            Use::Receiving | Use::Sending => None,
        });
        self.endpoint.poll_timeout().into_iter().chain(retired.min()).chain(self.silence.at).min()
    }

    /// True once after tunnels came up, went down or moved: routes and policies are to be planned anew.
    pub fn poll_paths_changed(&mut self) -> bool {
        std::mem::take(&mut self.paths_changed)
    }

    /// To be called every hour and when the calendar jumps: certificates may have ended.
    pub fn handle_clock(&mut self, now: Now) {
        self.endpoint.handle_clock(now);
        self.drain(now);
    }

    /// A time that has come, in seconds since 1970, although the clock said less.
    pub fn poll_later(&mut self) -> Option<u64> {
        self.later.take()
    }

    /// Where the tunnels that are up run.
    pub fn paths(&self) -> Vec<TunnelPath> {
        self.peers.iter().filter_map(|(id, peer)| Some(self.path(*id, peer.sending()?))).collect()
    }

    /// Ends all tunnels in good order; SAs and keeper go too.
    pub fn shutdown(mut self, now: Now) {
        self.endpoint.shutdown(now);
        self.drain(now);
        if let Some(Err(error)) = self.kernel.as_mut().map(Kernel::flush) {
            log::warn!("{error}");
        }
        // Over this connection, behind the farewells.
        if let Err(error) = self.keeper.stop() {
            log::warn!("stop the keeper: {error}");
        }
    }

    fn set_peers(&mut self, now: Now, config: &NodeConfig) -> Result<()> {
        let wanted: Vec<&ConfigPeer> = config.peers.iter().filter(|p| p.via == Via::Tunnel).collect();
        let names: BTreeSet<&str> = wanted.iter().map(|p| p.name.as_str()).collect();
        let local_ts = selectors(config.local.networks());
        let peers: Vec<ike::Peer> = wanted
            .iter()
            .map(|peer| ike::Peer {
                id: self.ids.id(&peer.name),
                name: peer.name.clone(),
                remotes: remotes(&peer.addresses, peer.port, &self.abilities),
                initiate: peer.initiate,
                metered: config.metered || peer.metered,
                local_ts: local_ts.clone(),
                remote_ts: selectors(peer.networks()),
            })
            .collect();
        if self.kernel.is_none() {
            let prefixes: Vec<PeerPrefixes> = peers
                .iter()
                .zip(&wanted)
                .map(|(peer, config)| PeerPrefixes { id: peer.id.0, prefixes: config.networks().collect() })
                .collect();
            for request in Request::set_peers(&prefixes) {
                self.keeper.send(&request).context(|| "tell the keeper the peers".to_owned())?;
            }
        }
        for peer in &peers {
            self.peers.entry(peer.id).or_default();
        }
        self.endpoint.set_peers(now, peers);
        self.keepalives_stale = true;
        // What the endpoint ends because a peer is gone is still told by events that need the peer's name.
        self.drain(now);
        let gone: Vec<PeerId> =
            self.peers.keys().copied().filter(|id| !self.ids.name(*id).is_some_and(|n| names.contains(n))).collect();
        for id in gone {
            let pairs = self.peers.remove(&id).map(|peer| peer.pairs).unwrap_or_default();
            for pair in pairs {
                self.remove_outbound(now, id, &pair);
                self.remove_inbound(now, id, &pair);
            }
        }
        self.ids.retain(|name| names.contains(name));
        self.paths_changed = true;
        Ok(())
    }

    /// The next report, waited for.
    pub(crate) fn await_report(&mut self) -> Result<Report> {
        loop {
            if let Some(report) = self.keeper.recv().context(|| "the keeper".to_owned())? {
                return Ok(report);
            }
            let mut interest = [Interest::readable(&self.keeper)];
            if poll(&mut interest, Some(PATIENCE)).context(|| "wait for the keeper".to_owned())? == 0 {
                return Err(Error::new("the keeper does not answer"));
            }
        }
    }

    pub(crate) fn take(&mut self, now: Now, report: Report) {
        match report {
            Report::Ike(ike) => self.endpoint.handle_datagram(now, ike.local, ike.remote, &ike.payload),
            Report::Esp(EspEvent::Moved { peer, remote, .. }) => {
                self.endpoint.handle_peer_moved(now, PeerId(peer), remote);
            }
            Report::Esp(EspEvent::SoftLimit { peer, .. }) => self.endpoint.rekey_child(now, PeerId(peer)),
            Report::Esp(EspEvent::UnknownSpi { spi, remote }) => self.endpoint.handle_unknown_spi(now, remote, spi),
            Report::Refused { reason } => self.problem(now, format!("the keeper: {reason}")),
            Report::Counters { drops, peers, more } => self.counters.take(drops, peers, more),
            Report::SaList { .. } | Report::Welcome(_) => {}
        }
    }

    /// Sends and does what the endpoint wants.
    pub(crate) fn drain(&mut self, now: Now) {
        loop {
            let mut idle = true;
            // Events first: the peer may use a new pair as soon as it has our answer.
            while let Some(event) = self.endpoint.poll_event() {
                idle = false;
                self.event(now, event);
            }
            while let Some(transmit) = self.endpoint.poll_transmit() {
                idle = false;
                let request = Request::SendIke(SendIke {
                    local: transmit.local,
                    local_port: transmit.local_port,
                    remote: transmit.remote,
                    marker: transmit.non_esp_marker,
                    payload: transmit.payload,
                });
                if let Err(error) = self.keeper.send(&request) {
                    log::debug!("send IKE: {error}");
                }
            }
            if idle {
                break;
            }
        }
        if std::mem::take(&mut self.keepalives_stale) {
            self.update_keepalives();
        }
        self.await_traffic(now);
    }

    fn event(&mut self, now: Now, event: Event) {
        self.keepalives_stale = true;
        match event {
            Event::ChildUp { peer, child } => self.child_up(now, peer, child),
            Event::ChildSend { peer, spi_in, .. } => self.send_on(now, peer, spi_in),
            Event::ChildRetired { peer, spi_in, .. } => self.retire(now, peer, |pair| pair.spi_in == spi_in),
            Event::PeerUp { peer, remote } => {
                log::info!("{}: tunnel up", self.name(peer));
                log::debug!("{}: at {remote}", self.name(peer));
            }
            Event::PeerDown { peer, reason } => log::warn!("{}: {reason}", self.name(peer)),
            Event::Refused { remote, claimed, reason } => self.refuse(remote, claimed, reason),
            Event::Later { wall } => self.later = Some(wall),
        }
    }

    fn update_keepalives(&mut self) {
        let wanted: Vec<Keepalive> = self
            .endpoint
            .peers()
            .filter_map(|p| match p.state {
                PeerState::Established(e) if e.nat_local => {
                    let interval_s = if p.metered { METERED_KEEPALIVE_SECONDS } else { KEEPALIVE_SECONDS };
                    Some(Keepalive { local: e.local, remote: e.remote, interval_s })
                }
                _ => None,
            })
            .collect();
        if wanted != self.keepalives {
            for request in Request::set_keepalives(&wanted) {
                if let Err(error) = self.keeper.send(&request) {
                    log::debug!("set keepalives: {error}");
                    return;
                }
            }
            self.keepalives = wanted;
        }
    }

    fn refuse(&mut self, remote: SocketAddr, claimed: Option<String>, reason: String) {
        if let Some(last) = self.refused.iter_mut().find(|r| r.claimed == claimed && r.reason == reason) {
            last.remote = remote;
            last.times = last.times.saturating_add(1);
            return;
        }
        log::warn!("refused {}: {reason}", claimed.as_deref().unwrap_or("a caller"));
        if self.refused.len() == MAX_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back(Refusal { remote, claimed, reason, times: 1 });
    }

    pub(crate) fn problem(&mut self, now: Now, text: String) {
        self.problems.retain(|_, seen| *seen + CURRENT > now.mono);
        let room = self.problems.len() < MAX_REFUSED;
        if room && self.problems.insert(text.clone(), now.mono).is_none() {
            log::error!("{text}");
        }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn is_kernel(&self) -> bool {
        self.kernel.is_some()
    }

    pub(crate) fn pair_in_use(&self, id: PeerId) -> Option<&Pair> {
        self.peers.get(&id)?.sending()
    }

    pub(crate) fn path(&self, id: PeerId, pair: &Pair) -> TunnelPath {
        TunnelPath {
            peer: self.name(id).to_owned(),
            reqid: ids::reqid(id),
            local: pair.local,
            remote: pair.remote,
            encap: pair.encap,
        }
    }

    pub(crate) fn refused(&self) -> impl Iterator<Item = &Refusal> {
        self.refused.iter()
    }

    pub(crate) fn problems(&self, now: Now) -> impl Iterator<Item = &str> {
        self.problems.iter().filter(move |(_, seen)| **seen + CURRENT > now.mono).map(|(text, _)| text.as_str())
    }

    pub(crate) fn name(&self, id: PeerId) -> &str {
        self.ids.name(id).unwrap_or("a peer that is gone")
    }
}

impl Peer {
    /// The pair that is sent on.
    pub(crate) fn sending(&self) -> Option<&Pair> {
        self.pairs.iter().rev().find(|pair| pair.use_ == Use::Sending)
    }
}

fn remote(peer: &ike::PeerStatus) -> Option<SocketAddr> {
    match &peer.state {
        PeerState::Established(e) => Some(e.remote),
        PeerState::Idle | PeerState::Connecting { .. } => None,
    }
}
