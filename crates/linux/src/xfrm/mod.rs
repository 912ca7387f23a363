//! The kernel's IPsec: security associations, policies, their events and counters (`linux/xfrm.h`).
//!
//! ESP in tunnel mode only. Nobody here listens for acquire requests, so a packet that a policy wants encrypted is
//! dropped at once while there is no SA, rather than held back.

mod event;
mod layout;
mod policy;
mod probe;
mod sa;
mod stats;

pub use event::{Event, monitor};
pub use policy::{
    Action, Direction, Policy, Template, add as add_policy, delete as delete_policy, flush as flush_policies,
    list as list_policies, update as update_policy,
};
pub use probe::{Lack, Support, probe};
pub use sa::{
    Aead, Algorithm, Encap, Errors, Limits, Sa, SaInfo, add as add_sa, delete as delete_sa, flush as flush_sas,
    get as get_sa, list as list_sas, update as update_sa,
};
pub use stats::stats;

pub(crate) use policy::{POLICY_INFO_LEN, bypass_policy};
