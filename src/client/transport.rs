//! One request and its reply: the next server when one does not answer, again when it will be ready soon, never for
//! ever. Asking twice does no harm, since nothing that is asked adds up.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::CertificateError;
use ureq::config::{Config, ConfigBuilder};
use ureq::http::{HeaderValue, Method, Request};
use ureq::{Agent, Timeout};

use super::request::ApiRequest;
use super::response::ApiResponse;
use super::unix::{NoopResolver, UnixConnector};
use super::{Address, Options, proxy, tls};
use crate::message_store::Error;

/// For a connection to come about, if nothing shorter is asked for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest reply that is read: a message of 4 GiB.
const MAX_MESSAGE_RESPONSE: u64 = 1 << 32;
/// The longest reply that is no message.
const MAX_JSON_RESPONSE: u64 = 64 << 20;
/// Uploads from here on wait until the server says that it wants them.
const EXPECT_CONTINUE_MIN: usize = 256 << 10;
/// For a server to say that it wants an upload, before it is sent all the same.
const EXPECT_CONTINUE_TIMEOUT: Duration = Duration::from_secs(3);

/// Servers of the same messages.
#[derive(Debug)]
pub(super) struct Failover {
    servers: Vec<Server>,
    /// The one that answered last.
    current: AtomicUsize,
    ready_timeout: Duration,
}

#[derive(Debug)]
struct Server {
    name: String,
    /// What stands in front of a path.
    base_url: String,
    /// Where its messages are, for people.
    store: PathBuf,
    agent: Agent,
    authorization: Option<HeaderValue>,
    read_timeout: Duration,
    /// What stands between, for people.
    proxy: Option<String>,
}

impl Failover {
    pub(super) fn new(addresses: &[Address], options: &Options) -> Result<Self, Error> {
        let all = addresses.iter().map(|address| Server::new(address, options)).collect::<Result<_, _>>()?;
        Ok(Self { servers: all, current: AtomicUsize::new(0), ready_timeout: options.ready_timeout })
    }

    /// The server of the store at `dir`, who trusts whoever can open its socket.
    pub(super) fn via_local_socket(dir: PathBuf, socket: PathBuf, stream: UnixStream, options: &Options) -> Self {
        let mut server = Server::from_socket(socket, Some(stream), options);
        server.store = dir;
        Self { servers: vec![server], current: AtomicUsize::new(0), ready_timeout: options.ready_timeout }
    }

    /// The reply to `ask`, whatever its status, of the first server that is ready.
    pub(super) fn send(&self, ask: &ApiRequest) -> Result<ApiResponse, Error> {
        let deadline = Instant::now() + self.ready_timeout;
        loop {
            let (mut pause, mut failed) = (None, Vec::new());
            let first = self.current.load(Ordering::Relaxed);
            for index in (first..self.servers.len()).chain(0..first) {
                match self.servers[index].send(ask) {
                    Ok(reply) => {
                        let Some(time) = reply.retry_after() else {
                            self.current.store(index, Ordering::Relaxed);
                            return Ok(reply);
                        };
                        pause = pause.max(Some(time));
                        failed.push(reply.to_error());
                    }
                    Err(why) => failed.push(why),
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match pause {
                Some(pause) if !left.is_zero() => std::thread::sleep(pause.min(left)),
                _ => return Err(combine_errors(failed)),
            }
        }
    }
}

/// One error that says what all of them do.
fn combine_errors(mut failed: Vec<Error>) -> Error {
    let last = failed.pop().expect("there is at least one server");
    if failed.is_empty() {
        return last;
    }
    failed.push(last);
    Error::Unusable(failed.iter().map(Error::to_string).collect::<Vec<_>>().join("; "))
}

impl Server {
    fn new(address: &Address, options: &Options) -> Result<Self, Error> {
        let authorization = options.token.as_ref().map(|token| HeaderValue::from_str(&format!("Bearer {}", token.0)));
        let authorization =
            authorization.transpose().map_err(|_| Error::Unusable("SHA_API_TOKEN is no token".to_owned()))?;
        let mut server = match address {
            Address::Socket(path) => Self::from_socket(path.clone(), None, options),
            Address::Url(url) => {
                let between = proxy::proxy_for(url)?;
                let proxy = between.as_ref().map(proxy::redacted);
                let is_tls = url.https || proxy.as_ref().is_some_and(|proxy| proxy.starts_with("https:"));
                let trust = if is_tls { tls::config(&options.tls)? } else { tls::disabled() };
                let agent = agent_config(options.read_timeout).tls_config(trust).proxy(between).build().new_agent();
                let base = url.to_string();
                let (name, store) = (base.clone(), PathBuf::from(&base));
                Self {
                    name,
                    base_url: base,
                    store,
                    agent,
                    authorization: None,
                    read_timeout: options.read_timeout,
                    proxy,
                }
            }
        };
        server.authorization = authorization;
        Ok(server)
    }

    fn from_socket(socket: PathBuf, first: Option<UnixStream>, options: &Options) -> Self {
        let name = format!("unix:{}", socket.display());
        let store = PathBuf::from(&name);
        let config = agent_config(options.read_timeout).proxy(None).build();
        let agent = Agent::with_parts(config, UnixConnector::new(socket, first), NoopResolver);
        let base = "http://localhost".to_owned();
        Self {
            name,
            base_url: base,
            store,
            agent,
            authorization: None,
            read_timeout: options.read_timeout,
            proxy: None,
        }
    }

    fn send(&self, ask: &ApiRequest) -> Result<ApiResponse, Error> {
        match self.send_once(ask) {
            // A connection that was kept may have been closed meanwhile.
            Err(ureq::Error::Io(error)) if is_connection_closed(error.kind()) => self.send_once(ask),
            outcome => outcome,
        }
        .map_err(|why| {
            let through = self.proxy.as_ref().map_or_else(String::new, |proxy| format!("through the proxy {proxy}: "));
            Error::Server { server: self.name.clone(), cause: through + &self.describe_error(&why) }
        })
    }

    fn send_once(&self, ask: &ApiRequest) -> Result<ApiResponse, ureq::Error> {
        let mut request = Request::builder().method(&ask.method).uri(format!("{}{}", self.base_url, ask.path));
        request = request.header("Accept", ask.accept);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let response = match ask.content_type {
            "" => self.agent.run(request.body(())?),
            kind => {
                request = request.header("Content-Type", kind);
                if ask.body.len() >= EXPECT_CONTINUE_MIN && ask.method == Method::PUT {
                    request = request.header("Expect", "100-continue");
                }
                self.agent.run(request.body(&ask.body[..])?)
            }
        }?;
        let (head, body) = response.into_parts();
        let limit = if ask.content_type.is_empty() { MAX_MESSAGE_RESPONSE } else { MAX_JSON_RESPONSE };
        let body = body.into_with_config().limit(limit).read_to_vec()?;
        let (server, store) = (self.name.clone(), self.store.clone());
        Ok(ApiResponse { status: head.status.as_u16(), headers: head.headers, body, server, store })
    }

    fn describe_error(&self, error: &ureq::Error) -> String {
        let within = |time| format!("within {}", humantime::format_duration(time));
        match error {
            ureq::Error::Io(why) => match why.get_ref().and_then(|why| why.downcast_ref::<rustls::Error>()) {
                Some(why) => describe_tls_error(why),
                None if why.kind() == ErrorKind::UnexpectedEof => "it has hung up".to_owned(),
                None => why.to_string(),
            },
            ureq::Error::Rustls(why) => describe_tls_error(why),
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                format!("no connection {}", within(self.read_timeout.min(CONNECT_TIMEOUT)))
            }
            ureq::Error::Timeout(_) => format!("no answer {}; --read-timeout waits longer", within(self.read_timeout)),
            ureq::Error::HostNotFound => "there is no host of this name".to_owned(),
            // It ends with the status, if there was one.
            ureq::Error::ConnectProxyFailed(why) => match why.rsplit_once('/') {
                Some((_, "407")) => "it wants to know who we are, or another password (407)".to_owned(),
                Some((_, status)) => format!("it does not connect us ({status})"),
                None => "it has hung up".to_owned(),
            },
            ureq::Error::Protocol(why) => format!("it does not speak HTTP/1.1: {why}"),
            why => why.to_string(),
        }
    }
}

fn describe_tls_error(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "nobody whom we trust vouches for its certificate; --cacert names who may".to_owned()
        }
        rustls::Error::InvalidCertificate(why) => format!("its certificate cannot be trusted: {why}"),
        why => format!("TLS has failed: {why}"),
    }
}

const fn is_connection_closed(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// What holds for every connection.
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
        // Shorter than servers keep a connection that says nothing.
        .max_idle_age(Duration::from_secs(10))
        .input_buffer_size(128 << 10)
        .output_buffer_size(128 << 10)
}
