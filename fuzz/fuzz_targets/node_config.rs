//! A configuration is read or refused with a place; nothing else happens.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_model::NodeConfig;

fuzz_target!(|text: &str| {
    if let Err(error) = NodeConfig::parse(text) {
        assert!(!error.place.is_empty() && !error.problem.is_empty());
    }
});
