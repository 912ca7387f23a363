//! Two namespaces, a cable, a keeper in each.

use selvedge_esp::{DropReason, PairStatus, PeerPrefixes, PeerStatus, Suite};
use selvedge_linux::netns;
use selvedge_linux::poll::{Interest, poll};
use selvedge_tunnel::keeper::message::{Install, Report, Request};
use selvedge_tunnel::keeper::{Client, ClientError, Mode, Options, stop};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Long enough for a busy machine; nothing waits this long unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Lab {
    pub a: End,
    pub b: End,
}

/// One end: outer address 192.0.2.N, inner 10.N.0.1 and fd00:N::1.
pub struct End {
    pub n: u8,
    pub netns: String,
    pub options: Options,
    program: PathBuf,
}

impl Lab {
    pub fn new(mode: Mode) -> Self {
        Self::with(mode, mode)
    }

    pub fn with(mode_a: Mode, mode_b: Mode) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("kp{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Lab { a: End::new(1, &id, mode_a), b: End::new(2, &id, mode_b) };
        lab.a.ip(&format!("link add veth0 type veth peer name veth0 netns {}", lab.b.netns));
        for (end, other) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
            let (n, m) = (end.n, other.n);
            end.ip("link set lo up");
            end.ip("link set veth0 up");
            end.ip(&format!("address add 192.0.2.{n}/24 dev veth0"));
            end.ip(&format!("address add 192.0.2.{}/24 dev veth0", n + 10));
            end.ip(&format!("address add 2001:db8::{n}/64 dev veth0 nodad"));
            end.ip(&format!("address add 10.{n}.0.1/32 dev lo"));
            end.ip(&format!("address add 10.9.0.{n}/32 dev lo"));
            end.ip(&format!("address add fd00:{n}::1/128 dev lo nodad"));
            if end.options.mode == Mode::User {
                // The device comes with the keeper.
                drop(end.client());
                end.ip(&format!("route add 10.{m}.0.0/16 dev selvedge0 src 10.{n}.0.1"));
                end.ip(&format!("-6 route add fd00:{m}::/32 dev selvedge0 src fd00:{n}::1"));
            }
        }
        lab
    }

    /// Both ends with peers and one pair of Security Associations.
    pub fn joined() -> (Self, Client, Client) {
        let lab = Lab::new(Mode::User);
        let (mut a, mut b) = (lab.a.client(), lab.b.client());
        for (client, end, other) in [(&mut a, &lab.a, &lab.b), (&mut b, &lab.b, &lab.a)] {
            client.send(&lab.peers(other)).unwrap();
            client.send(&lab.install(end, 0x1000)).unwrap();
            assert_eq!(pairs(client).len(), 1);
        }
        (lab, a, b)
    }

    pub fn peers(&self, other: &End) -> Request {
        let prefixes = [format!("10.{}.0.0/16", other.n), format!("fd00:{}::/32", other.n)];
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        Request::SetPeers { peers: vec![PeerPrefixes { id: other.n.into(), prefixes }], more: false }
    }

    pub fn install(&self, end: &End, base: u32) -> Request {
        Request::Install(self.pair(end, base))
    }

    /// `end`'s half of the pair numbered `base`: what an end receives has its number added.
    pub fn pair(&self, end: &End, base: u32) -> Install {
        let other = if end.n == self.a.n { &self.b } else { &self.a };
        let (spi_in, spi_out) = (base + u32::from(end.n), base + u32::from(other.n));
        let key = |spi: u32| Zeroizing::new(spi.to_be_bytes().repeat(9));
        Install {
            peer: other.n.into(),
            spi_in,
            spi_out,
            suite: Suite::Aes256Gcm,
            key_in: key(spi_in),
            key_out: key(spi_out),
            local: format!("192.0.2.{}:4500", end.n).parse().unwrap(),
            remote: format!("192.0.2.{}:4500", other.n).parse().unwrap(),
            send: true,
        }
    }
}

impl End {
    fn new(n: u8, id: &str, mode: Mode) -> Self {
        let netns = format!("{id}-{n}");
        let run_dir = std::env::temp_dir().join(&netns);
        netns::create(&netns).unwrap();
        std::fs::create_dir_all(&run_dir).unwrap();
        let program = run_dir.join("keeper");
        let exe = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = keeper ] || exit 2\nshift\nexport SELVEDGE_KEEPER=\"$*\"\n\
             exec ip netns exec {netns} {} --exact keeper_process --ignored --nocapture\n",
            exe.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        End { n, netns, options: Options::new(run_dir, mode), program }
    }

    /// Connects, starting the keeper if there is none.
    pub fn client(&self) -> Client {
        let client = Client::spawn(&self.program, "keeper", &self.options).unwrap();
        let welcome = client.welcome();
        assert!(welcome.ports.iter().all(|port| port.problem.is_none()), "{welcome:?}");
        assert_eq!((&welcome.tun_problem, welcome.mode), (&None, self.options.mode));
        client
    }

    /// The socket of its keeper, which runs.
    pub fn client_then_socket(&self) -> PathBuf {
        drop(self.client());
        self.options.run_dir.join("keeper.sock")
    }

    pub fn spawn(&self, options: &Options) -> Result<Client, ClientError> {
        Client::spawn(&self.program, "keeper", options)
    }

    pub fn ip(&self, args: &str) {
        let done = Command::new("ip").args(["-n", &self.netns]).args(args.split(' ')).status().unwrap();
        assert!(done.success(), "ip {args}");
    }

    /// Starts `ping` with `args`; its exit status tells whether all was answered.
    pub fn ping(&self, args: &str) -> Child {
        let command = ["netns", "exec", &self.netns, "ping", "-q"];
        let mut command_line = Command::new("ip");
        command_line.args(command).args(args.split(' ')).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Runs `f` on a thread in this end's namespace.
    pub fn thread<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let netns = self.netns.clone();
        std::thread::spawn(move || {
            netns::enter(&netns).unwrap();
            f()
        })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = stop(&self.options.run_dir);
        let _ = netns::delete(&self.netns);
        let _ = std::fs::remove_dir_all(&self.options.run_dir);
    }
}

/// What `ping` said when it ended: sent and received.
pub fn answered(ping: Child) -> (u32, u32) {
    let out = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    let line = out.lines().find(|line| line.contains("packets transmitted")).unwrap_or_else(|| panic!("{out}"));
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The next report, which must come.
pub fn next(client: &mut Client) -> Report {
    let began = Instant::now();
    loop {
        if let Some(report) = client.recv().unwrap() {
            return report;
        }
        let left = PATIENCE.checked_sub(began.elapsed()).unwrap_or_else(|| panic!("nothing was reported"));
        poll(&mut [Interest::readable(client)], Some(left)).unwrap();
    }
}

/// The pairs of a keeper that has nothing else to tell, after all that was sent to it before.
pub fn pairs(client: &mut Client) -> Vec<PairStatus> {
    client.send(&Request::List).unwrap();
    match next(client) {
        Report::SaList { pairs, more: false } => pairs,
        other => panic!("{other:?}"),
    }
}

/// Counters of the only peer, and of no peer for `reason`.
pub fn counters(client: &mut Client, reason: DropReason) -> (PeerStatus, u64) {
    client.send(&Request::Counters).unwrap();
    match next(client) {
        Report::Counters { drops, mut peers, more: false } => (peers.remove(0), drops.get(reason)),
        other => panic!("{other:?}"),
    }
}
