use crate::MAX_OBJECT_BYTES;

/// Cuts a watch into its lines.
#[derive(Debug, Default)]
pub struct Lines {
    part: Vec<u8>,
}

impl Lines {
    /// The lines that end within `bytes`. An error ends the watch: a line was too long, or not text.
    pub fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&str)) -> Result<(), &'static str> {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (head, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            if self.part.is_empty() {
                whole(head, &mut line)?;
            } else {
                self.keep(head)?;
                let part = std::mem::take(&mut self.part);
                whole(&part, &mut line)?;
            }
        }
        self.keep(bytes)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        if self.part.len() + bytes.len() > MAX_OBJECT_BYTES {
            return Err("a line of the watch is too long");
        }
        self.part.extend_from_slice(bytes);
        Ok(())
    }
}

fn whole(bytes: &[u8], line: &mut impl FnMut(&str)) -> Result<(), &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "a line of the watch is not text")?.trim();
    if !text.is_empty() {
        line(text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_pieces() {
        let text = b"{\"a\":1}\n\n{\"b\":\"\xc3\xa4\"}\r\n{\"c\"";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for piece in text.chunks(size) {
                lines.feed(piece, |line| seen.push(line.to_owned())).unwrap();
            }
            assert_eq!(seen, ["{\"a\":1}", "{\"b\":\"ä\"}"], "{size}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut lines = Lines::default();
        let piece = [b'x'; 4096];
        let fed = (0..).take_while(|_| lines.feed(&piece, |_| ()).is_ok()).count();
        assert_eq!(fed * piece.len(), MAX_OBJECT_BYTES);
        assert!(Lines::default().feed(b"\xff\n", |_| ()).is_err());
    }
}
