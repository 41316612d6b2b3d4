//! The engine: tiny_http on a private Unix socket behind the HTTP front end. No other file names tiny_http. It receives
//! only requests that this program encoded itself. No request is lost and no two requests wait for each other, whatever
//! tiny_http's queue and sockets do. See docs/design.md, "The engine".

mod codec;
mod pool;

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::PollFlags;
use tiny_http::{Header, Server};

use super::api::{self, Method, Request, Response};
use super::budget::{Budget, Reservation};
use super::poll::poll_fd;
use super::warn;
use crate::message_store::MessageStore;
use pool::{Pool, PooledConnection, SocketHandle};

/// Number of connections to tiny_http, and thus the maximum number of requests that it processes at a time.
const POOL_SIZE: usize = 64;
/// File descriptors of the engine: for each connection one at this end and two at tiny_http's end (one per direction).
pub(super) const FD_COST: usize = POOL_SIZE * 3 + 4;
/// Bytes that always fit into an empty socket buffer, so that writing them does not wait for the reader.
const SOCKET_BUFFER_SAFE: usize = 32 << 10;
/// Interval at which a caller that waits for its response checks the queue again.
const QUEUE_POLL: Duration = Duration::from_millis(20);
/// Stack size in bytes of a helper thread, which only writes a large request or response.
const WRITER_STACK: usize = 64 << 10;

/// An error that leaves a request without a response.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// All connections were in use for too long.
    #[error("no free connection to the engine")]
    Busy,
    /// The response exceeds the memory budget.
    #[error("not enough memory for the response")]
    OverBudget,
    /// A connection failed.
    #[error("engine connection failed: {0}")]
    Io(#[from] io::Error),
}

/// A tiny_http server and the connections to it.
pub(super) struct Engine {
    // The drop order matters: first tiny_http gets the request to stop, then the connections close, and last the pool's
    // `SocketHandle` wakes the acceptor.
    server: Server,
    pool: Pool,
    store: Arc<dyn MessageStore>,
}

impl Engine {
    /// Starts tiny_http over `store` and opens all connections to it.
    ///
    /// Each connection is probed with a request before the next is opened: tiny_http 0.12 counts a thread that it has
    /// already woken as idle, so in a burst some connections would be queued without a thread that serves them.
    pub(super) fn start(store: Arc<dyn MessageStore>) -> io::Result<Self> {
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("sha-api-").permissions(owner_only).tempdir()?;
        let path = dir.path().join("engine");
        let listener = UnixListener::bind(&path)?;
        let socket = SocketHandle::open(&path)?;
        let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
        let engine = Self { server, pool: Pool::new(socket), store };
        engine.open_connections()?;
        // The sockets work without a path, so a killed process leaves no files behind.
        dir.close()?;
        Ok(engine)
    }

    /// Sends `request` and returns the response with the memory reserved for it. Blocks until the response is complete.
    pub(super) fn call(&self, request: Request, budget: &Budget) -> Result<(Response, Reservation), Error> {
        let connection = self.checkout()?;
        let response = self.round_trip(connection.stream(), request, budget)?;
        connection.release();
        response.ok_or(Error::OverBudget)
    }

    /// Returns whether any connection to tiny_http works.
    pub(super) fn is_alive(&self) -> bool {
        self.pool.connections() > 0
    }

    fn open_connections(&self) -> io::Result<()> {
        for _ in 0..POOL_SIZE {
            self.pool.add(|socket| self.connect_and_probe(socket))?;
        }
        Ok(())
    }

    fn checkout(&self) -> Result<PooledConnection<'_>, Error> {
        self.pool.checkout(|socket| self.connect_and_probe(socket)).ok_or(Error::Busy)
    }

    /// Opens a connection and returns it after a successful request.
    fn connect_and_probe(&self, socket: &SocketHandle) -> io::Result<Arc<UnixStream>> {
        let stream = Arc::new(socket.connect()?);
        stream.set_read_timeout(Some(QUEUE_POLL))?;
        let probe = Request::new(Method::Get, "/livez");
        match self.round_trip(&stream, probe, &Budget::new(u64::MAX))? {
            Some((response, _)) if response.status == 200 => Ok(stream),
            _ => Err(io::Error::other("unexpected response on a new connection")),
        }
    }

    /// Sends `request`, processes one request of tiny_http's queue (possibly another caller's), and reads the response.
    ///
    /// Each caller processes one request, so no dedicated handler threads are needed. In case the counts ever disagree,
    /// waiting callers check the queue every [`QUEUE_POLL`]. Returns `None` if the response exceeds `budget`.
    fn round_trip(
        &self,
        stream: &Arc<UnixStream>,
        request: Request,
        budget: &Budget,
    ) -> io::Result<Option<(Response, Reservation)>> {
        let mut reader = codec::ResponseReader::new(request.method == Method::Head, budget);
        write_request(stream, request)?;
        while !self.process_one(QUEUE_POLL) && !poll_fd(stream, PollFlags::IN, Some(Duration::ZERO))? {}
        loop {
            match reader.read_from(&**stream) {
                Ok(codec::Progress::Complete(response)) => return Ok(Some(response)),
                Ok(codec::Progress::OverBudget) => return Ok(None),
                Ok(codec::Progress::Pending) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.process_one(Duration::ZERO);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Processes one request of tiny_http's queue. Returns `false` if none arrives within `timeout`.
    fn process_one(&self, timeout: Duration) -> bool {
        let received = if timeout.is_zero() { Ok(None) } else { self.server.recv_timeout(timeout) };
        // Shortly before its timeout, `recv_timeout` may consume the wake-up for a request and return `None`.
        let received = match received {
            Ok(None) => self.server.try_recv(),
            other => other,
        };
        match received {
            Ok(Some(raw)) => {
                self.process(raw);
                true
            }
            Ok(None) => false,
            Err(error) => {
                warn(format_args!("the engine accepts no more connections: {error}"));
                false
            }
        }
    }

    fn process(&self, mut raw: tiny_http::Request) {
        let Ok(request) = parse(&mut raw) else { return };
        let method = request.method;
        let response = catch_unwind(AssertUnwindSafe(|| api::handle(request, &*self.store)))
            .unwrap_or_else(|_| Response::error(500, "Internal server error").with_cause("a request handler panicked"));
        if let Some(cause) = &response.cause {
            warn(cause);
        }
        if response.body.len() <= SOCKET_BUFFER_SAFE || method == Method::Head {
            respond(raw, response);
            return;
        }
        // Two callers that process each other's request must not both wait for the other to read. If no thread can be
        // started, dropping the request makes tiny_http answer 500.
        let writer = thread::Builder::new().name("engine-response".into()).stack_size(WRITER_STACK);
        if let Err(error) = writer.spawn(move || respond(raw, response)) {
            warn(format_args!("cannot start a thread for a response: {error}"));
        }
    }
}

/// Writes `request`. A large body is written by a helper thread, for the same reason as in [`Engine::process`].
fn write_request(stream: &Arc<UnixStream>, mut request: Request) -> io::Result<()> {
    let mut bytes = codec::encode_head(&mut request);
    if request.body.len() <= SOCKET_BUFFER_SAFE {
        bytes.extend_from_slice(&request.body);
        return (&mut &**stream).write_all(&bytes);
    }
    (&mut &**stream).write_all(&bytes)?;
    let stream = Arc::clone(stream);
    let writer = thread::Builder::new().name("engine-request".into()).stack_size(WRITER_STACK);
    // The result is ignored: after a write error the request stays incomplete, and reading the response fails.
    writer.spawn(move || (&mut &*stream).write_all(&request.body)).map(drop)
}

/// Converts a request of tiny_http and reads its body.
fn parse(raw: &mut tiny_http::Request) -> io::Result<Request> {
    let (path, query) = match raw.url().split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (raw.url(), None),
    };
    let mut request = Request { query, ..Request::new(Method::from_name(raw.method().as_str()), path) };
    for (name, value) in request.known_headers_mut() {
        let found = raw.headers().iter().find(|header| header.field.equiv(name));
        *value = found.map(|header| header.value.as_str().to_owned());
    }
    let length = raw.body_length().unwrap_or(0);
    request.body.reserve_exact(length);
    raw.as_reader().read_to_end(&mut request.body)?;
    if request.body.len() == length { Ok(request) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Sends `response` through tiny_http. Write errors are ignored: the caller at the other end has already failed.
fn respond(raw: tiny_http::Request, response: Response) {
    let header = |(name, value): (&str, &str)| Header::from_bytes(name, value).ok();
    let headers = response.headers().filter_map(header).collect();
    let body = io::Cursor::new(response.body);
    let length = Some(response.content_length);
    let response = tiny_http::Response::new(response.status.into(), headers, body, length, None);
    let _ = raw.respond(response.with_chunked_threshold(usize::MAX));
}

#[cfg(test)]
#[path = "engine/tests.rs"]
pub(super) mod tests;
