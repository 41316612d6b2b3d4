//! The engine: tiny_http on a private Unix socket behind the HTTP front end. No other file names tiny_http. It receives
//! only requests that this program encoded itself. A request that has a connection always has a worker, so it never
//! waits for another request to be processed. See docs/design.md, "The engine".

mod codec;
mod pool;

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::net::Shutdown;
use tiny_http::{Header, Server};
use tracing::{debug, warn};

use super::api::{self, Method, Request, Response};
use super::auth::Authorized;
use super::budget::{Budget, Reservation};
use crate::message_store::MessageStore;
use pool::Pool;

/// Number of connections to tiny_http and of workers, and thus the maximum number of requests processed at a time.
const POOL_SIZE: usize = 64;
/// File descriptors of the engine: for each connection one at this end and two at tiny_http's end (one per direction).
pub(super) const FD_COST: usize = POOL_SIZE * 3 + 4;
/// Maximum length of a request body that is copied behind its head, so that both are sent by one write, in bytes.
const MAX_INLINE_BODY: usize = 16 << 10;
/// Stack size of a worker, in bytes. `api::json` bounds the recursion of request handlers.
const WORKER_STACK_SIZE: usize = 512 << 10;

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

/// A tiny_http server, the connections to it, and the workers that process its requests.
pub(super) struct Engine {
    pool: Pool,
    workers: Vec<JoinHandle<()>>,
    server: Arc<Server>,
}

impl Engine {
    /// Starts tiny_http and the workers, which process requests over `store`.
    pub(super) fn start(store: &Arc<dyn MessageStore>) -> io::Result<Self> {
        let (server, connections) = start_server()?;
        let mut engine = Self { pool: Pool::new(connections), workers: Vec::new(), server: Arc::new(server) };
        for _ in 0..POOL_SIZE {
            let (server, store) = (Arc::clone(&engine.server), Arc::clone(store));
            let worker = thread::Builder::new().name("engine-worker".into()).stack_size(WORKER_STACK_SIZE);
            engine.workers.push(worker.spawn(move || run_worker(&server, &*store))?);
        }
        Ok(engine)
    }

    /// Sends `request` and returns the response with the memory reserved for it. Blocks until the response is complete.
    pub(super) fn call(&self, request: Authorized, budget: &Budget) -> Result<(Response, Reservation), Error> {
        let connection = self.pool.take().ok_or(Error::Busy)?;
        let outcome = round_trip(&connection, request.into_request(), budget);
        match &outcome {
            Ok(_) => self.pool.put_back(connection),
            Err(_) => self.pool.discard(connection),
        }
        outcome?.ok_or(Error::OverBudget)
    }

    /// Returns whether most connections to tiny_http work. A broken connection is not replaced.
    pub(super) fn is_alive(&self) -> bool {
        self.pool.connections() > POOL_SIZE / 2
    }
}

impl Drop for Engine {
    /// Ends the workers. Blocks until none of them holds the store.
    fn drop(&mut self) {
        for _ in &self.workers {
            self.server.unblock();
        }
        for worker in self.workers.drain(..) {
            // The result is ignored: a worker that panicked has ended as well.
            let _ = worker.join();
        }
    }
}

/// Starts tiny_http and opens all connections to it. It accepts no others: its acceptor has ended.
///
/// Each connection is probed with a request before the next is opened: tiny_http 0.12 counts a thread that it has
/// already woken as idle, so in a burst some connections would be queued without a thread that serves them.
fn start_server() -> io::Result<(Server, Vec<UnixStream>)> {
    let dir = tempfile::Builder::new().prefix("sha-api-").permissions(PermissionsExt::from_mode(0o700)).tempdir()?;
    let path = dir.path().join("engine");
    let listener = UnixListener::bind(&path)?;
    let listener_handle = listener.try_clone()?;
    let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
    let connections = (0..POOL_SIZE).map(|_| connect_and_probe(&server, &path)).collect::<io::Result<_>>()?;
    rustix::net::shutdown(listener_handle, Shutdown::Both)?;
    // The acceptor reports the end of its listener as its last message.
    match server.recv() {
        Ok(_) => return Err(io::Error::other("unexpected request on a new connection")),
        Err(_) => dir.close()?,
    }
    Ok((server, connections))
}

fn connect_and_probe(server: &Server, path: &std::path::Path) -> io::Result<UnixStream> {
    let connection = UnixStream::connect(path)?;
    send_request(&connection, Request::new(Method::Get, "/livez"))?;
    respond(server.recv()?, Response::empty(204));
    match codec::read_response(&connection, Method::Get, &Budget::new(0))? {
        Some((response, _)) if response.status == 204 => Ok(connection),
        _ => Err(io::Error::other("unexpected response on a new connection")),
    }
}

/// Sends `request` and reads the response. Returns `None` if the response exceeds `budget`.
///
/// A worker reads the whole request before it writes the response, so neither side waits for the other in both
/// directions.
fn round_trip(
    connection: &UnixStream,
    request: Request,
    budget: &Budget,
) -> io::Result<Option<(Response, Reservation)>> {
    let method = request.method;
    send_request(connection, request)?;
    codec::read_response(connection, method, budget)
}

fn send_request(mut connection: &UnixStream, mut request: Request) -> io::Result<()> {
    let mut bytes = codec::encode_head(&mut request);
    if request.body.len() <= MAX_INLINE_BODY {
        bytes.extend_from_slice(&request.body);
        return connection.write_all(&bytes);
    }
    connection.write_all(&bytes)?;
    connection.write_all(&request.body)
}

/// Processes requests of tiny_http's queue until it is unblocked.
fn run_worker(server: &Server, store: &dyn MessageStore) {
    while let Ok(raw) = server.recv() {
        process(raw, store);
    }
}

fn process(mut raw: tiny_http::Request, store: &dyn MessageStore) {
    let Ok(request) = parse(&mut raw) else { return };
    let response = catch_unwind(AssertUnwindSafe(|| api::handle(request, store)))
        .unwrap_or_else(|_| Response::error(500, "Internal server error").with_cause("a request handler panicked"));
    if let Some(cause) = &response.cause {
        warn!("{cause}");
    }
    respond(raw, response);
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

/// Sends `response` through tiny_http. After a write error, the caller at the other end has failed as well.
fn respond(raw: tiny_http::Request, response: Response) {
    let header = |(name, value): (&str, &str)| Header::from_bytes(name, value).ok();
    let headers = response.headers().filter_map(header).collect();
    let body = io::Cursor::new(response.body);
    let length = Some(response.content_length);
    let response = tiny_http::Response::new(response.status.into(), headers, body, length, None);
    if let Err(error) = raw.respond(response.with_chunked_threshold(usize::MAX)) {
        debug!("cannot send a response of the engine: {error}");
    }
}

#[cfg(test)]
#[path = "engine/tests.rs"]
pub(super) mod tests;
