//! Domain names as they are on the wire (RFC 1035, 3.1 and 4.1.4).

use std::fmt;

/// The longest name with its root, in octets.
const MAX_NAME: usize = 255;

/// The longest label in octets.
const MAX_LABEL: usize = 63;

/// More pointers than a name has labels lead nowhere.
const MAX_JUMPS: usize = 128;

/// A domain name in wire form, never compressed, in the case it was written in.
#[derive(Clone, Copy)]
pub struct Name {
    len: u8,
    octets: [u8; MAX_NAME],
}

impl Name {
    /// The root.
    pub const ROOT: Name = Name { len: 1, octets: [0; MAX_NAME] };

    /// A name of dotted text, with or without the dot at the end. `None` if it is none.
    pub fn parse(text: &str) -> Option<Name> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut name = Builder::default();
        if !text.is_empty() {
            for label in text.split('.') {
                name.push(label.as_bytes())?;
            }
        }
        Some(name.finish())
    }

    /// A name of these labels, outermost last.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Name> {
        let mut name = Builder::default();
        for label in labels {
            name.push(label)?;
        }
        Some(name.finish())
    }

    /// Reads the name at `at` of a message, following pointers, which lead backwards only. Returns where it ends there.
    pub fn read(message: &[u8], at: usize) -> Option<(Name, usize)> {
        let mut name = Builder::default();
        let (mut place, mut end, mut lowest) = (at, None, at);
        for _ in 0..MAX_JUMPS + MAX_NAME / 2 {
            let length = *message.get(place)?;
            match length {
                0 => return Some((name.finish(), end.unwrap_or(place + 1))),
                1..=0x3f => {
                    let next = place + 1 + usize::from(length);
                    name.push(message.get(place + 1..next)?)?;
                    place = next;
                }
                0xc0..=0xff => {
                    let target = usize::from(length & 0x3f) << 8 | usize::from(*message.get(place + 1)?);
                    if target >= lowest {
                        return None;
                    }
                    end = end.or(Some(place + 2));
                    (place, lowest) = (target, target);
                }
                // Kinds of labels that nobody uses.
                _ => return None,
            }
        }
        None
    }

    /// With its root, in wire form.
    pub fn wire(&self) -> &[u8] {
        self.octets.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The same in lower case.
    #[must_use]
    pub fn lower(&self) -> Name {
        let mut name = *self;
        // Lengths of labels are below the letters.
        name.octets.iter_mut().take(usize::from(self.len)).for_each(|octet| octet.make_ascii_lowercase());
        name
    }

    /// Its labels, outermost last, without the root.
    pub fn labels(&self) -> Labels<'_> {
        Labels { wire: self.wire().split_last().map_or(&[], |(_, labels)| labels) }
    }

    /// What is left of it in front of `zone`, if it is `zone` or below it; both in lower case.
    pub fn below<'a>(&'a self, zone: &Name) -> Option<Labels<'a>> {
        let (own, zone) = (self.wire(), zone.wire());
        let front = own.len().checked_sub(zone.len())?;
        if own.get(front..)? != zone {
            return None;
        }
        // The same octets may begin within a label.
        let mut at = 0;
        while at < front {
            at += 1 + usize::from(*own.get(at)?);
        }
        (at == front).then(|| Labels { wire: own.get(..front).unwrap_or_default() })
    }
}

/// The labels of a name.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    wire: &'a [u8],
}

impl<'a> Labels<'a> {
    /// What has not been taken, in wire form without a root.
    pub fn wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Takes the outermost one.
    pub fn pop(&mut self) -> Option<&'a [u8]> {
        let (mut at, mut last) = (0, None);
        while at < self.wire.len() {
            last = Some(at);
            at += 1 + usize::from(*self.wire.get(at)?);
        }
        let (front, label) = self.wire.split_at_checked(last?)?;
        self.wire = front;
        label.get(1..)
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.wire.split_first().filter(|(length, _)| **length > 0)?;
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        self.wire = rest;
        Some(label)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.wire().eq_ignore_ascii_case(other.wire())
    }
}

impl Eq for Name {}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len <= 1 {
            return f.write_str(".");
        }
        for (i, label) in self.labels().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            for octet in label {
                match octet {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(*octet))?,
                    0x21..=0x7e => write!(f, "{}", char::from(*octet))?,
                    other => write!(f, "\\{other:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Builder {
    len: usize,
    octets: [u8; MAX_NAME],
}

impl Default for Builder {
    fn default() -> Self {
        Builder { len: 0, octets: [0; MAX_NAME] }
    }
}

impl Builder {
    fn push(&mut self, label: &[u8]) -> Option<()> {
        let length = u8::try_from(label.len()).ok().filter(|l| (1..=MAX_LABEL).contains(&usize::from(*l)))?;
        // Room for the root stays.
        let place = self.octets.get_mut(self.len..MAX_NAME - 1)?.get_mut(..=label.len())?;
        let (head, body) = place.split_first_mut()?;
        *head = length;
        body.copy_from_slice(label);
        self.len += 1 + label.len();
        Some(())
    }

    fn finish(self) -> Name {
        // Never more than 254 and the root.
        Name { len: self.len as u8 + 1, octets: self.octets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn text_and_back() {
        for text in ["a.b.c", "_http._tcp.web.default.svc.cluster.local", "."] {
            assert_eq!(name(text).to_string(), text);
        }
        assert_eq!(name("a.b.").wire(), b"\x01a\x01b\0");
        for wrong in ["a..b", ".a", &"x".repeat(64), &["abcdefg"; 32].join(".")] {
            assert!(Name::parse(wrong).is_none(), "{wrong}");
        }
        assert!(Name::parse(&format!("{}.x", ["abcdefg"; 31].join("."))).is_some());
    }

    #[test]
    fn pointers_lead_backwards_only() {
        let message = b"\x03com\0\x01a\xc0\x00\xc0\x05\xc0\x0b\xff";
        assert_eq!(Name::read(message, 5), Some((name("a.com"), 9)));
        assert_eq!(Name::read(message, 9), Some((name("a.com"), 11)));
        assert_eq!(Name::read(message, 11), None, "to itself");
        assert_eq!(Name::read(message, 13), None, "cut off");
        assert_eq!(Name::read(b"\x01a\xc0\x00", 0), None, "into itself");
        assert_eq!(Name::read(b"\xc0\x02\x01a\0", 0), None, "forwards");
        assert_eq!(Name::read(b"\x41a\0", 0), None, "an unknown kind");
    }

    #[test]
    fn below_is_by_label() {
        let zone = name("cluster.local");
        let below = |text: &str| name(text).lower().below(&zone).map(|l| l.count());
        assert_eq!(below("a.B.Cluster.LOCAL"), Some(2));
        assert_eq!(below("cluster.local"), Some(0));
        assert_eq!(below("local"), None);
        // "xcluster" has the length octet of "cluster" nowhere, but a label may hold anything.
        let tricky = Name::from_labels([&b"x\x07cluster"[..], b"local"]).unwrap();
        assert!(tricky.below(&zone).is_none());
        let name = name("a.b.c");
        let mut labels = name.labels();
        assert_eq!(labels.wire().len(), 6);
        assert_eq!(labels.pop(), Some(&b"c"[..]));
        assert_eq!((labels.pop(), labels.pop(), labels.pop()), (Some(&b"b"[..]), Some(&b"a"[..]), None));
    }

    #[test]
    fn odd_octets_are_shown_as_numbers() {
        assert_eq!(Name::from_labels([&b"a.b\n"[..]]).unwrap().to_string(), "a\\.b\\010");
    }
}
