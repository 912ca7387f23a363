//! Message ids, the window of one, retransmission and the cached response (RFC 7296 sections 2.1 to 2.3).

use std::time::Duration;

use crate::config::Retransmit;

/// A request that waits for its response.
#[derive(Debug)]
pub(crate) struct Pending<R> {
    pub(crate) id: u32,
    pub(crate) request: R,
    /// The message as sent; a retransmission is bit-identical.
    pub(crate) message: Vec<u8>,
    pub(crate) started: Duration,
    next: Duration,
    pause: Duration,
    deadline: Duration,
}

/// What is due with a pending request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Retransmit,
    /// The budget is spent; the time since the first transmission.
    GiveUp(Duration),
}

/// How a message id of a request relates to those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    New,
    /// The last answered request, perhaps a retransmission.
    Last,
    Outside,
}

struct Answered {
    tag: [u8; 16],
    response: Vec<u8>,
}

/// Both directions of one IKE SA.
pub(crate) struct Exchange<R> {
    next_id: u32,
    pending: Option<Pending<R>>,
    expected: u32,
    answered: Option<Answered>,
}

impl<R> Exchange<R> {
    /// `next_id` is that of our first request, `expected` that of the peer's.
    pub(crate) fn new(next_id: u32, expected: u32) -> Self {
        Self { next_id, pending: None, expected, answered: None }
    }

    /// The id for the next request.
    pub(crate) fn next_id(&self) -> u32 {
        self.next_id
    }

    pub(crate) fn pending(&self) -> Option<&Pending<R>> {
        self.pending.as_ref()
    }

    pub(crate) fn pending_mut(&mut self) -> Option<&mut Pending<R>> {
        self.pending.as_mut()
    }

    /// Takes note of a request just sent with [`Self::next_id`]; it is given up after `budget`.
    pub(crate) fn sent(&mut self, now: Duration, timing: &Retransmit, budget: Duration, message: Vec<u8>, request: R) {
        self.pending = Some(Pending {
            id: self.next_id,
            request,
            message,
            started: now,
            next: now.saturating_add(timing.first),
            pause: timing.first,
            deadline: now.saturating_add(budget),
        });
    }

    /// The request is answered: its id is used up.
    pub(crate) fn complete(&mut self) -> Option<R> {
        let pending = self.pending.take()?;
        self.next_id = self.next_id.saturating_add(1);
        Some(pending.request)
    }

    /// When [`Self::due`] has something to say.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.pending.as_ref().map(|pending| pending.next.min(pending.deadline))
    }

    /// What is to be done now; the schedule advances.
    pub(crate) fn due(&mut self, now: Duration, timing: &Retransmit) -> Due {
        let Some(pending) = &mut self.pending else { return Due::Nothing };
        if now >= pending.deadline {
            return Due::GiveUp(now.saturating_sub(pending.started));
        }
        if now < pending.next {
            return Due::Nothing;
        }
        pending.pause = (pending.pause.saturating_mul(timing.factor_percent) / 100).min(timing.cap);
        // A zero pause would retransmit for ever at the same instant.
        pending.next = now.saturating_add(pending.pause.max(Duration::from_millis(1)));
        Due::Retransmit
    }

    pub(crate) fn order(&self, id: u32) -> Order {
        if id == self.expected {
            Order::New
        } else if self.expected.checked_sub(1) == Some(id) {
            Order::Last
        } else {
            Order::Outside
        }
    }

    /// Takes note of the response to the expected request, whose tag was `tag`.
    pub(crate) fn answer(&mut self, tag: [u8; 16], response: Vec<u8>) {
        self.expected = self.expected.saturating_add(1);
        self.answered = Some(Answered { tag, response });
    }

    /// The response to a retransmission of the last request.
    pub(crate) fn cached(&self, tag: [u8; 16]) -> Option<&[u8]> {
        self.answered.as_ref().filter(|answered| answered.tag == tag).map(|answered| answered.response.as_slice())
    }

    /// Whether no further ids are left in either direction (RFC 7296 section 2.2: the IKE SA must be closed).
    pub(crate) fn exhausted(&self) -> bool {
        self.next_id == u32::MAX || self.expected == u32::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> Retransmit {
        Retransmit::default()
    }

    #[test]
    fn the_schedule_grows_to_its_cap_and_ends_with_its_budget() {
        let mut exchange = Exchange::new(0, 0);
        exchange.sent(Duration::ZERO, &timing(), Duration::from_secs(20), vec![1], ());
        let mut times = Vec::new();
        let end = loop {
            let at = exchange.timeout().unwrap();
            match exchange.due(at, &timing()) {
                Due::Retransmit => times.push(at.as_millis()),
                Due::GiveUp(after) => break after,
                Due::Nothing => unreachable!("the timeout was wrong"),
            }
        };
        assert_eq!(times, [1000, 2500, 4750, 8125, 12125, 16125]);
        assert_eq!(end, Duration::from_secs(20));
    }

    #[test]
    fn only_the_expected_id_is_new_and_only_an_identical_repeat_is_answered() {
        let mut exchange = Exchange::<()>::new(0, 0);
        assert_eq!(
            (exchange.order(0), exchange.order(1), exchange.order(u32::MAX)),
            (Order::New, Order::Outside, Order::Outside)
        );
        exchange.answer([7; 16], vec![9]);
        assert_eq!((exchange.order(0), exchange.order(1)), (Order::Last, Order::New));
        assert_eq!(exchange.cached([7; 16]), Some(&[9][..]));
        assert_eq!(exchange.cached([8; 16]), None);
    }

    #[test]
    fn a_completed_request_uses_up_its_id() {
        let mut exchange = Exchange::new(5, 0);
        exchange.sent(Duration::ZERO, &timing(), Duration::from_secs(1), vec![], 'r');
        assert_eq!(exchange.pending().unwrap().id, 5);
        assert_eq!(exchange.complete(), Some('r'));
        assert_eq!((exchange.next_id(), exchange.complete()), (6, None));
    }
}
