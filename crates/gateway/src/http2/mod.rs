//! HTTP/2 (RFC 9113), both sides of a connection: bytes in, events out; messages in, bytes out.
//!
//! ```text
//! handle_input ─► poll_event          open, send_head, send_data, send_end ─► poll_output
//! ```
//!
//! No push and no priorities. What a peer can make us keep or answer is bounded; who exceeds it loses the connection.

mod convert;
mod frame;

use std::collections::VecDeque;

use crate::hpack::{self, Decoder};
use crate::{Fields, MAX_HEAD, Map};
use frame::{Frame, Settings};

pub use convert::{answer_fields, read_answer, read_request, request_fields};

/// What a client's connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Requests at the same time on one connection.
pub const MAX_STREAMS: u32 = 100;

/// What may be under way to us on a stream, which is the default, and on all of a connection.
const STREAM_WINDOW: i64 = 65_535;
const WINDOW: i64 = 256 << 10;

/// The longest frame, which is the default.
const MAX_FRAME: usize = 16_384;

/// Bytes that wait to be written before more is taken from whoever sends; and where the peer must be mocking us.
const OUTPUT_FULL: usize = 64 << 10;
const OUTPUT_FLOOD: usize = 512 << 10;

/// Streams that may be reset by the peer, or by its mistakes, more than are ended well.
const MAX_RESETS: u32 = 500;

/// Why a stream or a connection ended (RFC 9113, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// Nothing is wrong.
    pub const NO_ERROR: Code = Code(0);
    /// A mistake of the peer.
    pub const PROTOCOL: Code = Code(1);
    /// A mistake of ours, or of whom we asked.
    pub const INTERNAL: Code = Code(2);
    const FLOW_CONTROL: Code = Code(3);
    const STREAM_CLOSED: Code = Code(5);
    const FRAME_SIZE: Code = Code(6);
    /// Nothing was done yet: it may be asked again.
    pub const REFUSED: Code = Code(7);
    /// Nobody waits for it any more.
    pub const CANCEL: Code = Code(8);
    const COMPRESSION: Code = Code(9);
    const CALM: Code = Code(11);
}

/// What the peer said.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A request or an answer begins. Its fields are as they came, pseudo fields first.
    Head {
        /// On which stream.
        stream: u32,
        /// Names and values.
        fields: Vec<(Vec<u8>, Vec<u8>)>,
        /// There is no body.
        end: bool,
    },
    /// A part of a body. To be released when somebody took it.
    Data {
        /// On which stream.
        stream: u32,
        /// The bytes.
        data: Vec<u8>,
        /// That was all.
        end: bool,
    },
    /// The end of a body, and what is behind it.
    Trailers {
        /// On which stream.
        stream: u32,
        /// The trailers.
        fields: Fields,
    },
    /// The stream is gone.
    Reset {
        /// Which stream.
        stream: u32,
        /// Why.
        code: Code,
    },
    /// The peer takes no more streams, and did nothing about those above `last`.
    GoAway {
        /// The last that it cared for.
        last: u32,
    },
}

/// The connection is lost; what is to be written still says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost(pub Code, pub &'static str);

#[derive(Debug)]
struct Stream {
    /// What the peer still takes.
    window: i64,
    /// What we still take, and what was taken off us and not told yet.
    room: i64,
    taken: i64,
    /// The peer said all it has to say; we did.
    heard: bool,
    said: bool,
    /// A head came that was not an interim one.
    headed: bool,
}

/// One side of a connection.
#[derive(Debug)]
pub struct Connection {
    server: bool,
    preface: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    events: VecDeque<Event>,
    decoder: Decoder,
    streams: Map<u32, Stream>,
    /// A header that comes in several frames: stream, whether it ends it, and what is there.
    partial: Option<(u32, bool, Vec<u8>)>,
    next: u32,
    highest: u32,
    window: i64,
    room: i64,
    taken: i64,
    theirs: Settings,
    resets: u32,
    leaving: bool,
    gone: bool,
}

impl Connection {
    /// The side that is asked.
    pub fn server() -> Self {
        Connection::new(true)
    }

    /// The side that asks.
    pub fn client() -> Self {
        Connection::new(false)
    }

    fn new(server: bool) -> Self {
        let mut output = if server { Vec::new() } else { PREFACE.to_vec() };
        frame::settings(&mut output, server);
        frame::window_update(&mut output, 0, WINDOW - STREAM_WINDOW);
        Connection {
            server,
            preface: !server,
            input: Vec::new(),
            output,
            events: VecDeque::new(),
            decoder: Decoder::new(),
            streams: Map::default(),
            partial: None,
            next: 1,
            highest: 0,
            window: STREAM_WINDOW,
            room: WINDOW,
            taken: 0,
            theirs: Settings::default(),
            resets: 0,
            leaving: false,
            gone: false,
        }
    }

    /// Takes what came.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.input.extend_from_slice(bytes);
        self.read().inspect_err(|lost| {
            frame::go_away(&mut self.output, self.highest, lost.0);
            self.gone = true;
        })
    }

    /// What it meant, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is to be written; whoever takes it writes all of it.
    pub fn poll_output(&mut self) -> Option<Vec<u8>> {
        if self.output.is_empty() { None } else { Some(std::mem::take(&mut self.output)) }
    }

    /// Whether a request may be opened now.
    pub fn can_open(&self) -> bool {
        !self.gone
            && !self.leaving
            && self.next < 1 << 30
            && self.streams.len() < self.theirs.max_streams.min(MAX_STREAMS) as usize
    }

    /// Whether another request may ever be opened.
    pub fn is_open(&self) -> bool {
        !self.gone && !self.leaving && self.next < 1 << 30
    }

    /// Streams that are not at their end.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Begins a request, of which nothing is written yet; its number.
    pub fn open(&mut self) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.streams.insert(stream, Stream::new(&self.theirs));
        stream
    }

    /// Writes a head; `end`: there is no body. Fields as [`request_fields`] or [`answer_fields`] make them.
    pub fn send_head<'a>(&mut self, stream: u32, fields: impl Iterator<Item = (&'a str, &'a [u8])>, end: bool) {
        if self.streams.get(&stream).is_none_or(|s| s.said) {
            return;
        }
        let mut block = Vec::new();
        for (name, value) in fields {
            hpack::encode(&mut block, name, value);
        }
        frame::headers(&mut self.output, stream, &block, end);
        if end {
            self.said(stream);
        }
    }

    /// How many bytes of a body may be sent now. `None`: the stream is gone.
    pub fn send_room(&self, stream: u32) -> Option<usize> {
        let s = self.streams.get(&stream).filter(|s| !s.said)?;
        let room = if self.output.len() >= OUTPUT_FULL { 0 } else { s.window.min(self.window).max(0) };
        Some(room as usize)
    }

    /// Writes a part of a body, no longer than there is room for.
    pub fn send_data(&mut self, stream: u32, data: &[u8], end: bool) {
        let Some(s) = self.streams.get_mut(&stream).filter(|s| !s.said) else { return };
        s.window -= data.len() as i64;
        self.window -= data.len() as i64;
        let mut parts = data.chunks(MAX_FRAME).peekable();
        if data.is_empty() {
            frame::data(&mut self.output, stream, data, end);
        }
        while let Some(part) = parts.next() {
            frame::data(&mut self.output, stream, part, end && parts.peek().is_none());
        }
        if end {
            self.said(stream);
        }
    }

    /// Writes trailers, or the end alone.
    pub fn send_end(&mut self, stream: u32, trailers: &Fields) {
        if trailers.is_empty() {
            self.send_data(stream, &[], true);
        } else {
            self.send_head(stream, trailers.iter(), true);
        }
    }

    /// Somebody took so many bytes: the peer may send as many more.
    pub fn release(&mut self, stream: u32, bytes: usize) {
        self.taken += bytes as i64;
        if self.taken >= WINDOW / 2 {
            self.room += self.taken;
            frame::window_update(&mut self.output, 0, std::mem::take(&mut self.taken));
        }
        let Some(s) = self.streams.get_mut(&stream).filter(|s| !s.heard) else { return };
        s.taken += bytes as i64;
        if s.taken >= STREAM_WINDOW / 2 {
            s.room += s.taken;
            frame::window_update(&mut self.output, stream, std::mem::take(&mut s.taken));
        }
    }

    /// Gives a stream up.
    pub fn reset(&mut self, stream: u32, code: Code) {
        if self.streams.remove(&stream).is_some() {
            frame::reset(&mut self.output, stream, code);
        }
    }

    /// Takes no new streams; those there are go on to their end.
    pub fn shutdown(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            frame::go_away(&mut self.output, self.highest, Code::NO_ERROR);
        }
    }

    fn said(&mut self, stream: u32) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.said = true;
            if s.heard {
                self.streams.remove(&stream);
                self.resets = self.resets.saturating_sub(1);
            }
        }
    }

    fn heard(&mut self, stream: u32) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.heard = true;
            if s.said {
                self.streams.remove(&stream);
                self.resets = self.resets.saturating_sub(1);
            }
        }
    }

    fn read(&mut self) -> Result<(), Lost> {
        if !self.preface {
            let there = self.input.len().min(PREFACE.len());
            if self.input.get(..there) != PREFACE.get(..there) {
                return Err(Lost(Code::PROTOCOL, "not the preface of HTTP/2"));
            }
            if there < PREFACE.len() {
                return Ok(());
            }
            self.input.drain(..there);
            self.preface = true;
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while let Some((frame, behind)) = frame::split(rest, MAX_FRAME)? {
            rest = behind;
            self.handle(frame)?;
            if self.server && self.resets > MAX_RESETS {
                return Err(Lost(Code::CALM, "resets streams and resets them again"));
            }
            if self.output.len() > OUTPUT_FLOOD {
                return Err(Lost(Code::CALM, "asks for more answers than it reads"));
            }
        }
        self.input = rest.to_vec();
        Ok(())
    }

    fn handle(&mut self, frame: Frame<'_>) -> Result<(), Lost> {
        if self.partial.is_some() && !matches!(frame, Frame::Continuation { .. }) {
            return Err(Lost(Code::PROTOCOL, "a header is interrupted"));
        }
        match frame {
            Frame::Data { stream, data, length, end } => self.handle_data(stream, data, length, end),
            Frame::Headers { stream, block, end, complete } => {
                if stream == 0 || (self.server && stream % 2 == 0) {
                    return Err(Lost(Code::PROTOCOL, "a header on a stream that cannot be"));
                }
                if complete {
                    return self.handle_block(stream, block, end);
                }
                self.partial = Some((stream, end, block.to_vec()));
                Ok(())
            }
            Frame::Continuation { stream, block, complete } => {
                let Some((of, end, mut all)) = self.partial.take().filter(|(of, ..)| *of == stream) else {
                    return Err(Lost(Code::PROTOCOL, "a continuation of nothing"));
                };
                all.extend_from_slice(block);
                // Whoever sends that many frames for one header wants something else.
                if all.len() > MAX_HEAD || block.is_empty() {
                    return Err(Lost(Code::CALM, "the header is too long"));
                }
                if complete {
                    return self.handle_block(of, &all, end);
                }
                self.partial = Some((of, end, all));
                Ok(())
            }
            Frame::Reset { stream, code } => {
                if stream == 0 || stream > self.highest.max(self.next) {
                    return Err(Lost(Code::PROTOCOL, "a reset of no stream"));
                }
                if self.streams.remove(&stream).is_some() {
                    self.resets += 1;
                    self.events.push_back(Event::Reset { stream, code });
                }
                Ok(())
            }
            Frame::Settings(payload) => {
                let before = self.theirs.window;
                self.theirs.read(payload)?;
                for stream in self.streams.values_mut() {
                    stream.window += self.theirs.window - before;
                    if stream.window > i64::from(i32::MAX) {
                        return Err(Lost(Code::FLOW_CONTROL, "a window without end"));
                    }
                }
                frame::settings_ack(&mut self.output);
                Ok(())
            }
            Frame::Ping(payload) => {
                frame::pong(&mut self.output, payload);
                Ok(())
            }
            Frame::GoAway { last } => {
                self.leaving = true;
                self.events.push_back(Event::GoAway { last });
                if !self.server {
                    let refused = self.streams.iter().map(|(stream, _)| *stream).filter(|stream| *stream > last);
                    self.events.extend(refused.map(|stream| Event::Reset { stream, code: Code::REFUSED }));
                    self.streams.retain(|stream, _| *stream <= last);
                }
                Ok(())
            }
            Frame::WindowUpdate { stream, more } => self.handle_window(stream, more),
            Frame::Ignored => Ok(()),
        }
    }

    fn handle_window(&mut self, stream: u32, more: u32) -> Result<(), Lost> {
        if stream == 0 {
            self.window += i64::from(more);
            if more == 0 || self.window > i64::from(i32::MAX) {
                return Err(Lost(Code::FLOW_CONTROL, "a window without end"));
            }
            return Ok(());
        }
        let Some(s) = self.streams.get_mut(&stream) else { return Ok(()) };
        s.window += i64::from(more);
        if more == 0 || s.window > i64::from(i32::MAX) {
            self.break_stream(stream, if more == 0 { Code::PROTOCOL } else { Code::FLOW_CONTROL });
        }
        Ok(())
    }

    fn handle_data(&mut self, stream: u32, data: &[u8], length: usize, end: bool) -> Result<(), Lost> {
        if stream == 0 || stream > self.highest.max(self.next) {
            return Err(Lost(Code::PROTOCOL, "data on no stream"));
        }
        self.room -= length as i64;
        if self.room < 0 {
            return Err(Lost(Code::FLOW_CONTROL, "more data than there is room for"));
        }
        let Some(s) = self.streams.get_mut(&stream) else {
            // What was under way when the stream was reset.
            self.release(0, length);
            return Ok(());
        };
        s.room -= length as i64;
        if s.heard || !s.headed || s.room < 0 {
            let code = if s.heard { Code::STREAM_CLOSED } else { Code::PROTOCOL };
            self.release(0, length);
            self.break_stream(stream, code);
            return Ok(());
        }
        self.release(stream, length - data.len());
        self.events.push_back(Event::Data { stream, data: data.to_vec(), end });
        if end {
            self.heard(stream);
        }
        Ok(())
    }

    fn handle_block(&mut self, stream: u32, block: &[u8], end: bool) -> Result<(), Lost> {
        // Also where nobody wants it: the table follows from all blocks.
        let fields = self.decoder.decode(block).ok_or(Lost(Code::COMPRESSION, "the header is none"))?;
        if let Some(s) = self.streams.get_mut(&stream) {
            if s.heard {
                self.break_stream(stream, Code::STREAM_CLOSED);
            } else if s.headed {
                match convert::trailers(fields).filter(|_| end) {
                    Some(fields) => self.events.push_back(Event::Trailers { stream, fields }),
                    None => return self.broken(stream),
                }
                self.heard(stream);
            } else {
                let interim = fields.iter().any(|(n, v)| n == b":status" && v.first() == Some(&b'1'));
                if interim && end {
                    return self.broken(stream);
                }
                if !interim {
                    s.headed = true;
                    self.events.push_back(Event::Head { stream, fields, end });
                    if end {
                        self.heard(stream);
                    }
                }
            }
            return Ok(());
        }
        if !self.server || stream <= self.highest {
            // Late words about a stream that is gone.
            return Ok(());
        }
        self.highest = stream;
        if self.leaving {
            return Ok(());
        }
        if self.streams.len() >= MAX_STREAMS as usize {
            frame::reset(&mut self.output, stream, Code::REFUSED);
            self.resets += 1;
            return Ok(());
        }
        self.streams.insert(stream, Stream { headed: true, ..Stream::new(&self.theirs) });
        self.events.push_back(Event::Head { stream, fields, end });
        if end {
            self.heard(stream);
        }
        Ok(())
    }

    fn broken(&mut self, stream: u32) -> Result<(), Lost> {
        self.break_stream(stream, Code::PROTOCOL);
        Ok(())
    }

    /// The peer made us reset it, which comes to the same as if it had.
    fn break_stream(&mut self, stream: u32, code: Code) {
        self.resets += 1;
        self.reset(stream, code);
        self.events.push_back(Event::Reset { stream, code });
    }
}

impl Stream {
    fn new(theirs: &Settings) -> Self {
        Stream { window: theirs.window, room: STREAM_WINDOW, taken: 0, heard: false, said: false, headed: false }
    }
}

#[cfg(test)]
mod tests;
