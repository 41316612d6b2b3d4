//! tiny_http, behind the door on a private socket; no other file names it. It sees only requests written anew by us.
//! The rule: a request is never lost and two never wait for each other, whatever tiny_http's queue and sockets do.

mod pool;
mod wire;

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::PollFlags;
use tiny_http::{Header, Response, Server};

use super::api::{self, Method, Reply, Request};
use super::budget::{Budget, Reservation};
use super::note;
use super::poll::poll_fd;
use crate::messages::Messages;
use pool::{Lease, Pool, Way};

/// Connections to tiny_http, thus requests that it works on at a time.
const LINES: usize = 64;
/// What the connections take: our end, and two of tiny_http's (it has one for each direction).
pub(super) const DESCRIPTORS: usize = LINES * 3 + 4;
/// What surely fits into an empty socket's buffer, so that writing it never waits for the reader.
const FITS: usize = 32 << 10;
/// How long to wait for what should come at once, before looking elsewhere.
const PATIENCE: Duration = Duration::from_millis(20);
/// For a thread that only moves bytes.
const MOVER_STACK: usize = 64 << 10;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// All connections were busy for too long.
    #[error("no connection to the engine came free")]
    Busy,
    /// The reply would not fit in memory now.
    #[error("no memory for the reply")]
    NoMemory,
    /// The exchange broke.
    #[error("the engine: {0}")]
    Io(#[from] io::Error),
}

/// tiny_http and the connections to it.
pub(super) struct Engine {
    // Dropped in this order: the server is told to end, the pool's connections close, `Way` wakes the acceptor.
    server: Server,
    pool: Pool,
    messages: Arc<dyn Messages>,
}

impl Engine {
    /// Starts tiny_http over `messages` and opens the connections to it.
    ///
    /// They are opened one by one, each proved by a request before the next: tiny_http 0.12 counts a thread that it has
    /// already woken as idle, so in a burst connections end up in a queue that nobody works on.
    pub(super) fn start(messages: Arc<dyn Messages>) -> io::Result<Self> {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("sha-api-").permissions(private).tempdir()?;
        let path = dir.path().join("engine");
        let listener = UnixListener::bind(&path)?;
        let way = Way::to(&path)?;
        let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
        let engine = Self { server, pool: Pool::new(way), messages };
        engine.fill()?;
        // The sockets live on without a name, so nothing is left behind when the process is killed.
        dir.close()?;
        Ok(engine)
    }

    /// The reply to `request`, and the memory that it takes.
    pub(super) fn ask(&self, request: Request, budget: &Budget) -> Result<(Reply, Reservation), Error> {
        let lease = self.lease()?;
        let answer = self.exchange(lease.line(), request, budget)?;
        lease.give_back();
        answer.ok_or(Error::NoMemory)
    }

    /// Whether any connection to tiny_http is left.
    pub(super) fn is_sound(&self) -> bool {
        self.pool.lines() > 0
    }

    fn fill(&self) -> io::Result<()> {
        for _ in 0..LINES {
            self.pool.add(|way| self.proved(way))?;
        }
        Ok(())
    }

    fn lease(&self) -> Result<Lease<'_>, Error> {
        self.pool.lease(|way| self.proved(way)).ok_or(Error::Busy)
    }

    /// A new connection, after tiny_http answered on it.
    fn proved(&self, way: &Way) -> io::Result<Arc<UnixStream>> {
        let line = Arc::new(way.connect()?);
        line.set_read_timeout(Some(PATIENCE))?;
        let proof = Request::new(Method::Get, "/livez");
        match self.exchange(&line, proof, &Budget::new(u64::MAX))? {
            Some((reply, _)) if reply.status == 200 => Ok(line),
            _ => Err(io::Error::other("a new connection was not answered as it should be")),
        }
    }

    /// Sends `request`, serves one request off the queue meanwhile (ours or another's), and reads the reply.
    ///
    /// Each who asks serves one, so all are served without a thread that does nothing else. Should the sums not work
    /// out once, those who wait look again every [`PATIENCE`]. `None`: there is no memory for the reply.
    fn exchange(
        &self,
        line: &Arc<UnixStream>,
        request: Request,
        budget: &Budget,
    ) -> io::Result<Option<(Reply, Reservation)>> {
        let mut incoming = wire::Incoming::new(request.method == Method::Head, budget);
        send(line, request)?;
        while !self.serve_one(PATIENCE) && !poll_fd(line, PollFlags::IN, Some(Duration::ZERO))? {}
        loop {
            match incoming.read_from(&**line) {
                Ok(wire::Progress::Whole(reply)) => return Ok(Some(reply)),
                Ok(wire::Progress::NoMemory) => return Ok(None),
                Ok(wire::Progress::More) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.serve_one(Duration::ZERO);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Serves one request off tiny_http's queue, if one comes in time.
    fn serve_one(&self, patience: Duration) -> bool {
        let waited = if patience.is_zero() { Ok(None) } else { self.server.recv_timeout(patience) };
        // `recv_timeout` may be woken for a request near its end and return without it, so look once more.
        let raw = match waited {
            Ok(None) => self.server.try_recv(),
            other => other,
        };
        match raw {
            Ok(Some(raw)) => {
                self.serve(raw);
                true
            }
            Ok(None) => false,
            Err(error) => {
                note(format_args!("the engine takes no more connections: {error}"));
                false
            }
        }
    }

    fn serve(&self, mut raw: tiny_http::Request) {
        let Ok(request) = understand(&mut raw) else { return };
        let method = request.method;
        let reply = catch_unwind(AssertUnwindSafe(|| api::answer(request, &*self.messages)))
            .unwrap_or_else(|_| Reply::error(500, "Internal server error").because("a request's handler panicked"));
        if let Some(cause) = &reply.cause {
            note(cause);
        }
        if reply.body.len() <= FITS || method == Method::Head {
            respond(raw, reply);
            return;
        }
        // Two threads that serve each other must not wait to be read by each other. If none can be started, dropping
        // the request makes tiny_http answer 500.
        let mover = thread::Builder::new().name("engine-reply".into()).stack_size(MOVER_STACK);
        if let Err(error) = mover.spawn(move || respond(raw, reply)) {
            note(format_args!("no thread for a reply: {error}"));
        }
    }
}

/// Writes `request`; what might not fit is written by a thread of its own, for the same reason as long replies are.
fn send(line: &Arc<UnixStream>, mut request: Request) -> io::Result<()> {
    let mut bytes = wire::head(&mut request);
    if request.body.len() <= FITS {
        bytes.extend_from_slice(&request.body);
        return (&mut &**line).write_all(&bytes);
    }
    (&mut &**line).write_all(&bytes)?;
    let line = Arc::clone(line);
    let mover = thread::Builder::new().name("engine-request".into()).stack_size(MOVER_STACK);
    // An error shows at the other end: the request stays short.
    mover.spawn(move || (&mut &*line).write_all(&request.body)).map(drop)
}

/// Reads a request off tiny_http, whole.
fn understand(raw: &mut tiny_http::Request) -> io::Result<Request> {
    let (path, query) = match raw.url().split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (raw.url(), None),
    };
    let mut request = Request { query, ..Request::new(Method::named(raw.method().as_str()), path) };
    for (name, value) in request.fields_mut() {
        let found = raw.headers().iter().find(|header| header.field.equiv(name));
        *value = found.map(|header| header.value.as_str().to_owned());
    }
    let length = raw.body_length().unwrap_or(0);
    request.body.reserve_exact(length);
    raw.as_reader().read_to_end(&mut request.body)?;
    if request.body.len() == length { Ok(request) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Hands the reply to tiny_http. That the other end went away is known there.
fn respond(raw: tiny_http::Request, reply: Reply) {
    let header = |(name, value): (&str, &str)| Header::from_bytes(name, value).ok();
    let headers = reply.each_field().filter_map(header).collect();
    let body = io::Cursor::new(reply.body);
    let response = Response::new(reply.status.into(), headers, body, Some(reply.length), None);
    let _ = raw.respond(response.with_chunked_threshold(usize::MAX));
}

#[cfg(test)]
#[path = "engine/tests.rs"]
pub(super) mod tests;
