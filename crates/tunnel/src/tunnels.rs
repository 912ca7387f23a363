use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use selvedge_esp::{DropReason, Drops, Event as EspEvent, PeerPrefixes, PeerStatus as UserCounters};
use selvedge_ike::{self as ike, Child, Credentials, Endpoint, Event, Now, PeerId, PeerState, TrafficSelector};
use selvedge_linux::netlink::Notice;
use selvedge_linux::poll::{Interest, poll};
use selvedge_linux::xfrm;
use selvedge_model::{NodeConfig, Peer as ConfigPeer, Via};

use crate::cpu;
use crate::error::{Context as _, Error, Result};
use crate::ids::{self, Ids};
use crate::keeper::message::{Install, Keepalive, Report, Request, SendIke};
use crate::keeper::{self, Mode};
use crate::kernel::Kernel;
use crate::pair::{LINGER, Pair, Traffic, TunnelPath, Use};

/// Callers turned away that are remembered.
const MAX_REFUSED: usize = 16;

/// How often a peer that is sent to and does not answer is looked for.
const SILENCE_CHECK: Duration = Duration::from_secs(2);

/// What failed is a problem for this long, unless it fails again: much is done once more a little later, and succeeds.
const CURRENT: Duration = Duration::from_secs(60);

/// A keeper that does not answer within this time hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// A NAT forgets a UDP mapping after 30 s at the earliest (RFC 4787 says 2 minutes; many do not listen).
const KEEPALIVE_SECONDS: u16 = 20;

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
    endpoint: Endpoint,
    keeper: keeper::Client,
    run_dir: PathBuf,
    kernel: Option<Kernel>,
    ids: Ids,
    peers: BTreeMap<PeerId, Peer>,
    refused: VecDeque<Refusal>,
    keepalives: Vec<Keepalive>,
    paths_changed: bool,
    silence_at: Option<Duration>,
    counters: Counters,
    /// When each was last seen.
    problems: BTreeMap<String, Duration>,
}

#[derive(Default)]
struct Peer {
    pairs: Vec<Pair>,
    /// Keys of a pair that is received on, until it is sent on.
    waiting: Option<Child>,
    /// At the last look.
    seen: Traffic,
}

/// The user-space datapath's counters, as last reported.
#[derive(Default)]
struct Counters {
    peers: BTreeMap<PeerId, UserCounters>,
    growing: BTreeMap<PeerId, UserCounters>,
    drops: Drops,
    complete: bool,
}

impl Tunnels {
    /// Takes over what an earlier run left: pairs of peers in `config` go on being used until new ones are keyed, all
    /// others end.
    pub fn open(
        now: Now,
        config: &NodeConfig,
        credentials: Credentials,
        run_dir: &Path,
        client: keeper::Client,
    ) -> Result<Self> {
        let mode = client.mode();
        let kernel = match mode {
            Mode::Kernel => Some(Kernel::open().context(|| "open the kernel's IPsec".to_owned())?),
            Mode::User => None,
        };
        let mut tunnels = Tunnels {
            endpoint: Endpoint::new(ike_config(config, credentials, mode), Box::new(ike::RingCrypto::new())),
            keeper: client,
            run_dir: run_dir.to_owned(),
            kernel,
            ids: Ids::default(),
            peers: BTreeMap::new(),
            refused: VecDeque::new(),
            keepalives: Vec::new(),
            paths_changed: true,
            silence_at: None,
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
        self.endpoint.set_config(now, ike_config(config, credentials, self.mode()));
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
        while let Some(report) = self.keeper.recv().context(|| "the keeper".to_owned())? {
            self.take(now, report);
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
        if self.silence_at.is_some_and(|at| at <= now.mono) {
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
        self.endpoint.poll_timeout().into_iter().chain(retired.min()).chain(self.silence_at).min()
    }

    /// True once after tunnels came up, went down or moved: routes and policies are to be planned anew.
    pub fn poll_paths_changed(&mut self) -> bool {
        std::mem::take(&mut self.paths_changed)
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
        drop(self.keeper);
        if let Err(error) = keeper::stop(&self.run_dir) {
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
                remotes: peer.addresses.iter().map(|a| SocketAddr::new(*a, peer.port)).collect(),
                initiate: peer.initiate,
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

    fn take_over(&mut self, now: Now) -> Result<()> {
        let left_over = match &mut self.kernel {
            Some(kernel) => kernel.left_over(now.mono).context(|| "read the kernel's SAs".to_owned())?,
            None => self.keeper_pairs(now)?,
        };
        for (id, pairs) in left_over {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.pairs = pairs;
                if let Some(remote) = peer.sending().map(|pair| pair.remote) {
                    self.endpoint.initiate(now, id, remote);
                }
            } else {
                for pair in pairs {
                    self.remove_outbound(now, id, &pair);
                    self.remove_inbound(now, id, &pair);
                }
            }
        }
        Ok(())
    }

    fn keeper_pairs(&mut self, now: Now) -> Result<BTreeMap<PeerId, Vec<Pair>>> {
        let mut found: BTreeMap<PeerId, Vec<Pair>> = BTreeMap::new();
        self.keeper.send(&Request::List).context(|| "ask the keeper for its SAs".to_owned())?;
        loop {
            let report = self.await_report()?;
            let Report::SaList { pairs, more } = report else {
                self.take(now, report);
                continue;
            };
            for pair in pairs {
                found.entry(PeerId(pair.peer)).or_default().push(Pair {
                    spi_in: pair.spi_in,
                    spi_out: pair.spi_out,
                    local: pair.local,
                    remote: pair.remote,
                    encap: true,
                    cipher: "",
                    since: now.mono.saturating_sub(pair.age),
                    use_: if pair.sending { Use::Sending } else { Use::Receiving },
                });
            }
            if !more {
                return Ok(found);
            }
        }
    }

    /// The next report, waited for.
    fn await_report(&mut self) -> Result<Report> {
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

    fn take(&mut self, now: Now, report: Report) {
        match report {
            Report::Ike(ike) => self.endpoint.handle_datagram(now, ike.local, ike.remote, &ike.payload),
            Report::Esp(EspEvent::Moved { peer, remote, .. }) => {
                self.endpoint.handle_peer_moved(now, PeerId(peer), remote);
            }
            Report::Esp(EspEvent::SoftLimit { peer, .. }) => self.endpoint.rekey_child(now, PeerId(peer)),
            Report::Esp(EspEvent::UnknownSpi { spi, remote }) => self.endpoint.handle_unknown_spi(now, remote, spi),
            Report::Refused { reason } => self.problem(now, format!("the keeper: {reason}")),
            Report::Counters { drops, peers, more } => {
                let counters = &mut self.counters;
                if counters.complete {
                    counters.growing.clear();
                    counters.drops = drops;
                }
                counters.growing.extend(peers.into_iter().map(|p| (PeerId(p.id), p)));
                counters.complete = !more;
                if counters.complete {
                    counters.peers = std::mem::take(&mut counters.growing);
                }
            }
            Report::SaList { .. } | Report::Welcome(_) => {}
        }
    }

    /// Sends and does what the endpoint wants.
    fn drain(&mut self, now: Now) {
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
        self.update_keepalives();
        if self.silence_at.is_none() && self.peers.values().any(|p| p.sending().is_some()) {
            self.silence_at = Some(now.mono + SILENCE_CHECK);
        }
    }

    fn event(&mut self, now: Now, event: Event) {
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
        }
    }

    fn child_up(&mut self, now: Now, id: PeerId, child: Child) {
        let installed = match &mut self.kernel {
            Some(kernel) => kernel.install(id, &child, child.send).map_err(|e| e.to_string()),
            None => self.keeper.send(&Request::Install(install(id, &child))).map_err(|e| e.to_string()),
        };
        if let Err(error) = installed {
            self.problem(now, format!("{}: {error}", self.name(id)));
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.pairs.push(Pair {
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            local: child.local,
            remote: child.remote,
            encap: child.encap,
            cipher: cipher(child.suite),
            since: now.mono,
            use_: Use::Receiving,
        });
        if child.send {
            self.sending(now, id, child.spi_in);
        } else {
            peer.waiting = Some(child);
        }
    }

    fn send_on(&mut self, now: Now, id: PeerId, spi_in: u32) {
        let waiting = self.peers.get_mut(&id).and_then(|p| p.waiting.take_if(|c| c.spi_in == spi_in));
        let done = match (&mut self.kernel, waiting) {
            (Some(kernel), Some(child)) => kernel.install_outbound(id, &child).map_err(|e| e.to_string()),
            (None, _) => self.keeper.send(&Request::UseOutbound { peer: id.0, spi_in }).map_err(|e| e.to_string()),
            (Some(_), None) => return,
        };
        match done {
            Ok(()) => self.sending(now, id, spi_in),
            Err(error) => self.problem(now, format!("{}: {error}", self.name(id))),
        }
    }

    /// The pair is sent on from now; the one before is only received on for a while, and so are pairs of a run before.
    fn sending(&mut self, now: Now, id: PeerId, spi_in: u32) {
        self.retire(now, id, |pair| pair.spi_in != spi_in && (pair.use_ == Use::Sending || pair.cipher.is_empty()));
        if let Some(pair) = self.peers.get_mut(&id).and_then(|p| p.pairs.iter_mut().find(|p| p.spi_in == spi_in)) {
            pair.use_ = Use::Sending;
        }
        self.paths_changed = true;
    }

    fn retire(&mut self, now: Now, id: PeerId, which: impl Fn(&Pair) -> bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut ended = Vec::new();
        for pair in peer.pairs.iter_mut().filter(|pair| which(pair) && !matches!(pair.use_, Use::Retired(_))) {
            pair.use_ = Use::Retired(now.mono + LINGER);
            ended.push(pair.clone());
        }
        for pair in ended {
            self.remove_outbound(now, id, &pair);
            self.paths_changed = true;
        }
    }

    fn end_retired(&mut self, now: Now) {
        let mut ended = Vec::new();
        for (id, peer) in &mut self.peers {
            peer.pairs.retain(|pair| {
                let over = matches!(pair.use_, Use::Retired(until) if until <= now.mono);
                if over {
                    ended.push((*id, pair.clone()));
                }
                !over
            });
        }
        for (id, pair) in ended {
            self.remove_inbound(now, id, &pair);
        }
    }

    fn remove_outbound(&mut self, now: Now, id: PeerId, pair: &Pair) {
        let removed = match &mut self.kernel {
            Some(kernel) => kernel.remove_outbound(id, pair).map_err(|e| e.to_string()),
            None => self.keeper.send(&Request::RemoveOutbound { spi_in: pair.spi_in }).map_err(|e| e.to_string()),
        };
        if let Err(error) = removed {
            self.problem(now, error);
        }
    }

    fn remove_inbound(&mut self, now: Now, id: PeerId, pair: &Pair) {
        let removed = match &mut self.kernel {
            Some(kernel) => kernel.remove_inbound(id, pair).map_err(|e| e.to_string()),
            None => self.keeper.send(&Request::RemoveInbound { spi_in: pair.spi_in }).map_err(|e| e.to_string()),
        };
        if let Err(error) = removed {
            self.problem(now, error);
        }
    }

    /// A peer that is sent to and sends nothing back may have lost its state: its key exchange will tell.
    fn look_for_silence(&mut self, now: Now) {
        self.silence_at = None;
        let traffic = match self.traffic() {
            Ok(traffic) => traffic,
            Err(error) => {
                log::debug!("read the tunnels' counters: {error}");
                return;
            }
        };
        for (id, peer) in &mut self.peers {
            // Somebody deleted SAs, or they ran into a hard limit.
            let has = |pair: &Pair| self.kernel.as_ref().is_none_or(|kernel| kernel.has(pair));
            if peer.sending().is_some_and(|pair| !has(pair)) {
                log::warn!(
                    "{}: its security associations are gone from the kernel",
                    self.ids.name(*id).unwrap_or_default()
                );
                self.endpoint.rekey_child(now, *id);
            }
            let Some((present, _)) = traffic.get(id) else { continue };
            let before = std::mem::replace(&mut peer.seen, *present);
            if present.packets_in > before.packets_in {
                self.endpoint.handle_inbound(now, *id);
            } else if present.packets_out > before.packets_out {
                self.endpoint.check_liveness(now, *id);
            }
        }
    }

    pub(crate) fn refresh_counters(&mut self, now: Now) -> Result<()> {
        if self.kernel.is_none() {
            self.counters.complete = false;
            self.keeper.send(&Request::Counters).context(|| "ask the keeper for its counters".to_owned())?;
            while !self.counters.complete {
                let report = self.await_report()?;
                self.take(now, report);
            }
        }
        Ok(())
    }

    /// Traffic and refused packets of every peer; in user mode as of the last report, and a new one is asked for.
    pub(crate) fn traffic(&mut self) -> Result<BTreeMap<PeerId, (Traffic, u64)>> {
        if let Some(kernel) = &mut self.kernel {
            return kernel.traffic().context(|| "read the kernel's SAs".to_owned());
        }
        self.keeper.send(&Request::Counters).context(|| "ask the keeper for its counters".to_owned())?;
        Ok(self.counters.peers.iter().map(|(id, p)| (*id, (user_traffic(p), received_drops(&p.drops)))).collect())
    }

    fn update_keepalives(&mut self) {
        let wanted: Vec<Keepalive> = self
            .endpoint
            .peers()
            .filter_map(|p| match p.state {
                PeerState::Established(e) if e.nat_local => {
                    Some(Keepalive { local: e.local, remote: e.remote, interval_s: KEEPALIVE_SECONDS })
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

    fn problem(&mut self, now: Now, text: String) {
        self.problems.retain(|_, seen| *seen + CURRENT > now.mono);
        if self.problems.len() < MAX_REFUSED {
            if self.problems.insert(text.clone(), now.mono).is_none() {
                log::error!("{text}");
            }
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

    pub(crate) fn dropped_sent(&self, id: PeerId) -> u64 {
        self.counters.peers.get(&id).map_or(0, |p| sent_drops(&p.drops))
    }

    pub(crate) fn unclaimed_drops(&self) -> &Drops {
        &self.counters.drops
    }

    fn name(&self, id: PeerId) -> &str {
        self.ids.name(id).unwrap_or("a peer that is gone")
    }
}

impl Peer {
    fn sending(&self) -> Option<&Pair> {
        self.pairs.iter().rev().find(|pair| pair.use_ == Use::Sending)
    }
}

/// Neighbouring networks are joined: a message holds 255 selectors, and a cloud may have more nodes.
fn selectors(networks: impl Iterator<Item = IpNet>) -> Vec<TrafficSelector> {
    let mut joined = IpNet::aggregate(&networks.collect());
    joined.sort();
    joined.into_iter().map(TrafficSelector::from).collect()
}

fn ike_config(config: &NodeConfig, credentials: Credentials, mode: Mode) -> ike::Config {
    let mut ike = ike::Config::new(config.name.clone(), credentials);
    // User-space ESP exists in UDP only.
    ike.force_encap = mode == Mode::User;
    ike.prefer_chacha = !cpu::has_aes();
    // The keeper sends them, so that mappings live while this program restarts.
    ike.timers.nat_keepalive = Duration::ZERO;
    ike
}

fn cipher(suite: ike::EspSuite) -> &'static str {
    match suite {
        ike::EspSuite::Aes128Gcm => "AES-128-GCM",
        ike::EspSuite::Aes256Gcm => "AES-256-GCM",
        ike::EspSuite::ChaCha20Poly1305 => "ChaCha20-Poly1305",
    }
}

fn install(id: PeerId, child: &Child) -> Install {
    Install {
        peer: id.0,
        spi_in: child.spi_in,
        spi_out: child.spi_out,
        suite: match child.suite {
            ike::EspSuite::Aes128Gcm => selvedge_esp::Suite::Aes128Gcm,
            ike::EspSuite::Aes256Gcm => selvedge_esp::Suite::Aes256Gcm,
            ike::EspSuite::ChaCha20Poly1305 => selvedge_esp::Suite::ChaCha20Poly1305,
        },
        key_in: child.key_in.clone(),
        key_out: child.key_out.clone(),
        local: child.local,
        remote: child.remote,
        send: child.send,
    }
}

fn user_traffic(peer: &UserCounters) -> Traffic {
    Traffic {
        bytes_in: peer.received.bytes,
        packets_in: peer.received.packets,
        bytes_out: peer.sent.bytes,
        packets_out: peer.sent.packets,
    }
}

const SENT: [DropReason; 5] =
    [DropReason::NotIp, DropReason::NoSa, DropReason::Exhausted, DropReason::TooLong, DropReason::NotSent];

fn sent_drops(drops: &Drops) -> u64 {
    SENT.iter().map(|reason| drops.get(*reason)).sum()
}

fn received_drops(drops: &Drops) -> u64 {
    DropReason::ALL.iter().filter(|reason| !SENT.contains(reason)).map(|reason| drops.get(*reason)).sum()
}

fn remote(peer: &ike::PeerStatus) -> Option<SocketAddr> {
    match &peer.state {
        PeerState::Established(e) => Some(e.remote),
        PeerState::Idle | PeerState::Connecting { .. } => None,
    }
}
