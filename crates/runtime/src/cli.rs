//! The verbs that agent and connector share.

#[cfg(any(feature = "dns", feature = "gateway", feature = "services", feature = "socks"))]
mod words;

use std::ffi::OsString;
use std::path::PathBuf;

#[cfg(feature = "api")]
use crate::options::{SourceKind, without_slash};
use crate::{Error, Options, Result};

/// What a person asked for.
#[derive(Debug)]
pub enum Command {
    /// Run in the foreground.
    Run(Options),
    /// Show what the running program does.
    Status {
        /// Where it runs.
        options: Options,
        /// One JSON document instead of text.
        json: bool,
    },
    /// Show what is served, and who answers.
    #[cfg(feature = "services")]
    StatusServices {
        /// Where it runs.
        options: Options,
        /// One JSON document instead of text.
        json: bool,
    },
    /// Show what the edge gateway serves, and where it goes.
    #[cfg(feature = "gateway")]
    StatusGateway {
        /// Where it runs.
        options: Options,
        /// One JSON document instead of text.
        json: bool,
    },
    /// Show whom the DNS server asks, and how often it does.
    #[cfg(feature = "dns")]
    StatusDns {
        /// Where it runs.
        options: Options,
        /// One JSON document instead of text.
        json: bool,
    },
    /// Ask the running DNS server for a name.
    #[cfg(feature = "dns")]
    Query {
        /// Where it runs.
        options: Options,
        /// The name.
        name: String,
        /// The type of records, `A` if none is said.
        kind: String,
    },
    /// Say what is wrong on this node and what helps.
    Doctor {
        /// Where the program runs, or would.
        options: Options,
        /// One JSON document instead of text.
        json: bool,
    },
    /// Remove everything the program ever made on this node.
    Clean(Options),
    /// Read a configuration and say what is wrong with it.
    Check(PathBuf),
    /// Ask the operator for a certificate.
    #[cfg(feature = "api")]
    Enroll {
        /// Where the program runs, or will.
        options: Options,
        /// The one-time token, or `-` for one on standard input.
        token: String,
    },
    /// Join standard input and output to a port of a host in the fabric.
    #[cfg(feature = "socks")]
    Connect {
        /// Where the program runs.
        options: Options,
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// Print what OpenSSH needs to reach other nodes.
    #[cfg(feature = "socks")]
    SshConfig {
        /// Where the program runs.
        options: Options,
        /// Only this node.
        node: Option<String>,
    },
    /// The process that keeps sockets and user-space tunnels while the program restarts.
    Keeper(Vec<OsString>),
    /// Print this text and stop.
    Print(String),
}

/// What differs between the programs in the texts and defaults.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name of the binary.
    pub name: &'static str,
    /// Base name of its folders.
    pub folder: &'static str,
    /// One line of what it does.
    pub summary: &'static str,
    /// Default folder for CNI networks, if it writes any.
    pub cni_dir: Option<&'static str>,
    /// Version of the binary.
    pub version: &'static str,
}

/// Reads the command line, without the program's own name.
pub fn parse(program: &Program, args: impl IntoIterator<Item = OsString>) -> Result<Command> {
    let mut args = args.into_iter();
    let Some(verb) = args.next() else { return Ok(Command::Print(help(program))) };
    let verb = verb.to_string_lossy().into_owned();
    match verb.as_str() {
        "--help" | "-h" | "help" => return Ok(Command::Print(help(program))),
        "--version" | "-V" => return Ok(Command::Print(format!("{} {}\n", program.name, program.version))),
        "keeper" => return Ok(Command::Keeper(args.collect())),
        "run" | "status" | "doctor" | "clean" | "check" => {}
        #[cfg(feature = "api")]
        "enroll" => {}
        #[cfg(feature = "socks")]
        "connect" | "ssh-config" => {}
        #[cfg(feature = "dns")]
        "dns" if program.cni_dir.is_some() => {}
        other => {
            return Err(Error::new(format!("unknown verb \"{other}\"; {} --help lists them", program.name)));
        }
    }
    #[cfg(feature = "api")]
    let mut token: Option<String> = None;
    let mut options = Options::new(program.folder, program.cni_dir);
    #[cfg(feature = "api")]
    options.read_environment(|name| std::env::var(name).ok())?;
    #[cfg(any(feature = "dns", feature = "gateway", feature = "services", feature = "socks"))]
    let mut words: Vec<String> = Vec::new();
    let mut json = false;
    let mut file: Option<PathBuf> = None;
    let mut parser = lexopt::Parser::from_args(args);
    let wrong = |e: lexopt::Error| Error::new(format!("{verb}: {e}; {} --help shows the options", program.name));
    while let Some(arg) = parser.next().map_err(wrong)? {
        use lexopt::prelude::*;
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(help(program))),
            Long("config") => options.config = parser.value().map_err(wrong)?.into(),
            Long("credentials") => options.credentials = parser.value().map_err(wrong)?.into(),
            Long("run-dir") => options.run_dir = parser.value().map_err(wrong)?.into(),
            Long("state-dir") => options.state_dir = parser.value().map_err(wrong)?.into(),
            Long("cni-dir") if program.cni_dir.is_some() => {
                options.cni_dir = Some(parser.value().map_err(wrong)?.into());
            }
            Long("user") if verb == "run" => {
                options.user = Some(parser.value().and_then(|v| v.string()).map_err(wrong)?)
            }
            Long("no-landlock") if verb == "run" => options.landlock = false,
            Long("metered") if verb == "run" => options.metered = true,
            #[cfg(feature = "api")]
            Long("source") => {
                let word = parser.value().and_then(|v| v.string()).map_err(wrong)?;
                options.source.kind = SourceKind::parse(&word)?;
            }
            #[cfg(feature = "api")]
            Long("server") => {
                let url = parser.value().and_then(|v| v.string()).map_err(wrong)?;
                options.source.server = Some(without_slash(url));
            }
            #[cfg(feature = "api")]
            Long("token-file") => options.source.token_file = Some(parser.value().map_err(wrong)?.into()),
            #[cfg(feature = "api")]
            Long("ca-file") => options.source.ca_file = Some(parser.value().map_err(wrong)?.into()),
            #[cfg(feature = "api")]
            Long("node") => options.source.node = Some(parser.value().and_then(|v| v.string()).map_err(wrong)?),
            #[cfg(feature = "api")]
            Long("namespace") => {
                options.source.namespace = parser.value().and_then(|v| v.string()).map_err(wrong)?;
            }
            Long("json") if verb == "status" || verb == "doctor" => json = true,
            #[cfg(feature = "api")]
            Value(value) if verb == "enroll" && token.is_none() => token = Some(value.string().map_err(wrong)?),
            #[cfg(feature = "socks")]
            Long("socks") if verb == "run" => {
                let word = parser.value().and_then(|v| v.string()).map_err(wrong)?;
                let address =
                    word.parse().map_err(|_| Error::new(format!("--socks: \"{word}\" is no ADDRESS:PORT")))?;
                options.socks = Some(address);
            }
            #[cfg(feature = "socks")]
            Long("socks-users") if verb == "run" => {
                options.socks_users = Some(parser.value().map_err(wrong)?.into());
            }
            #[cfg(any(feature = "dns", feature = "gateway", feature = "services", feature = "socks"))]
            Value(value) if words.len() < words::most(&verb) => words.push(value.string().map_err(wrong)?),
            Value(value) if verb == "check" && file.is_none() => file = Some(value.into()),
            other => return Err(wrong(other.unexpected())),
        }
    }
    #[cfg(feature = "socks")]
    if options.socks.is_some() != options.socks_users.is_some() {
        return Err(Error::new("--socks and --socks-users are of use only together"));
    }
    #[cfg(any(feature = "dns", feature = "gateway", feature = "services", feature = "socks"))]
    if let Some(command) = words::command(&verb, &words, &options, json, program)? {
        return Ok(command);
    }
    Ok(match verb.as_str() {
        "run" => Command::Run(options),
        "status" => Command::Status { options, json },
        "doctor" => Command::Doctor { options, json },
        "clean" => Command::Clean(options),
        #[cfg(feature = "api")]
        "enroll" => match token {
            Some(token) => Command::Enroll { options, token },
            None => return Err(Error::new(format!("enroll: needs a token; {} --help shows how", program.name))),
        },
        _ => Command::Check(file.unwrap_or(options.config)),
    })
}

const DNS_HELP: &str = "  status dns [--json]  the DNS server: its names, whom it asks, what it answered from where
  dns query NAME [TYPE]  ask it as a pod would, and see where the answer is from; ends with 0 if there is one
";

#[cfg(feature = "api")]
const ENROLL_HELP: &str =
    "  enroll TOKEN       make a key on this device and ask the operator for a certificate, by a one-time token
                     (- reads it from standard input); then `run --source operator`. `clean` leaves them there
";

#[cfg(feature = "api")]
const SOURCE_HELP: &str =
    "  --source KIND      who delivers the configuration: file [default], kubeedge, superedge, openyurt, kubernetes,
                     operator, or auto: whichever of these Kubernetes APIs is there. Services are read there too
                     if the configuration says so; with `file`, from the API that auto would choose
  --server URL       where that is, if not where it always is
  --token-file FILE  bearer token for it, read for every request [that of the pod's ServiceAccount]
  --ca-file FILE     certificate authorities of the server, PEM [those of the pod's ServiceAccount]
  --node NAME        Kubernetes name of this node [the host's name]
  --namespace NAME   where ConfigMap and Secret of this node are [selvedge]
                     These six are also read from the environment: SELVEDGE_SOURCE, SELVEDGE_TOKEN_FILE, ...
";

#[cfg(feature = "socks")]
const SOCKS_VERBS: &str =
    "  connect HOST PORT  join standard input and output to a port of a node, pod or Service of the fabric, for programs
                     such as ssh that would not find it by routes
  ssh-config [NODE]  print what OpenSSH needs to reach the nodes that have a tunnel to this one
";

#[cfg(feature = "socks")]
const SOCKS_OPTIONS: &str = "  --socks ADDRESS:PORT  run: serve SOCKS5 there, for the users of a file
  --socks-users FILE name:password lines that only its owner may read, read at the start
";

fn help(program: &Program) -> String {
    let defaults = Options::new(program.folder, program.cni_dir);
    let cni = match &defaults.cni_dir {
        Some(dir) => format!("  --cni-dir DIR      where CNI networks are read [{}]\n", dir.display()),
        None => String::new(),
    };
    #[cfg(feature = "api")]
    let cni = cni + SOURCE_HELP;
    #[cfg(feature = "socks")]
    let cni = cni + SOCKS_OPTIONS;
    let doctor = if cfg!(feature = "doctor") {
        "  doctor [--json]    what is wrong on this node, what it means and what helps, with the program running or not;
                     ends with 0: nothing fails, 1: something does, 2: could not look\n"
    } else {
        ""
    };
    let services = if cfg!(feature = "services") {
        "  status services [--json]
                     what clients of Services can call here, the endpoints that answer, and why these\n"
    } else {
        ""
    };
    let gateway = if cfg!(feature = "gateway") {
        "  status gateway [--json]
                     the edge gateway: where it listens, routes, endpoints and their health, ends of certificates\n"
    } else {
        ""
    };
    #[cfg(feature = "api")]
    let doctor = doctor.to_owned() + ENROLL_HELP;
    #[cfg(feature = "socks")]
    let doctor = doctor.to_owned() + SOCKS_VERBS;
    // Only nodes with pods answer DNS.
    let names = if cfg!(feature = "dns") && program.cni_dir.is_some() { DNS_HELP } else { "" };
    format!(
        "{name} {version}: {summary}

Usage: {name} VERB [OPTIONS]

Verbs:
  run                run in the foreground; tunnels outlive the program, so it can be restarted or upgraded
                     while traffic flows
  status [--json]    what the running program does: peers, paths, SA ages, bytes, datapath, last errors
{services}{gateway}{names}{doctor}  check [FILE]       read a configuration and say what is wrong with it; changes nothing
  clean              stop tunnels and remove every route, rule, policy, device and file it ever made,
                     and nothing else

Options:
  --config FILE      node configuration, watched for changes [{config}]
  --credentials DIR  ca.crt, tls.crt and tls.key, watched for changes [{credentials}]
  --run-dir DIR      sockets of the running program [{run}]
  --state-dir DIR    last good configuration and credentials, written only when they change [{state}]
{cni}  --metered          run: every byte costs money here; tunnels keep as quiet as they can
  --user NAME        run as this user, if started by root: files of the folders above become its own, and
                     configuration and credentials readable for its group
  --no-landlock      leave all files to users and modes: for firewall tools in unusual places
  --help, --version

Environment:
  RUST_LOG           how much is logged to standard error: error, warn, info (default), debug, trace;
                     below debug each kind of line is limited to 10 at once and one a minute, and no line says
                     where peers are

A configuration that cannot be used is refused with the field and the reason in the log and in `status`;
the last good one stays in force.
",
        name = program.name,
        version = program.version,
        summary = program.summary,
        config = defaults.config.display(),
        credentials = defaults.credentials.display(),
        run = defaults.run_dir.display(),
        state = defaults.state_dir.display(),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const PROGRAM: Program = Program { name: "prog", folder: "prog", summary: "does", cni_dir: None, version: "1" };

    fn read(line: &str) -> Result<Command> {
        parse(&PROGRAM, line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn options_reach_the_verb() {
        let Ok(Command::Run(options)) = read("run --config a.json --run-dir=/r") else { panic!("not run") };
        assert_eq!(options.config, PathBuf::from("a.json"));
        assert_eq!(options.status_socket(), PathBuf::from("/r/status.sock"));
        let Ok(Command::Run(options)) = read("run --metered") else { panic!("not run") };
        assert!(options.metered);
        assert!(matches!(read("status --json"), Ok(Command::Status { json: true, .. })));
        assert!(matches!(read("status services --json"), Ok(Command::StatusServices { json: true, .. })));
        #[cfg(feature = "gateway")]
        assert!(matches!(read("status gateway"), Ok(Command::StatusGateway { json: false, .. })));
        assert!(matches!(read("doctor"), Ok(Command::Doctor { json: false, .. })));
        assert!(matches!(read("check x.json"), Ok(Command::Check(p)) if p == Path::new("x.json")));
    }

    #[test]
    fn mistakes_name_the_word() {
        for (line, word) in [
            ("fly", "\"fly\""),
            ("run --jsn", "--jsn"),
            ("run --cni-dir x", "--cni-dir"),
            ("clean --user x", "--user"),
            ("check --metered", "--metered"),
            ("run x", "\"x\""),
            ("status x", "\"x\""),
        ] {
            let text = read(line).expect_err(line).to_string();
            assert!(text.contains(word) && text.contains("--help"), "{text}");
        }
    }

    #[cfg(feature = "socks")]
    #[test]
    fn ways_into_the_fabric() {
        let Ok(Command::Connect { host, port, .. }) = read("connect edge-2 22") else { panic!("not connect") };
        assert_eq!((host.as_str(), port), ("edge-2", 22));
        assert!(matches!(read("ssh-config"), Ok(Command::SshConfig { node: None, .. })));
        assert!(matches!(read("ssh-config edge-2"), Ok(Command::SshConfig { node: Some(n), .. }) if n == "edge-2"));
        let Ok(Command::Run(options)) = read("run --socks [fd00::1]:1080 --socks-users u") else { panic!("not run") };
        assert_eq!(options.socks, "[fd00::1]:1080".parse().ok());
        for line in [
            "connect",
            "connect edge-2",
            "connect edge-2 ssh",
            "connect edge-2 65536",
            "connect edge-2 22 x",
            "run --socks 10.0.0.1 --socks-users u",
            "run --socks 10.0.0.1:1080",
            "run --socks-users u",
            "status --socks 10.0.0.1:1080",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_names_every_option() {
        let Ok(Command::Print(text)) = read("--help") else { panic!("no help") };
        for word in [
            "run",
            "status",
            "doctor",
            "check",
            "clean",
            "--config",
            "--credentials",
            "--run-dir",
            "--state-dir",
            "--metered",
            "--user",
            "--no-landlock",
        ] {
            assert!(text.contains(word), "{word}");
        }
        assert!(!text.contains("--cni-dir"));
    }
}
