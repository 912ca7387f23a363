use super::*;

fn schedule(now: Instant) -> Schedule {
    Schedule { due: now + LONGEST_SLEEP, since: None, failures: 0 }
}

#[test]
fn changes_are_gathered_but_not_for_ever() {
    let now = Instant::now();
    let mut schedule = schedule(now);
    schedule.change(now);
    assert_eq!(schedule.due, now + QUIET);
    for i in 1..100 {
        schedule.change(now + QUIET / 2 * i);
    }
    assert_eq!(schedule.due, now + PATIENCE);
}

#[test]
fn failures_are_retried_ever_more_slowly_and_a_change_does_not_wait_for_that() {
    let now = Instant::now();
    let mut schedule = schedule(now);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        schedule.pass(now, false, Duration::ZERO);
        pauses.push(schedule.due - now);
    }
    assert!(pauses[0] >= FIRST_RETRY / 2 && pauses[0] <= FIRST_RETRY, "{pauses:?}");
    assert!(pauses[11] >= LAST_RETRY / 2 && pauses[11] <= LAST_RETRY, "{pauses:?}");
    schedule.change(now);
    assert_eq!(schedule.due, now + QUIET);
    schedule.since = None;
    schedule.pass(now, true, Duration::from_secs(5));
    assert_eq!((schedule.due, schedule.failures), (now + Duration::from_secs(5), 0));
}

#[test]
fn who_may_not_write_sleeps_though_a_pass_is_due() {
    let now = Instant::now();
    let mut schedule = schedule(now);
    schedule.change(now);
    let later = now + QUIET * 2;
    assert!(schedule.wake(true, later) <= later);
    assert_eq!(schedule.wake(false, later), later + BEAT);
}

#[test]
fn pauses_differ_between_operators() {
    assert_eq!(pause(1, 0), FIRST_RETRY);
    assert_eq!(pause(1, u32::MAX), FIRST_RETRY / 2);
    assert_eq!(pause(100, 0), LAST_RETRY);
}

#[test]
fn a_clock_that_was_set_is_noticed_in_minutes() {
    let now = Instant::now();
    let mut schedule = schedule(now);
    schedule.pass(now, true, Duration::from_secs(86_400 * 20));
    assert_eq!(schedule.due, now + LONGEST_SLEEP);
}
