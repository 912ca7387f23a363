//! How a keeper is started.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Who carries ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel (xfrm); the keeper holds the UDP encapsulation sockets.
    Kernel,
    /// The keeper, between a TUN device and UDP.
    User,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Kernel => "kernel",
            Mode::User => "user",
        })
    }
}

/// What a keeper holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where `keeper.sock` and `keeper.log` are.
    pub run_dir: PathBuf,
    /// Who carries ESP.
    pub mode: Mode,
    /// Name of the TUN device (user mode).
    pub tun: String,
    /// Its MTU.
    pub mtu: u16,
    /// Port of IKE alone.
    pub ike_port: u16,
    /// Port of IKE behind the non-ESP marker and of ESP.
    pub encap_port: u16,
}

impl Options {
    /// The well-known ports and the device `selvedge0`.
    ///
    /// 1400 leaves room in 1500 for IPv6, UDP, ESP and a PPPoE header.
    pub fn new(run_dir: impl Into<PathBuf>, mode: Mode) -> Self {
        let tun = "selvedge0".to_owned();
        Options { run_dir: run_dir.into(), mode, tun, mtu: 1400, ike_port: 500, encap_port: 4500 }
    }

    /// The command line behind the verb that starts a keeper.
    pub fn to_args(&self) -> Vec<OsString> {
        vec![
            self.run_dir.clone().into(),
            self.mode.to_string().into(),
            self.tun.clone().into(),
            self.mtu.to_string().into(),
            self.ike_port.to_string().into(),
            self.encap_port.to_string().into(),
        ]
    }

    /// Reads what [`to_args`](Self::to_args) wrote; `None` for anything else.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut args = args.into_iter();
        let run_dir = args.next()?.into();
        let mut text = || args.next()?.into_string().ok();
        let options = Options {
            run_dir,
            mode: match text()?.as_str() {
                "kernel" => Mode::Kernel,
                "user" => Mode::User,
                _ => return None,
            },
            tun: text()?,
            mtu: text()?.parse().ok()?,
            ike_port: text()?.parse().ok()?,
            encap_port: text()?.parse().ok()?,
        };
        text().is_none().then_some(options)
    }

    pub(super) fn socket(&self) -> PathBuf {
        socket(&self.run_dir)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.run_dir.join("keeper.log")
    }
}

pub(super) fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("keeper.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_back() {
        for mode in [Mode::Kernel, Mode::User] {
            let options = Options { mtu: 1280, ike_port: 1500, ..Options::new("/run/a b", mode) };
            assert_eq!(Options::from_args(options.to_args()), Some(options.clone()));
            let mut more = options.to_args();
            more.push("x".into());
            assert_eq!(Options::from_args(more), None);
            assert_eq!(Options::from_args(options.to_args().into_iter().take(5)), None);
        }
        assert_eq!(Options::from_args(["/run", "both", "t", "1", "2", "3"].map(OsString::from)), None);
    }
}
