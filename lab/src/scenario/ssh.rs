//! Programs on a node, and pods with a password, reach other nodes by name.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::exec;
use crate::fabric::Fabric;
use crate::netns::Netns;
use crate::pace;
use crate::programs::{Folders, Program, verb, wait};
use crate::server::{Answer, MARKER, PORT};
use crate::table::Report;
use crate::topology::Net;

const SOCKS_PORT: u16 = 1080;
const SSHD: &str = "/usr/sbin/sshd";
const PATIENCE: Duration = Duration::from_secs(20);

pub fn run(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    let node = fabric.lab.node("edge-1")?;
    let folders = fabric.folders(node);
    let who = format!("WHO {MARKER}\n");
    let ask = |host: &str, port: u16| verb(node, &folders, &["connect", host, &port.to_string()], &who);
    report.check("20a", "connect to a node by name: through the tunnel", || {
        let answer: Answer = serde_json::from_str(&ask("edge-2", PORT)?)?;
        ensure!(answer.name == "host-edge-2", "{} answered", answer.name);
        let pods: ipnet::IpNet = "10.234.0.0/16".parse()?;
        ensure!(pods.contains(&answer.client.ip()), "it came from {}, outside the tunnel", answer.client);
        Ok(format!("as {}", answer.client.ip()))
    });
    report.check("20b", "connect to a pod and to a Service", || {
        let pod = fabric.lab.place(Net::Pod, "cloud-2")?;
        let answer: Answer = serde_json::from_str(&ask(&pod.address(true)?.to_string(), PORT)?)?;
        ensure!(answer.name == pod.name, "{} answered", answer.name);
        let answer: Answer = serde_json::from_str(&ask("edge-2-pod.default.svc.cluster.local", 80)?)?;
        ensure!(answer.node == "edge-2", "{} answered", answer.name);
        Ok("both answer".to_owned())
    });
    report.check("20c", "nothing outside the fabric is reached", || {
        for host in ["127.0.0.1", "198.51.100.1", "example.com", "connector"] {
            let error = ask(host, PORT).err().with_context(|| format!("{host} was reached"))?;
            ensure!(format!("{error:#}").contains("no node, pod or Service of the fabric"), "{host}: {error:#}");
        }
        Ok("4 of 4 refused".to_owned())
    });
    report.check("20d", "SOCKS5 from a pod, with the right password", || with_password(fabric, &folders));
    if Path::new(SSHD).exists() {
        report.check("20e", "ssh to a node by its name", || ssh(fabric, &folders));
    }
    Ok(())
}

fn with_password(fabric: &mut Fabric, folders: &Folders) -> Result<String> {
    let users = fabric.lab.dir.join("socks-users");
    std::fs::write(&users, "ann:secret\n")?;
    std::fs::set_permissions(&users, Permissions::from_mode(0o600))?;
    let pod = fabric.lab.place(Net::Pod, "edge-1")?;
    let IpAddr::V4(own) = pod.address(true)? else { anyhow::bail!("not IPv4") };
    let [a, b, c, _] = own.octets();
    let door = SocketAddr::new([a, b, c, 1].into(), SOCKS_PORT);
    let words = ["--socks", &door.to_string(), "--socks-users", &users.to_string_lossy()].map(str::to_owned);
    let mut with_socks = folders.clone();
    with_socks.source.extend(words);
    fabric.kill("edge-1")?;
    fabric.start_program_with("edge-1", &with_socks)?;
    let outcome = (|| {
        let from = fabric.lab.place(Net::Pod, "edge-1")?.ns;
        let answer = wait("SOCKS5", PATIENCE, || through(from, door, "ann:secret", "edge-2"))?;
        ensure!(answer.name == "host-edge-2", "{} answered", answer.name);
        for (login, host) in [("ann:wrong", "edge-2"), ("eve:secret", "edge-2"), ("ann:secret", "198.51.100.1")] {
            ensure!(through(from, door, login, host).is_err(), "{login} reached {host}");
        }
        Ok("a wrong one is refused".to_owned())
    })();
    fabric.kill("edge-1")?;
    fabric.start_program_with("edge-1", folders)?;
    fabric.await_keyed("edge-1")?;
    outcome
}

/// Asks the server on the host network of a node, by SOCKS5 (RFC 1928, RFC 1929).
fn through(from: &Netns, door: SocketAddr, login: &str, host: &str) -> Result<Answer> {
    let (name, password) = login.split_once(':').context("no password")?;
    let word = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let deadline = pace::limit(Duration::from_secs(5));
    let line = from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&door, deadline)?;
        stream.set_read_timeout(Some(deadline))?;
        let mut expect = |sent: &[u8], answer: &[u8]| -> Result<()> {
            stream.write_all(sent)?;
            let mut got = vec![0; answer.len()];
            stream.read_exact(&mut got)?;
            ensure!(got == answer, "{got:?} instead of {answer:?}");
            Ok(())
        };
        expect(&[5, 1, 2], &[5, 2])?;
        expect(&[&[1], &word(name)[..], &word(password)].concat(), &[1, 0])?;
        expect(&[&[5, 1, 0, 3], &word(host)[..], &PORT.to_be_bytes()].concat(), &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
        writeln!(stream, "WHO {MARKER}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    })?;
    Ok(serde_json::from_str(&line)?)
}

/// A real sshd on edge-2, a real ssh on edge-1, and what `ssh-config` prints between them.
fn ssh(fabric: &Fabric, folders: &Folders) -> Result<String> {
    let dir = fabric.lab.dir.join("ssh");
    std::fs::create_dir_all(&dir)?;
    let path = |name: &str| dir.join(name).display().to_string();
    for key in ["host", "user"] {
        exec::run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]))?;
    }
    let (server, client) = (fabric.lab.node("edge-2")?, fabric.lab.node("edge-1")?);
    std::fs::create_dir_all("/run/sshd")?;
    let config = format!(
        "ListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nPermitRootLogin yes\n\
         PasswordAuthentication no\nUsePAM yes\n",
        server.addresses[0],
        path("host"),
        path("user.pub")
    );
    std::fs::write(dir.join("sshd_config"), config)?;
    let mut command = server.ns.command(SSHD);
    command.args(["-D", "-e", "-f", &path("sshd_config")]);
    let mut sshd = Program::launch(command, "sshd", &dir)?;

    let key = std::fs::read_to_string(dir.join("host.pub"))?;
    std::fs::write(dir.join("known_hosts"), format!("beijing.edge-2 {key}"))?;
    let blocks = verb(client, folders, &["ssh-config", "edge-2"], "")?;
    let common = format!("UserKnownHostsFile {}\nIdentityFile {}\n", path("known_hosts"), path("user"));
    std::fs::write(dir.join("config"), format!("{common}StrictHostKeyChecking yes\nBatchMode yes\n{blocks}"))?;
    let said = wait("ssh", PATIENCE, || {
        sshd.check()?;
        let mut command = Command::new("ssh");
        command.args(["-F", &path("config"), "edge-2", "ip", "-br", "address", "show", "eth0"]);
        client.ns.enter(|| exec::run(&mut command)).with_context(|| sshd.log_tail())
    })?;
    let address = server.addresses[0].to_string();
    ensure!(said.contains(&address), "{address} is not in {said:?}");
    Ok("it runs commands there".to_owned())
}
