//! Credentials that must not be accepted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use super::Lossless;
use crate::exec;
use crate::fabric::Fabric;
use crate::programs::wait;
use crate::table::Report;

const NODE: &str = "edge-1";
const NAME: &str = "beijing.edge-1";
pub(super) const DAY: i64 = 24 * 60 * 60;

/// Refused with a reason on both sides.
pub fn refused(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    let dir = fabric.lab.dir.join("credentials");
    let wrong = Authority::create(&dir.join("wrong-ca"))?;
    let ours = Authority::of_operator(fabric);
    let cases = [
        ("7a", "certificate of another CA", wrong.issue(&dir.join("wrong"), NAME, 0, 30 * DAY)?),
        ("7b", "certificate that has expired", ours.issue(&dir.join("expired"), NAME, -40 * DAY, -10 * DAY)?),
        ("7c", "certificate of another node", fabric.output.join("edge-2").join("tls")),
    ];
    for (number, what, credentials) in cases {
        report.check(number, what, || {
            fabric.clean(NODE)?;
            let before = fabric.status("cloud-1")?.refused;
            let mut folders = fabric.folders(fabric.lab.node(NODE)?);
            folders.credentials = credentials;
            fabric.start_program_with(NODE, &folders)?;
            let edge = fabric.await_status(NODE, "why the tunnel is refused", |status| {
                let peer = status.peer("beijing.connector")?;
                ensure!(peer.state != "up", "the tunnel is up");
                peer.last_error.clone().context("no reason given")
            })?;
            let connector = fabric.await_status("cloud-1", "why the caller is refused", |status| {
                let refusal = status.refused.iter().find(|r| !before.contains(r)).context("nobody was refused")?;
                ensure!(refusal.claimed.as_deref() == Some(NAME), "{refusal:?}");
                Ok(refusal.reason.clone())
            })?;
            Ok(format!("edge: {edge}; connector: {connector}"))
        });
    }
    fabric.clean(NODE)?;
    fabric.start_program(NODE)
}

/// The operator renews by its own timer, agent and connector take the new certificates over while traffic flows, and
/// those are what they prove themselves with from then on.
pub fn renewed(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    const NODES: [(&str, &str); 2] = [("edge-1", NAME), ("cloud-1", "beijing.connector")];
    /// Seconds that the old certificates have gone by, and those that are left. The operator renews after two thirds.
    const LIFE: (i64, i64) = (25, 15);
    /// The operator dates certificates back by this.
    const BACKDATE: i64 = DAY;
    let mut end = 0;
    report.check("11a", "certificates near their end are renewed, none lost", || {
        let traffic = Lossless::start(fabric, (NODE, "cloud-2"))?;
        fabric.operator.terminate()?;
        let ours = Authority::of_operator(fabric);
        for (node, name) in NODES {
            let dir = fabric.lab.dir.join("credentials").join(node);
            let issued = ours.issue(&dir, name, -LIFE.0 - BACKDATE, LIFE.1)?;
            end = now() + LIFE.1.unsigned_abs();
            deliver(&issued, &fabric.output.join(node).join("tls"))?;
            ends(fabric, node, |at| at <= end)?;
        }
        fabric.start_operator()?;
        for (node, _) in NODES {
            ends(fabric, node, |at| at > end + DAY.unsigned_abs())?;
        }
        traffic.stop()
    });
    report.check("11b", "the new ones count when the old ones have expired", || {
        wait("end of the old certificates", Duration::from_secs(30), || {
            ensure!(now() > end, "not yet");
            Ok(())
        })?;
        fabric.clean("edge-2")?;
        fabric.start_program("edge-2")?;
        fabric.await_keyed("edge-2")?;
        Ok("accepted by edge-2".to_owned())
    });
    Ok(())
}

/// Waits until the certificate of a node's program ends when it should.
fn ends(fabric: &Fabric, node: &str, when: impl Fn(u64) -> bool) -> Result<()> {
    fabric.await_status(node, "the certificate in force", |status| {
        let at = status.certificate_not_after.context("no certificate")?;
        ensure!(when(at), "it ends at {at}");
        Ok(())
    })
}

/// Puts credentials where the operator puts them, as it does.
fn deliver(from: &Path, to: &Path) -> Result<()> {
    let version = to.join("..lab");
    std::fs::create_dir_all(&version)?;
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        std::fs::copy(from.join(file), version.join(file))?;
    }
    std::os::unix::fs::symlink("..lab", to.join("..swap"))?;
    std::fs::rename(to.join("..swap"), to.join("..data")).context("swap the credentials")
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A certificate authority made by OpenSSL, or the operator's.
pub(super) struct Authority {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    pub(super) fn of_operator(fabric: &Fabric) -> Self {
        let state = fabric.output.join(".state");
        Self { certificate: state.join("ca.crt"), key: state.join("ca.key") }
    }

    fn create(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let authority = Self { certificate: dir.join("ca.crt"), key: dir.join("ca.key") };
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
        command.args(["-subj", "/CN=Another CA", "-addext", "basicConstraints=critical,CA:TRUE"]);
        command.arg("-keyout").arg(&authority.key).arg("-out").arg(&authority.certificate);
        exec::run(&mut command)?;
        Ok(authority)
    }

    /// A folder of credentials for `name`, valid between two moments in seconds from now.
    pub(super) fn issue(&self, dir: &Path, name: &str, from: i64, to: i64) -> Result<PathBuf> {
        std::fs::create_dir_all(dir.join("issued"))?;
        std::fs::write(dir.join("index"), "")?;
        std::fs::copy(&self.certificate, dir.join("ca.crt"))?;
        let extensions = format!("subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth,clientAuth\n");
        std::fs::write(dir.join("extensions"), extensions)?;
        let settings = "[ca]\ndefault_ca=a\n[a]\npolicy=p\ndatabase=index\nnew_certs_dir=issued\ndefault_md=sha256\n\
                        rand_serial=yes\nunique_subject=no\n[p]\ncommonName=supplied\n";
        std::fs::write(dir.join("settings"), settings)?;
        let openssl = |arguments: &[&str]| exec::run(Command::new("openssl").args(arguments).current_dir(dir));
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "tls.key"])?;
        openssl(&["req", "-new", "-key", "tls.key", "-subj", &format!("/CN={name}"), "-out", "request"])?;
        let moment = |seconds: i64| -> Result<String> {
            let then = format!("@{}", now().saturating_add_signed(seconds));
            let text = exec::run(Command::new("date").args(["-u", "-d", &then, "+%Y%m%d%H%M%SZ"]))?;
            Ok(text.trim().to_owned())
        };
        let (certificate, key) = (self.certificate.to_string_lossy(), self.key.to_string_lossy());
        let (start, end) = (moment(from)?, moment(to)?);
        let mut arguments = vec!["ca", "-batch", "-notext", "-config", "settings", "-extfile", "extensions"];
        arguments.extend(["-cert", &certificate, "-keyfile", &key, "-in", "request", "-out", "tls.crt"]);
        arguments.extend(["-startdate", &start, "-enddate", &end]);
        openssl(&arguments)?;
        Ok(dir.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issued_certificates_are_of_the_authority_and_of_their_time() {
        let dir = std::env::temp_dir().join(format!("selvedge-lab-test-{}", std::process::id()));
        let authority = Authority::create(&dir.join("ca")).unwrap();
        let verify = |name: &str, from, to| {
            let issued = authority.issue(&dir.join(name), "beijing.edge-1", from, to).unwrap();
            let mut command = Command::new("openssl");
            exec::run(command.arg("verify").arg("-CAfile").arg(issued.join("ca.crt")).arg(issued.join("tls.crt")))
        };
        let (good, expired) = (verify("good", 0, 30 * DAY), verify("expired", -40 * DAY, -10 * DAY));
        let _ = std::fs::remove_dir_all(&dir);
        good.unwrap();
        assert!(expired.unwrap_err().to_string().contains("expired"));
    }
}
