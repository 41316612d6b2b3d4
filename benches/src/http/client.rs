//! A minimal HTTPS client: one connection, full handshakes, GET only.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Read timeout; longer than anything that is measured.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to one server on the loopback interface.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    port: u16,
}

pub struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    /// Creates a client that trusts `certificate` and connects to `port`.
    pub fn new(certificate: &Path, port: u16) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config), port }
    }

    pub fn connect(&self) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Connection(StreamOwned::new(ClientConnection::new(self.config.clone(), name).unwrap(), stream))
    }
}

impl Connection {
    /// Sends a GET request and returns the status and the body.
    pub fn get(&mut self, path: &str) -> (u16, String) {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut reply = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&reply);
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && body.len() >= length(head)
            {
                return (head[9..12].parse().unwrap(), body.to_owned());
            }
            let mut part = [0; 4096];
            let read = self.0.read(&mut part).unwrap();
            assert!(read > 0, "the connection was closed");
            reply.extend_from_slice(&part[..read]);
        }
    }
}

fn length(head: &str) -> usize {
    let head = head.to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.unwrap().trim().parse().unwrap()
}
