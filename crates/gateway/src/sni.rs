//! The server name in the first message of a TLS client, for connections whose TLS does not end here.

/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// More are needed.
    More,
    /// The server name, in small letters.
    Name(String),
    /// It is TLS, and names nobody.
    Nameless,
    /// It is not TLS.
    Other,
}

/// A ClientHello is no longer than this, even with keys of post-quantum algorithms.
const MAX_HELLO: usize = 16 << 10;

/// Reads the first bytes of a connection.
pub fn server_name(bytes: &[u8]) -> Hello {
    if bytes.len() > MAX_HELLO + 5 * 8 {
        return Hello::Other;
    }
    // The message may be cut into several records.
    let (mut rest, mut message) = (bytes, Vec::new());
    loop {
        match rest {
            [0x16, 3, _, high, low, behind @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length == 0 {
                    return Hello::Other;
                }
                message.extend_from_slice(behind.get(..length).unwrap_or(behind));
                rest = behind.get(length..).unwrap_or_default();
            }
            [] | [0x16] | [0x16, 3] | [0x16, 3, _] | [0x16, 3, _, _] => break,
            _ => return Hello::Other,
        }
        if rest.is_empty() || whole(&message).is_some() {
            break;
        }
    }
    match message.first() {
        None if bytes.len() < 6 => return Hello::More,
        Some(1) => {}
        _ => return Hello::Other,
    }
    let Some(body) = whole(&message) else { return Hello::More };
    match extension(body) {
        Some(Some(name)) => Hello::Name(name),
        Some(None) => Hello::Nameless,
        None => Hello::Other,
    }
}

/// The body of the handshake message, if it is all there.
fn whole(message: &[u8]) -> Option<&[u8]> {
    let (head, body) = message.split_at_checked(4)?;
    let length = head.iter().skip(1).fold(0usize, |n, b| n << 8 | usize::from(*b));
    body.get(..length)
}

/// `None`: it is no ClientHello.
fn extension(body: &[u8]) -> Option<Option<String>> {
    let mut rest = body.get(2 + 32..)?;
    take(&mut rest, 1)?;
    take(&mut rest, 2)?;
    take(&mut rest, 1)?;
    if rest.is_empty() {
        return Some(None);
    }
    let mut extensions = take(&mut rest, 2)?;
    while !extensions.is_empty() {
        let (kind, behind) = extensions.split_at_checked(2)?;
        extensions = behind;
        let mut content = take(&mut extensions, 2)?;
        if kind == [0, 0] {
            let mut names = take(&mut content, 2)?;
            while let Some((kind, behind)) = names.split_first() {
                names = behind;
                let name = take(&mut names, 2)?;
                if *kind == 0 {
                    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
                    let name =
                        std::str::from_utf8(name).ok().filter(|n| n.len() <= 255 && n.as_bytes().iter().all(plain))?;
                    return Some(Some(name.to_ascii_lowercase()));
                }
            }
        }
    }
    Some(None)
}

/// What a length of so many bytes announces, behind it.
fn take<'a>(input: &mut &'a [u8], digits: usize) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(digits)?;
    let length = head.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(name: Option<&str>, record: usize) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        let mut extensions = vec![0, 0x2b, 0, 3, 2, 3, 4];
        if let Some(name) = name {
            let n = name.len() as u8;
            extensions.extend([0, 0, 0, n + 5, 0, n + 3, 0, 0, n]);
            extensions.extend(name.bytes());
        }
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = vec![1, 0, 0, body.len() as u8];
        message.extend(body);
        message.chunks(record).flat_map(|part| [&[0x16, 3, 1, 0, part.len() as u8][..], part].concat()).collect()
    }

    #[test]
    fn the_name_is_found_in_any_portions() {
        for record in [200, 50, 3] {
            let bytes = hello(Some("A.Example"), record);
            assert_eq!(server_name(&bytes), Hello::Name("a.example".into()), "records of {record}");
            for end in 0..bytes.len() {
                assert_eq!(server_name(&bytes[..end]), Hello::More, "{end} bytes of records of {record}");
            }
        }
        assert_eq!(server_name(&hello(None, 200)), Hello::Nameless);
        assert_eq!(server_name(b"GET / HTTP/1.1\r\n"), Hello::Other);
        assert_eq!(server_name(&hello(Some("a/b"), 200)), Hello::Other);
    }

    proptest! {
        #[test]
        fn never_panics_on_noise(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = server_name(&bytes);
            if bytes.len() > 10 {
                bytes[..3].copy_from_slice(&[0x16, 3, 1]);
                bytes[5] = 1;
                let _ = server_name(&bytes);
            }
        }

        #[test]
        fn never_panics_on_changes(at in 0usize..77, byte in any::<u8>()) {
            let mut bytes = hello(Some("a.example"), 200);
            bytes[at] = byte;
            let _ = server_name(&bytes);
        }
    }
}
