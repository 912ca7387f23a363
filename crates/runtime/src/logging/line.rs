//! What a line may hold.

use std::net::{IpAddr, SocketAddr};

/// The longest text written, in bytes.
const LONGEST: usize = 1000;

/// Without control characters, which could forge lines or command a terminal, and not longer than a line may be.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LONGEST));
    for character in text.chars() {
        if out.len() >= LONGEST {
            out.push('…');
            break;
        }
        match character.is_control() {
            true => out.extend(character.escape_default()),
            false => out.push(character),
        }
    }
    out
}

/// Every address, with or without port, replaced by a word; networks stay.
pub(super) fn without_addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(within_word) {
        let length = rest[start..].find(|c| !within_word(c)).unwrap_or(rest.len() - start);
        let (before, word) = (&rest[..start], &rest[start..start + length]);
        let bare = word.trim_end_matches(['.', ':', ']']);
        // The bracket belongs to an address that a port follows, or stands around one.
        let address = [word, bare, bare.trim_start_matches('[')].into_iter().find(|word| is_address(word));
        out.push_str(before);
        match address.and_then(|address| word.split_once(address)) {
            Some((left, right)) => [left, "(address)", right].into_iter().for_each(|part| out.push_str(part)),
            None => out.push_str(word),
        }
        rest = &rest[start + length..];
    }
    out + rest
}

fn within_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '[' | ']' | '-' | '_' | '/')
}

fn is_address(word: &str) -> bool {
    word.parse::<SocketAddr>().is_ok() || word.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_left_out_and_nothing_else() {
        for (text, expected) in [
            ("no answer from 192.0.2.10:4500 after 60 s", "no answer from (address) after 60 s"),
            ("at [2001:db8::1]:4500, 2001:db8::2 and fe80::1", "at (address), (address) and (address)"),
            ("beijing.edge-1: 192.0.2.1: refused.", "beijing.edge-1: (address): refused."),
            ("send IKE to 192.0.2.1.", "send IKE to (address)."),
            ("(192.0.2.1) [192.0.2.1] [::1]", "((address)) [(address)] [(address)]"),
            (
                "peers[0].prefixes[1]: 10.0.0.0/8 overlaps fd00::/8",
                "peers[0].prefixes[1]: 10.0.0.0/8 overlaps fd00::/8",
            ),
            ("std::io at 12:30:00, selvedge 0.1.0", "std::io at 12:30:00, selvedge 0.1.0"),
            ("", ""),
            ("ünï 192.0.2.1 cödé", "ünï (address) cödé"),
        ] {
            assert_eq!(without_addresses(text), expected);
        }
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(printable("a\nerror forged\u{1b}[2J\tb"), "a\\nerror forged\\u{1b}[2J\\tb");
        let long = printable(&"ü".repeat(5000));
        assert!(long.len() <= LONGEST + 8 && long.ends_with('…'));
    }
}
