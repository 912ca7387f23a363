//! Verbs that are followed by words.

use super::{Command, Program};
use crate::{Error, Options, Result};

/// How many words may follow a verb.
pub(super) fn most(verb: &str) -> usize {
    match verb {
        "status" => 1,
        #[cfg(feature = "dns")]
        "dns" => 3,
        #[cfg(feature = "socks")]
        "ssh-config" => 1,
        #[cfg(feature = "socks")]
        "connect" => 2,
        _ => 0,
    }
}

/// What verb and words ask for; `None` for a verb that has none.
pub(super) fn command(
    verb: &str,
    words: &[String],
    options: &Options,
    json: bool,
    program: &Program,
) -> Result<Option<Command>> {
    #[cfg(not(any(feature = "dns", feature = "gateway", feature = "services")))]
    let _ = json;
    let options = options.clone();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let wrong = |what: String| Err(Error::new(format!("{verb}: {what}; {} --help shows how", program.name)));
    Ok(Some(match (verb, &words[..]) {
        #[cfg(feature = "services")]
        ("status", ["services"]) => Command::StatusServices { options, json },
        #[cfg(feature = "gateway")]
        ("status", ["gateway"]) => Command::StatusGateway { options, json },
        #[cfg(feature = "dns")]
        ("status", ["dns"]) => Command::StatusDns { options, json },
        ("status", [word, ..]) => return wrong(format!("unknown part \"{word}\"")),
        #[cfg(feature = "dns")]
        ("dns", ["query", name, rest @ ..]) => {
            let kind = rest.first().copied().unwrap_or("A").to_owned();
            Command::Query { options, name: (*name).to_owned(), kind }
        }
        #[cfg(feature = "dns")]
        ("dns", _) => return wrong("needs `query NAME [TYPE]`".to_owned()),
        #[cfg(feature = "socks")]
        ("connect", words) => match words {
            [host, port] if port.parse::<u16>().is_ok() => {
                Command::Connect { options, host: (*host).to_owned(), port: port.parse().unwrap_or_default() }
            }
            _ => return wrong("needs HOST PORT".to_owned()),
        },
        #[cfg(feature = "socks")]
        ("ssh-config", words) => Command::SshConfig { options, node: words.first().map(|node| (*node).to_owned()) },
        _ => return Ok(None),
    }))
}
