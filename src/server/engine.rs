//! tiny_http, behind the door on a private socket; no other file names it. It sees only requests written anew by us.
//! The rule: a request is never lost and two never wait for each other, whatever tiny_http's queue and sockets do.

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

/// Connections to tiny_http, thus requests that it works on at a time.
const POOL_SIZE: usize = 64;
/// What the connections take: our end, and two of tiny_http's (it has one for each direction).
pub(super) const FD_COST: usize = POOL_SIZE * 3 + 4;
/// What surely fits into an empty socket's buffer, so that writing it never waits for the reader.
const SOCKET_BUFFER_SAFE: usize = 32 << 10;
/// How long to wait for what should come at once, before looking elsewhere.
const QUEUE_POLL: Duration = Duration::from_millis(20);
/// For a thread that only moves bytes.
const WRITER_STACK: usize = 64 << 10;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// All connections were busy for too long.
    #[error("no connection to the engine came free")]
    Busy,
    /// The reply would not fit in memory now.
    #[error("no memory for the reply")]
    OverBudget,
    /// The exchange broke.
    #[error("the engine: {0}")]
    Io(#[from] io::Error),
}

/// tiny_http and the connections to it.
pub(super) struct Engine {
    // Dropped in this order: the server is told to end, the pool's connections close, `Way` wakes the acceptor.
    server: Server,
    pool: Pool,
    messages: Arc<dyn MessageStore>,
}

impl Engine {
    /// Starts tiny_http over `messages` and opens the connections to it.
    ///
    /// They are opened one by one, each proved by a request before the next: tiny_http 0.12 counts a thread that it has
    /// already woken as idle, so in a burst connections end up in a queue that nobody works on.
    pub(super) fn start(messages: Arc<dyn MessageStore>) -> io::Result<Self> {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("sha-api-").permissions(private).tempdir()?;
        let path = dir.path().join("engine");
        let listener = UnixListener::bind(&path)?;
        let way = SocketHandle::open(&path)?;
        let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
        let engine = Self { server, pool: Pool::new(way), messages };
        engine.open_connections()?;
        // The sockets live on without a name, so nothing is left behind when the process is killed.
        dir.close()?;
        Ok(engine)
    }

    /// The reply to `request`, and the memory that it takes.
    pub(super) fn call(&self, request: Request, budget: &Budget) -> Result<(Response, Reservation), Error> {
        let lease = self.checkout()?;
        let answer = self.round_trip(lease.stream(), request, budget)?;
        lease.release();
        answer.ok_or(Error::OverBudget)
    }

    /// Whether any connection to tiny_http is left.
    pub(super) fn is_alive(&self) -> bool {
        self.pool.connections() > 0
    }

    fn open_connections(&self) -> io::Result<()> {
        for _ in 0..POOL_SIZE {
            self.pool.add(|way| self.connect_and_probe(way))?;
        }
        Ok(())
    }

    fn checkout(&self) -> Result<PooledConnection<'_>, Error> {
        self.pool.checkout(|way| self.connect_and_probe(way)).ok_or(Error::Busy)
    }

    /// A new connection, after tiny_http answered on it.
    fn connect_and_probe(&self, way: &SocketHandle) -> io::Result<Arc<UnixStream>> {
        let line = Arc::new(way.connect()?);
        line.set_read_timeout(Some(QUEUE_POLL))?;
        let proof = Request::new(Method::Get, "/livez");
        match self.round_trip(&line, proof, &Budget::new(u64::MAX))? {
            Some((reply, _)) if reply.status == 200 => Ok(line),
            _ => Err(io::Error::other("a new connection was not answered as it should be")),
        }
    }

    /// Sends `request`, serves one request off the queue meanwhile (ours or another's), and reads the reply.
    ///
    /// Each who asks serves one, so all are served without a thread that does nothing else. Should the sums not work
    /// out once, those who wait look again every [`QUEUE_POLL`]. `None`: there is no memory for the reply.
    fn round_trip(
        &self,
        line: &Arc<UnixStream>,
        request: Request,
        budget: &Budget,
    ) -> io::Result<Option<(Response, Reservation)>> {
        let mut incoming = codec::ResponseReader::new(request.method == Method::Head, budget);
        write_request(line, request)?;
        while !self.process_one(QUEUE_POLL) && !poll_fd(line, PollFlags::IN, Some(Duration::ZERO))? {}
        loop {
            match incoming.read_from(&**line) {
                Ok(codec::Progress::Complete(reply)) => return Ok(Some(reply)),
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

    /// Serves one request off tiny_http's queue, if one comes in time.
    fn process_one(&self, timeout: Duration) -> bool {
        let waited = if timeout.is_zero() { Ok(None) } else { self.server.recv_timeout(timeout) };
        // `recv_timeout` may be woken for a request near its end and return without it, so look once more.
        let raw = match waited {
            Ok(None) => self.server.try_recv(),
            other => other,
        };
        match raw {
            Ok(Some(raw)) => {
                self.process(raw);
                true
            }
            Ok(None) => false,
            Err(error) => {
                warn(format_args!("the engine takes no more connections: {error}"));
                false
            }
        }
    }

    fn process(&self, mut raw: tiny_http::Request) {
        let Ok(request) = parse(&mut raw) else { return };
        let method = request.method;
        let reply = catch_unwind(AssertUnwindSafe(|| api::handle(request, &*self.messages))).unwrap_or_else(|_| {
            Response::error(500, "Internal server error").with_cause("a request's handler panicked")
        });
        if let Some(cause) = &reply.cause {
            warn(cause);
        }
        if reply.body.len() <= SOCKET_BUFFER_SAFE || method == Method::Head {
            respond(raw, reply);
            return;
        }
        // Two threads that serve each other must not wait to be read by each other. If none can be started, dropping
        // the request makes tiny_http answer 500.
        let writer = thread::Builder::new().name("engine-response".into()).stack_size(WRITER_STACK);
        if let Err(error) = writer.spawn(move || respond(raw, reply)) {
            warn(format_args!("no thread for a reply: {error}"));
        }
    }
}

/// Writes `request`; what might not fit is written by a thread of its own, for the same reason as long replies are.
fn write_request(line: &Arc<UnixStream>, mut request: Request) -> io::Result<()> {
    let mut bytes = codec::encode_head(&mut request);
    if request.body.len() <= SOCKET_BUFFER_SAFE {
        bytes.extend_from_slice(&request.body);
        return (&mut &**line).write_all(&bytes);
    }
    (&mut &**line).write_all(&bytes)?;
    let line = Arc::clone(line);
    let writer = thread::Builder::new().name("engine-request".into()).stack_size(WRITER_STACK);
    // An error shows at the other end: the request stays short.
    writer.spawn(move || (&mut &*line).write_all(&request.body)).map(drop)
}

/// Reads a request off tiny_http, whole.
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

/// Hands the reply to tiny_http. That the other end went away is known there.
fn respond(raw: tiny_http::Request, reply: Response) {
    let header = |(name, value): (&str, &str)| Header::from_bytes(name, value).ok();
    let headers = reply.headers().filter_map(header).collect();
    let body = io::Cursor::new(reply.body);
    let response = tiny_http::Response::new(reply.status.into(), headers, body, Some(reply.content_length), None);
    let _ = raw.respond(response.with_chunked_threshold(usize::MAX));
}

#[cfg(test)]
#[path = "engine/tests.rs"]
pub(super) mod tests;
