//! One question to an endpoint.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use selvedge_health::{Answer, Probe, Test};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// For the refusal of a datagram.
const REFUSAL: Duration = Duration::from_millis(300);

/// Asks the endpoint of a probe. The kernel's routes choose an own address that it can answer to.
pub(crate) async fn ask(probe: Probe) -> (Probe, Answer) {
    let (address, _, port) = probe.target;
    let to = SocketAddr::new(address, port);
    let asked = async {
        match &probe.test {
            Test::Tcp => reach(to).await.map(|_| Answer::Well),
            Test::Http(path) => get(to, path).await,
            Test::Udp => send(to).await,
        }
    };
    let answer = match timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => judge(&error),
        Err(_) => Answer::Silent,
    };
    (probe, answer)
}

fn judge(error: &io::Error) -> Answer {
    use io::ErrorKind::*;
    match error.kind() {
        ConnectionRefused | ConnectionReset | ConnectionAborted | UnexpectedEof | BrokenPipe => Answer::Refused,
        HostUnreachable | NetworkUnreachable => Answer::Unreachable,
        TimedOut => Answer::Silent,
        _ => {
            // It is our fault, and says nothing about the endpoint.
            log::debug!("an endpoint cannot be asked: {error}");
            Answer::Well
        }
    }
}

async fn reach(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    // No state stays behind, here or there, of connections that come every second.
    stream.set_zero_linger()?;
    Ok(stream)
}

async fn get(to: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = reach(to).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: selvedge-agent/1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = [0; b"HTTP/1.1 200".len()];
    stream.read_exact(&mut line).await?;
    Ok(match status(&line) {
        Some(100..400) => Answer::Well,
        Some(status) => Answer::Status(status),
        None => Answer::Refused,
    })
}

fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?.get(1..)?.strip_prefix(b" ")?;
    std::str::from_utf8(rest).ok()?.parse().ok()
}

/// A closed port refuses a datagram; an open one need not answer an empty one. That somebody is there at all, their TCP
/// says in either way.
async fn send(to: SocketAddr) -> io::Result<Answer> {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(to).await?;
    socket.send(&[]).await?;
    if let Ok(answer) = timeout(REFUSAL, socket.recv(&mut [0; 1])).await {
        return answer.map(|_| Answer::Well);
    }
    match reach(to).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Answer::Well),
        other => other.map(|_| Answer::Well),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use selvedge_model::Protocol;
    use tokio::net::TcpListener;

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    async fn answer(port: u16, test: Test) -> Answer {
        ask(Probe { target: (HOST, Protocol::Tcp, port), test, round: 0 }).await.1
    }

    /// Answers one request with this, and ends.
    async fn served(reply: &'static [u8]) -> Answer {
        let listener = TcpListener::bind((HOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 512];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(reply).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let answer = answer(port, Test::Http("/up?x".into())).await;
        let request = server.await.unwrap();
        assert!(
            request.starts_with("GET /up?x HTTP/1.1\r\nHost: 127.0.0.1:") && request.ends_with("\r\n\r\n"),
            "{request}"
        );
        answer
    }

    #[tokio::test]
    async fn http_is_judged_by_its_status() {
        assert_eq!(served(b"HTTP/1.1 204 No Content\r\n\r\n").await, Answer::Well);
        assert_eq!(served(b"HTTP/1.0 301 Moved\r\n\r\n").await, Answer::Well);
        assert_eq!(served(b"HTTP/1.1 503 No\r\n\r\n").await, Answer::Status(503));
        assert_eq!(served(b"SSH-2.0-OpenSSH_9.2\r\n").await, Answer::Refused);
        assert_eq!(served(b"").await, Answer::Refused);
    }

    #[tokio::test]
    async fn ports_are_open_or_closed() {
        let listener = TcpListener::bind((HOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(answer(port, Test::Tcp).await, Answer::Well);
        drop(listener);
        assert_eq!(answer(port, Test::Tcp).await, Answer::Refused);
        let udp = UdpSocket::bind((HOST, 0)).await.unwrap();
        let port = udp.local_addr().unwrap().port();
        assert_eq!(answer(port, Test::Udp).await, Answer::Well);
        drop(udp);
        assert_eq!(answer(port, Test::Udp).await, Answer::Refused);
    }
}
