//! strongSwan as the other end: both roles, certificates, a NAT between, rekeys asked for by either side, refusals.
//!
//! ```text
//!  left 10.9.1.2 ── router, source NAT ── right 10.9.2.2          inner: left 10.1.0.1, right 10.2.0.1
//! ```
//!
//! The caller sits on the left, behind the NAT. strongSwan carries ESP in user space (kernel-libipsec), so no ESP is needed in
//! the kernel.

mod charon;
mod site;
mod speaker;

use std::process::ExitCode;

use anyhow::{Result, ensure};

use charon::{Charon, Connection};
use site::{Place, Site};
use speaker::Speaker;

use crate::table::Report;

/// Runs everything and prints a row for each thing proved.
pub fn run() -> Result<ExitCode> {
    let mut report = Report::new();
    report.title("Keying with strongSwan (charon, kernel-libipsec), through a NAT, with certificates");
    let all = Connection::default();
    exchange(&mut report, "a", Place::Left, &all, &[])?;
    exchange(&mut report, "b", Place::Right, &all, &[])?;
    let aes128 = Connection { ike: "aes128gcm16-prfsha256-ecp256", esp: "aes128gcm16-ecp256", ..all.clone() };
    exchange(&mut report, "c", Place::Left, &aes128, &[])?;
    let chacha =
        Connection { ike: "chacha20poly1305-prfsha384-curve25519", esp: "chacha20poly1305-ecp256", ..all.clone() };
    exchange(&mut report, "d", Place::Left, &chacha, &["--chacha", "yes"])?;
    refusals(&mut report)?;
    agent(&mut report)?;
    Ok(report.finish())
}

/// One tunnel's life with our end at `place`, calling if that is behind the NAT.
fn exchange(report: &mut Report, group: &str, place: Place, connection: &Connection, options: &[&str]) -> Result<()> {
    let site = Site::new()?;
    let we_call = place == Place::Left;
    report.title(&format!("{} calls, {}", if we_call { "Selvedge" } else { "strongSwan" }, connection.ike));
    let theirs = place.other();
    let (mut ours, charon);
    if we_call {
        charon = Charon::start(&site, theirs, connection, None)?;
        ours = Speaker::start(&site, place, Some(theirs), options)?;
    } else {
        ours = Speaker::start(&site, place, None, options)?;
        charon = Charon::start(&site, theirs, connection, Some(place))?;
        charon.control(&["--initiate", "--child", "k", "--timeout", "20"])?;
    }
    let mut row = |number: u32, what: &str, check: &mut dyn FnMut() -> Result<String>| {
        report.check(&format!("{group}{number}"), what, check);
    };
    row(1, "a tunnel through the NAT", &mut || {
        ours.expect("peer-up ")?;
        charon.installed("TUNNEL-in-UDP")
    });
    row(2, "packets both ways", &mut || site.ping(theirs));
    row(3, "our rekey of the CHILD_SA", &mut || {
        ours.command("rekey-child")?;
        ours.expect("child-up ")?;
        ours.expect("child-retired ")?;
        site.ping(theirs)
    });
    row(4, "our rekey of the IKE SA", &mut || {
        let before = charon.ike_spis()?;
        ours.command("rekey-ike")?;
        charon.await_other_spis(&before)?;
        site.ping(theirs)
    });
    row(5, "strongSwan's rekey of the CHILD_SA", &mut || {
        charon.control(&["--rekey", "--child", "k"])?;
        ours.expect("child-up ")?;
        ours.expect("child-retired ")?;
        site.ping(theirs)
    });
    row(6, "strongSwan's rekey of the IKE SA", &mut || {
        let before = charon.ike_spis()?;
        charon.control(&["--rekey", "--ike", "c"])?;
        charon.await_other_spis(&before)?;
        site.ping(theirs)
    });
    row(7, "the keys after both are the right ones", &mut || {
        ours.command("rekey-child")?;
        ours.expect("child-up ")?;
        site.ping(theirs)
    });
    row(8, "a farewell", &mut || {
        if we_call {
            ours.command("quit")?;
            charon.await_no_sa()
        } else {
            charon.control(&["--terminate", "--ike", "c"])?;
            ours.expect("peer-down ")
        }
    });
    Ok(())
}

/// Both ends must say no, and why.
fn refusals(report: &mut Report) -> Result<()> {
    report.title("Refusals");
    for (number, what, setting, reason) in [
        (
            "r1",
            "strongSwan expects another name",
            Connection { remote_id: "lab.other", ..Connection::default() },
            "refused our certificate",
        ),
        (
            "r2",
            "strongSwan's certificate is by another authority",
            Connection { stranger: true, ..Connection::default() },
            "another CA",
        ),
        (
            "r3",
            "no algorithm in common",
            Connection { ike: "aes256-sha256-modp2048", ..Connection::default() },
            "NO_PROPOSAL_CHOSEN",
        ),
    ] {
        let site = Site::new()?;
        let _charon = Charon::start(&site, Place::Right, &setting, None)?;
        let mut ours = Speaker::start(&site, Place::Left, Some(Place::Right), &[])?;
        report.check(number, what, || {
            let said = ours.await_status(reason)?;
            ensure!(!ours.saw("child-up "), "a tunnel came up all the same");
            Ok(said)
        });
    }
    Ok(())
}

/// The agent itself on the left, with routes and a TUN of its own.
fn agent(report: &mut Report) -> Result<()> {
    report.title("The agent behind the NAT");
    let site = Site::new()?;
    let charon = Charon::start(&site, Place::Right, &Connection::default(), None)?;
    let _agent = site.start_agent(Place::Left, Place::Right)?;
    report.check("g1", "selvedge-agent keys with strongSwan", || charon.installed("TUNNEL-in-UDP"));
    report.check("g2", "packets by its routes and its user-space ESP", || site.ping(Place::Left));
    Ok(())
}
