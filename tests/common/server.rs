//! A running `sha-api serve` on a free port, and HTTP clients that send exactly the given bytes.

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

/// Maximum time that a test waits for any event.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server. The process is killed on drop.
pub struct Server {
    pub sandbox: Sandbox,
    pub address: SocketAddr,
    child: Child,
    https: bool,
}

/// A connection to the server.
pub struct Client(Box<dyn Transport>);

/// A byte stream to the server: TCP, TLS or a Unix socket.
pub trait Transport: Read + Write + Send {}
impl<T: Read + Write + Send> Transport for T {}

/// A parsed response. `head` includes the status line.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Server {
    /// Starts a server with plain HTTP on an empty store and waits until it is ready.
    pub fn http(flags: &[&str]) -> Self {
        Self::start(Sandbox::new(), &[&["--http"], flags].concat())
    }

    /// Starts a server with HTTPS on an empty store and waits until it is ready.
    pub fn https(flags: &[&str]) -> Self {
        Self::start(Sandbox::new(), flags)
    }

    /// Starts a server on the store of `sandbox` and waits until it is ready.
    pub fn start(sandbox: Sandbox, flags: &[&str]) -> Self {
        let server = Self::spawn(sandbox, flags);
        server.wait_ready();
        server
    }

    /// Starts a server on the store of `sandbox` and waits until it listens. The store may not be open yet.
    pub fn spawn(sandbox: Sandbox, flags: &[&str]) -> Self {
        Self::spawn_on(sandbox, "127.0.0.1:0", flags)
    }

    /// Starts a server as [`Server::spawn`] does, which listens on `address`.
    pub fn spawn_on(sandbox: Sandbox, address: &str, flags: &[&str]) -> Self {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sha-api"));
        command.env_clear().env("HOME", sandbox.dir()).env("SHA_API_STORE", sandbox.location());
        command.args(["serve", "--listen", address]).args(flags).args(tls_cert_flags(&sandbox, flags));
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

    /// Waits until the store and all listeners are open.
    pub fn wait_ready(&self) {
        wait_until("the server is ready", || self.get("/readyz").status == 200);
    }

    /// Opens a connection with the protocol of the server: plain HTTP or HTTPS.
    pub fn client(&self) -> Client {
        self.client_over(self.tcp_stream())
    }

    /// Opens a connection without TLS.
    pub fn plain_client(&self) -> Client {
        Client::connect(self.address, None)
    }

    /// Opens a TLS connection that trusts only the certificate of this server and offers the ALPN protocol `alpn`.
    pub fn tls_client(&self, alpn: Option<&str>) -> Client {
        let mut config = client_config_trusting(&self.self_signed_cert_path()).with_no_client_auth();
        config.alpn_protocols.extend(alpn.map(|name| name.as_bytes().to_vec()));
        self.tls_client_with(config)
    }

    /// Opens a TLS connection with `config`.
    pub fn tls_client_with(&self, config: ClientConfig) -> Client {
        Client(Box::new(StreamOwned::new(client_connection(config), self.tcp_stream())))
    }

    /// Returns a connection over `stream` with the protocol of the server: plain HTTP or HTTPS.
    pub fn client_over(&self, stream: TcpStream) -> Client {
        Client::over(stream, self.cert_path().as_deref())
    }

    /// Waits until the local socket accepts connections, and returns its path.
    pub fn wait_local_socket(&self) -> PathBuf {
        let path = self.sandbox.store().join("sha-api.sock");
        wait_until("the local socket is open", || path.exists() && UnixStream::connect(&path).is_ok());
        path
    }

    /// Opens a connection to the local socket.
    pub fn local_client(&self) -> Client {
        let stream = UnixStream::connect(self.wait_local_socket()).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
        Client(Box::new(stream))
    }

    /// Opens a TCP connection.
    pub fn tcp_stream(&self) -> TcpStream {
        connect_tcp(self.address)
    }

    /// Returns the path of the self-signed certificate, which exists only if the server uses HTTPS.
    pub fn self_signed_cert_path(&self) -> PathBuf {
        self.sandbox.store().join("tls/cert.pem")
    }

    /// Returns the path of the self-signed certificate if the server uses HTTPS.
    pub fn cert_path(&self) -> Option<PathBuf> {
        self.https.then(|| self.self_signed_cert_path())
    }

    /// Sends a GET request on a new connection.
    pub fn get(&self, path: &str) -> Response {
        self.client().call(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    }

    /// Puts a message on a new connection and returns its path. Panics unless the status is 200.
    pub fn put(&self, message: &str) -> String {
        let response = self.client().call(&post_request(message, "Connection: close\r\n"));
        assert_eq!(response.status, 200, "{}", response.text());
        response.header("Location").unwrap().to_owned()
    }

    /// Sends `signal` to the process.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Returns the process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until the process has exited, and returns its exit status.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the server exits", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Returns the stderr of the process so far.
    pub fn read_stderr(&self) -> String {
        fs::read_to_string(self.sandbox.dir().join("stderr")).unwrap()
    }

    /// Returns the numbers of threads and of open file descriptors of the process.
    pub fn resource_usage(&self) -> (usize, usize) {
        let count = |name| fs::read_dir(format!("/proc/{}/{name}", self.child.id())).unwrap().count();
        (count("task"), count("fd"))
    }

    /// Waits until the process has no more threads and open file descriptors than `before`.
    pub fn wait_resources_released(&self, before: (usize, usize)) {
        wait_until("threads and file descriptors are released", || {
            let (threads, descriptors) = self.resource_usage();
            threads <= before.0 && descriptors <= before.1
        });
    }

    /// Asserts that a message can be put and read back.
    pub fn assert_healthy(&self) {
        let path = self.put("a healthy message");
        assert_eq!(self.get(&path).text(), r#"{"message": "a healthy message"}"#);
    }
}

/// Creates a self-signed certificate for a server on a database, which does not create one itself, and returns the
/// flags that name it. Returns no flags if the server needs no certificate.
fn tls_cert_flags(sandbox: &Sandbox, flags: &[&str]) -> Vec<PathBuf> {
    if sandbox.url.is_none() || flags.iter().any(|flag| ["--http", "--tls-cert"].contains(flag)) {
        return Vec::new();
    }
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (dir, file) = (sandbox.store().join("tls"), sandbox.store().join("tls/cert.pem"));
    fs::create_dir_all(dir).unwrap();
    fs::write(&file, pair.cert.pem() + &pair.signing_key.serialize_pem()).unwrap();
    vec!["--tls-cert".into(), file]
}

fn connect_tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream
}

/// Creates the client side of a TLS session to `localhost`. No byte is sent yet.
pub fn client_connection(config: ClientConfig) -> ClientConnection {
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// Returns a TLS client configuration that trusts only the certificate in the file `cert`.
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
    /// Opens a connection to `address`. With `cert`, the connection uses TLS and trusts only this certificate.
    pub fn connect(address: SocketAddr, cert: Option<&Path>) -> Self {
        Self::over(connect_tcp(address), cert)
    }

    /// Returns a connection over `stream`. With `cert`, the connection uses TLS and trusts only this certificate.
    fn over(stream: TcpStream, cert: Option<&Path>) -> Self {
        match cert {
            Some(cert) => Self(Box::new(StreamOwned::new(
                client_connection(client_config_trusting(cert).with_no_client_auth()),
                stream,
            ))),
            None => Self(Box::new(stream)),
        }
    }

    /// Sends `bytes`. Panics if the connection is closed.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
        self.0.flush().unwrap();
    }

    /// Sends `bytes`. Returns `false` if the server has closed the connection.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).and_then(|()| self.0.flush()).is_ok()
    }

    /// Sends a request other than HEAD and reads the response.
    pub fn call(&mut self, request: &str) -> Response {
        self.call_bytes(request)
    }

    /// Sends a request other than HEAD, whose body need not be UTF-8, and reads the response.
    pub fn call_bytes(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.read_response()
    }

    /// Reads the head of the next response.
    pub fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&head)));
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// Reads the next response, which must not be the response to a HEAD request.
    pub fn read_response(&mut self) -> Response {
        let head = self.read_head();
        self.read_response_body(head)
    }

    /// Reads the body that follows `head` and returns the whole response.
    pub fn read_response_body(&mut self, head: String) -> Response {
        let mut response = Response::from_head(head, Vec::new());
        let length = response.header("Content-Length").map_or(0, |length| length.parse().unwrap());
        response.body.resize(length, 0);
        self.0.read_exact(&mut response.body).unwrap();
        response
    }

    /// Reads until the server closes or resets the connection.
    pub fn read_until_close(&mut self) -> String {
        let mut received = Vec::new();
        match self.0.read_to_end(&mut received) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the server does not close the connection")
            }
            _ => String::from_utf8(received).unwrap(),
        }
    }
}

impl Response {
    fn from_head(head: String, body: Vec<u8>) -> Self {
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{head:?}"));
        Self { status, head, body }
    }

    /// Returns the body as UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Returns the value of the first header field `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.into_iter().find(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1)
    }
}

/// Returns a POST request that puts `message`, which must need no JSON escapes. Each line of `fields` ends with CRLF.
pub fn post_request(message: &str, fields: &str) -> String {
    let body = format!("{{\"message\": \"{message}\"}}");
    let length = body.len();
    format!(
        "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    )
}

/// Returns a request with a body. Each line of `fields` ends with CRLF. The connection stays open after the response.
pub fn build_request(method: &str, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Waits until `condition` returns `true`. Panics with `description` after [`TEST_TIMEOUT`].
pub fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TEST_TIMEOUT, "not within {TEST_TIMEOUT:?}: {description}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
