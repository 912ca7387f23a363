//! The little DER that IKE needs around certificates and signatures.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// Wraps contents into a SEQUENCE.
pub(crate) fn sequence(contents: &[u8]) -> Vec<u8> {
    let mut out = vec![SEQUENCE];
    let length = contents.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|octet| **octet == 0).count()..];
    match significant {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(contents);
    out
}

/// An ECDSA signature as DER from r and s side by side (RFC 4754 section 7).
pub(crate) fn ecdsa_signature(raw: &[u8; 64]) -> Vec<u8> {
    let mut contents = Vec::new();
    for number in raw.chunks_exact(32) {
        let digits = &number[number.iter().take_while(|octet| **octet == 0).count().min(31)..];
        let sign: &[u8] = if digits[0] & 0x80 != 0 { &[0] } else { &[] };
        contents.extend_from_slice(&[INTEGER, u8::try_from(sign.len() + digits.len()).unwrap_or_default()]);
        contents.extend_from_slice(sign);
        contents.extend_from_slice(digits);
    }
    sequence(&contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        assert_eq!(sequence(&[]), [0x30, 0]);
        assert_eq!(sequence(&[1; 127])[..2], [0x30, 127]);
        assert_eq!(sequence(&[1; 128])[..3], [0x30, 0x81, 128]);
        assert_eq!(sequence(&[1; 300])[..4], [0x30, 0x82, 1, 44]);
    }

    #[test]
    fn integers_are_minimal_and_positive() {
        let mut raw = [0; 64];
        raw[31] = 5;
        raw[32] = 0x80;
        let der = ecdsa_signature(&raw);
        assert_eq!(der[..7], [0x30, 38, 2, 1, 5, 2, 33]);
        assert_eq!(der[7..9], [0, 0x80]);
    }
}
