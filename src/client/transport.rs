//! One request and its response, with failover and retries. If a server fails, the next one is tried; if a server is
//! not ready, the request is repeated until a deadline. Every request is idempotent, so it may be sent twice.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::CertificateError;
use ureq::config::{Config, ConfigBuilder};
use ureq::http::{HeaderValue, Method, Request};
use ureq::{Agent, Timeout};

use super::address::Address;
use super::options::Options;
use super::request::ApiRequest;
use super::response::ApiResponse;
use super::unix::{NoopResolver, UnixConnector};
use super::{proxy, tls};
use crate::message_store::Error;

/// Maximum time to establish a connection; less if the read timeout is shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum response length in bytes for a request without a body. The response may be a message of up to 4 GiB.
const MAX_MESSAGE_RESPONSE: u64 = 1 << 32;
/// Maximum response length in bytes for a request with a body.
const MAX_JSON_RESPONSE: u64 = 64 << 20;
/// Minimum length in bytes of a PUT body that is sent with `Expect: 100-continue`.
const EXPECT_CONTINUE_MIN: usize = 256 << 10;
/// Time to wait for `100 Continue` before the body is sent anyway.
const EXPECT_CONTINUE_TIMEOUT: Duration = Duration::from_secs(3);

/// Servers with the same store. Requests go to the server that answered last.
#[derive(Debug)]
pub(super) struct Failover {
    servers: Vec<Server>,
    /// Index of the server that answered last.
    current: AtomicUsize,
    ready_timeout: Duration,
}

#[derive(Debug)]
struct Server {
    name: String,
    /// URL without a path.
    base_url: String,
    /// Store directory, or URL of the server, for [`Error::NoSpace`].
    store: PathBuf,
    agent: Agent,
    authorization: Option<HeaderValue>,
    read_timeout: Duration,
    /// URL of the proxy without password, for error messages.
    proxy_url: Option<String>,
}

impl Failover {
    pub(super) fn new(addresses: &[Address], options: &Options) -> Result<Self, Error> {
        let servers = addresses.iter().map(|address| Server::new(address, options)).collect::<Result<_, _>>()?;
        Ok(Self { servers, current: AtomicUsize::new(0), ready_timeout: options.ready_timeout })
    }

    /// Creates a transport over `stream` to the server that holds the store at `dir`. The socket requires no token.
    pub(super) fn via_local_socket(dir: PathBuf, socket: PathBuf, stream: UnixStream, options: &Options) -> Self {
        let mut server = Server::from_socket(socket, Some(stream), options);
        server.store = dir;
        Self { servers: vec![server], current: AtomicUsize::new(0), ready_timeout: options.ready_timeout }
    }

    /// Sends a request and returns the response of the first server that is ready, whatever its status. Blocks.
    pub(super) fn send(&self, request: &ApiRequest) -> Result<ApiResponse, Error> {
        let deadline = Instant::now() + self.ready_timeout;
        loop {
            let (mut pause, mut errors) = (None, Vec::new());
            let first = self.current.load(Ordering::Relaxed);
            for index in (first..self.servers.len()).chain(0..first) {
                match self.servers[index].send(request) {
                    Ok(response) => {
                        let Some(retry_after) = response.retry_after() else {
                            self.current.store(index, Ordering::Relaxed);
                            return Ok(response);
                        };
                        pause = pause.max(Some(retry_after));
                        errors.push(response.to_error());
                    }
                    Err(error) => errors.push(error),
                }
            }
            let remaining = deadline.saturating_duration_since(Instant::now());
            match pause {
                Some(pause) if !remaining.is_zero() => std::thread::sleep(pause.min(remaining)),
                _ => return Err(combine_errors(errors)),
            }
        }
    }
}

/// Joins the errors of all servers. A single error is returned unchanged.
fn combine_errors(mut errors: Vec<Error>) -> Error {
    let last = errors.pop().expect("there is at least one server");
    if errors.is_empty() {
        return last;
    }
    errors.push(last);
    Error::Unusable(errors.iter().map(Error::to_string).collect::<Vec<_>>().join("; "))
}

impl Server {
    fn new(address: &Address, options: &Options) -> Result<Self, Error> {
        let authorization = options.token.as_ref().map(|token| HeaderValue::from_str(&format!("Bearer {}", token.0)));
        let authorization = authorization.transpose().map_err(|_| {
            Error::Unusable("invalid SHA_API_TOKEN: it contains a control or non-ASCII character".to_owned())
        })?;
        let mut server = match address {
            Address::Socket(path) => Self::from_socket(path.clone(), None, options),
            Address::Url(url) => {
                let proxy = proxy::proxy_for(url)?;
                let proxy_url = proxy.as_ref().map(proxy::redacted);
                let is_tls = url.https || proxy_url.as_ref().is_some_and(|proxy| proxy.starts_with("https:"));
                let tls = if is_tls { tls::config(&options.tls)? } else { tls::disabled() };
                let base_url = url.to_string();
                Self {
                    name: base_url.clone(),
                    store: PathBuf::from(&base_url),
                    base_url,
                    agent: agent_config(options.read_timeout).tls_config(tls).proxy(proxy).build().new_agent(),
                    authorization: None,
                    read_timeout: options.read_timeout,
                    proxy_url,
                }
            }
        };
        server.authorization = authorization;
        Ok(server)
    }

    fn from_socket(socket: PathBuf, established: Option<UnixStream>, options: &Options) -> Self {
        let name = format!("unix:{}", socket.display());
        let config = agent_config(options.read_timeout).proxy(None).build();
        Self {
            store: PathBuf::from(&name),
            name,
            base_url: "http://localhost".to_owned(),
            agent: Agent::with_parts(config, UnixConnector::new(socket, established), NoopResolver),
            authorization: None,
            read_timeout: options.read_timeout,
            proxy_url: None,
        }
    }

    fn send(&self, request: &ApiRequest) -> Result<ApiResponse, Error> {
        let outcome = match self.send_once(request) {
            // The server may have closed a pooled connection while it was idle.
            Err(ureq::Error::Io(error)) if is_connection_closed(error.kind()) => self.send_once(request),
            outcome => outcome,
        };
        outcome.map_err(|error| {
            let proxy = self.proxy_url.as_ref().map_or_else(String::new, |url| format!("through the proxy {url}: "));
            Error::Server { server: self.name.clone(), cause: proxy + &self.describe_error(&error) }
        })
    }

    fn send_once(&self, request: &ApiRequest) -> Result<ApiResponse, ureq::Error> {
        let mut builder = Request::builder().method(&request.method).uri(format!("{}{}", self.base_url, request.path));
        builder = builder.header("Accept", request.accept);
        if let Some(authorization) = &self.authorization {
            builder = builder.header("Authorization", authorization);
        }
        let response = match request.content_type {
            "" => self.agent.run(builder.body(())?),
            content_type => {
                builder = builder.header("Content-Type", content_type);
                if request.body.len() >= EXPECT_CONTINUE_MIN && request.method == Method::PUT {
                    builder = builder.header("Expect", "100-continue");
                }
                self.agent.run(builder.body(&request.body[..])?)
            }
        }?;
        let (head, body) = response.into_parts();
        let limit = if request.content_type.is_empty() { MAX_MESSAGE_RESPONSE } else { MAX_JSON_RESPONSE };
        let body = body.into_with_config().limit(limit).read_to_vec()?;
        let (server, store) = (self.name.clone(), self.store.clone());
        Ok(ApiResponse { status: head.status.as_u16(), headers: head.headers, body, server, store })
    }

    fn describe_error(&self, error: &ureq::Error) -> String {
        let display = humantime::format_duration;
        match error {
            ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(tls_error) => describe_tls_error(tls_error),
                None if error.kind() == ErrorKind::UnexpectedEof => "connection closed by server".to_owned(),
                None => error.to_string(),
            },
            ureq::Error::Rustls(error) => describe_tls_error(error),
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                format!("connection timed out after {}", display(self.read_timeout.min(CONNECT_TIMEOUT)))
            }
            ureq::Error::Timeout(_) => {
                format!("no response within {}; raise --read-timeout", display(self.read_timeout))
            }
            ureq::Error::HostNotFound => "host not found".to_owned(),
            // The text of the error ends with the status, if the proxy sent one.
            ureq::Error::ConnectProxyFailed(text) => match text.rsplit_once('/') {
                Some((_, "407")) => "proxy authentication required (407)".to_owned(),
                Some((_, status)) => format!("CONNECT rejected by proxy ({status})"),
                None => "connection closed by proxy".to_owned(),
            },
            ureq::Error::Protocol(error) => format!("invalid HTTP/1.1 response: {error}"),
            error => error.to_string(),
        }
    }
}

fn describe_tls_error(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "certificate signed by unknown authority; use --cacert".to_owned()
        }
        rustls::Error::InvalidCertificate(error) => format!("invalid server certificate: {error}"),
        error => format!("TLS error: {error}"),
    }
}

const fn is_connection_closed(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Returns the configuration that is common to all connections.
fn agent_config(timeout: Duration) -> ConfigBuilder<ureq::typestate::AgentScope> {
    Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("sha-api/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(timeout.min(CONNECT_TIMEOUT)))
        .timeout_await_100(Some(EXPECT_CONTINUE_TIMEOUT))
        .timeout_per_read(Some(timeout))
        .timeout_per_write(Some(timeout))
        .max_idle_connections_per_host(16)
        // Shorter than the idle timeout of servers, so that a pooled connection is rarely closed already.
        .max_idle_age(Duration::from_secs(10))
        .input_buffer_size(128 << 10)
        .output_buffer_size(128 << 10)
}
