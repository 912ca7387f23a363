//! What keeper and client say to each other comes back the same, and nothing else is taken.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_tunnel::keeper::message::{Report, Request};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(report) = Report::decode(bytes) {
        assert_eq!(Report::decode(&report.encode()), Ok(report));
    }
});
