//! Between the fields of HTTP/2 and messages (RFC 9113, 8.3).

use crate::fields::{is_token, is_value};
use crate::{Bad, Fields, Request, Response};

type Raw = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads the fields of a request; `end`: it has no body.
pub fn read_request(raw: Raw, end: bool) -> Result<Request, Bad> {
    let mut request = Request::default();
    let (mut scheme, mut cookies) = (false, Vec::new());
    let fields = split(raw, |name, value| {
        let slot = match name {
            b":method" => &mut request.method,
            b":path" => &mut request.path,
            b":authority" => &mut request.authority,
            b":scheme" if !scheme => {
                scheme = true;
                return Some(());
            }
            _ => return None,
        };
        if slot.is_empty() {
            *slot = String::from_utf8(value).ok()?;
            return Some(());
        }
        None
    });
    request.fields = fields.ok_or(Bad(400, "the header is none"))?;
    let lengths: Vec<&[u8]> = request.fields.all("content-length").collect();
    let fits = |text: &[u8]| !text.is_empty() && text.iter().all(|b| if end { *b == b'0' } else { b.is_ascii_digit() });
    if !matches!(lengths[..], [] | [_]) || !lengths.into_iter().all(fits) {
        return Err(Bad(400, "the length is not that of the body"));
    }
    if !scheme || request.method.is_empty() || request.path.is_empty() {
        return Err(Bad(400, "method, scheme or path are missing"));
    }
    let host = request.fields.text("host").unwrap_or_default().to_owned();
    if request.authority.is_empty() {
        request.authority = host;
    } else if !host.is_empty() && !host.eq_ignore_ascii_case(&request.authority) {
        return Err(Bad(400, "two hosts"));
    }
    if request.authority.is_empty() {
        return Err(Bad(400, "no host"));
    }
    request.authority.make_ascii_lowercase();
    // Clients may split them, servers of HTTP/1.1 know one field (8.2.3).
    for cookie in request.fields.all("cookie") {
        if !cookies.is_empty() {
            cookies.extend_from_slice(b"; ");
        }
        cookies.extend_from_slice(cookie);
    }
    if !cookies.is_empty() {
        request.fields.set("cookie", cookies);
    }
    request.fields.remove("host");
    request.fields.strip();
    request.check()?;
    Ok(request)
}

/// Reads the fields of an answer.
pub fn read_answer(raw: Raw) -> Result<Response, Bad> {
    let mut status = None;
    let fields = split(raw, |name, value| {
        let text = std::str::from_utf8(&value).ok().filter(|_| name == b":status" && status.is_none())?;
        status = Some(text.parse().ok().filter(|code| (200..=599).contains(code))?);
        Some(())
    });
    let (Some(mut fields), Some(status)) = (fields, status) else { return Err(Bad(502, "the header is none")) };
    fields.strip();
    crate::message::check_fields(&fields)?;
    Ok(Response { status, fields, upgrade: None })
}

/// Reads trailers.
pub(super) fn trailers(raw: Raw) -> Option<Fields> {
    let mut fields = split(raw, |_, _| None)?;
    for name in ["content-length", "host"] {
        fields.remove(name);
    }
    Some(fields)
}

/// The fields of a request as they are written.
pub fn request_fields<'a>(request: &'a Request, scheme: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let pseudo = [
        (":method", request.method.as_bytes()),
        (":scheme", scheme.as_bytes()),
        (":authority", request.authority.as_bytes()),
        (":path", request.path.as_bytes()),
    ];
    pseudo.into_iter().chain(request.fields.iter())
}

/// The fields of an answer as they are written; `status` are its digits.
pub fn answer_fields<'a>(answer: &'a Response, status: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    std::iter::once((":status", status.as_bytes())).chain(answer.fields.iter())
}

/// Pseudo fields go to `pseudo`, which may refuse them; the others must follow, and be such as may be.
fn split(raw: Raw, mut pseudo: impl FnMut(&[u8], Vec<u8>) -> Option<()>) -> Option<Fields> {
    let mut fields = Fields::default();
    for (name, value) in raw {
        if name.first() == Some(&b':') {
            if !fields.is_empty() || !is_value(&value) {
                return None;
            }
            pseudo(&name, value)?;
            continue;
        }
        let small = !name.iter().any(u8::is_ascii_uppercase);
        let connection = matches!(name.as_slice(), b"connection" | b"transfer-encoding" | b"upgrade" | b"keep-alive");
        if !small || connection || !is_token(&name) || !is_value(&value) || (name == b"te" && value != b"trailers") {
            return None;
        }
        fields.add(std::str::from_utf8(&name).ok()?, value);
    }
    Some(fields)
}
