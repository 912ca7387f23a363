//! What the running program gives up before it does anything else: all users but one, all capabilities but three, all
//! files but its own.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use selvedge_linux::capabilities::{self, Capability};
use selvedge_linux::landlock::{self, Access, Tcp};
use selvedge_linux::user::{Right, User};
use selvedge_linux::{process, sysctl};

use crate::error::Context as _;
use crate::source::private_dir;
use crate::{Error, Options, Result};

/// Routes, xfrm, firewall and TUN; the sockets of the iptables tools; UDP port 500.
const CAPABILITIES: [Capability; 3] = [Capability::NetAdmin, Capability::NetRaw, Capability::NetBindService];

/// What nothing loads when it is needed, or only those who may load modules themselves.
const MODULES: [&str; 4] = ["tun", "br_netfilter", "ip_tables", "ip6_tables"];

/// Shared by all users of iptables; where it is depends on how that was built.
const IPTABLES_LOCKS: [&str; 2] = ["/run/xtables.lock", "/var/run/xtables.lock"];

/// Where programs, their libraries and their settings are, and what the kernel tells. Nobody's home, and no data.
const READABLE: [&str; 11] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store", "/etc", "/proc", "/sys"];

const DEVICES: [&str; 4] = ["/dev/net/tun", "/dev/null", "/dev/random", "/dev/urandom"];

/// Makes the folders, becomes the user of the options and gives up what is not needed; for good, and for all programs
/// started later. Returns what is left, in words.
pub(crate) fn give_up(options: &Options, program: &Path) -> Result<String> {
    private_dir(&options.run_dir)?;
    let mut own_dirs = vec![&*options.run_dir];
    for (dir, made) in [
        (Some(&options.state_dir), private_dir(&options.state_dir)),
        (options.cni_dir.as_ref(), options.cni_dir.as_deref().map_or(Ok(()), public_dir)),
    ] {
        match made {
            Ok(()) => own_dirs.extend(dir.map(PathBuf::as_path)),
            // Whoever needs it says so again.
            Err(error) => log::warn!("{error}"),
        }
    }
    let user = match &options.user {
        Some(name) => Some(User::named(name).context(|| "--user".to_owned())?),
        None => None,
    };
    if User::is_root() {
        process::load_modules(&MODULES);
        hand_over(options, user.as_ref().unwrap_or(&User::root()))?;
    }
    let current = User::current();
    // Already whom we are to be, or to become it.
    let user = user.filter(|user| user.uid != current.uid);
    if let Some(user) = user.as_ref().filter(|_| current.uid != 0) {
        return Err(Error::new(format!("only root can run this as user {}, not {}", user.name, current.name)));
    }
    capabilities::keep_only(&CAPABILITIES, user.as_ref())
        .and_then(|()| process::forbid_dumps())
        .context(|| "give up privileges".to_owned())?;
    let landlock = match options.landlock.then(|| restrict(options, program, &own_dirs)).transpose()? {
        Some(Some(version)) => format!("Landlock version {version}"),
        Some(None) => "no Landlock in this kernel".to_owned(),
        None => "Landlock switched off".to_owned(),
    };
    let held = CAPABILITIES.into_iter().filter(|c| capabilities::has(*c).unwrap_or(false));
    let held: Vec<&str> = held.map(Capability::name).collect();
    Ok(format!("user {}, {}, {landlock}", User::current().name, held.join(" ")))
}

/// Gives the user what it is to write, and lets it read what root delivers.
fn hand_over(options: &Options, user: &User) -> Result<()> {
    user.take(&options.run_dir).context(|| "prepare the run directory".to_owned())?;
    let note = |result: selvedge_linux::Result<()>| {
        if let Err(error) = result {
            // A file that is not there, or a file system that is read-only: it may still do.
            log::debug!("{error}");
        }
    };
    note(user.take(&options.state_dir));
    for lock in IPTABLES_LOCKS.map(Path::new) {
        // As iptables makes it; later there is no right to.
        let made = File::options().create_new(true).write(true).mode(0o600).open(lock);
        log::debug!("{}: {}", lock.display(), if made.is_ok() { "made" } else { "as it was" });
        note(user.share(lock, Right::Read));
    }
    if let Some(dir) = &options.cni_dir {
        note(user.share(dir, Right::Add));
    }
    note(folder_of(&options.config).map_or(Ok(()), |folder| user.share(&folder, Right::Read)));
    note(user.share(&options.config, Right::Read));
    note(user.share_all(&options.credentials));
    #[cfg(feature = "api")]
    for file in [&options.source.token_file, &options.source.ca_file].into_iter().flatten() {
        note(user.share(file, Right::Read));
    }
    Ok(())
}

/// Folders in which tokens and authorities are replaced.
#[cfg(feature = "api")]
fn secrets(options: &Options) -> impl Iterator<Item = PathBuf> {
    let given = [&options.source.token_file, &options.source.ca_file].into_iter().flatten();
    let account = PathBuf::from(crate::source::target::ACCOUNT);
    given.filter_map(|file| folder_of(file)).chain([account]).filter(|folder| folder.is_dir())
}

/// Where the servers are written that this host asks: mostly a link out of `/etc`, to a file that is replaced.
#[cfg(feature = "dns")]
fn resolver() -> Option<PathBuf> {
    let file = std::fs::canonicalize(crate::dns::RESOLV_CONF).ok()?;
    // Below `/tmp` or `/run` is what is none of ours.
    let folder = file.parent().filter(|folder| folder.components().count() > 2).map(Path::to_owned);
    folder.or(Some(file))
}

fn restrict(options: &Options, program: &Path, own_dirs: &[&Path]) -> Result<Option<u32>> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let mut readable: Vec<PathBuf> = std::env::split_paths(&search).filter(|dir| dir.is_absolute()).collect();
    readable.extend(READABLE.map(PathBuf::from));
    // An upgrade puts another file in the place of this program.
    readable.extend(program.parent().map(Path::to_owned));
    // Folders that are replaced as a whole are found again only below one that stays.
    readable.extend(folder_of(&options.config).and_then(|folder| stays(&folder)));
    readable.extend(std::path::absolute(&options.credentials).ok().and_then(|folder| stays(&folder)));
    #[cfg(feature = "dns")]
    readable.extend(resolver());
    #[cfg(feature = "api")]
    readable.extend(secrets(options));
    let rules = readable.iter().map(|path| (path.as_path(), Access::Read));
    let rules = rules.chain(own_dirs.iter().map(|dir| (*dir, Access::Write)));
    let rules = rules.chain(sysctl::FOLDERS.map(|folder| (Path::new(folder), Access::Write)));
    let rules = rules.chain(IPTABLES_LOCKS.map(|path| (Path::new(path), Access::Read)));
    let rules = rules.chain(DEVICES.map(|path| (Path::new(path), Access::Device)));
    landlock::restrict(rules, Tcp::Allowed).context(|| "give up files".to_owned())
}

/// The nearest folder above `folder` that is there, unless that is the root: then the folder itself.
fn stays(folder: &Path) -> Option<PathBuf> {
    let above = folder.ancestors().skip(1).find(|above| above.is_dir())?;
    Some(if above.parent().is_some() { above } else { folder }.to_owned())
}

fn folder_of(path: &Path) -> Option<PathBuf> {
    Some(std::path::absolute(path).ok()?.parent()?.to_owned())
}

fn public_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).context(|| format!("create {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_may_be_replaced_is_allowed_from_above() {
        assert_eq!(stays(Path::new("/usr/bin")), Some("/usr".into()));
        assert_eq!(stays(Path::new("/usr/no/such")), Some("/usr".into()));
        assert_eq!(stays(Path::new("/no-such")), Some("/no-such".into()));
    }
}
