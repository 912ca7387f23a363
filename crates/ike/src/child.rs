//! CHILD_SAs: negotiation of one, and its life within an IKE SA.

use std::time::Duration;

use crate::config::Peer;
use crate::crypto::{Aead, Crypto};
use crate::error::Failure;
use crate::event::Child;
use crate::keymat::{IkeKeys, Secret};
use crate::path::Path;
use crate::proposal::{self, ChildSuite, Chosen};
use crate::ts::{self, TrafficSelector};
use crate::wire::{Payloads, notify};

/// A pair of ESP SAs as its IKE SA sees it.
#[derive(Debug)]
pub(crate) struct ChildSa {
    pub(crate) spi_in: u32,
    pub(crate) spi_out: u32,
    pub(crate) state: ChildState,
    /// The next rekey, or the next try of one.
    pub(crate) rekey_at: Duration,
    /// The responder of a rekey sends on the new pair from here on at the latest.
    pub(crate) switch_at: Option<Duration>,
    /// The user knows it, so the user must hear of its end.
    pub(crate) announced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildState {
    Live,
    /// The peer rekeyed it, or made it in vain, and is to delete it until then.
    Replaced(Duration),
    /// We delete it.
    Closing,
}

/// What both ends settled on.
pub(crate) struct Agreement {
    pub(crate) chosen: Chosen<ChildSuite>,
    pub(crate) spi_out: u32,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
}

/// Why there is no agreement: the notification that says so to the peer, and the sentence.
pub(crate) struct Disagreement {
    pub(crate) kind: u16,
    pub(crate) failure: Failure,
}

/// The responder's part: chooses from the initiator's SA and TS payloads.
pub(crate) fn respond(
    payloads: &Payloads<'_>,
    policy: &Peer,
    aeads: &[Aead],
    pfs: bool,
) -> Result<Agreement, Disagreement> {
    let peer = || policy.name.clone();
    let incomplete =
        |what| Disagreement { kind: notify::INVALID_SYNTAX, failure: Failure::Incomplete { peer: peer(), what } };
    let (Some(offer), Some(ts_i), Some(ts_r)) = (payloads.proposals(), payloads.ts_i(), payloads.ts_r()) else {
        return Err(incomplete("offer for a CHILD_SA"));
    };
    let chosen = proposal::choose_esp(offer, aeads, pfs, payloads.ke().map(|ke| ke.group)).ok_or_else(|| {
        Disagreement { kind: notify::NO_PROPOSAL_CHOSEN, failure: Failure::NoCommonAlgorithms { peer: peer() } }
    })?;
    let spi_out = esp_spi(&chosen).ok_or_else(|| incomplete("usable SPI"))?;
    let local_ts = ts::narrow(ts_r, &policy.local_ts);
    let remote_ts = ts::narrow(ts_i, &policy.remote_ts);
    if local_ts.is_empty() || remote_ts.is_empty() {
        let failure = Failure::NoCommonSelectors {
            local: ts::describe(ts_r),
            remote: ts::describe(ts_i),
            policy_local: ts::describe(&policy.local_ts),
            policy_remote: ts::describe(&policy.remote_ts),
        };
        return Err(Disagreement { kind: notify::TS_UNACCEPTABLE, failure });
    }
    Ok(Agreement { chosen, spi_out, local_ts, remote_ts })
}

/// The initiator's part: reads the responder's choice, which must stay within our offer.
pub(crate) fn conclude(
    payloads: &Payloads<'_>,
    policy: &Peer,
    aeads: &[Aead],
    pfs: bool,
) -> Result<Agreement, Failure> {
    let incomplete = |what| Failure::Incomplete { peer: policy.name.clone(), what };
    let answer = payloads.proposals().ok_or_else(|| incomplete("choice of algorithms"))?;
    let chosen = proposal::chosen_esp(answer, aeads, pfs).ok_or_else(|| incomplete("choice out of our algorithms"))?;
    let spi_out = esp_spi(&chosen).ok_or_else(|| incomplete("usable SPI"))?;
    let local_ts = payloads.ts_i().unwrap_or_default().to_vec();
    let remote_ts = payloads.ts_r().unwrap_or_default().to_vec();
    if ts::within(&local_ts, &policy.local_ts) && ts::within(&remote_ts, &policy.remote_ts) {
        Ok(Agreement { chosen, spi_out, local_ts, remote_ts })
    } else {
        Err(incomplete("traffic selectors within ours"))
    }
}

/// SPIs up to 255 are reserved (RFC 4303 section 2.1).
fn esp_spi(chosen: &Chosen<ChildSuite>) -> Option<u32> {
    let spi = u32::from_be_bytes(chosen.spi.as_slice().try_into().ok()?);
    (spi > 255).then_some(spi)
}

/// The secrets a CHILD_SA is keyed from.
#[derive(Clone, Copy)]
pub(crate) struct ChildSecrets<'a> {
    /// The new shared secret, empty in IKE_AUTH.
    pub(crate) shared: &'a [u8],
    pub(crate) nonce_i: &'a [u8],
    pub(crate) nonce_r: &'a [u8],
}

impl Agreement {
    fn aead(&self) -> Aead {
        self.chosen.suite.aead
    }

    /// The pair for the user. `initiator`: we asked for it.
    pub(crate) fn into_child(
        self,
        crypto: &dyn Crypto,
        keys: &IkeKeys,
        secrets: ChildSecrets<'_>,
        path: &Path,
        spi_in: u32,
        initiator: bool,
    ) -> Child {
        let (sent_by_initiator, sent_by_responder): (Secret, Secret) =
            keys.child(crypto, self.aead(), secrets.shared, secrets.nonce_i, secrets.nonce_r);
        let (key_in, key_out) =
            if initiator { (sent_by_responder, sent_by_initiator) } else { (sent_by_initiator, sent_by_responder) };
        Child {
            spi_in,
            spi_out: self.spi_out,
            suite: self.aead(),
            key_in,
            key_out,
            local: path.local(),
            remote: path.remote,
            encap: path.encap(),
            local_ts: self.local_ts,
            remote_ts: self.remote_ts,
            replaces: None,
            send: initiator,
            initiator,
        }
    }
}
