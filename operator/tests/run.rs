//! The real program: started on a directory, told by changes in it, killed.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_selvedge-operator");
const DEADLINE: Duration = Duration::from_secs(30);

/// A running operator whose log can be awaited.
struct Operator {
    child: Child,
    lines: Receiver<String>,
}

impl Operator {
    fn start(bench: &Bench) -> Operator {
        let mut child = bench.command("run", &[]).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Operator { child, lines }
    }

    /// Reads the log up to a line that contains the text.
    fn await_line(&self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no \"{text}\" in the log:\n{}", seen.join("\n")),
            }
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example manifests, and a place for the output.
struct Bench(TempDir);

impl Bench {
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        fs::create_dir(bench.manifest("")).unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/standalone");
        for entry in fs::read_dir(examples).unwrap().map(Result::unwrap).filter(|e| e.path().extension().is_some()) {
            fs::copy(entry.path(), bench.manifest(entry.file_name().to_str().unwrap())).unwrap();
        }
        bench
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.0.path().join("manifests").join(name)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.0.path().join("out").join(name)
    }

    fn command(&self, verb: &str, more: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg(verb).arg("--manifests").arg(self.manifest("")).args(more).env_remove("RUST_LOG");
        if verb == "run" {
            command.arg("--out").arg(self.out(""));
        }
        command
    }

    fn output(&self, verb: &str, more: &[&str]) -> Output {
        self.command(verb, more).output().unwrap()
    }

    fn config(&self, node: &str) -> Value {
        serde_json::from_slice(&fs::read(self.out(node).join("config.json")).unwrap()).unwrap()
    }

    /// Replaces text in a manifest as an editor does, by a new file.
    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.manifest(name)).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(self.manifest(".edited"), text.replace(from, to)).unwrap();
        fs::rename(self.manifest(".edited"), self.manifest(name)).unwrap();
    }
}

#[test]
fn changes_are_followed_and_mistakes_survived() {
    let bench = Bench::new();
    let operator = Operator::start(&bench);
    operator.await_line("edge-1: generation 1, 2 peers");
    operator.await_line("beijing: 5 nodes, 5 changed");
    assert_eq!(bench.config("edge-1")["peers"][1]["name"], "beijing.edge-2");

    bench.edit("community.yaml", "[beijing.edge-1, beijing.edge-2]", "[beijing.edge-1]");
    operator.await_line("edge-1: generation 2, 1 peers");
    assert_eq!(bench.config("edge-1")["peers"].as_array().unwrap().len(), 1);

    let good = fs::read_to_string(bench.manifest("nodes.yaml")).unwrap();
    fs::write(bench.manifest("nodes.yaml"), "kind: [").unwrap();
    let line = operator.await_line("not YAML");
    assert!(line.contains("nodes.yaml: line 1, column "), "{line}");
    operator.await_line("beijing: 5 nodes, 0 changed");
    assert!(bench.out("edge-2/config.json").exists());
    let status: Value = serde_json::from_slice(&fs::read(bench.out("status.json")).unwrap()).unwrap();
    assert_eq!(status["problems"][0]["object"]["file"], "nodes.yaml");

    fs::write(bench.manifest("nodes.yaml"), good.replace("192.168.12.2", "192.168.99.2")).unwrap();
    operator.await_line("resolved: ");
    operator.await_line("edge-2: generation 3, 1 peers");
    assert_eq!(bench.config("edge-2")["local"]["nodeAddresses"][0], "192.168.99.2");

    fs::remove_file(bench.manifest("nodes.yaml")).unwrap();
    operator.await_line("edge-2: removed");
    operator.await_line("beijing: 0 nodes, 0 changed");
    assert!(!bench.out("edge-2").exists());

    // Who comes back gets the same network again.
    fs::write(bench.manifest("nodes.yaml"), &good).unwrap();
    operator.await_line("edge-2: generation 1, 1 peers");
    assert_eq!(bench.config("edge-2")["podCidrs"][0], "10.234.1.0/24");

    operator.await_line("beijing: 5 nodes, 5 changed");
    drop(operator);
    let again = Operator::start(&bench);
    again.await_line("beijing: 5 nodes, 0 changed");
}

#[test]
fn a_directory_swapped_as_a_configmap_is_followed() {
    let bench = Bench::new();
    let mount = bench.manifest("");
    let versions = [mount.join("..1"), mount.join("..2")];
    for version in &versions {
        fs::create_dir(version).unwrap();
        for name in ["cluster.yaml", "nodes.yaml", "services.yaml", "community.yaml"] {
            fs::copy(mount.join(name), version.join(name)).unwrap();
        }
    }
    let text = fs::read_to_string(versions[1].join("cluster.yaml")).unwrap();
    fs::write(versions[1].join("cluster.yaml"), text.replace("mtu: 1400", "mtu: 1300")).unwrap();
    symlink("..1", mount.join("..data")).unwrap();
    for name in ["cluster.yaml", "nodes.yaml", "services.yaml", "community.yaml"] {
        fs::remove_file(mount.join(name)).unwrap();
        symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
    }
    let operator = Operator::start(&bench);
    operator.await_line("beijing: 5 nodes, 5 changed");
    symlink("..2", mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    operator.await_line("beijing: 5 nodes, 2 changed");
    assert_eq!(bench.config("edge-1")["cni"]["mtu"], 1300);
}

#[test]
fn a_directory_that_goes_away_changes_nothing_until_it_is_back() {
    let bench = Bench::new();
    let operator = Operator::start(&bench);
    operator.await_line("beijing: 5 nodes, 5 changed");
    let away = bench.0.path().join("away");
    fs::rename(bench.manifest(""), &away).unwrap();
    operator.await_line("is gone");
    assert!(bench.out("edge-1/config.json").exists());
    fs::write(away.join("community.yaml"), "# none\n").unwrap();
    fs::remove_file(away.join("community.yaml")).unwrap();
    fs::rename(&away, bench.manifest("")).unwrap();
    operator.await_line("is back");
    operator.await_line("edge-1: generation 2, 1 peers");
}

#[test]
fn once_says_by_its_exit_code_whether_all_is_well() {
    let bench = Bench::new();
    assert!(bench.output("run", &["--once"]).status.success());
    bench.edit("nodes.yaml", "192.168.12.2", "192.168.11.2");
    let output = bench.output("run", &["--once"]);
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("ERROR") && log.contains("192.168.11.2 is taken"), "{log}");
    fs::remove_dir_all(bench.manifest("")).unwrap();
    assert_eq!(bench.output("run", &["--once"]).status.code(), Some(1));
    assert_eq!(bench.output("run", &[]).status.code(), Some(1));
}

#[test]
fn check_reports_and_writes_nothing() {
    let bench = Bench::new();
    let output = bench.output("check", &[]);
    assert!(output.status.success());
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(
        report.contains("edge-1               edge          2 peers  pods 10.234.0.0/24, fd00:234::/64"),
        "{report}"
    );
    assert!(report.ends_with("5 nodes, 0 errors, 0 warnings\n"), "{report}");
    bench.edit("community.yaml", "beijing.edge-2", "edge-2");
    let output = bench.output("check", &[]);
    assert_eq!(output.status.code(), Some(1));
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("error: Community workshop in community.yaml (line "), "{report}");
    assert!(!bench.out("").exists());
}

#[test]
fn output_among_the_manifests_is_refused() {
    let bench = Bench::new();
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("--manifests").arg(bench.manifest("")).arg("--out").arg(bench.manifest("."));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("the same directory"));
    assert!(!bench.manifest(".state").exists());
}

#[test]
fn help_teaches() {
    let output = Command::new(PROGRAM).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for word in ["run", "check", "OUT/<node>/tls/", "private key", "scp", "secret"] {
        assert!(help.contains(word), "{word}");
    }
}
