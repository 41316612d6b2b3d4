//! The access log: one line per request. A digest grants access to its message, so only its first eight hex digits are
//! logged. Messages, tokens and paths outside the API are never logged.

use std::fmt::{self, Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::PollFlags;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use tracing::warn;

use super::poll::poll_fd;

/// Format of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The combined log format, followed by the duration in seconds and the request id.
    Combined,
    /// One JSON object per line.
    Json,
}

/// An open access log.
pub(super) struct AccessLog {
    format: Format,
    /// `None`: stderr.
    path: Option<PathBuf>,
    file: Mutex<Option<Arc<File>>>,
}

/// Origin of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    /// A client with this IP address.
    Address(IpAddr),
    /// A client of the local Unix socket.
    Local,
}

impl Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => Display::fmt(&address.to_canonical(), f),
            Self::Local => f.write_str("local"),
        }
    }
}

/// Data of a completed request.
#[derive(Debug)]
pub(super) struct AccessRecord<'a> {
    pub(super) peer: Peer,
    /// Name of the token; `None`: anonymous.
    pub(super) user: Option<&'a str>,
    pub(super) method: &'a str,
    /// Path with confidential parts removed.
    pub(super) path: &'a str,
    pub(super) status: u16,
    /// Length of the response body.
    pub(super) bytes: u64,
    pub(super) duration: Duration,
    pub(super) id: &'a str,
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    time: String,
    peer: String,
    user: Option<&'a str>,
    method: &'a str,
    path: &'a str,
    status: u16,
    bytes: u64,
    seconds: f64,
    id: &'a str,
}

const COMBINED_TIME_FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");

impl AccessLog {
    /// Opens the file at `path` for appending, or uses stderr.
    pub(super) fn open(path: Option<PathBuf>, format: Format) -> io::Result<Self> {
        let file = path.as_deref().map(open_for_append).transpose()?.map(Arc::new);
        Ok(Self { format, path, file: Mutex::new(file) })
    }

    /// Opens the file again, after it was moved by a log rotation. On error, logs the cause and keeps the current file.
    pub(super) fn reopen(&self) {
        let Some(path) = &self.path else { return };
        match open_for_append(path) {
            Ok(file) => *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(file)),
            Err(error) => {
                warn!("cannot reopen the access log {}: {error}; the previous file stays in use", path.display());
            }
        }
    }

    /// Writes a line. Write errors are ignored, so that a full disk does not stop the server.
    ///
    /// If the log is a pipe with a slow reader, calls `on_block` and blocks until the pipe has room. Other threads can
    /// write meanwhile.
    pub(super) fn write(&self, record: &AccessRecord, on_block: impl FnOnce()) {
        let line = format_line(self.format, record, OffsetDateTime::now_utc());
        let mut outcome = self.try_write(&line);
        if outcome.is_err() {
            on_block();
        }
        while let Err(WouldBlock(file)) = outcome {
            let _ = is_writable(file.as_deref(), None);
            outcome = self.try_write(&line);
        }
    }

    /// Writes `line` unless that would block.
    fn try_write(&self, line: &str) -> Result<(), WouldBlock> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_writable(file.as_deref(), Some(Duration::ZERO)) {
            return Err(WouldBlock(file.clone()));
        }
        let _ = match file.as_deref() {
            Some(mut file) => file.write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
        Ok(())
    }
}

/// The error of a log that has no room for a line now, with its file (`None`: stderr).
struct WouldBlock(Option<Arc<File>>);

/// Blocks for at most `timeout` (`None`: forever) until a write to `file` (`None`: stderr) would not block. Returns
/// `false` on timeout. A pipe counts as writable when it has room for 4 KiB, which is enough for a line.
fn is_writable(file: Option<&File>, timeout: Option<Duration>) -> bool {
    let stderr = io::stderr();
    poll_fd(file.map_or(stderr.as_fd(), AsFd::as_fd), PollFlags::OUT, timeout).unwrap_or(false)
}

fn open_for_append(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn format_line(format: Format, record: &AccessRecord, now: OffsetDateTime) -> String {
    let peer = record.peer.to_string();
    let seconds = record.duration.as_secs_f64();
    let &AccessRecord { user, method, path, status, bytes, id, .. } = record;
    let mut line = match format {
        Format::Combined => {
            let time = now.format(COMBINED_TIME_FORMAT).unwrap_or_default();
            let user = user.unwrap_or("-");
            let mut line = String::new();
            // Referrer and user agent are left out, because they may contain arbitrary text.
            let prefix = format_args!("{peer} - {user} [{time}] \"{method} {path} HTTP/1.1\" {status} {bytes}");
            write!(line, "{prefix} \"-\" \"-\" {seconds:.6} {id}").expect("writing to a string never fails");
            line
        }
        Format::Json => {
            let time = now.format(&Rfc3339).unwrap_or_default();
            let record = JsonRecord { time, peer, user, method, path, status, bytes, seconds, id };
            serde_json::to_string(&record).expect("a record is valid JSON")
        }
    };
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_in_the_configured_format() {
        let record = AccessRecord {
            peer: Peer::Address("::ffff:192.0.2.1".parse().unwrap()),
            user: None,
            method: "GET",
            path: "/messages/2c26b46b",
            status: 200,
            bytes: 18,
            duration: Duration::from_micros(1500),
            id: "a1",
        };
        let time = time::macros::datetime!(2026-01-02 03:04:05 UTC);
        assert_eq!(
            format_line(Format::Combined, &record, time),
            "192.0.2.1 - - [02/Jan/2026:03:04:05 +0000] \"GET /messages/2c26b46b HTTP/1.1\" 200 18 \"-\" \"-\" 0.001500 a1\n"
        );
        let json: serde_json::Value = serde_json::from_str(&format_line(Format::Json, &record, time)).unwrap();
        assert_eq!((json["time"].as_str(), json["seconds"].as_f64()), (Some("2026-01-02T03:04:05Z"), Some(0.0015)));
        assert_eq!((json["user"].is_null(), json["bytes"].as_u64()), (true, Some(18)));
    }
}
