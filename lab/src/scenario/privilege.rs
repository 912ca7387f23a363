//! The programs may do what they need and nothing else, as root and as a user of their own.

use anyhow::{Context, Result, ensure};
use selvedge_linux::landlock;

use super::without_loss;
use crate::fabric::Fabric;
use crate::table::Report;

/// A user that every system has.
const USER: &str = "nobody";
const UID: &str = "65534";

/// `CAP_NET_BIND_SERVICE`, `CAP_NET_ADMIN` and `CAP_NET_RAW`.
const THREE: &str = "0000000000003400";
const NONE: &str = "0000000000000000";

/// On an edge and on the connector: as root, as another user, and from one to the other and back.
pub fn run(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    for (number, name, pair) in [("13a", "edge-1", ("edge-1", "cloud-2")), ("13b", "cloud-1", ("edge-2", "cloud-2"))] {
        let before = fabric.lab.node(name)?.user.clone();
        report.check(&format!("{number}1"), &format!("{name} as root"), || {
            become_user(fabric, name, None)?;
            fabric.clean(name)?;
            fabric.start_program(name)?;
            fabric.await_keyed(name)?;
            confined(fabric, name, "0", "0")
        });
        report.check(&format!("{number}2"), &format!("{name} becomes {USER} and takes over root's tunnels"), || {
            let lossless = without_loss(fabric, pair, |fabric| become_user(fabric, name, Some(USER)))?;
            confined(fabric, name, UID, "0")?;
            Ok(lossless)
        });
        report.check(&format!("{number}3"), &format!("{name}: root cleans, {USER} starts from nothing"), || {
            fabric.clean(name)?;
            fabric.start_program(name)?;
            fabric.await_keyed(name)?;
            confined(fabric, name, UID, UID)
        });
        report.check(&format!("{number}4"), &format!("{name} becomes root again and takes over"), || {
            let lossless = without_loss(fabric, pair, |fabric| become_user(fabric, name, None))?;
            confined(fabric, name, "0", UID)?;
            Ok(lossless)
        });
        if before.is_some() {
            become_user(fabric, name, before.as_deref())?;
        }
    }
    Ok(())
}

fn become_user(fabric: &mut Fabric, name: &str, user: Option<&str>) -> Result<()> {
    fabric.kill(name)?;
    fabric.set_user(name, user)?;
    fabric.start_program(name)?;
    fabric.await_keyed(name)
}

/// Program and keeper have these user numbers and no capability too many; what they said of it.
fn confined(fabric: &Fabric, name: &str, program: &str, keeper: &str) -> Result<String> {
    let own = if program == "0" { NONE } else { THREE };
    expect(
        fabric.process(name, "run")?,
        program,
        &[("CapPrm", THREE), ("CapEff", THREE), ("CapBnd", THREE), ("CapInh", own), ("CapAmb", own)],
    )?;
    expect(
        fabric.process(name, "keeper")?,
        keeper,
        &[("CapPrm", NONE), ("CapEff", NONE), ("CapBnd", THREE), ("CapInh", NONE), ("CapAmb", NONE)],
    )?;
    let said = fabric.status(name)?.confinement;
    let landlock = match landlock::version() {
        Some(version) => format!("Landlock version {version}"),
        None => "no Landlock in this kernel".to_owned(),
    };
    ensure!(said.ends_with(&landlock), "{said}; expected {landlock}");
    Ok(said)
}

fn expect(pid: u32, uid: &str, sets: &[(&str, &str)]) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let words: Vec<&str> = line.with_context(|| format!("no {name}"))?.split_whitespace().collect();
        Ok::<_, anyhow::Error>(words.join(" "))
    };
    let ids = [uid; 4].join(" ");
    let more = [("Uid", ids.as_str()), ("NoNewPrivs", "1")];
    for (name, wanted) in sets.iter().chain(&more) {
        let found = field(name)?;
        ensure!(found == *wanted, "process {pid}: {name} is {found}, not {wanted}");
    }
    Ok(())
}
