//! Frames (RFC 9113, 6).

use super::{Code, Lost, STREAM_WINDOW};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What matters of a frame.
pub(super) enum Frame<'a> {
    /// `length` counts the padding, too.
    Data {
        stream: u32,
        data: &'a [u8],
        length: usize,
        end: bool,
    },
    Headers {
        stream: u32,
        block: &'a [u8],
        end: bool,
        complete: bool,
    },
    Continuation {
        stream: u32,
        block: &'a [u8],
        complete: bool,
    },
    Reset {
        stream: u32,
        code: Code,
    },
    Settings(&'a [u8]),
    Ping([u8; 8]),
    GoAway {
        last: u32,
    },
    WindowUpdate {
        stream: u32,
        more: u32,
    },
    Ignored,
}

/// What the peer said about itself.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) window: i64,
    pub(super) max_streams: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { window: STREAM_WINDOW, max_streams: u32::MAX }
    }
}

impl Settings {
    pub(super) fn read(&mut self, payload: &[u8]) -> Result<(), Lost> {
        for setting in payload.chunks_exact(6) {
            let (Some(id), Some(value)) = (number::<2>(setting, 0), number::<4>(setting, 2)) else { continue };
            match id {
                3 => self.max_streams = value,
                4 if value >= 1 << 31 => return Err(Lost(Code::FLOW_CONTROL, "a window without end")),
                4 => self.window = i64::from(value),
                5 if !(16_384..1 << 24).contains(&value) => {
                    return Err(Lost(Code::PROTOCOL, "a frame size that cannot be"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The first frame of `bytes`, and what is behind it. `None`: more is needed.
pub(super) fn split(bytes: &[u8], longest: usize) -> Result<Option<(Frame<'_>, &[u8])>, Lost> {
    let Some((head, rest)) = bytes.split_at_checked(9) else { return Ok(None) };
    let length = number::<3>(head, 0).unwrap_or_default() as usize;
    if length > longest {
        return Err(Lost(Code::FRAME_SIZE, "a frame longer than allowed"));
    }
    let Some((payload, behind)) = rest.split_at_checked(length) else { return Ok(None) };
    let (kind, flags) = (head.get(3).copied().unwrap_or_default(), head.get(4).copied().unwrap_or_default());
    let stream = number::<4>(head, 5).unwrap_or_default() & 0x7fff_ffff;
    let size = Lost(Code::FRAME_SIZE, "a frame of a wrong size");
    let frame = match kind {
        DATA => Frame::Data { stream, data: unpad(payload, flags)?, length, end: flags & END_STREAM != 0 },
        HEADERS => {
            let block = unpad(payload, flags)?;
            let block = if flags & PRIORITY != 0 { block.get(5..).ok_or(size)? } else { block };
            Frame::Headers { stream, block, end: flags & END_STREAM != 0, complete: flags & END_HEADERS != 0 }
        }
        CONTINUATION => Frame::Continuation { stream, block: payload, complete: flags & END_HEADERS != 0 },
        RST_STREAM if length != 4 => return Err(size),
        RST_STREAM => Frame::Reset { stream, code: Code(number::<4>(payload, 0).unwrap_or_default()) },
        SETTINGS if stream != 0 => return Err(Lost(Code::PROTOCOL, "settings of a stream")),
        SETTINGS if flags & ACK != 0 => Frame::Ignored,
        SETTINGS if length % 6 != 0 => return Err(size),
        SETTINGS => Frame::Settings(payload),
        PUSH_PROMISE => return Err(Lost(Code::PROTOCOL, "a push that nobody asked for")),
        PING => match <[u8; 8]>::try_from(payload) {
            Ok(_) if flags & ACK != 0 => Frame::Ignored,
            Ok(payload) => Frame::Ping(payload),
            Err(_) => return Err(size),
        },
        GOAWAY => Frame::GoAway { last: number::<4>(payload, 0).ok_or(size)? & 0x7fff_ffff },
        WINDOW_UPDATE if length != 4 => return Err(size),
        WINDOW_UPDATE => {
            Frame::WindowUpdate { stream, more: number::<4>(payload, 0).unwrap_or_default() & 0x7fff_ffff }
        }
        // Priorities, and what was added later.
        _ => Frame::Ignored,
    };
    Ok(Some((frame, behind)))
}

fn unpad(payload: &[u8], flags: u8) -> Result<&[u8], Lost> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let unpadded = payload.split_first().and_then(|(pad, rest)| rest.get(..rest.len().checked_sub(usize::from(*pad))?));
    unpadded.ok_or(Lost(Code::PROTOCOL, "more padding than frame"))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + N)?;
    Some(digits.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
}

fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

pub(super) fn data(out: &mut Vec<u8>, stream: u32, data: &[u8], end: bool) {
    write(out, DATA, if end { END_STREAM } else { 0 }, stream, data);
}

pub(super) fn headers(out: &mut Vec<u8>, stream: u32, block: &[u8], end: bool) {
    let (mut kind, mut flags) = (HEADERS, if end { END_STREAM } else { 0 });
    let mut parts = block.chunks(super::MAX_FRAME).peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            flags |= END_HEADERS;
        }
        write(out, kind, flags, stream, part);
        (kind, flags) = (CONTINUATION, 0);
    }
}

pub(super) fn reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    write(out, RST_STREAM, 0, stream, &code.0.to_be_bytes());
}

pub(super) fn settings(out: &mut Vec<u8>, server: bool) {
    let mut payload = Vec::new();
    let (id, value) = if server { (3u16, super::MAX_STREAMS) } else { (2, 0) };
    payload.extend_from_slice(&id.to_be_bytes());
    payload.extend_from_slice(&value.to_be_bytes());
    payload.extend_from_slice(&6u16.to_be_bytes());
    payload.extend_from_slice(&(crate::MAX_HEAD as u32).to_be_bytes());
    write(out, SETTINGS, 0, 0, &payload);
}

pub(super) fn settings_ack(out: &mut Vec<u8>) {
    write(out, SETTINGS, ACK, 0, &[]);
}

pub(super) fn pong(out: &mut Vec<u8>, payload: [u8; 8]) {
    write(out, PING, ACK, 0, &payload);
}

pub(super) fn go_away(out: &mut Vec<u8>, last: u32, code: Code) {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend_from_slice(&code.0.to_be_bytes());
    write(out, GOAWAY, 0, 0, &payload);
}

pub(super) fn window_update(out: &mut Vec<u8>, stream: u32, more: i64) {
    write(out, WINDOW_UPDATE, 0, stream, &(more as u32).to_be_bytes());
}
