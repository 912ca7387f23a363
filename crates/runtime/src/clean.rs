//! Removes everything the program ever made on this node, and nothing else.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use selvedge_linux::file;
use selvedge_plan::{Plan, diff};
use selvedge_tunnel::{flush_kernel_sas, keeper};

use crate::error::Context as _;
use crate::kernel::Kernel;
use crate::{Error, Options, Result, firewall, source};

/// Goes on after a failure, so that as much as possible is gone; all failures are reported together.
pub fn clean(options: &Options) -> Result<()> {
    let mut failures: Vec<String> = Vec::new();
    let mut note = |result: Result<()>| failures.extend(result.err().map(|e| e.to_string()));
    note(stop_running(options));
    note(keeper::stop(&options.run_dir).map(drop).context(|| "stop the keeper".to_owned()));
    note(flush_kernel_sas().map(drop).or_else(without_ipsec).context(|| "remove SAs".to_owned()));
    note(firewall::remove_all().context(|| "remove firewall rules".to_owned()));
    note(network().context(|| "remove routes, rules, policies and the device".to_owned()));
    note(cni(options));
    for path in ["clock", "config.json", "tls/ca.crt", "tls/tls.crt", "tls/tls.key"] {
        note(remove_file(&options.state_dir.join(path)));
    }
    for path in ["keeper.sock", "keeper.log", "status.sock"] {
        note(remove_file(&options.run_dir.join(path)));
    }
    #[cfg(feature = "api")]
    for path in [
        options.run_dir.join(source::SERVICES),
        options.state_dir.join(source::SERVICES),
        options.state_dir.join("config.version"),
        options.state_dir.join("tls.version"),
    ] {
        note(remove_file(&path));
    }
    for dir in [options.state_dir.join("tls"), options.state_dir.clone(), options.run_dir.clone()] {
        // A folder that holds what others put there stays.
        let _ = fs::remove_dir(dir);
    }
    if failures.is_empty() { Ok(()) } else { Err(Error::new(failures.join("; "))) }
}

/// Ends a running program together with its tunnels.
fn stop_running(options: &Options) -> Result<()> {
    let Ok(mut stream) = UnixStream::connect(options.status_socket()) else { return Ok(()) };
    let stop = |stream: &mut UnixStream| {
        stream.write_all(b"stop\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)
    };
    stop(&mut stream).map(drop).context(|| "stop the running program".to_owned())?;
    // It removes its socket as the last thing it does.
    for _ in 0..500 {
        if !options.status_socket().exists() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err(Error::new("the running program does not stop"))
}

fn without_ipsec(error: selvedge_linux::Error) -> selvedge_linux::Result<()> {
    // A kernel without IPsec holds no SAs.
    if error.is_unsupported() { Ok(()) } else { Err(error) }
}

fn network() -> selvedge_linux::Result<()> {
    let mut kernel = Kernel::open()?;
    kernel.refresh()?;
    let mut outcome = Ok(());
    for step in diff(&kernel.applied()?, &Plan::nothing()) {
        outcome = outcome.and(kernel.step(&step));
    }
    outcome.and(kernel.ensure_device(None))
}

/// The CNI file of the last configuration, and the bridge of its network if no pod hangs on it any more.
fn cni(options: &Options) -> Result<()> {
    let Some(dir) = &options.cni_dir else { return Ok(()) };
    let kept = source::read_config(&options.state_dir.join("config.json")).ok();
    let Some(cni) = kept.and_then(|(config, _)| config.cni) else { return Ok(()) };
    remove_file(&dir.join(format!("{}.conflist", cni.network)))?;
    Kernel::open()
        .and_then(|mut kernel| kernel.delete_idle_bridge(&cni.bridge))
        .context(|| format!("remove {}", cni.bridge))
}

fn remove_file(path: &Path) -> Result<()> {
    file::remove(path).map(drop).context(|| format!("remove {}", path.display()))
}
