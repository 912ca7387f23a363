//! What becomes of a connection once it is accepted.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use selvedge_gateway::Picker;
use selvedge_gateway::http1::is_http2;
use selvedge_gateway::{Hello, server_name};
use selvedge_model::gateway::ListenerProtocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::forward::{Admission, Origin};
use super::shared::{Connection, Door, Guest, Slot, prepare};
use super::{http1, http2};

/// For a client to say who it wants, or to get TLS up.
const GREETING: Duration = Duration::from_secs(10);

/// The fatal alert of TLS that nobody of that name is here (RFC 6066, 3), in any version.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Carries one connection to its end.
pub(super) async fn welcome(slot: Rc<Slot>, stream: TcpStream, client: SocketAddr, guest: Guest) {
    let door = slot.door();
    slot.shared.count(&door, |counters| counters.connections += 1);
    prepare(&stream);
    let origin = Origin { client, port: door.listener.port, tls: None };
    let served = match door.listener.protocol {
        ListenerProtocol::Http => {
            drop(door);
            speak_http(slot.clone(), Box::new(stream), origin).await;
            true
        }
        ListenerProtocol::Https => match accept(&door, stream).await {
            Some((site, stream)) => {
                let tls = door.table.sites().get(site).map(|site| Rc::new(Admission::to(site)));
                drop(door);
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let origin = Origin { tls, ..origin };
                if http2 {
                    http2::serve(slot.clone(), Box::new(stream), Vec::new(), origin).await;
                } else {
                    speak_http(slot.clone(), Box::new(stream), origin).await;
                }
                true
            }
            None => false,
        },
        ListenerProtocol::TlsTerminate => match accept(&door, stream).await {
            Some((site, stream)) => {
                join(&slot, &door, Some(site), "", Box::new(stream), &[], client).await;
                true
            }
            None => false,
        },
        ListenerProtocol::Tls => pass_on(&slot, &door, stream, client).await,
        ListenerProtocol::Tcp => {
            join(&slot, &door, Some(0), "", Box::new(stream), &[], client).await;
            true
        }
        ListenerProtocol::Udp => false,
    };
    if !served {
        slot.shared.count(&slot.door(), |counters| counters.refused += 1);
    }
    drop(guest);
}

/// HTTP/2 if its preface comes, else HTTP/1.1.
async fn speak_http(slot: Rc<Slot>, mut io: Connection, origin: Origin) {
    let mut buffer = Vec::new();
    let deadline = Instant::now() + GREETING;
    let http2 = loop {
        match is_http2(&buffer) {
            Some(http2) => break http2,
            None => match timeout_at(deadline, io.read_buf(&mut buffer)).await {
                Ok(Ok(count)) if count > 0 => {}
                _ => return,
            },
        }
    };
    match http2 {
        true => http2::serve(slot, io, buffer, origin).await,
        false => http1::serve(slot, io, buffer, origin).await,
    }
}

/// Gets TLS up, with the site that the client names.
async fn accept(door: &Door, stream: TcpStream) -> Option<(usize, TlsStream<TcpStream>)> {
    let accepting = async {
        let mut start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.ok()?;
        let name = start.client_hello().server_name().unwrap_or_default().to_ascii_lowercase();
        let site = door.table.site(&name).filter(|i| matches!(door.tls.get(*i), Some(Some(_))));
        let config = site.and_then(|i| door.tls.get(i).cloned().flatten());
        let Some((site, config)) = site.zip(config) else {
            log::debug!("gateway: no certificate for \"{name}\"");
            let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
            return None;
        };
        match start.into_stream(config).await {
            Ok(stream) => Some((site, stream)),
            Err(error) => {
                log::debug!("gateway: TLS: {error}");
                None
            }
        }
    };
    timeout(GREETING, accepting).await.ok().flatten()
}

/// Passes TLS on to where its server name leads.
async fn pass_on(slot: &Rc<Slot>, door: &Door, mut stream: TcpStream, client: SocketAddr) -> bool {
    let mut buffer = Vec::new();
    let deadline = Instant::now() + GREETING;
    let name = loop {
        match server_name(&buffer) {
            Hello::Name(name) => break name,
            Hello::Nameless => break String::new(),
            Hello::Other => return false,
            Hello::More => match timeout_at(deadline, stream.read_buf(&mut buffer)).await {
                Ok(Ok(count)) if count > 0 => {}
                _ => return false,
            },
        }
    };
    let site = door.table.site(&name);
    if site.is_none() {
        let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
    }
    join(slot, door, site, &name, Box::new(stream), &buffer, client).await;
    true
}

/// Joins a connection with one to a backend, until both are at their end.
async fn join(
    slot: &Rc<Slot>,
    door: &Door,
    site: Option<usize>,
    host: &str,
    mut io: Connection,
    heard: &[u8],
    client: SocketAddr,
) {
    let shared = &slot.shared;
    let rule = site.and_then(|i| door.table.sites().get(i)).and_then(|site| site.connection(host));
    let Some(rule) = rule else { return shared.count(door, |counters| counters.unrouted += 1) };
    let backend = Picker::backend(&rule.backends, shared.random()).filter(|backend| !backend.invalid);
    let stream = match backend {
        Some(backend) => shared.connect_any(backend, client.ip()).await.ok(),
        None => None,
    };
    let Some(mut stream) = stream else { return shared.count(door, |counters| counters.failed += 1) };
    if stream.write_all(heard).await.is_ok() {
        let _ = tokio::io::copy_bidirectional(&mut io, &mut stream).await;
    }
}
