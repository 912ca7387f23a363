//! One container follows another on a node: the next one is started while the one before still runs, and takes over
//! when that has ended, so that tunnels are without a program only for a moment.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use selvedge_tunnel::keeper;
use tokio::signal::unix::Signal;
use tokio::time::{Instant, sleep};

use crate::Options;

/// How often the other one is looked for: between the two, packets are lost.
const LOOK: Duration = Duration::from_millis(20);
/// A keeper that is still there so long after its program was in no container, and serves the next program too. Until
/// then its tunnels work, so nothing is lost by waiting.
const KEEPER: Duration = Duration::from_secs(5);

/// Waits until no other program of this run directory is there. False if this one is to stop instead.
pub(crate) async fn await_turn(options: &Options, stop: &mut [Signal]) -> bool {
    if !is_there(options) {
        return true;
    }
    log::info!("another one runs on this node; waiting until it has ended");
    let ended = async {
        while is_there(options) {
            sleep(LOOK).await;
        }
        let since = Instant::now();
        while keeper::runs(&options.run_dir) && since.elapsed() < KEEPER {
            sleep(LOOK).await;
        }
    };
    let stopped = std::future::poll_fn(|context| {
        let stops = stop.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if stops { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    tokio::select! {
        biased;
        () = stopped => false,
        () = ended => true,
    }
}

fn is_there(options: &Options) -> bool {
    match UnixStream::connect(options.status_socket()) {
        Ok(_) => true,
        // Many ask it at once.
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
