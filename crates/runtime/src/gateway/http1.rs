//! Connections of HTTP/1.1, from clients and to endpoints.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use selvedge_gateway::http1::{self as wire, Framing, Piece};
use selvedge_gateway::{Fields, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout, timeout_at};

use super::forward::{Answer, Bound, Origin, forward};
use super::pipe::{Body, Feed, pipe};
use super::shared::{Connection, Shared, Slot};

/// Between two requests, and from the first byte of a head to its last.
const IDLE: Duration = Duration::from_secs(60);
const HEAD: Duration = Duration::from_secs(10);

/// Between two pieces of a request's body, and until a client takes a piece of an answer.
const BODY: Duration = Duration::from_secs(60);

/// For the client to read the answer when it was not asked for the rest of its request.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 << 10;

/// What is gathered before it is written, and read at once.
const GATHER: usize = 16 << 10;

/// Room for a head: clients that wait must not take much.
const HEAD_READ: usize = 1 << 10;

/// Serves a client until either side has enough. `buffer`: what was read already.
pub(super) async fn serve(slot: Rc<Slot>, io: Connection, mut buffer: Vec<u8>, origin: Origin) {
    let (mut input, mut output) = tokio::io::split(io);
    loop {
        let head = match read_head(&mut input, &mut buffer).await {
            Some(Ok(head)) => head,
            Some(Err(bad)) => {
                slot.shared.count(&slot.door(), |counters| counters.refused += 1);
                let answer = Answer::own(bad.0, bad.1);
                let _ = write_answer(&mut output, answer, false, false, true).await;
                return linger(input, output).await;
            }
            None => return,
        };
        buffer.drain(..head.length);
        let mut request = head.message;
        if request.fields.text("expect").is_some_and(|text| text.eq_ignore_ascii_case("100-continue")) {
            request.fields.remove("expect");
            // HTTP/1.0 does not know it.
            if !head.old && write(&mut output, b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
                return;
            }
        }
        let (feed, body) = match head.framing {
            Framing::None => (None, None),
            _ => Some(pipe()).unzip(),
        };
        let (is_head, old, keep) = (request.method == "HEAD", head.old, head.keep_alive);
        let mut fed = feed.is_none();
        let outcome = {
            let feeding = async {
                match feed {
                    Some(feed) => feed_body(&mut input, &mut buffer, head.framing, feed).await,
                    None => true,
                }
            };
            let answering = async {
                let answer = forward(&slot, &origin, request, body).await;
                write_answer(&mut output, answer, is_head, old, !keep || slot.closed.get()).await
            };
            let (mut feeding, mut answering) = (pin!(feeding), pin!(answering));
            let mut polling = !fed;
            poll_fn(|cx| {
                if polling {
                    if let Poll::Ready(whole) = feeding.as_mut().poll(cx) {
                        (fed, polling) = (whole, false);
                    }
                }
                answering.as_mut().poll(cx)
            })
            .await
        };
        match outcome {
            Ok(Next::Request) if fed => {}
            Ok(Next::Tunnel(stream, said)) => return tunnel(input.unsplit(output), buffer, stream, said).await,
            Ok(_) => return linger(input, output).await,
            Err(_) => return,
        }
    }
}

/// Reads what there is, and has room for so much.
async fn more(input: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>, room: usize) -> io::Result<usize> {
    buffer.reserve(room);
    input.read_buf(buffer).await
}

type ReadHead = Result<wire::Head<Request>, selvedge_gateway::Bad>;

/// `None`: the client left, or was too slow.
async fn read_head(input: &mut ReadHalf<Connection>, buffer: &mut Vec<u8>) -> Option<ReadHead> {
    let mut deadline = Instant::now() + if buffer.is_empty() { IDLE } else { HEAD };
    // Empty lines before a request are nothing (RFC 9112, 2.2).
    loop {
        while buffer.starts_with(b"\r\n") {
            buffer.drain(..2);
        }
        if !buffer.is_empty() {
            if let Some(head) = wire::request(buffer).transpose() {
                return Some(head);
            }
        }
        let first = buffer.is_empty();
        if first {
            *buffer = Vec::new();
        }
        if timeout_at(deadline, more(input, buffer, HEAD_READ)).await.ok()?.ok()? == 0 {
            return None;
        }
        // However many empty lines come first.
        if first {
            deadline = deadline.min(Instant::now() + HEAD);
        }
    }
}

/// False: it is not whole.
async fn feed_body(input: &mut ReadHalf<Connection>, buffer: &mut Vec<u8>, framing: Framing, feed: Feed) -> bool {
    let mut body = wire::Body::new(framing);
    while feed.ready().await {
        match body.next(buffer) {
            Ok(Some(Piece::Data(data))) => feed.send(data),
            Ok(Some(Piece::End(trailers))) => {
                feed.end(trailers);
                return true;
            }
            Ok(None) => match timeout(BODY, more(input, buffer, GATHER)).await {
                Ok(Ok(count)) if count > 0 => {}
                _ => return false,
            },
            Err(_) => return false,
        }
    }
    false
}

/// What follows an answer on a connection.
enum Next {
    Request,
    End,
    Tunnel(TcpStream, Vec<u8>),
}

async fn write_answer(
    output: &mut (impl AsyncWrite + Unpin),
    answer: Answer,
    is_head: bool,
    old: bool,
    last: bool,
) -> io::Result<Next> {
    let Answer { mut response, body, tunnel } = answer;
    if let Some((stream, said)) = tunnel {
        let mut out = Vec::new();
        wire::write_response(&mut out, &response, Framing::None, false);
        write(output, &out).await?;
        return Ok(Next::Tunnel(stream, said));
    }
    // Only where it says what there would be it is told without a body.
    if body.is_none() && !is_head && response.status != 304 {
        response.fields.remove("content-length");
    }
    let body = body.filter(|_| !is_head && !matches!(response.status, 204 | 304));
    let framing = match &body {
        None => Framing::None,
        Some(_) if length(&response.fields).is_some() => Framing::Length(length(&response.fields).unwrap_or_default()),
        Some(_) if old => Framing::UntilClose,
        Some(_) => Framing::Chunked,
    };
    if response.status == 101 {
        response.status = 502;
    }
    let last = last || framing == Framing::UntilClose;
    let mut out = Vec::new();
    wire::write_response(&mut out, &response, framing, last);
    match body {
        Some(body) => write_body(output, out, body, framing).await?,
        None => write(output, &out).await?,
    }
    Ok(if last { Next::End } else { Next::Request })
}

/// Writes what is gathered and then a body, to its end.
async fn write_body(
    output: &mut (impl AsyncWrite + Unpin),
    mut out: Vec<u8>,
    body: Body,
    framing: Framing,
) -> io::Result<()> {
    let mut left = if let Framing::Length(length) = framing { length } else { u64::MAX };
    loop {
        if !out.is_empty() && (out.len() >= GATHER || !body.is_ready()) {
            write(output, &out).await?;
            out = Vec::new();
        }
        match body.next().await {
            Ok(Piece::Data(data)) => {
                left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                wire::write_data(&mut out, &data, framing);
            }
            Ok(Piece::End(trailers)) => {
                if matches!(framing, Framing::Length(_)) && left > 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                wire::write_end(&mut out, &trailers, framing);
                return write(output, &out).await;
            }
            // Cut off, so that the other side notices.
            Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

async fn write(output: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let writing = async {
        output.write_all(bytes).await?;
        output.flush().await
    };
    timeout(BODY, writing).await?
}

fn length(fields: &Fields) -> Option<u64> {
    fields.text("content-length")?.parse().ok()
}

/// Ends a connection whose client may still be writing, so that it reads the answer before it learns that.
async fn linger(mut input: impl AsyncRead + Unpin, mut output: impl AsyncWrite + Unpin) {
    let _ = timeout(LINGER, async {
        let _ = output.shutdown().await;
        let (mut bytes, mut read) = (vec![0; 4096], 0);
        while let Ok(count @ 1..) = input.read(&mut bytes).await {
            read += count;
            if read > LINGER_BYTES {
                break;
            }
        }
    })
    .await;
}

/// Joins two connections until both are at their end.
async fn tunnel(mut client: Connection, heard: Vec<u8>, mut stream: TcpStream, said: Vec<u8>) {
    let begun = async {
        client.write_all(&said).await?;
        client.flush().await?;
        stream.write_all(&heard).await
    };
    if begun.await.is_ok() {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut stream).await;
    }
}

/// How the request goes out.
enum Sending {
    Done(OwnedWriteHalf),
    /// The body is still on its way.
    Under(Bound<Option<OwnedWriteHalf>>),
}

/// Asks an endpoint. `None`: the connection broke before there was an answer.
pub(super) async fn ask(
    shared: &Rc<Shared>,
    endpoint: SocketAddr,
    stream: TcpStream,
    request: &Request,
    body: Option<Body>,
) -> Option<Answer> {
    let (mut input, mut output) = stream.into_split();
    let framing = match (&body, length(&request.fields)) {
        (None, _) => Framing::None,
        (Some(_), Some(length)) => Framing::Length(length),
        (Some(_), None) => Framing::Chunked,
    };
    let mut out = Vec::new();
    wire::write_request(&mut out, request, framing);
    let sending = match body {
        None => {
            write(&mut output, &out).await.ok()?;
            Sending::Done(output)
        }
        Some(body) => Sending::Under(Bound(tokio::task::spawn_local(async move {
            write_body(&mut output, out, body, framing).await.ok().map(|()| output)
        }))),
    };
    let mut buffer = Vec::new();
    let head = loop {
        match wire::response(&buffer, &request.method) {
            Ok(Some(head)) if head.message.status < 200 && head.message.upgrade.is_none() => {
                buffer.drain(..head.length);
            }
            Ok(Some(head)) => break head,
            Ok(None) => {
                if more(&mut input, &mut buffer, GATHER).await.ok()? == 0 {
                    return None;
                }
            }
            Err(bad) => {
                log::debug!("gateway: {endpoint}: {}", bad.1);
                return None;
            }
        }
    };
    buffer.drain(..head.length);
    let response = head.message;
    if response.status == 101 {
        let Sending::Done(output) = sending else { return None };
        request.upgrade.as_ref()?;
        return Some(Answer { response, body: None, tunnel: Some((input.reunite(output).ok()?, buffer)) });
    }
    let mut reading = Reading {
        shared: shared.clone(),
        endpoint,
        input,
        sending,
        buffer,
        body: wire::Body::new(head.framing),
        keep: head.keep_alive,
    };
    if head.framing == Framing::None {
        reading.finish().await;
        return Some(Answer { response, body: None, tunnel: None });
    }
    let (feed, body) = pipe();
    // A short answer is all there already.
    loop {
        match reading.body.next(&mut reading.buffer).ok()? {
            Some(Piece::Data(data)) => feed.send(data),
            Some(Piece::End(trailers)) => {
                feed.end(trailers);
                reading.finish().await;
                break;
            }
            None => {
                tokio::task::spawn_local(reading.go_on(feed));
                break;
            }
        }
    }
    Some(Answer { response: with_length(response, head.framing), body: Some(body), tunnel: None })
}

/// The length is told again where the body has one.
fn with_length(mut response: Response, framing: Framing) -> Response {
    match framing {
        Framing::Length(length) => response.fields.set("content-length", length.to_string()),
        _ => response.fields.remove("content-length"),
    }
    response
}

/// An answer whose body is not all there.
struct Reading {
    shared: Rc<Shared>,
    endpoint: SocketAddr,
    input: OwnedReadHalf,
    sending: Sending,
    buffer: Vec<u8>,
    body: wire::Body,
    keep: bool,
}

impl Reading {
    async fn go_on(mut self, feed: Feed) {
        while feed.ready().await {
            match self.body.next(&mut self.buffer) {
                Ok(Some(Piece::Data(data))) => feed.send(data),
                Ok(Some(Piece::End(trailers))) => {
                    feed.end(trailers);
                    return self.finish().await;
                }
                Ok(None) => match self.more(&feed).await {
                    Ok(0) if self.body.ends_with_connection() => return feed.end(Fields::default()),
                    Ok(1..) => {}
                    _ => return,
                },
                Err(bad) => {
                    log::debug!("gateway: {}: {}", self.endpoint, bad.1);
                    return;
                }
            }
        }
    }

    /// Reads on as long as anybody wants it.
    async fn more(&mut self, feed: &Feed) -> io::Result<usize> {
        tokio::select! {
            read = more(&mut self.input, &mut self.buffer, GATHER) => read,
            () = feed.abandoned() => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Keeps the connection for another request, if it can be.
    async fn finish(self) {
        let output = match self.sending {
            Sending::Done(output) => Some(output),
            Sending::Under(mut task) if task.0.is_finished() => (&mut task.0).await.ok().flatten(),
            // An answer before the end of its request.
            Sending::Under(_) => None,
        };
        if let Some(stream) =
            output.filter(|_| self.keep && self.buffer.is_empty()).and_then(|o| self.input.reunite(o).ok())
        {
            self.shared.pool.put(self.endpoint, stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn empty_lines_put_nothing_off() {
        let (ours, mut theirs) = tokio::io::duplex(100);
        let io: Connection = Box::new(ours);
        let (mut input, _output) = tokio::io::split(io);
        let began = Instant::now();
        let mut buffer = Vec::new();
        tokio::select! {
            head = read_head(&mut input, &mut buffer) => assert!(head.is_none()),
            () = async { loop {
                theirs.write_all(b"\r\n").await.unwrap();
                tokio::time::sleep(Duration::from_secs(5)).await;
                assert!(began.elapsed() <= HEAD);
            } } => {}
        }
    }

    #[tokio::test]
    async fn a_length_without_a_body_is_not_told() {
        let write = async |is_head| {
            let fields = [("content-length", &b"50"[..])].into_iter().collect();
            let response = Response { status: 200, fields, upgrade: None };
            let mut out = Vec::new();
            write_answer(&mut out, Answer { response, body: None, tunnel: None }, is_head, false, false).await.unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(write(false).await.ends_with("content-length: 0\r\n\r\n"));
        assert!(write(true).await.ends_with("content-length: 50\r\n\r\n"));
    }
}
