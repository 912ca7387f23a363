use super::*;

fn election(identity: &str) -> Election {
    Election { identity: identity.to_owned(), observed: None }
}

/// What the step writes, as the API server would keep it.
fn written(step: Step) -> Lease {
    match step {
        Step::Create(lease) | Step::Replace(lease) => lease,
        Step::Wait => panic!("nothing is written"),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

#[test]
fn the_first_makes_the_lease_and_renews_it() {
    let start = Instant::now();
    let mut a = election("a");
    let Step::Create(lease) = a.step(None, start, at(100)) else { panic!("no lease is made") };
    let renewed = written(a.step(Some(lease), start, at(102))).spec.unwrap();
    assert_eq!((renewed.acquire_time, renewed.renew_time), (Some(MicroTime(at(100))), Some(MicroTime(at(102)))));
    assert_eq!(renewed.lease_transitions, Some(0));
}

#[test]
fn a_living_holder_is_left_alone_whatever_the_clocks_say() {
    let start = Instant::now();
    let mut a = election("a");
    let mut b = election("b");
    let mut lease = written(a.step(None, start, at(100)));
    for i in 0..20 {
        let now = start + PAUSE * i;
        // Years ago by the clock of the other.
        assert_eq!(b.step(Some(lease.clone()), now, at(10_000_000_000)), Step::Wait);
        lease = written(a.step(Some(lease), now, at(100 + i64::from(i))));
    }
}

#[test]
fn a_dead_holder_is_replaced_after_its_duration_by_our_own_clock() {
    let start = Instant::now();
    let lease = written(election("a").step(None, start, at(100)));
    let mut b = election("b");
    assert_eq!(b.step(Some(lease.clone()), start, at(100)), Step::Wait);
    assert_eq!(b.step(Some(lease.clone()), start + DURATION - PAUSE, at(100)), Step::Wait);
    let taken = written(b.step(Some(lease), start + DURATION, at(100))).spec.unwrap();
    assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(1)));
}

#[test]
fn a_lease_that_was_given_back_is_taken_at_once() {
    let start = Instant::now();
    let mut lease = written(election("a").step(None, start, at(100)));
    lease.spec.as_mut().unwrap().holder_identity = None;
    assert!(matches!(election("b").step(Some(lease), start, at(100)), Step::Replace(_)));
}

#[test]
fn nobody_may_start_before_the_other_has_stopped() {
    assert!(DEADLINE + ATTEMPT < DURATION);
}
