//! IKE SAs of peers whose certificate ends. A rekey does not authenticate anew (RFC 7296 section 2.8.3), so without this a
//! peer that was let in once would stay for good.

use crate::config::{Now, PeerId};
use crate::endpoint::Endpoint;
use crate::error::{CertificateFailure, Failure};
use crate::sa::IkeSa;

/// So long before a certificate ends, in seconds, the peer is to have proved itself by the next one.
const MARGIN: u64 = 2 * 60 * 60;

impl Endpoint {
    /// Has every peer whose certificate ends soon authenticate anew, make before break; to be called every hour, and
    /// when the calendar jumps. A peer whose certificate has ended and that has no better one is let go.
    pub fn handle_clock(&mut self, now: Now) {
        for id in self.directory.ids() {
            if self.current_ends_before(id, now.wall.seconds() + MARGIN) {
                if let Some(entry) = self.directory.get_mut(id) {
                    entry.worn_out = true;
                }
                self.reconcile(now, id);
            }
        }
    }

    /// After an attempt to authenticate the peer anew has failed.
    pub(crate) fn drop_expired(&mut self, now: Now, id: PeerId) {
        let Some(key) = self.directory.get(id).and_then(|entry| entry.current) else { return };
        let Some(sa) = self.sas.get(&key) else { return };
        #[cfg(feature = "crl")]
        let lost = self.has_lost_trust(sa);
        #[cfg(not(feature = "crl"))]
        let lost = false;
        if sa.until > now.wall.seconds() && !lost {
            return;
        }
        let failure = match lost {
            true => CertificateFailure::OtherAuthority { of: sa.peer_name() },
            false => CertificateFailure::Expired { of: sa.peer_name(), at: sa.until },
        };
        self.on_down(now, key, &Failure::Certificate(failure));
        self.with_sa(now, key, IkeSa::close);
    }

    fn current_ends_before(&self, id: PeerId, wall: u64) -> bool {
        let current = self.directory.get(id).and_then(|entry| self.sas.get(&entry.current?));
        current.is_some_and(|sa| sa.until < wall)
    }
}
