//! Reading of one request: its head within a timeout, then its body within a deadline and the memory budget.

use std::io::{self, ErrorKind};
use std::time::Instant;

use super::body::BodyDecoder;
use super::connection_io::ConnectionIo;
use super::deadline::{RateDeadline, deadline_after};
use super::head::{Head, HeadParser};
use super::request_error::RequestError;
use crate::server::api::{Response, service_unavailable};
use crate::server::budget::Reservation;
use crate::server::limits::Limits;

/// Granularity of memory reservations for a body, in bytes.
pub(super) const RESERVATION_STEP: u64 = 64 << 10;

/// Reason why there is no request to execute.
pub(super) enum ReadError {
    /// The client gets this response.
    Rejected(Response),
    /// The client is gone.
    Io(io::Error),
}

impl From<RequestError> for ReadError {
    fn from(error: RequestError) -> Self {
        Self::Rejected(error.into())
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a head. Bytes after its end stay in `read_buf`.
pub(super) fn read_head(io: &mut ConnectionIo<'_>, read_buf: &mut Vec<u8>, limits: &Limits) -> Result<Head, ReadError> {
    let deadline = deadline_after(Instant::now(), limits.head_timeout);
    let mut parser = HeadParser::default();
    loop {
        if let Some((head, end)) = parser.parse(read_buf)? {
            read_buf.drain(..end);
            return Ok(head);
        }
        io.read(read_buf, deadline).map_err(|error| timeout_error(error, "Request head took too long"))?;
    }
}

/// Reads a body and appends it to `out`. Bytes after its end stay in `read_buf`.
pub(super) fn read_body(
    io: &mut ConnectionIo<'_>,
    read_buf: &mut Vec<u8>,
    limits: &Limits,
    mut decoder: BodyDecoder,
    reservation: &mut Reservation,
    out: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let mut reserved = 0;
    let mut rate_deadline = RateDeadline::new(limits.body_timeout, limits.min_rate);
    loop {
        let expected = decoder.received() + read_buf.len() as u64;
        if expected > reserved {
            let more = (expected - reserved).next_multiple_of(RESERVATION_STEP);
            if !reservation.try_grow(more) {
                return Err(ReadError::Rejected(service_unavailable()));
            }
            reserved += more;
        }
        let consumed = decoder.decode(read_buf, out)?;
        read_buf.drain(..consumed);
        if decoder.is_complete() {
            return Ok(());
        }
        let deadline = rate_deadline.deadline();
        io.read(read_buf, deadline).map_err(|error| timeout_error(error, "Request body took too long"))?;
        rate_deadline.record_progress(read_buf.len());
    }
}

/// Turns a timeout into a 408 response. After other errors, there is no response.
fn timeout_error(error: io::Error, message: &str) -> ReadError {
    match error.kind() {
        ErrorKind::TimedOut => ReadError::Rejected(Response::error(408, message)),
        _ => ReadError::Io(error),
    }
}
