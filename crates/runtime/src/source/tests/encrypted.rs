//! Requests over TLS, and what of a server is not trusted.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;

use crate::clock::Clock;
use crate::source::http::{Client, Server};

/// An authority, in PEM and to sign with.
fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
}

/// Answers every request with what it was asked and by whom. Returns its port.
fn serve(issuer: &Issuer<'_, KeyPair>) -> u16 {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            let lines = BufReader::new(&mut stream).lines();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let body = head.join("\n");
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    port
}

fn ask(url: &str, ca_file: Option<&Path>, token_file: Option<&Path>) -> Result<String, String> {
    let file = |path: Option<&Path>| path.map(Path::to_owned);
    let server = Server { url: url.to_owned(), ca_file: file(ca_file), token_file: file(token_file) };
    let client = Client::new(&server, "selvedge-agent/1", Clock::new(Path::new("/nowhere")), true);
    let answer = client.and_then(|client| client.get("/version?x=y")).and_then(|answer| answer.read(4096));
    answer.map(|body| String::from_utf8(body.to_vec()).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn only_a_server_of_the_authority_gets_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (pem, issuer) = authority();
    let port = serve(&issuer);
    std::fs::write(path("ca"), pem).unwrap();
    std::fs::write(path("other"), authority().0).unwrap();
    std::fs::write(path("token"), "sesame\n").unwrap();
    let (url, token) = (format!("https://127.0.0.1:{port}"), path("token"));
    let head = ask(&url, Some(&path("ca")), Some(&token)).unwrap();
    assert!(head.starts_with("GET /version?x=y HTTP/1.1\n") && head.contains("Bearer sesame"), "{head}");

    let error = |url: &str, ca: Option<&Path>| ask(url, ca, Some(&token)).unwrap_err();
    let unknown = error(&url, Some(&path("other")));
    assert!(
        unknown.starts_with(&format!("{url}/version: ")) && unknown.contains("invalid peer certificate"),
        "{unknown}"
    );
    let name = error(&format!("https://localhost:{port}"), Some(&path("ca")));
    assert!(name.contains("not valid for name"), "{name}");
    let untrusting = error(&url, None);
    assert!(untrusting.contains("--ca-file"), "{untrusting}");
    let missing = error(&url, Some(&path("none")));
    assert!(missing.contains("No such file"), "{missing}");
}

#[test]
fn what_is_no_token_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    for text in ["", "\n", "two words", "line\r\nX-Evil: yes", "\u{e4}"] {
        std::fs::write(&token, text).unwrap();
        let error = ask("http://127.0.0.1:1", None, Some(&token)).unwrap_err();
        assert_eq!(error, format!("{}: holds no token", token.display()), "{text}");
    }
}
