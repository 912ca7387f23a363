//! Keepers in network namespaces of their own: two ends joined by a cable, with hand-installed Security Associations.
//! Needs root and `ip`, `ping`.

#![allow(clippy::unwrap_used, clippy::panic)]

mod ike;
mod interop;
mod lab;
mod life;
mod traffic;

use selvedge_tunnel::keeper::{Options, run};

/// Not a test: the keepers of the tests are this, started by [`lab`].
#[test]
#[ignore = "the process behind the other tests"]
fn keeper_process() {
    let args = std::env::var("SELVEDGE_KEEPER").unwrap();
    run(&Options::from_args(args.split(' ').map(Into::into)).unwrap()).unwrap();
}
