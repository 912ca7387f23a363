//! Keying material (RFC 7296 sections 2.13, 2.14, 2.17 and 2.18).

use zeroize::Zeroizing;

use crate::crypto::{Aead, Crypto, Prf};
use crate::proposal::IkeSuite;

/// A secret octet string.
pub(crate) type Secret = Zeroizing<Vec<u8>>;

/// `prf+(key, seed)`, the first `len` octets. RFC 7296 section 2.13 ends after 255 blocks, far beyond what we ask for.
pub(crate) fn prf_plus(crypto: &dyn Crypto, prf: Prf, key: &[u8], seed: &[&[u8]], len: usize) -> Secret {
    let mut out = Zeroizing::new(Vec::with_capacity(len + prf.len()));
    let mut block: Secret = Zeroizing::new(Vec::new());
    for counter in 1..=u8::MAX {
        if out.len() >= len {
            break;
        }
        let mut parts: Vec<&[u8]> = vec![&block];
        parts.extend_from_slice(seed);
        let counter = [counter];
        parts.push(&counter);
        let next = crypto.prf(prf, key, &parts);
        out.extend_from_slice(&next);
        block = next;
    }
    out.truncate(len);
    out
}

/// The keys of an IKE SA. With an AEAD there are no SK_a.
pub(crate) struct IkeKeys {
    pub(crate) suite: IkeSuite,
    pub(crate) sk_d: Secret,
    pub(crate) sk_ei: Secret,
    pub(crate) sk_er: Secret,
    pub(crate) sk_pi: Secret,
    pub(crate) sk_pr: Secret,
}

/// Nonces and SPIs both ends contributed.
#[derive(Clone, Copy)]
pub(crate) struct Contribution<'a> {
    pub(crate) nonce_i: &'a [u8],
    pub(crate) nonce_r: &'a [u8],
    pub(crate) spi_i: u64,
    pub(crate) spi_r: u64,
}

impl IkeKeys {
    /// The keys of an IKE SA made by IKE_SA_INIT.
    pub(crate) fn initial(crypto: &dyn Crypto, suite: IkeSuite, secret: &[u8], with: Contribution<'_>) -> Self {
        let key = [with.nonce_i, with.nonce_r].concat();
        let skeyseed = crypto.prf(suite.prf, &key, &[secret]);
        Self::derive(crypto, suite, &skeyseed, with)
    }

    /// The keys of the IKE SA that replaces this one.
    pub(crate) fn rekeyed(&self, crypto: &dyn Crypto, suite: IkeSuite, secret: &[u8], with: Contribution<'_>) -> Self {
        let skeyseed = crypto.prf(self.suite.prf, &self.sk_d, &[secret, with.nonce_i, with.nonce_r]);
        Self::derive(crypto, suite, &skeyseed, with)
    }

    fn derive(crypto: &dyn Crypto, suite: IkeSuite, skeyseed: &[u8], with: Contribution<'_>) -> Self {
        let (prf, aead) = (suite.prf.len(), suite.aead.key_len());
        let seed: [&[u8]; 4] = [with.nonce_i, with.nonce_r, &with.spi_i.to_be_bytes(), &with.spi_r.to_be_bytes()];
        let mut keys = prf_plus(crypto, suite.prf, skeyseed, &seed, 3 * prf + 2 * aead);
        let mut take = |len: usize| Zeroizing::new(keys.drain(..len).collect::<Vec<u8>>());
        Self { suite, sk_d: take(prf), sk_ei: take(aead), sk_er: take(aead), sk_pi: take(prf), sk_pr: take(prf) }
    }

    /// The keys of a CHILD_SA: what the exchange's initiator sends with, then what its responder sends with.
    /// `secret` is empty if the exchange made no new shared secret.
    pub(crate) fn child(
        &self,
        crypto: &dyn Crypto,
        aead: Aead,
        secret: &[u8],
        nonce_i: &[u8],
        nonce_r: &[u8],
    ) -> (Secret, Secret) {
        let len = aead.key_len();
        let mut initiator = prf_plus(crypto, self.suite.prf, &self.sk_d, &[secret, nonce_i, nonce_r], 2 * len);
        let responder = Zeroizing::new(initiator[len..].to_vec());
        initiator.truncate(len);
        (initiator, responder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Group, RingCrypto};

    #[test]
    fn prf_plus_chains_blocks() {
        let crypto = RingCrypto::new();
        let t1 = crypto.prf(Prf::HmacSha256, b"key", &[b"seed", &[1]]);
        let t2 = crypto.prf(Prf::HmacSha256, b"key", &[&t1, b"seed", &[2]]);
        let out = prf_plus(&crypto, Prf::HmacSha256, b"key", &[b"se", b"ed"], 40);
        assert_eq!(out[..32], t1[..]);
        assert_eq!(out[32..], t2[..8]);
    }

    #[test]
    fn keys_are_cut_in_the_order_of_the_rfc() {
        let crypto = RingCrypto::new();
        let suite = IkeSuite { aead: Aead::Aes128Gcm, prf: Prf::HmacSha256, group: Group::Curve25519 };
        let with = Contribution { nonce_i: &[1; 32], nonce_r: &[2; 32], spi_i: 3, spi_r: 4 };
        let keys = IkeKeys::initial(&crypto, suite, &[5; 32], with);
        let skeyseed = crypto.prf(Prf::HmacSha256, &[[1; 32], [2; 32]].concat(), &[&[5; 32]]);
        let seed = [&[1; 32][..], &[2; 32], &3u64.to_be_bytes(), &4u64.to_be_bytes()].concat();
        let all = prf_plus(&crypto, Prf::HmacSha256, &skeyseed, &[&seed], 136);
        let cut = [&keys.sk_d, &keys.sk_ei, &keys.sk_er, &keys.sk_pi, &keys.sk_pr].map(|k| k.to_vec()).concat();
        assert_eq!(cut, all.to_vec());
        assert_eq!((keys.sk_ei.len(), keys.sk_pr.len()), (20, 32));
        let heir = keys.rekeyed(&crypto, suite, &[6; 32], with);
        let skeyseed = crypto.prf(Prf::HmacSha256, &keys.sk_d, &[&[[6; 32], [1; 32], [2; 32]].concat()]);
        assert_eq!(heir.sk_d.to_vec(), prf_plus(&crypto, Prf::HmacSha256, &skeyseed, &[&seed], 32).to_vec());
        let (a, b) = keys.child(&crypto, Aead::Aes128Gcm, &[], &[1; 32], &[2; 32]);
        let keymat = prf_plus(&crypto, Prf::HmacSha256, &keys.sk_d, &[&[1; 32], &[2; 32]], 40);
        assert_eq!([a.to_vec(), b.to_vec()].concat(), keymat.to_vec());
    }
}
