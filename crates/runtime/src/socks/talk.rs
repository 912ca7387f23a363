//! What client and server say to each other before bytes pass.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::users::Users;

pub(super) const VERSION: u8 = 5;
pub(super) const NOBODY_ASKS: u8 = 0;
const BY_PASSWORD: u8 = 2;
const NOTHING_FITS: u8 = 0xff;
pub(super) const CONNECT: u8 = 1;
pub(super) const IPV4: u8 = 1;
pub(super) const NAME: u8 = 3;
pub(super) const IPV6: u8 = 4;

/// Before a wrong password is answered.
const DETERRENT: Duration = Duration::from_secs(1);

/// Either end of a client's connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A client that said where it wants to go.
pub(crate) struct Call {
    pub(super) stream: Box<dyn Stream>,
    pub(super) host: Host,
    pub(super) port: u16,
}

/// Whom a client wants to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Address(IpAddr),
    Name(String),
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Good = 0,
    Failure = 1,
    NotAllowed = 2,
    Unreachable = 4,
    Refused = 5,
    NoSuchCommand = 7,
    NoSuchAddress = 8,
}

impl Code {
    /// In words, for a person.
    pub(super) fn words(code: u8) -> &'static str {
        match code {
            2 => "no node, pod or Service of the fabric",
            4 => "it does not answer",
            5 => "it refuses the connection",
            _ => "the program that runs here cannot, yet",
        }
    }
}

/// Hears a client out. With `users`, it must be one of them.
pub(super) async fn hear(stream: &mut impl Stream, users: Option<&Users>) -> io::Result<(Host, u16)> {
    let [version, count] = bytes(stream).await?;
    let mut methods = vec![0; usize::from(count)];
    stream.read_exact(&mut methods).await?;
    let method = if users.is_some() { BY_PASSWORD } else { NOBODY_ASKS };
    if version != VERSION || !methods.contains(&method) {
        stream.write_all(&[VERSION, NOTHING_FITS]).await?;
        return Err(io::ErrorKind::Unsupported.into());
    }
    stream.write_all(&[VERSION, method]).await?;
    if let Some(users) = users {
        identify(stream, users).await?;
    }
    let [version, command, _, kind] = bytes(stream).await?;
    let host = match kind {
        IPV4 => Host::Address(Ipv4Addr::from(bytes::<4>(stream).await?).into()),
        IPV6 => Host::Address(Ipv6Addr::from(bytes::<16>(stream).await?).into()),
        NAME => {
            let [length] = bytes(stream).await?;
            let mut name = vec![0; usize::from(length)];
            stream.read_exact(&mut name).await?;
            Host::Name(String::from_utf8(name).map_err(|_| io::ErrorKind::InvalidData)?)
        }
        _ => return refuse(stream, Code::NoSuchAddress).await,
    };
    let port = u16::from_be_bytes(bytes(stream).await?);
    if version != VERSION || command != CONNECT {
        return refuse(stream, Code::NoSuchCommand).await;
    }
    Ok((host, port))
}

/// Answers a request.
pub(super) async fn reply(stream: &mut impl Stream, code: Code) -> io::Result<()> {
    stream.write_all(&[VERSION, code as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]).await
}

/// User name and password, RFC 1929.
async fn identify(stream: &mut impl Stream, users: &Users) -> io::Result<()> {
    const VERSION: u8 = 1;
    let [version, length] = bytes(stream).await?;
    let mut name = vec![0; usize::from(length)];
    stream.read_exact(&mut name).await?;
    let [length] = bytes(stream).await?;
    let mut password = Zeroizing::new(vec![0; usize::from(length)]);
    stream.read_exact(&mut password).await?;
    if version == VERSION && users.admit(&name, &password) {
        return stream.write_all(&[VERSION, 0]).await;
    }
    log::info!("a client of SOCKS5 gave a wrong name or password");
    tokio::time::sleep(DETERRENT).await;
    stream.write_all(&[VERSION, 1]).await?;
    Err(io::ErrorKind::PermissionDenied.into())
}

async fn refuse<T>(stream: &mut impl Stream, code: Code) -> io::Result<T> {
    reply(stream, code).await?;
    Err(io::ErrorKind::Unsupported.into())
}

async fn bytes<const N: usize>(stream: &mut impl Stream) -> io::Result<[u8; N]> {
    let mut read = [0; N];
    stream.read_exact(&mut read).await?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of what a client sends, and what it is sent.
    fn talk(sent: &[u8], users: Option<&Users>) -> (Option<(Host, u16)>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (mut client, mut server) = tokio::io::duplex(4096);
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            let heard = hear(&mut server, users).await.ok();
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            (heard, answer)
        })
    }

    fn users() -> Users {
        Users::parse("ann:secret\nbob:other\n").unwrap()
    }

    #[test]
    fn names_and_addresses_are_heard() {
        let (heard, answer) = talk(b"\x05\x01\x00\x05\x01\x00\x03\x06edge-2\x00\x16", None);
        assert_eq!(heard, Some((Host::Name("edge-2".into()), 22)));
        assert_eq!(answer, [5, 0]);
        let (heard, _) = talk(b"\x05\x02\x02\x00\x05\x01\x00\x01\x0a\x00\x00\x01\x01\xbb", None);
        assert_eq!(heard, Some((Host::Address("10.0.0.1".parse().unwrap()), 443)));
        let six = [b"\x05\x01\x00\x05\x01\x00\x04\xfd\x00".as_slice(), &[0; 13], &[1, 0, 80]].concat();
        assert_eq!(talk(&six, None).0, Some((Host::Address("fd00::1".parse().unwrap()), 80)));
    }

    #[test]
    fn users_must_prove_who_they_are() {
        let request = b"\x05\x01\x00\x03\x01x\x00\x16";
        let with = |login: &[u8]| talk(&[b"\x05\x01\x02", login, request].concat(), Some(&users()));
        let (heard, answer) = with(b"\x01\x03bob\x05other");
        assert_eq!((heard, answer.as_slice()), (Some((Host::Name("x".into()), 22)), &[5, 2, 1, 0][..]));
        for wrong in [&b"\x01\x03bob\x06secret"[..], b"\x01\x03eve\x05other", b"\x01\x00\x00", b"\x02\x03bob\x05other"]
        {
            let (heard, answer) = with(wrong);
            assert_eq!((heard, answer.as_slice()), (None, &[5, 2, 1, 1][..]));
        }
        let (heard, answer) = talk(&[b"\x05\x01\x00", &request[..]].concat(), Some(&users()));
        assert_eq!((heard, answer.as_slice()), (None, &[5, 0xff][..]));
    }

    #[test]
    fn whatever_else_comes_is_refused() {
        assert_eq!(talk(b"\x05\x01\x00\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x50", None).1[..4], [5, 0, 5, 7]);
        assert_eq!(talk(b"\x05\x01\x00\x05\x01\x00\x05\x00", None).1[..4], [5, 0, 5, 8]);
        assert_eq!(talk(b"\x05\x01\x00\x05\x01\x00\x03\x01\xff\x00\x50", None).0, None);
        assert_eq!(talk(b"\x04\x01\x00\x50", None).0, None);
        let whole = b"\x05\x01\x00\x05\x01\x00\x03\x06edge-2\x00\x16";
        for length in 0..whole.len() {
            assert_eq!(talk(&whole[..length], None).0, None, "{length}");
        }
    }
}
