//! CREATE_CHILD_SA requests of the peer, and what may get in their way (RFC 7296 sections 1.3 and 2.25).

use crate::ctx::Ctx;
use crate::sa::{IkeSa, Phase, Request};
use crate::wire::{Chain, Payloads, Protocol, notify};
use crate::{child_rekey, ike_rekey};

/// Answers a request for a new CHILD_SA, a rekeyed one or a rekeyed IKE SA.
pub(crate) fn answer(sa: &mut IkeSa, ctx: &mut Ctx<'_>, payloads: &Payloads<'_>) -> Chain {
    if !matches!(sa.phase, Phase::Live) || sa.provisional {
        // It is being replaced or deleted.
        return refusal(notify::TEMPORARY_FAILURE, &[]);
    }
    let rekeys_ike =
        payloads.proposals().and_then(<[_]>::first).is_some_and(|proposal| proposal.protocol == Some(Protocol::Ike));
    let pending = sa.exchange.pending().map(|pending| &pending.request);
    let busy = match pending {
        // The CHILD_SAs are about to move to another IKE SA.
        Some(Request::Ike(_)) => !rekeys_ike,
        Some(Request::Child(_) | Request::DeleteChild { .. }) => rekeys_ike,
        Some(Request::Handshake | Request::DeleteIke | Request::Liveness) | None => false,
    };
    if busy {
        return refusal(notify::TEMPORARY_FAILURE, &[]);
    }
    let answered = match payloads.notify(notify::REKEY_SA) {
        _ if rekeys_ike => ike_rekey::answer(sa, ctx, payloads),
        rekeys => child_rekey::answer(sa, ctx, payloads, rekeys.map(|notify| notify.esp_spi())),
    };
    answered.unwrap_or_else(|refusal| refusal)
}

/// An answer that is one notification.
pub(crate) fn refusal(kind: u16, data: &[u8]) -> Chain {
    let mut chain = Chain::new();
    chain.notify(kind, data);
    chain
}
