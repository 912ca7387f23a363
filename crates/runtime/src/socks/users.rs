use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::error::Context as _;
use crate::{Error, Result};

/// More than any list of users needs.
const MAX_BYTES: u64 = 64 * 1024;

/// Who may use SOCKS5 on a network address.
///
/// Passwords are kept as they are: they cross the network as they are, too, so they are good for nothing else, and a
/// gateway has no time to derive keys of them.
pub(crate) struct Users {
    /// Name and password.
    list: Vec<(String, Zeroizing<String>)>,
}

impl Users {
    /// Reads `name:password`, a line each; nobody but the file's owner may be able to.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let what = || format!("users of SOCKS5 in {}", path.display());
        let file = fs::File::open(path).context(what)?;
        if file.metadata().context(what)?.mode() & 0o077 != 0 {
            return Err(Error::new("others than its owner may read it: chmod 600")).context(what);
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_BYTES).read_to_string(&mut text).context(what)?;
        Self::parse(&text).context(what)
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut list = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let user = line.split_once(':').filter(|(name, word)| {
                !word.is_empty() && [name.len(), word.len()].iter().all(|length| (1..256).contains(length))
            });
            let (name, password) = user.ok_or_else(|| Error::new(format!("line {}: not name:password", number + 1)))?;
            list.push((name.to_owned(), Zeroizing::new(password.to_owned())));
        }
        if list.is_empty() {
            return Err(Error::new("there are none"));
        }
        Ok(Users { list })
    }

    /// Whether somebody is who they say; how long that takes does not depend on how much of a password is right.
    pub(super) fn admit(&self, name: &[u8], password: &[u8]) -> bool {
        let right = |(own, secret): &(String, Zeroizing<String>)| {
            own.as_bytes().ct_eq(name) & secret.as_bytes().ct_eq(password)
        };
        self.list.iter().map(right).fold(subtle::Choice::from(0), |any, one| any | one).into()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_for_everybody_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "# who\n\nann:se:cret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Users::read(&path).err().unwrap().to_string();
        assert!(error.contains("chmod 600") && error.contains("users of SOCKS5"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let users = Users::read(&path).unwrap();
        assert!(users.admit(b"ann", b"se:cret"));
        assert!(!users.admit(b"ann", b"se:cre") && !users.admit(b"", b"") && !users.admit(b"# who", b""));
    }

    #[test]
    fn mistakes_name_the_line_and_not_the_password() {
        for text in ["ann:x\nsecret\n", "ann:x\n:secret\n", "ann:x\nsecret:\n"] {
            let error = Users::parse(text).err().unwrap().to_string();
            assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
        }
        assert!(Users::parse("# nobody\n").is_err());
    }
}
