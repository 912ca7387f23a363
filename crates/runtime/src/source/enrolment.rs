//! The certificate that this device asked for itself, and how it came by it.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use miniserde::{Deserialize, Serialize};
use selvedge_linux::file;
use selvedge_tunnel::{Credentials, certificate_request, new_key};
use zeroize::Zeroizing;

use super::http::{Client, Server};
use super::tls::{Identity, Trust};
use super::{Pem, private_dir, read_bounded};
use crate::clock::Clock;
use crate::error::Context as _;
use crate::{Error, Options, Result};

/// Under which name the agent asks.
const USER_AGENT: &str = "selvedge-agent/1";

/// In the state folder.
const FILE: &str = "enrolment.json";

/// More than certificates of a changing authority and a long revocation list need.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// What there is to know after an enrolment, in one file: certificate and key never disagree.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Enrolment {
    /// Where the operator is: `https://host:port`.
    pub(super) server: String,
    /// Our name in the fabric, as the operator gave it.
    pub(super) name: String,
    /// The rest in PEM; the key as PKCS #8.
    key: String,
    certificate: String,
    /// Authorities and their revocation lists.
    pub(super) trust: String,
    /// The operator's name for that version of them.
    pub(super) trust_tag: String,
}

#[derive(Serialize)]
struct EnrolRequest {
    node: String,
    secret: String,
    csr: String,
}

#[derive(Serialize)]
struct RenewRequest {
    csr: String,
}

#[derive(Deserialize)]
struct Issue {
    name: String,
    certificate: String,
    trust: String,
}

/// The word that a person carries here: `https://host:port#pin/node/secret`.
struct Token {
    server: String,
    pin: [u8; 32],
    node: String,
    secret: Zeroizing<String>,
}

/// Asks for a first certificate by a token, or by one read from standard input if it is `-`. Says who we are.
pub(crate) fn enrol(options: &Options, token: &str) -> Result<String> {
    let mut line = Zeroizing::new(String::new());
    if token == "-" {
        std::io::stdin().lock().read_line(&mut line).context(|| "read the token".to_owned())?;
    } else {
        line.push_str(token);
    }
    let token = Token::parse(line.trim()).ok_or_else(|| Error::new("this is no token: it must be whole"))?;
    private_dir(&options.state_dir)?;
    // Kept until the answer is: a repetition with the same key is answered again, if only the answer was lost.
    let pending = options.state_dir.join("enrolment.key");
    let key = match read_bounded(&pending, MAX_BYTES as u64) {
        Ok(bytes) => Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()),
        Err(_) => {
            let key = new_key().context(|| "make a key".to_owned())?;
            file::write(&pending, key.as_bytes(), 0o600).context(|| "keep the key".to_owned())?;
            key
        }
    };
    let csr = certificate_request(&key).context(|| "ask for a certificate".to_owned())?;
    let body = EnrolRequest { node: token.node.clone(), secret: token.secret.to_string(), csr };
    let server = Server { url: token.server.clone(), ..Server::default() };
    let clock = Clock::new(&options.state_dir);
    let client = Client::with_trust(&server, USER_AGENT, Some(Trust::Pin(token.pin)), None, clock)?;
    let body = Zeroizing::new(miniserde::json::to_string(&body));
    let (issue, trust_tag) = issue(&client, "/v1/enroll", &body)?;
    let enrolment = Enrolment {
        server: token.server,
        name: issue.name,
        key: key.to_string(),
        certificate: issue.certificate,
        trust: issue.trust,
        trust_tag,
    };
    enrolment.credentials()?;
    enrolment.keep(&options.state_dir)?;
    file::remove(&pending).context(|| "remove the key of the request".to_owned())?;
    Ok(enrolment.name.clone())
}

fn issue(client: &Client, path: &str, body: &str) -> Result<(Issue, String)> {
    let answer = client.post(path, "application/json", body.as_bytes())?;
    let (status, tag) = (answer.status, answer.trust.clone().unwrap_or_default());
    let bytes = answer.read(MAX_BYTES)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    if status != 200 {
        return Err(refusal(status, text));
    }
    let issue = miniserde::json::from_str(text).map_err(|_| Error::new("the answer cannot be read"))?;
    Ok((issue, tag))
}

/// What the operator says when it does not do what it is asked, in its own words as far as they are words.
pub(super) fn refusal(status: u16, text: &str) -> Error {
    let words: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    Error::new(format!("the operator answers {status}: {words}"))
}

impl Enrolment {
    /// As an earlier run kept it.
    pub(super) fn load(state_dir: &Path) -> Result<Enrolment> {
        let path = Self::path(state_dir);
        if !path.exists() {
            return Err(Error::new(format!("{}: this device has not enrolled: `enroll TOKEN`", path.display())));
        }
        let bytes = Zeroizing::new(read_bounded(&path, 2 * MAX_BYTES as u64)?);
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        miniserde::json::from_str(text).map_err(|_| Error::new(format!("{}: cannot be read", path.display())))
    }

    pub(super) fn keep(&self, state_dir: &Path) -> Result<()> {
        let text = Zeroizing::new(miniserde::json::to_string(self));
        file::write(Self::path(state_dir), text.as_bytes(), 0o600).context(|| "keep the enrolment".to_owned()).map(drop)
    }

    fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE)
    }

    /// A way to the operator that proves our name.
    pub(super) fn client(&self, clock: Clock, server: Option<&String>) -> Result<Client> {
        let server = Server { url: server.unwrap_or(&self.server).clone(), ..Server::default() };
        let identity = Identity {
            chain: self.certificate.clone().into_bytes(),
            key: Zeroizing::new(self.key.clone().into_bytes()),
        };
        let trust = Trust::Operator(self.trust.as_bytes());
        Client::with_trust(&server, USER_AGENT, Some(trust), Some(&identity), clock)
    }

    pub(super) fn pem(&self) -> Pem {
        Pem {
            #[cfg(feature = "gateway")]
            gateway: Zeroizing::default(),
            ca: self.trust.clone().into_bytes(),
            chain: self.certificate.clone().into_bytes(),
            key: Zeroizing::new(self.key.clone().into_bytes()),
        }
    }

    pub(super) fn credentials(&self) -> Result<Credentials> {
        Credentials::from_pem(self.certificate.as_bytes(), self.key.as_bytes(), self.trust.as_bytes())
            .context(|| "certificates from the operator".to_owned())
    }

    /// Asks for the next certificate, for a new key.
    pub(super) fn renew(&self, client: &Client) -> Result<Enrolment> {
        let key = new_key().context(|| "make a key".to_owned())?;
        let csr = certificate_request(&key).context(|| "ask for a certificate".to_owned())?;
        let body = miniserde::json::to_string(&RenewRequest { csr });
        let (issue, trust_tag) = issue(client, "/v1/renew", &body)?;
        let renewed = Enrolment {
            server: self.server.clone(),
            name: issue.name,
            key: key.to_string(),
            certificate: issue.certificate,
            trust: issue.trust,
            trust_tag,
        };
        renewed.credentials()?;
        if renewed.name != self.name {
            return Err(Error::new(format!("the operator calls us {}, we are {}", renewed.name, self.name)));
        }
        Ok(renewed)
    }
}

impl Drop for Enrolment {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.key.zeroize();
    }
}

impl Token {
    fn parse(text: &str) -> Option<Token> {
        let (server, rest) = text.split_once('#')?;
        let mut parts = rest.split('/');
        let (pin, node, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = parts.next().is_none() && server.starts_with("https://") && !node.is_empty();
        let mut bytes = [0; 32];
        let digits = pin.as_bytes().chunks_exact(2);
        for (byte, pair) in bytes.iter_mut().zip(digits) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        (whole && hex(pin) && hex(secret)).then(|| Token {
            server: server.to_owned(),
            pin: bytes,
            node: node.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_must_be_whole() {
        let pin = "0f".repeat(32);
        let secret = "ab".repeat(32);
        let token = Token::parse(&format!("https://192.0.2.1:8443#{pin}/gw-1/{secret}")).unwrap();
        assert_eq!((token.server.as_str(), token.node.as_str()), ("https://192.0.2.1:8443", "gw-1"));
        assert_eq!((token.pin, token.secret.as_str()), ([15; 32], secret.as_str()));
        for spoilt in [
            String::new(),
            format!("https://192.0.2.1:8443#{pin}/gw-1/{}", &secret[1..]),
            format!("https://192.0.2.1:8443#{}/gw-1/{secret}", &pin[1..]),
            format!("https://192.0.2.1:8443#{}é/gw-1/{secret}", &pin[2..]),
            format!("http://192.0.2.1:8443#{pin}/gw-1/{secret}"),
            format!("https://192.0.2.1:8443#{pin}//{secret}"),
            format!("https://192.0.2.1:8443#{pin}/gw-1/{secret}/x"),
            format!("https://192.0.2.1:8443/{pin}/gw-1/{secret}"),
        ] {
            assert!(Token::parse(&spoilt).is_none(), "{spoilt}");
        }
    }
}
