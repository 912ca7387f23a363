//! A build without features: `cargo test -p selvedge-plan --no-default-features --test minimal`.
#![cfg(not(any(feature = "cni", feature = "services")))]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use selvedge_model::ServiceMode;
use selvedge_plan::*;

#[test]
fn what_is_left_out_is_said_and_changes_nothing_else() {
    for datapath in [Datapath::Kernel, Datapath::User] {
        let facts = edge_facts(datapath);
        let mut plan = Plan::new(&config(EDGE), &facts);
        let mut without = config(EDGE);
        without.services.mode = ServiceMode::Off;
        let mut expected = Plan::new(&without, &facts);
        assert!(plan.cni.is_none());
        for words in ["no Services", "no CNI network"] {
            assert!(plan.notes.iter().any(|note| note.contains(words)), "{words}: {:?}", plan.notes);
        }
        (plan.notes, expected.notes) = Default::default();
        assert_eq!(plan, expected);
    }
}
