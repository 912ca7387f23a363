//! The loop: one input, then what follows from it.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "services")]
use selvedge_health::{Answer, Probe};
use selvedge_linux::link;
use selvedge_linux::timer::Timer;
use selvedge_linux::watch::Watch;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
#[cfg(feature = "services")]
use tokio::task::JoinSet;

use crate::cli::Program;
use crate::clock::Clock;
use crate::error::Context as _;
#[cfg(feature = "services")]
use crate::health;
use crate::node::Node;
#[cfg(feature = "socks")]
use crate::socks::{Call, Socks, Users};
use crate::source;
use crate::summary::summary;
use crate::{Error, Options, Result, privilege};
#[cfg(feature = "api")]
use crate::{options::SourceKind, source::desk::Desk};

/// Files of one delivery arrive one after another.
const SETTLE: Duration = Duration::from_millis(50);

/// How often a missing folder is looked for, and a refused configuration read again.
const RELOAD: Duration = Duration::from_secs(5);

/// Who asks for the status says so within this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT. Tunnels stay.
pub fn run(program: &Program, options: Options) -> Result<()> {
    let exe = std::env::current_exe().context(|| "find this program's file".to_owned())?;
    #[cfg(feature = "socks")]
    let users = Socks::users(&options)?;
    let confinement = privilege::give_up(&options, &exe)?;
    log::info!("running as {confinement}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "start the event loop".to_owned())?;
    runtime.block_on(serve(
        program,
        options,
        exe,
        confinement,
        #[cfg(feature = "socks")]
        users,
    ))
}

/// What woke the loop.
enum Input {
    Stop,
    Reload,
    Files,
    Keeper,
    KernelIpsec,
    Network,
    Visitor(io::Result<UnixStream>),
    #[cfg(feature = "services")]
    Reports,
    #[cfg(feature = "services")]
    Answer(Probe, Answer),
    #[cfg(feature = "socks")]
    Call(Call),
    Timer,
}

async fn serve(
    program: &Program,
    options: Options,
    exe: PathBuf,
    confinement: String,
    #[cfg(feature = "socks")] users: Option<Users>,
) -> Result<()> {
    let mut stop = [signal(SignalKind::terminate()), signal(SignalKind::interrupt())]
        .into_iter()
        .collect::<io::Result<Vec<_>>>()
        .context(|| "listen to signals".to_owned())?;
    // The first process of a container; elsewhere, a second one is a mistake.
    #[cfg(feature = "pod")]
    if std::process::id() == 1 && !crate::succession::await_turn(&options, &mut stop).await {
        return Ok(());
    }
    let visitors = listen(&options.status_socket())?;
    #[cfg(feature = "socks")]
    let mut socks = Socks::new(&options, users)?;
    let mut clock = Clock::new(&options.state_dir);
    let mut node = Node::new(options, exe, confinement)?;
    let mut network = link::monitor().context(|| "watch the network".to_owned())?;
    let network_fd = watch_fd(Some(network.as_fd()))?;
    // Not the event loop's: that one wakes up on the way to look how late it is.
    let timer = Timer::new().context(|| "wait".to_owned())?;
    let timer_fd = watch_fd(Some(timer.as_fd()))?;
    let mut files = Files::default();
    let (mut keeper_fd, mut kernel_fd) = (None, None);
    let mut epoch = (0, false);
    #[cfg(feature = "services")]
    let (mut reports_fd, mut probes) = (None, JoinSet::new());
    let mut reload = signal(SignalKind::hangup()).context(|| "listen to signals".to_owned())?;
    let mut reload_at = Some(Duration::ZERO);
    loop {
        let now = clock.now();
        if reload_at.is_some_and(|at| at <= now.mono) {
            files = Files::watch(&node);
            node.load(now);
            reload_at = (node.config_error.is_some() || !files.complete).then_some(now.mono + RELOAD);
            // What comes from elsewhere is told.
            #[cfg(feature = "api")]
            reload_at.take_if(|_| node.options.source.kind != SourceKind::File);
        }
        while let Some(wall) = node.poll_later() {
            clock.learn(wall);
        }
        node.handle_clock(clock.now());
        node.apply(clock.now());
        if let Err(error) = clock.keep(now, node.certificate_not_after()) {
            log::warn!("{error}");
        }
        if epoch != (node.epoch, node.tunnels.is_some()) {
            epoch = (node.epoch, node.tunnels.is_some());
            keeper_fd = watch_fd(node.tunnels.as_ref().map(|t| t.keeper_fd()))?;
            kernel_fd = watch_fd(node.tunnels.as_ref().and_then(|t| t.kernel_fd()))?;
        }
        #[cfg(feature = "services")]
        {
            if reports_fd.is_none() {
                reports_fd = watch_fd(node.watch.fd())?;
            }
            while let Some(probe) = node.poll_probe(clock.now()) {
                probes.spawn(health::ask(probe));
            }
        }
        let deadline = node.poll_timeout().into_iter().chain(reload_at);
        #[cfg(feature = "socks")]
        let deadline = {
            node.no_socks = socks.handle_timeout(clock.now().mono);
            deadline.chain(socks.poll_timeout())
        };
        let deadline = deadline.min();
        let pause = deadline.map(|at| at.saturating_sub(clock.now().mono));
        timer.set(pause).context(|| "wait".to_owned())?;
        let [terminate, interrupt] = &mut stop[..] else { return Err(Error::new("listen to signals")) };
        let visitor = async { Input::Visitor(visitors.accept().await.map(|(stream, _)| stream)) };
        #[cfg(feature = "services")]
        let visitor = first(visitor, async {
            tokio::select! {
                () = readable(&reports_fd) => Input::Reports,
                Some(Ok((probe, answer))) = probes.join_next() => Input::Answer(probe, answer),
                // Both may never come.
                else => std::future::pending().await,
            }
        });
        #[cfg(feature = "socks")]
        let visitor = first(visitor, async { Input::Call(socks.next().await) });
        let input = tokio::select! {
            biased;
            _ = terminate.recv() => Input::Stop,
            _ = interrupt.recv() => Input::Stop,
            _ = reload.recv() => Input::Reload,
            () = readable(&keeper_fd) => Input::Keeper,
            () = readable(&kernel_fd) => Input::KernelIpsec,
            () = readable(&network_fd) => Input::Network,
            () = files.changed() => Input::Files,
            input = visitor => input,
            () = readable(&timer_fd) => Input::Timer,
        };
        let now = clock.now();
        match input {
            Input::Stop => {
                log::info!("stopping; tunnels, routes and rules stay until `{} clean`", program.name);
                break;
            }
            Input::Reload => reload_at = Some(now.mono),
            Input::Files => {
                if files.drain() {
                    reload_at = Some(now.mono + SETTLE);
                }
                #[cfg(feature = "api")]
                node.handle_desk(now);
            }
            Input::Keeper => node.handle_keeper(now),
            Input::KernelIpsec => node.handle_kernel(now),
            Input::Network => {
                let mut relevant = false;
                while let Some(notice) = network.take().context(|| "watch the network".to_owned())? {
                    relevant |= concerns_us(&notice);
                }
                if relevant {
                    node.handle_network(now);
                }
            }
            Input::Visitor(stream) => {
                let Ok(stream) = stream else { continue };
                if answer(stream, program, &mut node, now).await.unwrap_or(false) {
                    node.shutdown(now);
                    break;
                }
            }
            #[cfg(feature = "services")]
            Input::Reports => node.handle_reports(now),
            #[cfg(feature = "services")]
            Input::Answer(probe, answer) => node.handle_answer(now, &probe, answer),
            #[cfg(feature = "socks")]
            Input::Call(call) => socks.serve(call, node.config(), node.pod_addresses()),
            Input::Timer => node.handle_timeout(now),
        }
    }
    #[cfg(feature = "api")]
    node.put_away(clock.now());
    let _ = fs::remove_file(node.options.status_socket());
    #[cfg(feature = "socks")]
    let _ = fs::remove_file(node.options.socks_socket());
    Ok(())
}

/// Whichever comes first.
#[cfg(any(feature = "services", feature = "socks"))]
async fn first(one: impl Future<Output = Input>, other: impl Future<Output = Input>) -> Input {
    tokio::select! {
        input = one => input,
        input = other => input,
    }
}

/// Changes in our own tables are our own doing.
fn concerns_us(notice: &selvedge_linux::netlink::Notice<link::Event>) -> bool {
    use selvedge_linux::netlink::Notice;
    use selvedge_plan::{NODE_TABLE, POD_TABLE};
    !matches!(notice, Notice::Event(link::Event::Route { table }) if matches!(*table, POD_TABLE | NODE_TABLE))
}

/// Answers one visitor: `status` or `stop`. True if the program is to stop.
async fn answer(
    mut stream: UnixStream,
    program: &Program,
    node: &mut Node,
    now: selvedge_tunnel::Now,
) -> io::Result<bool> {
    let mut word = [0; 16];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut word)).await??;
    match &word[..read] {
        b"stop\n" => {
            stream.write_all(b"{}\n").await?;
            Ok(true)
        }
        _ => {
            let text = match &word[..read] {
                #[cfg(feature = "services")]
                b"services\n" => miniserde::json::to_string(&crate::served::summary(node, now)),
                #[cfg(feature = "gateway")]
                b"gateway\n" => {
                    let status = crate::summary::gateway(node);
                    miniserde::json::to_string(&crate::gateway::told::summary(node, status, now))
                }
                _ => miniserde::json::to_string(&summary(program, node, now)),
            };
            // A visitor that does not read must not hold up the node.
            tokio::time::timeout(PATIENCE, stream.write_all(text.as_bytes())).await??;
            Ok(false)
        }
    }
}

pub(crate) fn listen(path: &Path) -> Result<UnixListener> {
    let what = || format!("listen on {}", path.display());
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::new(format!("{} is answered: another one runs already", path.display())));
    }
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).context(what)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context(what)?;
    Ok(listener)
}

/// Registers a descriptor of our own that stands for the same socket, so that it cannot be closed under the event loop.
fn watch_fd(fd: Option<BorrowedFd<'_>>) -> Result<Option<AsyncFd<OwnedFd>>> {
    #[expect(deprecated, reason = "the replacement is `unsafe`, and an OwnedFd keeps what it asks for")]
    let register = |fd| AsyncFd::with_interest(fd, tokio::io::Interest::READABLE);
    fd.map(|fd| fd.try_clone_to_owned().and_then(register)).transpose().context(|| "watch a descriptor".to_owned())
}

async fn readable(fd: &Option<AsyncFd<OwnedFd>>) {
    match fd {
        None => std::future::pending().await,
        Some(fd) => {
            if let Ok(mut guard) = fd.readable().await {
                // Whoever reads, reads until there is nothing left.
                guard.clear_ready();
            }
        }
    }
}

/// Watches on everything a delivery may change.
#[derive(Default)]
struct Files {
    watches: Vec<(Watch, Option<AsyncFd<OwnedFd>>)>,
    complete: bool,
    #[cfg(feature = "api")]
    desk: Desk,
}

impl Files {
    fn watch(node: &Node) -> Self {
        let options = &node.options;
        // Either the folder of credentials is swapped as a whole, or files within it.
        let within = source::CREDENTIAL_FILES.iter();
        #[cfg(feature = "crl")]
        let within = within.chain([&source::REVOKED]);
        #[cfg(feature = "gateway")]
        let within = within.chain([&source::GATEWAY]);
        let within = within.map(|name| options.credentials.join(name));
        let places: Vec<PathBuf> =
            [options.config.clone(), options.credentials.clone()].into_iter().chain(within).collect();
        #[cfg(feature = "gzip")]
        let places = [places, vec![source::packed(&options.config)]].concat();
        let mut files = Files {
            watches: Vec::new(),
            complete: true,
            #[cfg(feature = "api")]
            desk: node.desk.clone(),
        };
        #[cfg(feature = "api")]
        if options.source.kind != SourceKind::File {
            return files;
        }
        for place in places {
            match Watch::new(&place) {
                Ok(watch) => {
                    let fd = watch_fd(Some(watch.as_fd())).ok().flatten();
                    files.complete &= fd.is_some();
                    files.watches.push((watch, fd));
                }
                Err(error) => {
                    log::debug!("{error}");
                    files.complete = false;
                }
            }
        }
        files
    }

    async fn changed(&self) {
        let mut waits: Vec<_> = self.watches.iter().map(|(_, fd)| Box::pin(readable(fd))).collect();
        #[cfg(feature = "api")]
        let mut news = std::pin::pin!(self.desk.news());
        std::future::poll_fn(|context| {
            for wait in &mut waits {
                if wait.as_mut().poll(context).is_ready() {
                    return std::task::Poll::Ready(());
                }
            }
            #[cfg(feature = "api")]
            if news.as_mut().poll(context).is_ready() {
                return std::task::Poll::Ready(());
            }
            std::task::Poll::Pending
        })
        .await;
    }

    /// True if anything has to be read again.
    fn drain(&mut self) -> bool {
        // All of them: each must be emptied to wake the loop again.
        let watched = self.watches.iter_mut().map(|(watch, _)| watch.drain().unwrap_or(true));
        #[cfg(feature = "api")]
        let watched = watched.chain([self.desk.take_news()]);
        watched.fold(false, |any, one| any | one)
    }
}
