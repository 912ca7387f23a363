//! Cookies: proof that a caller receives at its address before we keep anything about it (RFC 7296 section 2.6).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::crypto::{Crypto, Prf};

/// How long a secret is handed out; cookies of the one before are still taken.
const SECRET_LIFE: Duration = Duration::from_secs(60);

struct Generation {
    version: u8,
    secret: Zeroizing<Vec<u8>>,
}

/// Makes and checks cookies, without memory of any caller.
#[derive(Default)]
pub(crate) struct CookieJar {
    current: Option<Generation>,
    previous: Option<Generation>,
    rotate_at: Duration,
}

impl CookieJar {
    /// The cookie for a caller; `None` without randomness.
    pub(crate) fn make(
        &mut self,
        crypto: &dyn Crypto,
        now: Duration,
        remote: SocketAddr,
        spi_i: u64,
        nonce: &[u8],
    ) -> Option<Vec<u8>> {
        self.rotate(crypto, now)?;
        Some(cookie(crypto, self.current.as_ref()?, remote, spi_i, nonce))
    }

    /// Whether `presented` is a cookie of ours for this caller.
    pub(crate) fn check(
        &mut self,
        crypto: &dyn Crypto,
        now: Duration,
        remote: SocketAddr,
        spi_i: u64,
        nonce: &[u8],
        presented: &[u8],
    ) -> bool {
        if self.rotate(crypto, now).is_none() {
            return false;
        }
        let generation = [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .find(|generation| presented.first() == Some(&generation.version));
        generation.is_some_and(|generation| equal(&cookie(crypto, generation, remote, spi_i, nonce), presented))
    }

    fn rotate(&mut self, crypto: &dyn Crypto, now: Duration) -> Option<()> {
        if self.current.is_none() || now >= self.rotate_at {
            let mut secret = Zeroizing::new(vec![0; 32]);
            crypto.random(&mut secret).ok()?;
            let version = self.current.as_ref().map_or(0, |generation| generation.version.wrapping_add(1));
            // A secret that was not used for a whole life is not honoured any longer.
            let stale = now >= self.rotate_at + SECRET_LIFE;
            self.previous = self.current.take().filter(|_| !stale);
            self.current = Some(Generation { version, secret });
            self.rotate_at = now + SECRET_LIFE;
        }
        Some(())
    }
}

fn cookie(crypto: &dyn Crypto, generation: &Generation, remote: SocketAddr, spi_i: u64, nonce: &[u8]) -> Vec<u8> {
    let ip = match remote.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let parts = [nonce, &ip, &remote.port().to_be_bytes(), &spi_i.to_be_bytes()];
    let mut cookie = vec![generation.version];
    cookie.extend_from_slice(&crypto.prf(Prf::HmacSha256, &generation.secret, &parts)[..16]);
    cookie
}

/// Compares in a time that does not depend on where the difference is.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |diff, (a, b)| diff | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RingCrypto;

    #[test]
    fn a_cookie_is_good_for_its_caller_and_two_secrets() {
        let crypto = RingCrypto::new();
        let mut jar = CookieJar::default();
        let at = Duration::from_secs;
        let remote = "192.0.2.1:500".parse().unwrap();
        let other = "192.0.2.2:500".parse().unwrap();
        let cookie = jar.make(&crypto, at(0), remote, 7, &[1; 32]).unwrap();
        let mut check = |now, remote, spi, nonce: &[u8]| jar.check(&crypto, now, remote, spi, nonce, &cookie);
        assert!(check(at(1), remote, 7, &[1; 32]));
        assert!(!check(at(1), other, 7, &[1; 32]));
        assert!(!check(at(1), remote, 8, &[1; 32]));
        assert!(!check(at(1), remote, 7, &[2; 32]));
        assert!(check(at(61), remote, 7, &[1; 32]));
        assert!(!check(at(122), remote, 7, &[1; 32]));
        assert!(!jar.check(&crypto, at(122), remote, 7, &[1; 32], &[]));
    }
}
