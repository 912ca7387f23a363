//! Connections of HTTP/2, from clients and to endpoints: one task for each, which carries all its streams.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use selvedge_gateway::http1::Piece;
use selvedge_gateway::http2::{self as wire, Code, Event, answer_fields, read_answer, read_request, request_fields};
use selvedge_gateway::{Fields, Map, Request};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

use super::forward::{Answer, Bound, Origin, forward};
use super::pipe::{Body, Feed, pipe};
use super::shared::{Busy, Connection, Slot};

/// Without any stream.
const IDLE: Duration = Duration::from_secs(60);

/// Until a peer takes anything of what waits for it, on the connection or on a stream.
const STUCK: Duration = Duration::from_secs(60);

/// Bytes that are read at once.
const READ: usize = 16 << 10;

/// Serves a client until either side has enough. `buffer`: what was read already.
pub(super) async fn serve(slot: Rc<Slot>, io: Connection, buffer: Vec<u8>, origin: Origin) {
    let answers = Rc::new(Mailbox::default());
    let side = Side::Server { slot: slot.clone(), origin, answers };
    let mut driver = Driver::new(io, side);
    if driver.input(&buffer) {
        driver.run().await;
    }
    if driver.lost {
        slot.shared.count(&slot.door(), |counters| counters.refused += 1);
    }
}

/// A connection to an endpoint, for many requests at the same time.
pub(super) struct Client {
    asks: Rc<Mailbox<Ask>>,
    state: Rc<ClientState>,
}

#[derive(Default)]
struct ClientState {
    closed: Cell<bool>,
    /// Requests that were begun or wait to be.
    asked: Cell<u32>,
}

struct Ask {
    request: Request,
    body: Option<Body>,
    reply: oneshot::Sender<Answer>,
}

impl Client {
    pub(super) fn start(stream: TcpStream) -> Rc<Self> {
        let client = Client { asks: Rc::default(), state: Rc::default() };
        let side = Side::Client { asks: client.asks.clone(), state: client.state.clone() };
        let mut driver = Driver::new(Box::new(stream), side);
        let state = client.state.clone();
        tokio::task::spawn_local(async move {
            driver.run().await;
            state.closed.set(true);
        });
        Rc::new(client)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.state.closed.get() && self.state.asked.get() < wire::MAX_STREAMS
    }

    /// `None`: the connection broke before there was an answer.
    pub(super) async fn ask(&self, request: Request, body: Option<Body>) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.state.asked.set(self.state.asked.get() + 1);
        self.asks.put(Ask { request, body, reply });
        answer.await.ok()
    }
}

/// What one task leaves for another.
struct Mailbox<T> {
    letters: RefCell<VecDeque<T>>,
    waker: RefCell<Option<Waker>>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox { letters: RefCell::default(), waker: RefCell::default() }
    }
}

impl<T> Mailbox<T> {
    fn put(&self, letter: T) {
        self.letters.borrow_mut().push_back(letter);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn take(&self, cx: &Context<'_>) -> Option<T> {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        self.letters.borrow_mut().pop_front()
    }
}

enum Side {
    Server { slot: Rc<Slot>, origin: Origin, answers: Rc<Mailbox<(u32, Answer)>> },
    Client { asks: Rc<Mailbox<Ask>>, state: Rc<ClientState> },
}

/// A request and its answer.
#[derive(Default)]
struct Exchange {
    /// What the peer sends goes here.
    feed: Option<Feed>,
    /// What we send comes from here, and what there was no room for.
    out: Option<Body>,
    rest: Vec<u8>,
    /// Since when there was no room.
    stuck: Option<Instant>,
    _busy: Option<Busy>,
    /// Who looks for the answer; ends with the stream.
    _task: Option<Bound<()>>,
    /// Who waits for the answer.
    reply: Option<oneshot::Sender<Answer>>,
}

/// What a peer that takes nothing loses.
enum Given {
    Streams,
    Connection,
}

struct Driver {
    wire: wire::Connection,
    io: Connection,
    side: Side,
    exchanges: Map<u32, Exchange>,
    output: Vec<u8>,
    written: usize,
    /// The peer broke the rules.
    lost: bool,
    over: bool,
    idle: Pin<Box<Sleep>>,
    /// Since when the peer takes nothing.
    blocked: Option<Instant>,
    late: Pin<Box<Sleep>>,
}

impl Driver {
    fn new(io: Connection, side: Side) -> Self {
        let wire = match side {
            Side::Server { .. } => wire::Connection::server(),
            Side::Client { .. } => wire::Connection::client(),
        };
        let exchanges = Map::default();
        let (idle, late) = (Box::pin(sleep(IDLE)), Box::pin(sleep(STUCK)));
        let output = Vec::new();
        Driver { wire, io, side, exchanges, output, written: 0, lost: false, over: false, idle, blocked: None, late }
    }

    /// False: the connection is lost.
    fn input(&mut self, bytes: &[u8]) -> bool {
        if let Err(lost) = self.wire.handle_input(bytes) {
            log::debug!("gateway: HTTP/2: {}", lost.1);
            self.lost = true;
        }
        !self.lost
    }

    async fn run(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
        // What waits for answers learns that there will be none.
        self.exchanges.clear();
        if let Side::Client { asks, state } = &self.side {
            state.closed.set(true);
            asks.letters.borrow_mut().clear();
        }
        let _ =
            tokio::time::timeout(Duration::from_secs(2), poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx))).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut progress = self.poll_letters(cx);
            while let Some(event) = self.wire.poll_event() {
                self.handle(event);
                progress = true;
            }
            progress |= self.poll_exchanges(cx);
            match self.poll_write(cx) {
                Ok(wrote) => progress |= wrote,
                Err(_) => return Poll::Ready(()),
            }
            match self.poll_stuck(cx) {
                Poll::Ready(Given::Connection) => return Poll::Ready(()),
                Poll::Ready(Given::Streams) => progress = true,
                Poll::Pending => {}
            }
            if self.lost || self.over {
                // What is written still says why.
                return if self.output.is_empty() { Poll::Ready(()) } else { Poll::Pending };
            }
            // A peer that reads nothing is not listened to.
            if self.output.is_empty() {
                match self.poll_read(cx) {
                    Ok(read) => progress |= read,
                    Err(_) => return Poll::Ready(()),
                }
            }
            if progress {
                self.idle.as_mut().reset(Instant::now() + IDLE);
                continue;
            }
            if self.exchanges.is_empty() {
                let leaving = matches!(&self.side, Side::Server { slot, .. } if slot.closed.get());
                if leaving || self.idle.as_mut().poll(cx).is_ready() || !self.wire.is_open() {
                    self.wire.shutdown();
                    self.over = true;
                    continue;
                }
            }
            return Poll::Pending;
        }
    }

    /// Gives up what the peer takes nothing of: one that reads nothing would keep everything for ever.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<Given> {
        let streams = self.exchanges.iter().filter_map(|(_, exchange)| exchange.stuck);
        let Some(first) = streams.chain(self.blocked).min() else { return Poll::Pending };
        if self.late.deadline() != first + STUCK {
            self.late.as_mut().reset(first + STUCK);
        }
        if self.late.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let is_late = |since: &Instant| *since <= first;
        if self.blocked.as_ref().is_some_and(is_late) {
            return Poll::Ready(Given::Connection);
        }
        let late = self.exchanges.iter().filter(|(_, exchange)| exchange.stuck.as_ref().is_some_and(is_late));
        let late: Vec<u32> = late.map(|(stream, _)| *stream).collect();
        late.into_iter().for_each(|stream| self.give_up(stream, Code::CANCEL));
        Poll::Ready(Given::Streams)
    }

    /// Takes what others left for this connection.
    fn poll_letters(&mut self, cx: &Context<'_>) -> bool {
        let mut progress = false;
        match &self.side {
            Side::Server { answers, .. } => {
                let answers = answers.clone();
                while let Some((stream, answer)) = answers.take(cx) {
                    progress = true;
                    self.answer(stream, answer);
                }
            }
            Side::Client { asks, .. } => {
                let asks = asks.clone();
                while self.wire.can_open() {
                    let Some(ask) = asks.take(cx) else { break };
                    progress = true;
                    // Nobody waits for it any more.
                    if ask.reply.is_closed() {
                        if let Side::Client { state, .. } = &self.side {
                            state.asked.set(state.asked.get().saturating_sub(1));
                        }
                        continue;
                    }
                    let stream = self.wire.open();
                    self.wire.send_head(stream, request_fields(&ask.request, "http"), ask.body.is_none());
                    let exchange = Exchange { out: ask.body, reply: Some(ask.reply), ..Exchange::default() };
                    self.exchanges.insert(stream, exchange);
                }
                if !self.wire.is_open() {
                    asks.letters.borrow_mut().clear();
                }
            }
        }
        progress
    }

    fn answer(&mut self, stream: u32, answer: Answer) {
        let Some(exchange) = self.exchanges.get_mut(&stream) else { return };
        let body = answer.body.filter(|_| !matches!(answer.response.status, 204 | 304));
        let status = answer.response.status.to_string();
        self.wire.send_head(stream, answer_fields(&answer.response, &status), body.is_none());
        exchange.out = body;
        if exchange.out.is_none() {
            self.close(stream);
        }
    }

    /// Our side of a stream is at its end.
    fn close(&mut self, stream: u32) {
        if let Side::Server { .. } = self.side {
            // The rest of the request, if there is one, is of no use.
            self.wire.reset(stream, Code::NO_ERROR);
            self.forget(stream);
        }
    }

    /// Carries bodies both ways as far as there is room.
    fn poll_exchanges(&mut self, cx: &Context<'_>) -> bool {
        let mut progress = false;
        let streams: Vec<u32> = self.exchanges.iter().map(|(stream, _)| *stream).collect();
        for stream in streams {
            let Some(exchange) = self.exchanges.get_mut(&stream) else { continue };
            if let Some(feed) = &exchange.feed {
                let taken = feed.taken(cx);
                if taken > 0 {
                    self.wire.release(stream, taken);
                    progress = true;
                }
                if feed.is_abandoned() && matches!(self.side, Side::Client { .. }) {
                    self.give_up(stream, Code::CANCEL);
                    continue;
                }
            }
            if exchange
                .reply
                .as_mut()
                .is_some_and(|reply| reply.poll_closed(&mut Context::from_waker(cx.waker())).is_ready())
            {
                self.give_up(stream, Code::CANCEL);
                continue;
            }
            progress |= self.poll_out(stream, cx);
        }
        progress
    }

    fn poll_out(&mut self, stream: u32, cx: &Context<'_>) -> bool {
        let mut progress = false;
        loop {
            let Some(exchange) = self.exchanges.get_mut(&stream) else { return progress };
            let Some(out) = &exchange.out else { return progress };
            let Some(room) = self.wire.send_room(stream) else {
                exchange.out = None;
                return progress;
            };
            if !exchange.rest.is_empty() {
                if room == 0 {
                    exchange.stuck.get_or_insert_with(Instant::now);
                    return progress;
                }
                exchange.stuck = None;
                let part: Vec<u8> = exchange.rest.drain(..room.min(exchange.rest.len())).collect();
                self.wire.send_data(stream, &part, false);
                progress = true;
                continue;
            }
            match out.poll_next(cx) {
                Poll::Pending => return progress,
                Poll::Ready(Ok(Piece::Data(data))) => exchange.rest = data,
                Poll::Ready(Ok(Piece::End(trailers))) => {
                    exchange.out = None;
                    self.wire.send_end(stream, &trailers);
                    self.close(stream);
                }
                Poll::Ready(Err(_)) => self.give_up(stream, Code::INTERNAL),
            }
            progress = true;
        }
    }

    fn give_up(&mut self, stream: u32, code: Code) {
        self.wire.reset(stream, code);
        self.forget(stream);
    }

    fn forget(&mut self, stream: u32) {
        if let Some(exchange) = self.exchanges.remove(&stream) {
            // Nobody tells any more when it is taken.
            self.wire.release(0, exchange.feed.map_or(0, |feed| feed.untold()));
            if let Side::Client { state, .. } = &self.side {
                state.asked.set(state.asked.get().saturating_sub(1));
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut progress = false;
        loop {
            if self.written >= self.output.len() {
                self.written = 0;
                self.output = self.wire.poll_output().unwrap_or_default();
                if self.output.is_empty() {
                    if progress && Pin::new(&mut self.io).poll_flush(cx)?.is_pending() {
                        return Ok(progress);
                    }
                    return Ok(progress);
                }
            }
            let bytes = self.output.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.io).poll_write(cx, bytes)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => {
                    self.written += count;
                    self.blocked = None;
                    progress = true;
                }
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                    return Ok(progress);
                }
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut bytes = [0; READ];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.io).poll_read(cx, &mut buffer)? {
            Poll::Pending => return Ok(false),
            Poll::Ready(()) if buffer.filled().is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(()) => {}
        }
        let filled = buffer.filled().to_vec();
        self.input(&filled);
        Ok(true)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Head { stream, fields, end } => match &self.side {
                Side::Server { slot, origin, answers } => {
                    let Some(busy) = Busy::new(&slot.shared) else { return self.wire.reset(stream, Code::REFUSED) };
                    let (slot, origin, answers) = (slot.clone(), origin.clone(), answers.clone());
                    let (feed, body) = if end { None } else { Some(pipe()) }.unzip();
                    let request = read_request(fields, end);
                    let task = tokio::task::spawn_local(async move {
                        let is_head = request.as_ref().is_ok_and(|request| request.method == "HEAD");
                        let mut answer = match request {
                            Ok(request) => forward(&slot, &origin, request, body).await,
                            Err(bad) => Answer::own(bad.0, bad.1),
                        };
                        if is_head {
                            answer.body = None;
                        }
                        answers.put((stream, answer));
                    });
                    let exchange =
                        Exchange { feed, _busy: Some(busy), _task: Some(Bound(task)), ..Exchange::default() };
                    self.exchanges.insert(stream, exchange);
                }
                Side::Client { .. } => {
                    let Some(exchange) = self.exchanges.get_mut(&stream) else { return };
                    let Ok(response) = read_answer(fields) else { return self.give_up(stream, Code::PROTOCOL) };
                    let (feed, body) = if end { None } else { Some(pipe()) }.unzip();
                    exchange.feed = feed;
                    let answer = Answer { response, body, tunnel: None };
                    let gone = exchange.reply.take().is_none_or(|reply| reply.send(answer).is_err());
                    if gone || end {
                        self.give_up(stream, Code::CANCEL);
                    }
                }
            },
            Event::Data { stream, data, end } => {
                let Some(exchange) = self.exchanges.get_mut(&stream) else {
                    return self.wire.release(stream, data.len());
                };
                match &exchange.feed {
                    Some(feed) => feed.send(data),
                    None => self.wire.release(stream, data.len()),
                }
                if end {
                    self.end(stream, Fields::default());
                }
            }
            Event::Trailers { stream, fields } => self.end(stream, fields),
            Event::Reset { stream, .. } => self.forget(stream),
            Event::GoAway { .. } => {
                if let Side::Client { state, .. } = &self.side {
                    state.closed.set(true);
                }
            }
        }
    }

    /// The peer's side of a stream is at its end.
    fn end(&mut self, stream: u32, trailers: Fields) {
        let Some(exchange) = self.exchanges.get_mut(&stream) else { return };
        if let Some(feed) = exchange.feed.take() {
            self.wire.release(0, feed.untold());
            feed.end(trailers);
        }
        if let Side::Client { .. } = self.side {
            // The rest of the request, if there is one, is of no use.
            self.give_up(stream, Code::CANCEL);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn ask(body: Option<Body>) -> (Rc<Mailbox<Ask>>, oneshot::Receiver<Answer>) {
        let asks: Rc<Mailbox<Ask>> = Rc::default();
        let (reply, answer) = oneshot::channel();
        let request = Request { method: "PUT".into(), authority: "a".into(), path: "/".into(), ..Request::default() };
        asks.put(Ask { request, body, reply });
        (asks, answer)
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up() {
        // It reads what is sent, and never says that there is room for more.
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (asks, answer) = ask(Some(Body::whole(vec![7; 100_000])));
        let mut driver = Driver::new(Box::new(ours), Side::Client { asks, state: Rc::default() });
        let mut heard = vec![0; 1 << 20];
        let reading = async { while theirs.read(&mut heard).await.is_ok_and(|count| count > 0) {} };
        let began = Instant::now();
        tokio::join!(driver.run(), reading);
        assert!(answer.await.is_err());
        assert!(began.elapsed() < STUCK + IDLE + Duration::from_secs(5), "{:?}", began.elapsed());

        // It does not even read.
        let (ours, _theirs) = tokio::io::duplex(10);
        let (asks, answer) = ask(None);
        let mut driver = Driver::new(Box::new(ours), Side::Client { asks, state: Rc::default() });
        let began = Instant::now();
        driver.run().await;
        assert!(answer.await.is_err());
        assert!(began.elapsed() < STUCK + Duration::from_secs(5), "{:?}", began.elapsed());
    }
}
