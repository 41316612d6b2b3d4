//! A running `sha-api serve` on a port of its own, and clients that say exactly what they are told to.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned};

use super::Sandbox;

/// How long anything may take before a test gives up.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A server that ends with the test.
pub struct Server {
    pub sandbox: Sandbox,
    pub address: SocketAddr,
    child: Child,
    https: bool,
}

/// One connection to the server.
pub struct Client(Box<dyn Transport>);

pub trait Transport: Read + Write + Send {}
impl<T: Read + Write + Send> Transport for T {}

/// A reply, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Server {
    /// Plain HTTP, and ready.
    pub fn http(flags: &[&str]) -> Self {
        Self::start(Sandbox::new(), &[&["--http"], flags].concat())
    }

    /// HTTPS, and ready.
    pub fn https(flags: &[&str]) -> Self {
        Self::start(Sandbox::new(), flags)
    }

    /// On a store that is there, and ready.
    pub fn start(sandbox: Sandbox, flags: &[&str]) -> Self {
        let server = Self::spawn(sandbox, flags);
        server.wait_ready();
        server
    }

    /// Listening; the store may not be open yet.
    pub fn spawn(sandbox: Sandbox, flags: &[&str]) -> Self {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sha-api"));
        command.env_clear().env("HOME", sandbox.dir()).env("SHA_API_STORE", sandbox.location());
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(flags).args(tls_cert_flags(&sandbox, flags));
        let stderr = fs::File::create(sandbox.dir().join("stderr")).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some((scheme, address)) = line.trim().strip_prefix("listening on ").and_then(|url| url.split_once("://"))
        else {
            panic!("{line:?} {}", fs::read_to_string(sandbox.dir().join("stderr")).unwrap());
        };
        Self { address: address.parse().unwrap(), https: scheme == "https", child, sandbox }
    }

    /// Waits until the store and all doors are open.
    pub fn wait_ready(&self) {
        wait_until("the server is ready", || self.get("/readyz").status == 200);
    }

    /// A connection of the kind that the server speaks.
    pub fn client(&self) -> Client {
        if self.https { self.tls_client(None) } else { self.plain_client() }
    }

    /// A connection without TLS.
    pub fn plain_client(&self) -> Client {
        Client::connect(self.address, None)
    }

    /// A connection with TLS that trusts the server's own certificate only. `alpn`: what it offers.
    pub fn tls_client(&self, alpn: Option<&str>) -> Client {
        let mut config = client_config_trusting(&self.self_signed_cert_path()).with_no_client_auth();
        config.alpn_protocols.extend(alpn.map(|name| name.as_bytes().to_vec()));
        self.tls_client_with(config)
    }

    /// A connection with TLS, just so.
    pub fn tls_client_with(&self, config: ClientConfig) -> Client {
        Client(Box::new(StreamOwned::new(client_connection(config), self.tcp_stream())))
    }

    /// A connection of the kind that the server speaks, over this socket.
    pub fn client_over(&self, stream: TcpStream) -> Client {
        match self.https {
            true => {
                let config = client_config_trusting(&self.self_signed_cert_path()).with_no_client_auth();
                Client(Box::new(StreamOwned::new(client_connection(config), stream)))
            }
            false => Client(Box::new(stream)),
        }
    }

    /// Waits until the local door is open, and says where.
    pub fn wait_local_socket(&self) -> PathBuf {
        let path = self.sandbox.store().join("sha-api.sock");
        wait_until("the local door is open", || path.exists() && UnixStream::connect(&path).is_ok());
        path
    }

    /// A connection to the local door.
    pub fn local_client(&self) -> Client {
        let stream = UnixStream::connect(self.wait_local_socket()).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
        Client(Box::new(stream))
    }

    /// A bare socket.
    pub fn tcp_stream(&self) -> TcpStream {
        connect_tcp(self.address)
    }

    /// The certificate that it makes for itself.
    fn self_signed_cert_path(&self) -> PathBuf {
        self.sandbox.store().join("tls/cert.pem")
    }

    /// The same, if it speaks TLS.
    pub fn cert_path(&self) -> Option<PathBuf> {
        self.https.then(|| self.self_signed_cert_path())
    }

    /// One GET on a connection of its own.
    pub fn get(&self, path: &str) -> Response {
        self.client().call(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    }

    /// Puts a message on a connection of its own and answers with its path.
    pub fn put(&self, message: &str) -> String {
        let reply = self.client().call(&post_request(message, "Connection: close\r\n"));
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.header("Location").unwrap().to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub fn read_stderr(&self) -> String {
        fs::read_to_string(self.sandbox.dir().join("stderr")).unwrap()
    }

    /// How many threads it has and how many files are open in it.
    pub fn resource_usage(&self) -> (usize, usize) {
        let count = |what| fs::read_dir(format!("/proc/{}/{what}", self.child.id())).unwrap().count();
        (count("task"), count("fd"))
    }

    /// Waits until it weighs no more than it did.
    pub fn wait_resources_released(&self, before: (usize, usize)) {
        wait_until("threads and files are given back", || {
            let now = self.resource_usage();
            now.0 <= before.0 && now.1 <= before.1
        });
    }

    /// Puts and gets, as a client without any malice does.
    pub fn assert_healthy(&self) {
        let path = self.put("a healthy message");
        assert_eq!(self.get(&path).text(), r#"{"message": "a healthy message"}"#);
    }
}

/// A server on a database makes no certificate: one is laid where it would be, if it is needed.
fn tls_cert_flags(sandbox: &Sandbox, flags: &[&str]) -> Vec<PathBuf> {
    if sandbox.url.is_none() || flags.iter().any(|flag| ["--http", "--tls-cert"].contains(flag)) {
        return Vec::new();
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (dir, file) = (sandbox.store().join("tls"), sandbox.store().join("tls/cert.pem"));
    fs::create_dir_all(dir).unwrap();
    fs::write(&file, made.cert.pem() + &made.signing_key.serialize_pem()).unwrap();
    vec!["--tls-cert".into(), file]
}

fn connect_tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream
}

/// The client's side of TLS, before a word is said.
pub fn client_connection(config: ClientConfig) -> ClientConnection {
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// TLS that trusts the certificate in a file and no other.
pub fn client_config_trusting(cert: &Path) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client {
    /// A connection to any address; `cert` is what is trusted, if it speaks TLS.
    pub fn connect(address: SocketAddr, cert: Option<&Path>) -> Self {
        let stream = connect_tcp(address);
        match cert {
            Some(cert) => Self(Box::new(StreamOwned::new(
                client_connection(client_config_trusting(cert).with_no_client_auth()),
                stream,
            ))),
            None => Self(Box::new(stream)),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
        self.0.flush().unwrap();
    }

    /// Sends, though the server may have hung up.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).and_then(|()| self.0.flush()).is_ok()
    }

    /// Sends a request that is not HEAD and reads the reply.
    pub fn call(&mut self, request: &str) -> Response {
        self.call_bytes(request)
    }

    /// The same with a body that may be anything.
    pub fn call_bytes(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.read_response()
    }

    /// The head of the next reply.
    pub fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&head)));
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// The next reply, which is not one to HEAD.
    pub fn read_response(&mut self) -> Response {
        let head = self.read_head();
        self.read_response_body(head)
    }

    /// The reply that has this head.
    pub fn read_response_body(&mut self, head: String) -> Response {
        let mut reply = Response::from_head(head, Vec::new());
        let length = reply.header("Content-Length").map_or(0, |length| length.parse().unwrap());
        reply.body.resize(length, 0);
        self.0.read_exact(&mut reply.body).unwrap();
        reply
    }

    /// Everything until the server hangs up. How it hangs up does not matter.
    pub fn read_until_close(&mut self) -> String {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the server does not hang up"),
            _ => String::from_utf8(rest).unwrap(),
        }
    }
}

impl Response {
    fn from_head(head: String, body: Vec<u8>) -> Self {
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{head:?}"));
        Self { status, head, body }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.into_iter().find(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1)
    }
}

/// A request that puts `message`, which needs no escaping.
pub fn post_request(message: &str, fields: &str) -> String {
    let body = format!("{{\"message\": \"{message}\"}}");
    let length = body.len();
    format!(
        "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    )
}

/// A request with a body, on a connection that may go on.
pub fn build_request(method: &str, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Waits until something is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < TEST_TIMEOUT, "not within {TEST_TIMEOUT:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
