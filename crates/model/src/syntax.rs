//! Says where a text stops being JSON (RFC 8259), and bounds its nesting.

use crate::reader::{ConfigError, Result};

/// Deeper nesting than any configuration has.
const MAX_DEPTH: usize = 32;

/// `Ok` if the whole text is one JSON value; else an error with line and column.
pub(crate) fn check(text: &str) -> Result<()> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    scan.space();
    scan.value(0)
        .and_then(|()| {
            scan.space();
            if scan.at == scan.bytes.len() { Ok(()) } else { Err("text after the end of the document") }
        })
        .map_err(|problem| {
            let problem = if scan.at >= scan.bytes.len() { "the text ends too early" } else { problem };
            let before = &scan.bytes[..scan.at.min(scan.bytes.len())];
            let line = before.iter().filter(|b| **b == b'\n').count() + 1;
            let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
            ConfigError::new(format!("line {line}, column {column}"), format!("not JSON: {problem}"))
        })
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Outcome = std::result::Result<(), &'static str>;

impl Scan<'_> {
    fn value(&mut self, depth: usize) -> Outcome {
        if depth > MAX_DEPTH {
            return Err("nested too deeply");
        }
        match self.peek() {
            Some(b'{') => self.sequence(b'}', |scan| {
                scan.string()?;
                scan.space();
                scan.expect(b':', "expected ':'")?;
                scan.space();
                scan.value(depth + 1)
            }),
            Some(b'[') => self.sequence(b']', |scan| scan.value(depth + 1)),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => Err("expected a value"),
        }
    }

    fn sequence(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Outcome) -> Outcome {
        self.at += 1;
        self.space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b) if b == close => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err("expected ',' or the closing bracket"),
            }
            self.space();
        }
    }

    fn string(&mut self) -> Outcome {
        self.expect(b'"', "expected a string")?;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek().is_some_and(|b| b.is_ascii_hexdigit()) {
                                    return Err("expected four hexadecimal digits");
                                }
                                self.at += 1;
                            }
                        }
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        _ => return Err("unknown escape in a string"),
                    }
                }
                Some(0..=0x1f) => return Err("control character in a string"),
                Some(_) => self.at += 1,
                None => return Err("unterminated string"),
            }
        }
    }

    fn number(&mut self) -> Outcome {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1
        } else {
            self.digits()?
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Outcome {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err("expected a digit") }
    }

    fn literal(&mut self, word: &[u8]) -> Outcome {
        for byte in word {
            self.expect(*byte, "expected true, false or null")?;
        }
        Ok(())
    }

    fn expect(&mut self, byte: u8, problem: &'static str) -> Outcome {
        if self.peek() != Some(byte) {
            return Err(problem);
        }
        self.at += 1;
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
}
