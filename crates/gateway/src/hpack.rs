//! Header compression of HTTP/2 (RFC 7541). What is written uses the static table only, so there is no state to it.

use std::collections::VecDeque;

use crate::huffman;

/// What the peer may use of our table: the default, as it may before it read our settings.
const TABLE: usize = 4096;

/// The most that a header may take when it is unpacked: a small one can refer to the same long field many times.
const MAX_UNPACKED: usize = 64 << 10;

/// RFC 7541, appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

/// A name, perhaps one that begins with a colon, and its value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// What the peer's headers refer to.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Newest first.
    table: VecDeque<Field>,
    size: usize,
    limit: usize,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Decoder { table: VecDeque::new(), size: 0, limit: TABLE }
    }

    /// Unpacks a whole header block. `None`: it is none, or far too long, and the connection is lost with it.
    pub(crate) fn decode(&mut self, block: &[u8]) -> Option<Vec<Field>> {
        let (mut input, mut fields, mut unpacked) = (block, Vec::new(), 0);
        while let Some(&first) = input.first() {
            let field = match first {
                0x80.. => self.indexed(integer(&mut input, 7)?)?,
                0x40.. => {
                    let field = self.literal(&mut input, 6)?;
                    self.insert(field.clone());
                    field
                }
                0x20.. => {
                    let limit = integer(&mut input, 5)?;
                    if limit > TABLE || !fields.is_empty() {
                        return None;
                    }
                    self.limit = limit;
                    self.shrink(limit);
                    continue;
                }
                _ => self.literal(&mut input, 4)?,
            };
            unpacked += field.0.len() + field.1.len() + 32;
            if unpacked > MAX_UNPACKED {
                return None;
            }
            fields.push(field);
        }
        Some(fields)
    }

    fn literal(&self, input: &mut &[u8], bits: u8) -> Option<Field> {
        let name = match integer(input, bits)? {
            0 => string(input)?,
            index => self.indexed(index)?.0,
        };
        Some((name, string(input)?))
    }

    fn indexed(&self, index: usize) -> Option<Field> {
        if let Some((name, value)) = index.checked_sub(1).and_then(|i| STATIC.get(i)) {
            return Some((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        self.table.get(index.checked_sub(STATIC.len() + 1)?).cloned()
    }

    fn insert(&mut self, field: Field) {
        let size = size(&field);
        self.shrink(self.limit.saturating_sub(size));
        if size <= self.limit {
            self.size += size;
            self.table.push_front(field);
        }
    }

    fn shrink(&mut self, to: usize) {
        while self.size > to {
            let Some(field) = self.table.pop_back() else { return };
            self.size -= size(&field);
        }
    }
}

fn size(field: &Field) -> usize {
    field.0.len() + field.1.len() + 32
}

fn integer(input: &mut &[u8], bits: u8) -> Option<usize> {
    let mask = (1usize << bits) - 1;
    let (&first, mut rest) = input.split_first()?;
    let mut value = usize::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&byte, behind) = rest.split_first()?;
            rest = behind;
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            // Longer numbers are nothing that could be meant.
            if shift > 14 {
                return None;
            }
        }
    }
    *input = rest;
    Some(value)
}

fn string(input: &mut &[u8]) -> Option<Vec<u8>> {
    let packed = *input.first()? & 0x80 != 0;
    let length = integer(input, 7)?;
    let (text, rest) = input.split_at_checked(length)?;
    *input = rest;
    if packed { huffman::decode(text) } else { Some(text.to_vec()) }
}

/// Packs one field: a whole entry of the static table, or its name with the value, never for the peer's table.
pub(crate) fn encode(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let same = STATIC.iter().position(|(n, v)| *n == name && v.as_bytes() == value && !v.is_empty());
    if let Some(index) = same {
        return write_integer(out, index + 1, 7, 0x80);
    }
    match STATIC.iter().position(|(n, _)| *n == name) {
        Some(index) => write_integer(out, index + 1, 4, 0),
        None => {
            out.push(0);
            write_integer(out, name.len(), 7, 0);
            out.extend_from_slice(name.as_bytes());
        }
    }
    write_integer(out, value.len(), 7, 0);
    out.extend_from_slice(value);
}

fn write_integer(out: &mut Vec<u8>, value: usize, bits: u8, flags: u8) {
    let mask = (1usize << bits) - 1;
    if value < mask {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn shown(fields: &[Field]) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect()
    }

    #[test]
    fn requests_of_the_rfc_share_a_table() {
        // RFC 7541, C.4.
        let mut decoder = Decoder::new();
        let first = decoder.decode(&hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")).unwrap();
        assert_eq!(shown(&first), [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"]);
        let second = decoder.decode(&hex("8286 84be 5886 a8eb 1064 9cbf")).unwrap();
        assert_eq!(shown(&second)[3..], [":authority: www.example.com", "cache-control: no-cache"]);
        let third = decoder.decode(&hex("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf")).unwrap();
        assert_eq!(shown(&third)[1..3], [":scheme: https", ":path: /index.html"]);
        assert_eq!(shown(&third)[4], "custom-key: custom-value");
        assert_eq!((decoder.table.len(), decoder.size), (3, 164));
    }

    #[test]
    fn the_table_forgets_the_oldest() {
        let mut decoder = Decoder::new();
        for i in 0..200 {
            let mut block = vec![0x40, 1, b'a', 0x7f, 0];
            block[1] = 1;
            block.truncate(3);
            write_integer(&mut block, 100, 7, 0);
            block.extend_from_slice(&[i; 100]);
            decoder.decode(&block).unwrap();
        }
        assert_eq!(decoder.table.len(), TABLE / 133);
        assert_eq!(decoder.decode(&[0x3f, 0xe1, 0x5f]), None, "a table larger than ours");
        assert_eq!(decoder.decode(&[0x20]), Some(vec![]));
        assert_eq!(decoder.table.len(), 0);
    }

    #[test]
    fn a_small_block_cannot_unpack_to_a_large_header() {
        let mut decoder = Decoder::new();
        let mut block = vec![0x40, 1, b'a'];
        write_integer(&mut block, 4000, 7, 0);
        block.extend_from_slice(&[b'x'; 4000]);
        block.extend_from_slice(&[0xbe; 16]);
        assert_eq!(decoder.decode(&block), None);
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(name in "[a-z-]{1,200}", value in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut block = Vec::new();
            encode(&mut block, &name, &value);
            encode(&mut block, ":status", b"200");
            let fields = Decoder::new().decode(&block).unwrap();
            prop_assert_eq!(&fields[0], &(name.into_bytes(), value));
            prop_assert_eq!(&fields[1], &(b":status".to_vec(), b"200".to_vec()));
        }

        #[test]
        fn never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new();
            let _ = decoder.decode(&bytes);
            let _ = decoder.decode(&bytes);
            let _ = huffman::decode(&bytes);
        }
    }
}
