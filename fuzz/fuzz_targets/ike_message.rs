//! The parser of IKE messages and their payloads.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| selvedge_ike::fuzz_parse(bytes));
