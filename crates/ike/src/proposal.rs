//! What we offer and accept: proposals and the choice among them (RFC 7296 sections 2.7 and 3.3).

use crate::crypto::{Aead, Group, Prf};
use crate::wire::{Proposal, Protocol, Transform, transform};

const ENCR_AES_GCM_16: u16 = 20;
const ENCR_CHACHA20_POLY1305: u16 = 28;
const PRF_HMAC_SHA2_256: u16 = 5;
const PRF_HMAC_SHA2_384: u16 = 6;
const KE_ECP_256: u16 = 19;
const KE_CURVE25519: u16 = 31;
/// "None" of integrity algorithms and key exchange methods, "No Extended Sequence Numbers" of ESN.
const NONE: u16 = 0;

/// Key exchange methods in our order of preference.
pub(crate) const GROUPS: [Group; 2] = [Group::Curve25519, Group::Ecp256];
const PRFS: [Prf; 2] = [Prf::HmacSha256, Prf::HmacSha384];

impl Group {
    /// The transform id.
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::Curve25519 => KE_CURVE25519,
            Self::Ecp256 => KE_ECP_256,
        }
    }

    pub(crate) fn from_number(number: u16) -> Option<Self> {
        GROUPS.into_iter().find(|group| group.number() == number)
    }
}

impl Prf {
    fn transform(self) -> Transform {
        let id = match self {
            Self::HmacSha256 => PRF_HMAC_SHA2_256,
            Self::HmacSha384 => PRF_HMAC_SHA2_384,
        };
        Transform { kind: transform::PRF, id, key_bits: None }
    }
}

impl Aead {
    fn transform(self) -> Transform {
        let (id, key_bits) = match self {
            Self::Aes128Gcm => (ENCR_AES_GCM_16, Some(128)),
            Self::Aes256Gcm => (ENCR_AES_GCM_16, Some(256)),
            Self::ChaCha20Poly1305 => (ENCR_CHACHA20_POLY1305, None),
        };
        Transform { kind: transform::ENCR, id, key_bits }
    }
}

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeSuite {
    /// Protects the messages.
    pub aead: Aead,
    /// Derives keys.
    pub prf: Prf,
    /// Made the shared secret.
    pub group: Group,
}

impl IkeSuite {
    fn transforms(self) -> Vec<Transform> {
        vec![self.aead.transform(), self.prf.transform(), ke(self.group)]
    }
}

/// A chosen proposal: its number and SPI, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen<T> {
    pub(crate) number: u8,
    pub(crate) spi: Vec<u8>,
    pub(crate) suite: T,
}

/// What a CHILD_SA uses; the group is `None` in IKE_AUTH, which makes no new shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChildSuite {
    pub(crate) aead: Aead,
    pub(crate) group: Option<Group>,
}

/// AES first unless the CPU is better at ChaCha20.
pub(crate) fn aeads(prefer_chacha: bool) -> [Aead; 3] {
    if prefer_chacha {
        [Aead::ChaCha20Poly1305, Aead::Aes256Gcm, Aead::Aes128Gcm]
    } else {
        [Aead::Aes256Gcm, Aead::Aes128Gcm, Aead::ChaCha20Poly1305]
    }
}

fn ke(group: Group) -> Transform {
    Transform { kind: transform::KE, id: group.number(), key_bits: None }
}

fn no_esn() -> Transform {
    Transform { kind: transform::ESN, id: NONE, key_bits: None }
}

/// Our offer for an IKE SA. `spi` is empty in IKE_SA_INIT and the new SPI in a rekey.
pub(crate) fn offer_ike(prefer_chacha: bool, spi: &[u8]) -> Vec<Proposal> {
    let mut transforms: Vec<Transform> = aeads(prefer_chacha).map(Aead::transform).to_vec();
    transforms.extend(PRFS.map(Prf::transform));
    transforms.extend(GROUPS.map(ke));
    vec![Proposal { number: 1, protocol: Some(Protocol::Ike), spi: spi.to_vec(), transforms }]
}

/// Our offer for a CHILD_SA; with key exchange methods in CREATE_CHILD_SA, without in IKE_AUTH.
pub(crate) fn offer_esp(aeads: &[Aead], spi: u32, pfs: bool) -> Vec<Proposal> {
    let mut transforms: Vec<Transform> = aeads.iter().map(|aead| aead.transform()).collect();
    if pfs {
        transforms.extend(GROUPS.map(ke));
    }
    transforms.push(no_esn());
    vec![Proposal { number: 1, protocol: Some(Protocol::Esp), spi: spi.to_be_bytes().to_vec(), transforms }]
}

/// Chooses from an offer for an IKE SA: the first proposal we can take, within it by our preference, except that the
/// group of the initiator's KE payload is kept if it is acceptable, which saves a round trip.
pub(crate) fn choose_ike(
    offer: &[Proposal],
    prefer_chacha: bool,
    spi_len: usize,
    ke_group: Option<u16>,
) -> Option<Chosen<IkeSuite>> {
    offer.iter().find_map(|proposal| {
        let known = [transform::ENCR, transform::PRF, transform::KE, transform::INTEG];
        if !acceptable(proposal, Protocol::Ike, spi_len, &known) {
            return None;
        }
        let suite = IkeSuite {
            aead: aead(proposal, &aeads(prefer_chacha))?,
            prf: first(proposal, PRFS, Prf::transform)?,
            group: group(proposal, ke_group)?,
        };
        Some(Chosen { number: proposal.number, spi: proposal.spi.clone(), suite })
    })
}

/// Chooses from an offer for a CHILD_SA. With `pfs` a proposal without a key exchange method is refused.
pub(crate) fn choose_esp(
    offer: &[Proposal],
    aeads: &[Aead],
    pfs: bool,
    ke_group: Option<u16>,
) -> Option<Chosen<ChildSuite>> {
    offer.iter().find_map(|proposal| {
        let known = [transform::ENCR, transform::KE, transform::INTEG, transform::ESN];
        if !acceptable(proposal, Protocol::Esp, 4, &known) || !proposal.transforms.contains(&no_esn()) {
            return None;
        }
        let aead = aead(proposal, aeads)?;
        let group = if pfs { Some(group(proposal, ke_group)?) } else { None };
        Some(Chosen { number: proposal.number, spi: proposal.spi.clone(), suite: ChildSuite { aead, group } })
    })
}

/// The answer that names the choice for an IKE SA.
pub(crate) fn answer_ike(chosen: &Chosen<IkeSuite>, spi: &[u8]) -> Vec<Proposal> {
    let transforms = chosen.suite.transforms();
    vec![Proposal { number: chosen.number, protocol: Some(Protocol::Ike), spi: spi.to_vec(), transforms }]
}

/// The answer that names the choice for a CHILD_SA.
pub(crate) fn answer_esp(chosen: &Chosen<ChildSuite>, spi: u32) -> Vec<Proposal> {
    let mut transforms = vec![chosen.suite.aead.transform()];
    transforms.extend(chosen.suite.group.map(ke));
    transforms.push(no_esn());
    let spi = spi.to_be_bytes().to_vec();
    vec![Proposal { number: chosen.number, protocol: Some(Protocol::Esp), spi, transforms }]
}

/// Reads the responder's choice, which must be one algorithm of each kind out of our offer.
pub(crate) fn chosen_ike(answer: &[Proposal], spi_len: usize) -> Option<Chosen<IkeSuite>> {
    let [proposal] = answer else { return None };
    let chosen = choose_ike(answer, false, spi_len, None)?;
    exact(proposal, &chosen.suite.transforms()).then_some(chosen)
}

/// As [`chosen_ike`], for a CHILD_SA.
pub(crate) fn chosen_esp(answer: &[Proposal], aeads: &[Aead], pfs: bool) -> Option<Chosen<ChildSuite>> {
    let [proposal] = answer else { return None };
    let chosen = choose_esp(answer, aeads, pfs, None)?;
    let mut transforms = vec![chosen.suite.aead.transform(), no_esn()];
    transforms.extend(chosen.suite.group.map(ke));
    exact(proposal, &transforms).then_some(chosen)
}

/// Whether the protocol and SPI fit and no kind of transform is asked for that we do not know.
fn acceptable(proposal: &Proposal, protocol: Protocol, spi_len: usize, known: &[u8]) -> bool {
    let integ = || proposal.transforms.iter().filter(|t| t.kind == transform::INTEG);
    proposal.protocol == Some(protocol)
        && proposal.spi.len() == spi_len
        && proposal.transforms.iter().all(|t| known.contains(&t.kind))
        // An AEAD goes with no integrity algorithm, or with "none" (RFC 5282 section 8).
        && (integ().next().is_none() || integ().any(|t| t.id == NONE))
}

fn exact(proposal: &Proposal, transforms: &[Transform]) -> bool {
    let none = Transform { kind: transform::INTEG, id: NONE, key_bits: None };
    let mut answered = proposal.transforms.iter().filter(|t| **t != none);
    answered.clone().count() == transforms.len() && answered.all(|t| transforms.contains(t))
}

/// ChaCha20 if either end prefers it: it costs an end with AES instructions less than AES costs one without.
fn aead(proposal: &Proposal, ours: &[Aead]) -> Option<Aead> {
    let chacha = Aead::ChaCha20Poly1305;
    let offered = proposal.transforms.iter().find(|t| t.kind == transform::ENCR);
    let preferred = (offered == Some(&chacha.transform()) && ours.contains(&chacha)).then_some(chacha);
    first(proposal, preferred.into_iter().chain(ours.iter().copied()), Aead::transform)
}

fn first<T: Copy>(
    proposal: &Proposal,
    preferred: impl IntoIterator<Item = T>,
    to: impl Fn(T) -> Transform,
) -> Option<T> {
    preferred.into_iter().find(|candidate| proposal.transforms.contains(&to(*candidate)))
}

fn group(proposal: &Proposal, preferred: Option<u16>) -> Option<Group> {
    first(proposal, preferred.and_then(Group::from_number).into_iter().chain(GROUPS), ke)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_offer_is_chosen_by_preference() {
        let offer = offer_ike(false, &[]);
        let suite = |chacha, ke| choose_ike(&offer, chacha, 0, ke).unwrap().suite;
        assert_eq!(suite(false, None).aead, Aead::Aes256Gcm);
        assert_eq!(suite(true, None).aead, Aead::ChaCha20Poly1305);
        assert_eq!(suite(false, None).group, Group::Curve25519);
        assert_eq!(suite(false, Some(19)).group, Group::Ecp256);
        assert_eq!(suite(false, Some(14)).group, Group::Curve25519);
    }

    #[test]
    fn the_end_without_aes_instructions_decides_the_cipher() {
        let suites = |offers, takes| {
            let ike = choose_ike(&offer_ike(offers, &[]), takes, 0, None).unwrap().suite.aead;
            let esp = choose_esp(&offer_esp(&aeads(offers), 1, false), &aeads(takes), false, None).unwrap().suite.aead;
            [ike, esp]
        };
        assert_eq!(suites(true, false), [Aead::ChaCha20Poly1305; 2]);
        assert_eq!(suites(false, true), [Aead::ChaCha20Poly1305; 2]);
        assert_eq!(suites(false, false), [Aead::Aes256Gcm; 2]);
    }

    #[test]
    fn the_second_proposal_is_taken_if_the_first_is_not_ours() {
        let mut cbc = offer_ike(false, &[]).remove(0);
        cbc.transforms.push(Transform { kind: transform::INTEG, id: 12, key_bits: None });
        let mut aead = offer_ike(false, &[]).remove(0);
        aead.number = 2;
        assert_eq!(choose_ike(&[cbc.clone(), aead], false, 0, None).unwrap().number, 2);
        assert_eq!(choose_ike(&[cbc], false, 0, None), None);
    }

    #[test]
    fn unknown_kinds_wrong_spis_and_missing_kinds_are_refused() {
        let offer = offer_esp(&aeads(false), 0x1234_5678, true);
        assert_eq!(choose_esp(&offer, &aeads(false), true, None).unwrap().spi, [0x12, 0x34, 0x56, 0x78]);
        let edit = |edit: fn(&mut Proposal)| {
            let mut offer = offer.clone();
            edit(&mut offer[0]);
            choose_esp(&offer, &aeads(false), true, None)
        };
        assert_eq!(edit(|p| p.spi.push(0)), None);
        assert_eq!(edit(|p| p.protocol = Some(Protocol::Ah)), None);
        assert_eq!(edit(|p| p.transforms.push(Transform { kind: 6, id: 36, key_bits: None })), None);
        assert_eq!(edit(|p| p.transforms.retain(|t| t.kind != transform::KE)), None);
        assert_eq!(edit(|p| p.transforms.retain(|t| t.kind != transform::ESN)), None);
        assert_eq!(edit(|p| p.transforms.retain(|t| t.kind != transform::ENCR)), None);
    }

    #[test]
    fn a_cipher_that_the_datapath_lacks_is_neither_offered_nor_taken() {
        let chacha = [Aead::ChaCha20Poly1305];
        assert_eq!(
            choose_esp(&offer_esp(&chacha, 1000, true), &aeads(false), true, None).unwrap().suite.aead,
            chacha[0]
        );
        assert_eq!(
            choose_esp(&offer_esp(&aeads(false), 1000, true), &chacha, true, None).unwrap().suite.aead,
            chacha[0]
        );
        assert_eq!(choose_esp(&offer_esp(&chacha, 1000, true), &[Aead::Aes256Gcm], true, None), None);
        let chosen = choose_esp(&offer_esp(&aeads(false), 1000, true), &aeads(false), true, None).unwrap();
        assert_eq!(chosen_esp(&answer_esp(&chosen, 2000), &chacha, true), None);
    }

    #[test]
    fn an_answer_must_be_one_algorithm_of_each_kind() {
        let chosen = choose_esp(&offer_esp(&aeads(true), 1, true), &aeads(true), true, None).unwrap();
        let answer = answer_esp(&chosen, 2);
        let read = chosen_esp(&answer, &aeads(true), true).unwrap();
        assert_eq!((read.suite, read.spi), (chosen.suite, vec![0, 0, 0, 2]));
        assert_eq!(chosen_esp(&offer_esp(&aeads(true), 1, true), &aeads(true), true), None);
        assert_eq!(chosen_ike(&offer_ike(true, &[]), 0), None);
        let chosen = choose_ike(&offer_ike(true, &[7; 8]), true, 8, None).unwrap();
        assert_eq!(chosen_ike(&answer_ike(&chosen, &[9; 8]), 8).unwrap().spi, [9; 8]);
    }
}
