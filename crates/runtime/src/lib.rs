//! What agent and connector share: the verbs, where the configuration comes from, the loop that brings the node to it,
//! and the status. It decides nothing about packets: that is `plan`'s, and keys are `tunnel`'s.

mod clean;
pub mod cli;
mod clock;
#[cfg(feature = "dns")]
mod dns;
mod doctor;
mod error;
mod firewall;
#[cfg(feature = "gateway")]
mod gateway;
#[cfg(feature = "services")]
mod health;
mod kernel;
mod logging;
mod node;
mod options;
mod privilege;
#[cfg(feature = "services")]
mod rules;
mod run;
#[cfg(feature = "services")]
mod served;
#[cfg(feature = "socks")]
mod socks;
mod source;
pub mod status;
#[cfg(feature = "pod")]
mod succession;
mod summary;
mod view;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use selvedge_linux::capabilities::{self, Capability};
use selvedge_linux::process;
use selvedge_tunnel::keeper;

use crate::cli::{Command, Program};
use crate::error::Context as _;

pub use error::{Error, Result};
pub use options::Options;
#[cfg(feature = "api")]
pub use options::{Source, SourceKind};

/// The whole program: reads the command line, does what it says, prints the chain of causes once if that fails.
pub fn main(program: &Program) -> ExitCode {
    logging::init();
    process::forbid_huge_pages();
    match cli::parse(program, std::env::args_os().skip(1)).and_then(|command| execute(program, command)) {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to do if not even this can be written.
            let _ = writeln!(std::io::stderr(), "{}: {error}", program.name);
            ExitCode::FAILURE
        }
    }
}

fn execute(program: &Program, command: Command) -> Result<ExitCode> {
    let done = match command {
        Command::Doctor { options, json } => return diagnose(&options, program, json),
        Command::Print(text) => print(&text),
        Command::Run(options) => {
            network_admin()?;
            run::run(program, options)
        }
        #[cfg(feature = "services")]
        Command::StatusServices { options, json } => {
            let text = ask(&options, program, "services")?;
            if json {
                return print(&format!("{text}\n")).map(|()| ExitCode::SUCCESS);
            }
            let status = miniserde::json::from_str(&text);
            print(&served::human(&status.context(|| "the running program is of another version".to_owned())?))
        }
        #[cfg(feature = "gateway")]
        Command::StatusGateway { options, json } => {
            let text = ask(&options, program, "gateway")?;
            if json {
                return print(&format!("{text}\n")).map(|()| ExitCode::SUCCESS);
            }
            let told = miniserde::json::from_str(&text);
            print(&gateway::told::human(&told.context(|| "the running program is of another version".to_owned())?))
        }
        #[cfg(feature = "dns")]
        Command::Query { options, name, kind } => {
            let status = read_status(&ask(&options, program, "status")?)?.dns;
            let status =
                status.ok_or_else(|| Error::new("this node answers no DNS: its configuration has no `dns`"))?;
            let (text, found) = dns::ask(&status, &name, &kind)?;
            print(&text)?;
            return Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        #[cfg(feature = "dns")]
        Command::StatusDns { options, json } => {
            let status = read_status(&ask(&options, program, "status")?)?.dns;
            if json {
                return print(&format!("{}\n", miniserde::json::to_string(&status))).map(|()| ExitCode::SUCCESS);
            }
            print(&view::dns(status.as_ref()))
        }
        Command::Status { options, json } => {
            let text = ask(&options, program, "status")?;
            if json {
                return print(&format!("{text}\n")).map(|()| ExitCode::SUCCESS);
            }
            print(&view::human(&read_status(&text)?))
        }
        Command::Clean(options) => {
            network_admin()?;
            clean::clean(&options)
        }
        #[cfg(feature = "api")]
        Command::Enroll { options, token } => source::enrolment::enrol(&options, &token)
            .and_then(|name| print(&format!("enrolled as {name}; `run --source operator` does the rest\n"))),
        #[cfg(feature = "socks")]
        Command::Connect { options, host, port } => socks::connect(&options, program, &host, port),
        #[cfg(feature = "socks")]
        Command::SshConfig { options, node } => {
            socks::ssh_config(&options, program, node.as_deref()).and_then(|text| print(&text))
        }
        Command::Check(path) => check(&path),
        Command::Keeper(args) => {
            let options = keeper::Options::from_args(args).ok_or_else(|| Error::new("keeper: wrong arguments"))?;
            keeper::run(&options).context(|| "keeper".to_owned())
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn diagnose(options: &Options, program: &Program, json: bool) -> Result<ExitCode> {
    match doctor::examine(options, program, json) {
        Ok((text, healthy)) => {
            print(&text)?;
            Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            // Nothing is left to do if not even this can be written.
            let _ = writeln!(std::io::stderr(), "{}: {error}", program.name);
            Ok(ExitCode::from(2))
        }
    }
}

fn read_status(text: &str) -> Result<status::Status> {
    miniserde::json::from_str(text).context(|| "the running program is of another version".to_owned())
}

fn network_admin() -> Result<()> {
    if capabilities::has(Capability::NetAdmin).context(|| "read the own capabilities".to_owned())? {
        return Ok(());
    }
    Err(Error::new("needs root (or the capability CAP_NET_ADMIN)"))
}

fn ask(options: &Options, program: &Program, word: &str) -> Result<String> {
    let socket = options.status_socket();
    let talk = || {
        let mut stream = UnixStream::connect(&socket)?;
        stream.write_all(format!("{word}\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<String, std::io::Error>(text)
    };
    talk().context(|| format!("{} does not run here ({})", program.name, socket.display()))
}

fn check(path: &Path) -> Result<()> {
    let (config, _) = source::read_config(path)?;
    print(&format!(
        "{}: good: {} (generation {}, {} peers, {} Services)\n",
        path.display(),
        config.name,
        config.generation,
        config.peers.len(),
        config.services.list.len()
    ))
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context(|| "print".to_owned())
}
