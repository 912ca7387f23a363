//! Standard base64 (RFC 4648 section 4), as the values of a Secret are written.

use zeroize::Zeroizing;

/// `None` for anything but whole groups of four with their padding.
pub(crate) fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = text.as_bytes();
    if bytes.len() % 4 != 0 {
        return None;
    }
    let padding = bytes.iter().rev().take_while(|b| **b == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len() / 4 * 3));
    let (digits, _) = bytes.split_at(bytes.len() - padding);
    for group in digits.chunks(4) {
        let mut word = 0;
        for (i, byte) in group.iter().enumerate() {
            word |= digit(*byte)? << (18 - 6 * i);
        }
        let [_, a, b, c] = word.to_be_bytes();
        let whole = [a, b, c];
        let length = group.len() * 6 / 8;
        // Bits that encode nothing are zero.
        if whole.get(length..)?.iter().any(|byte| *byte != 0) {
            return None;
        }
        out.extend_from_slice(whole.get(..length)?);
    }
    Some(out)
}

fn digit(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_rfc() {
        for (text, plain) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decode(text).unwrap().as_slice(), plain.as_bytes());
        }
        assert_eq!(decode("+/+/").unwrap().as_slice(), [0xfb, 0xff, 0xbf]);
    }

    #[test]
    fn nothing_else_is_read() {
        for text in ["Zg", "Zg=", "Zg===", "====", "Z===", "Zm 9", "Zm9v\n", "Zh==", "Zm9=", "Z=9v", "\u{e4}\u{e4}"] {
            assert!(decode(text).is_none(), "{text}");
        }
    }
}
