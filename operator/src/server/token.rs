//! One-time tokens: what a person carries to a device so that it can ask for its first certificate.
//!
//! ```text
//! https://operator.example.com:8443#<SHA-256 of the CA certificate>/<node>/<secret>
//! ```

use std::fmt;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::authority::{AuthorityError, hex, random};

/// What the device is told.
pub(crate) struct Token {
    /// Where the operator is: `https://host:port`.
    server: String,
    /// By which it is known: the fingerprint of the authority.
    pin: String,
    node: String,
    secret: String,
}

impl Token {
    pub(crate) fn create(server: &str, pin: &str, node: &str) -> Result<Token, AuthorityError> {
        let secret = hex(&random::<32>()?);
        Ok(Token { server: server.to_owned(), pin: pin.to_owned(), node: node.to_owned(), secret })
    }

    /// What is kept of it until `expires`, in seconds since 1970.
    pub(crate) fn record(&self, expires: u64) -> Record {
        Record { hash: hash(&self.secret), expires, key: None }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}/{}/{}", self.server.trim_end_matches('/'), self.pin, self.node, self.secret)
    }
}

/// What the operator keeps of a token: nothing that gets anybody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// SHA-256 of the secret.
    hash: String,
    /// Seconds since 1970.
    expires: u64,
    /// SHA-256 of the public key it was spent for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// What a token that was presented is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Good, if this can be written in the place of what was read.
    Spend(Record),
    /// It was spent for this very key: the answer was lost on the way.
    Repeat,
    Refuse,
}

impl Record {
    /// Judges a secret presented with the hash of a public key.
    pub(crate) fn redeem(&self, secret: &str, key: &str, now: u64) -> Verdict {
        let good: bool = self.hash.as_bytes().ct_eq(hash(secret).as_bytes()).into();
        if !good || now >= self.expires {
            return Verdict::Refuse;
        }
        match &self.key {
            None => Verdict::Spend(Record { key: Some(key.to_owned()), ..self.clone() }),
            Some(spent) if spent == key => Verdict::Repeat,
            Some(_) => Verdict::Refuse,
        }
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn hash(text: impl AsRef<[u8]>) -> String {
    hex(digest(&SHA256, text.as_ref()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::create("https://192.0.2.1:8443/", &"ab".repeat(32), "gw-1").unwrap()
    }

    #[test]
    fn all_that_a_device_needs_is_in_one_word() {
        let token = token();
        let text = token.to_string();
        let expected = format!("https://192.0.2.1:8443#{}/gw-1/{}", "ab".repeat(32), token.secret);
        assert_eq!(text, expected);
        assert_eq!(token.secret.len(), 64);
        assert_ne!(text, self::token().to_string());
    }

    #[test]
    fn it_is_good_once_for_one_key_until_it_expires() {
        let token = token();
        let record = token.record(100);
        assert!(!serde_json::to_string(&record).unwrap().contains(&token.secret));
        assert_eq!(record.redeem("guess", "k1", 99), Verdict::Refuse);
        assert_eq!(record.redeem("", "k1", 99), Verdict::Refuse);
        assert_eq!(record.redeem(&token.secret, "k1", 100), Verdict::Refuse);
        let Verdict::Spend(spent) = record.redeem(&token.secret, "k1", 99) else { panic!("refused") };
        assert_eq!(spent.redeem(&token.secret, "k1", 99), Verdict::Repeat);
        assert_eq!(spent.redeem(&token.secret, "k2", 99), Verdict::Refuse);
        assert_eq!(spent.redeem(&token.secret, "k1", 100), Verdict::Refuse);
    }
}
