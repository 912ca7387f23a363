//! An HTTP client as small as a device's.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

pub struct Identity {
    pub chain: String,
    pub key: String,
}

pub struct Client(BufReader<StreamOwned<ClientConnection, TcpStream>>);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

impl Client {
    pub fn connect(address: SocketAddr, trust: &str, identity: Option<&Identity>) -> io::Result<Client> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(trust.as_bytes()) {
            roots.add(authority.unwrap()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        let name = "selvedge-operator".try_into().unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        Ok(Client(BufReader::new(StreamOwned::new(connection, TcpStream::connect(address)?))))
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        self.try_request(method, path, headers, body).unwrap()
    }

    pub fn try_request(&mut self, method: &str, path: &str, headers: &str, body: &str) -> io::Result<Answer> {
        self.send(method, path, headers, body)?;
        self.receive()
    }

    pub fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) -> io::Result<()> {
        let host = if headers.contains("Host:") { "" } else { "Host: x\r\n" };
        let length = body.len();
        let text = format!("{method} {path} HTTP/1.1\r\n{host}{headers}Content-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(text.as_bytes())?;
        self.0.get_mut().flush()
    }

    pub fn receive(&mut self) -> io::Result<Answer> {
        let status = self.line()?.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        self.0.by_ref().take(length).read_to_string(&mut answer.body)?;
        Ok(answer)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}
