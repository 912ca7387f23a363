//! Credentials that must not be accepted.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::exec;
use crate::fabric::Fabric;
use crate::table::Report;

const NODE: &str = "edge-1";
const NAME: &str = "beijing.edge-1";

/// Refused with a reason on both sides.
pub fn refused(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    let dir = fabric.lab.dir.join("credentials");
    std::fs::create_dir_all(&dir)?;
    let own = fabric.output.join(".state");
    let wrong = Authority::create(&dir.join("wrong-ca"))?;
    let ours = Authority { certificate: own.join("ca.crt"), key: own.join("ca.key") };
    let cases = [
        ("7a", "certificate of another CA", wrong.issue(&dir.join("wrong"), NAME, 0, 30)?),
        ("7b", "certificate that has expired", ours.issue(&dir.join("expired"), NAME, -40, -10)?),
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
                let peer = status.peers.iter().find(|peer| peer.name == "beijing.connector").context("no such peer")?;
                ensure!(peer.state != "up", "the tunnel is up");
                peer.last_error.clone().context("no reason given")
            })?;
            let connector = fabric.await_status("cloud-1", "why the caller is refused", |status| {
                let refusal = status.refused.iter().find(|r| !before.contains(r)).context("nobody was refused")?;
                Ok(format!("{} from {}: {}", refusal.claimed, refusal.remote, refusal.reason))
            })?;
            Ok(format!("edge: {edge}; connector: {connector}"))
        });
    }
    Ok(())
}

/// A certificate authority made by OpenSSL, or the operator's.
struct Authority {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
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

    /// A folder of credentials for `name`, valid between two moments in days from now.
    fn issue(&self, dir: &Path, name: &str, from: i64, to: i64) -> Result<PathBuf> {
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
        let moment = |days: i64| -> Result<String> {
            let text = exec::run(Command::new("date").args(["-u", "-d", &format!("{days} days"), "+%Y%m%d%H%M%SZ"]))?;
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
        let (good, expired) = (verify("good", 0, 30), verify("expired", -40, -10));
        let _ = std::fs::remove_dir_all(&dir);
        good.unwrap();
        assert!(expired.unwrap_err().to_string().contains("expired"));
    }
}
