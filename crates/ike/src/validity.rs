//! When a certificate is valid (RFC 5280 section 4.1.2.5).

pub(crate) const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version`, absent in certificates of version 1.
pub(crate) const VERSION: u8 = 0xa0;

/// `notBefore` and `notAfter` of a certificate in DER, in seconds since 1970.
pub fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_, after)) = element(rest, VERSION) {
        rest = after;
    }
    // Serial number, signature algorithm and issuer stand before the validity.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, rest) = element(rest, tag)?;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (not_before, validity) = time(validity)?;
    Some((not_before, time(validity)?.0))
}

/// The contents of the first element, if it has this tag, and what follows it.
pub(crate) fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().try_fold(0_usize, |n, o| n.checked_mul(256)?.checked_add(usize::from(*o)))?, rest)
        }
        _ => return None,
    };
    let (contents, after) = rest.split_at_checked(length)?;
    (found == tag).then_some((contents, after))
}

/// The first element as a time, and what follows it. RFC 5280 allows only the forms `YYMMDDHHMMSSZ` and
/// `YYYYMMDDHHMMSSZ`.
pub(crate) fn time(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let utc = element(bytes, UTC_TIME);
    let (text, after) = utc.or_else(|| element(bytes, GENERALIZED_TIME))?;
    let (digits, zone) = text.split_at_checked(if utc.is_some() { 12 } else { 14 })?;
    if zone != b"Z" || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut numbers = digits.chunks(2).map(|pair| u64::from(pair[0] - b'0') * 10 + u64::from(pair[1] - b'0'));
    let mut next = || numbers.next();
    let year = match (utc, next()?) {
        (Some(_), year @ 0..50) => 2000 + year,
        (Some(_), year) => 1900 + year,
        (None, century) => century * 100 + next()?,
    };
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    let valid = (1970..).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    (valid && hour < 24 && minute < 60 && second <= 60)
        .then(|| (days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second, after))
}

/// Days from 1970 to a date of the Gregorian calendar, counted in years that begin in March.
fn days(year: u64, month: u64, day: u64) -> u64 {
    const TO_1970: u64 = 719_468;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Option<u64> {
        let tag = if text.len() == 13 { UTC_TIME } else { GENERALIZED_TIME };
        let bytes = [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        time(&bytes).map(|(seconds, _)| seconds)
    }

    #[test]
    fn times() {
        for (text, unix) in [
            ("700101000000Z", 0),
            ("000229000000Z", 951_782_400),
            ("261119235959Z", 1_795_132_799),
            ("491231235959Z", 2_524_607_999),
            ("21000301000000Z", 4_107_542_400),
        ] {
            assert_eq!(utc(text), Some(unix), "{text}");
        }
        for text in ["691231235959Z", "261319235959Z", "2611192359590", "26111923595 Z", "00000101000000Z"] {
            assert_eq!(utc(text), None, "{text}");
        }
    }

    #[test]
    fn certificates_are_read_and_anything_else_is_not() {
        let until = |year| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2000, 3, 1);
            params.not_after = rcgen::date_time_ymd(year, 3, 1);
            params.self_signed(&key).unwrap().der().to_vec()
        };
        let early = until(2026);
        assert_eq!(validity(&early), Some((951_868_800, 1_772_323_200)));
        assert_eq!(validity(&until(2100)), Some((951_868_800, 4_107_542_400)));
        for length in 0..early.len() {
            assert_eq!(validity(&early[..length]), None);
        }
        for at in 0..200 {
            let mut spoilt = early.clone();
            spoilt[at] ^= 0xff;
            validity(&spoilt);
        }
    }
}
