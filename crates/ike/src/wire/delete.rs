//! The delete payload (RFC 7296 section 3.11).

use super::{Protocol, Reader, WireError};

/// What the sender deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delete {
    /// The IKE SA that carries the message.
    Ike,
    /// ESP SAs, by the SPIs the sender expects in inbound packets.
    Esp(Vec<u32>),
    Other,
}

impl Delete {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let protocol = Protocol::from_number(reader.u8()?);
        let spi_len = usize::from(reader.u8()?);
        let count = usize::from(reader.u16()?);
        let spis = reader.rest();
        if spis.len() != spi_len * count {
            return Err(WireError::Malformed("delete"));
        }
        Ok(match protocol {
            Some(Protocol::Ike) => Self::Ike,
            Some(Protocol::Esp) if spi_len == 4 => {
                let mut spis = Reader::new(spis);
                Self::Esp((0..count).map(|_| spis.u32()).collect::<Result<_, _>>()?)
            }
            _ => Self::Other,
        })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ike => out.extend_from_slice(&[Protocol::Ike.number(), 0, 0, 0]),
            Self::Esp(spis) => {
                out.extend_from_slice(&[Protocol::Esp.number(), 4]);
                out.extend_from_slice(&u16::try_from(spis.len()).unwrap_or(u16::MAX).to_be_bytes());
                for spi in spis {
                    out.extend_from_slice(&spi.to_be_bytes());
                }
            }
            Self::Other => out.extend_from_slice(&[0; 4]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        for (bytes, delete) in
            [(&[1, 0, 0, 0][..], Delete::Ike), (&[3, 4, 0, 2, 0, 0, 1, 0, 0, 0, 1, 1], Delete::Esp(vec![256, 257]))]
        {
            assert_eq!(Delete::parse(bytes).as_ref(), Ok(&delete));
            let mut out = Vec::new();
            delete.emit(&mut out);
            assert_eq!(out, bytes);
        }
        assert_eq!(Delete::parse(&[3, 4, 0, 2, 0, 0, 1, 0]), Err(WireError::Malformed("delete")));
        assert_eq!(Delete::parse(&[2, 4, 0, 1, 0, 0, 1, 0]), Ok(Delete::Other));
    }
}
