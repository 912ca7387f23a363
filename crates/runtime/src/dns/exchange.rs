//! Sockets towards upstreams: one for each question, so that its port is as hard to guess as its number.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};

use selvedge_dns::Transmit;
use selvedge_linux::poll::Interest;
use selvedge_linux::tcp;

/// The longest datagram that is taken; more is never asked for.
pub(super) const MAX_DATAGRAM: usize = 4096;

pub(super) enum Exchange {
    Datagram(UdpSocket),
    Stream { stream: TcpStream, output: Vec<u8>, input: Vec<u8> },
}

impl Exchange {
    /// Sends what is to be sent, or begins to.
    pub(super) fn open(transmit: &Transmit) -> io::Result<Exchange> {
        if transmit.tcp {
            let stream = tcp::connect(transmit.upstream.address)?;
            return Ok(Exchange::Stream { stream, output: framed(&transmit.payload), input: Vec::new() });
        }
        let any = match transmit.upstream.address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(transmit.upstream.address)?;
        socket.send(&transmit.payload)?;
        Ok(Exchange::Datagram(socket))
    }

    pub(super) fn interest(&self) -> Interest {
        match self {
            Exchange::Datagram(socket) => Interest::readable(socket),
            Exchange::Stream { stream, output, .. } if output.is_empty() => Interest::readable(stream),
            Exchange::Stream { stream, .. } => Interest::readable(stream).or_writable(),
        }
    }

    /// Goes on. Gives the next answer, if a whole one is there.
    pub(super) fn advance<'a>(&'a mut self, buffer: &'a mut [u8; MAX_DATAGRAM]) -> io::Result<Option<&'a [u8]>> {
        match self {
            Exchange::Datagram(socket) => match socket.recv(buffer) {
                Ok(length) => Ok(buffer.get(..length)),
                Err(error) => none_yet(error),
            },
            Exchange::Stream { stream, output, input } => {
                if !output.is_empty() {
                    match stream.write(output) {
                        Ok(length) => drop(output.drain(..length)),
                        Err(error) => return none_yet(error),
                    }
                }
                match stream.read(buffer) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(length) => input.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                    Err(error) => return none_yet(error),
                }
                // The length in front bounds what is kept: 64 KiB and a buffer.
                Ok(whole(input))
            }
        }
    }
}

/// A message with its length in front (RFC 1035, 4.2.2).
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], message].concat()
}

/// The first message of a stream, if all of it is there.
pub(super) fn whole(stream: &[u8]) -> Option<&[u8]> {
    let (length, rest) = stream.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

fn none_yet<T>(error: io::Error) -> io::Result<Option<T>> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(None),
        _ => Err(error),
    }
}
