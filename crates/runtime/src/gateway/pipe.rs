//! A body on its way from one connection to another: bounded, and gone when either end is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use selvedge_gateway::Fields;
use selvedge_gateway::http1::Piece;

/// Bytes that wait before the sender is made to.
const ROOM: usize = 32 << 10;

/// Smaller pieces are joined: each takes memory of its own.
const SMALL: usize = 4 << 10;

#[derive(Default)]
struct Inner {
    pieces: VecDeque<Vec<u8>>,
    waiting: usize,
    /// Taken since the sender asked last.
    taken: usize,
    end: Option<Fields>,
    sender_gone: bool,
    reader_gone: bool,
    sender: Option<Waker>,
    reader: Option<Waker>,
}

/// Where a body is put in. Dropped before the end, it breaks the body.
pub(super) struct Feed(Rc<RefCell<Inner>>);

/// Where a body comes out.
pub(super) struct Body(Rc<RefCell<Inner>>);

/// The sender went away before the end.
#[derive(Debug)]
pub(super) struct Broken;

pub(super) fn pipe() -> (Feed, Body) {
    let inner = Rc::new(RefCell::new(Inner::default()));
    (Feed(inner.clone()), Body(inner))
}

impl Feed {
    /// Waits until there is room. False: nobody reads any more.
    pub(super) async fn ready(&self) -> bool {
        poll_fn(|cx| {
            let mut inner = self.0.borrow_mut();
            if inner.reader_gone {
                return Poll::Ready(false);
            }
            if inner.waiting < ROOM {
                return Poll::Ready(true);
            }
            inner.sender = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Puts in some, whether there is room or not.
    pub(super) fn send(&self, data: Vec<u8>) {
        let mut inner = self.0.borrow_mut();
        if data.is_empty() || inner.reader_gone {
            // Nobody will take it any more.
            inner.taken += data.len();
            return;
        }
        inner.waiting += data.len();
        match inner.pieces.back_mut().filter(|last| last.len() + data.len() <= SMALL) {
            Some(last) => last.extend_from_slice(&data),
            None => inner.pieces.push_back(data),
        }
        wake(&mut inner.reader);
    }

    /// That was all.
    pub(super) fn end(self, trailers: Fields) {
        self.0.borrow_mut().end = Some(trailers);
    }

    /// Bytes that nobody took yet.
    pub(super) fn waiting(&self) -> usize {
        self.0.borrow().waiting
    }

    /// Bytes of which nobody was told that they were taken.
    pub(super) fn untold(&self) -> usize {
        let inner = self.0.borrow();
        inner.waiting + inner.taken
    }

    /// Whether nobody reads any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.0.borrow().reader_gone
    }

    /// Waits until nobody reads any more.
    pub(super) async fn abandoned(&self) {
        poll_fn(|cx| {
            let mut inner = self.0.borrow_mut();
            if inner.reader_gone {
                return Poll::Ready(());
            }
            inner.sender = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Bytes taken since the last time; `cx` is woken when there are more.
    pub(super) fn taken(&self, cx: &Context<'_>) -> usize {
        let mut inner = self.0.borrow_mut();
        inner.sender = Some(cx.waker().clone());
        std::mem::take(&mut inner.taken)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut inner = self.0.borrow_mut();
        inner.sender_gone = true;
        wake(&mut inner.reader);
    }
}

impl Body {
    /// One that is all there.
    pub(super) fn whole(data: Vec<u8>) -> Self {
        let (feed, body) = pipe();
        feed.send(data);
        feed.end(Fields::default());
        body
    }

    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Result<Piece, Broken>> {
        let mut inner = self.0.borrow_mut();
        if let Some(data) = inner.pieces.pop_front() {
            inner.waiting -= data.len();
            inner.taken += data.len();
            wake(&mut inner.sender);
            return Poll::Ready(Ok(Piece::Data(data)));
        }
        if let Some(trailers) = inner.end.take() {
            return Poll::Ready(Ok(Piece::End(trailers)));
        }
        if inner.sender_gone {
            return Poll::Ready(Err(Broken));
        }
        inner.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) async fn next(&self) -> Result<Piece, Broken> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Whether something would come out at once.
    pub(super) fn is_ready(&self) -> bool {
        let inner = self.0.borrow();
        !inner.pieces.is_empty() || inner.end.is_some() || inner.sender_gone
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut inner = self.0.borrow_mut();
        inner.reader_gone = true;
        // What nobody takes makes room all the same.
        inner.taken += std::mem::take(&mut inner.waiting);
        inner.pieces.clear();
        wake(&mut inner.sender);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_single_bytes_takes_little_more_than_its_bytes() {
        let (feed, body) = pipe();
        (0..ROOM).for_each(|_| feed.send(vec![7]));
        assert_eq!((feed.waiting(), body.0.borrow().pieces.len()), (ROOM, ROOM / SMALL));
    }
}
