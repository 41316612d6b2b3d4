//! The access log: one line a request. It never holds a message, a token or a digest: who has a digest has the message,
//! so of a digest its first eight hex digits are logged, and of a path that is none of ours nothing.

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

use super::poll::poll_fd;
use super::warn;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The combined format of other servers, then the seconds that it took and the request's id.
    Combined,
    /// One JSON object.
    Json,
}

/// Where requests are written down.
pub(super) struct AccessLog {
    format: Format,
    /// `None`: on stderr.
    path: Option<PathBuf>,
    file: Mutex<Option<Arc<File>>>,
}

/// Whose request it was.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    /// Someone's at this address.
    Address(IpAddr),
    /// Someone's who came by the local door.
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

/// What is known of a request when it is over.
#[derive(Debug)]
pub(super) struct AccessRecord<'a> {
    pub(super) peer: Peer,
    /// The name of the token.
    pub(super) user: Option<&'a str>,
    pub(super) method: &'a str,
    /// Without what is confidential.
    pub(super) path: &'a str,
    pub(super) status: u16,
    /// Of the reply's body.
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
    /// Opens the file, or stderr if there is none.
    pub(super) fn open(path: Option<PathBuf>, format: Format) -> io::Result<Self> {
        let file = path.as_deref().map(open_for_append).transpose()?.map(Arc::new);
        Ok(Self { format, path, file: Mutex::new(file) })
    }

    /// Opens the file anew, after it was moved away. If that fails, which is noted, the old one is written on.
    pub(super) fn reopen(&self) {
        let Some(path) = &self.path else { return };
        match open_for_append(path) {
            Ok(file) => *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(file)),
            Err(error) => warn(format_args!("the log file stays as it was: {}: {error}", path.display())),
        }
    }

    /// Writes a line. A log that cannot be written is no reason not to serve.
    ///
    /// If whoever reads it is behind, that is waited for after `before_wait`, and without the file in hand: nobody
    /// waits for the line of another.
    pub(super) fn write(&self, entry: &AccessRecord, on_block: impl FnOnce()) {
        let line = format_line(self.format, entry, OffsetDateTime::now_utc());
        let mut outcome = self.try_write(&line);
        if outcome.is_err() {
            on_block();
        }
        while let Err(WouldBlock(file)) = outcome {
            let _ = is_writable(file.as_deref(), None);
            outcome = self.try_write(&line);
        }
    }

    /// Writes `line`, or says who is behind.
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

/// Where a line does not fit now.
struct WouldBlock(Option<Arc<File>>);

/// Whether a line can be written to `file` (`None`: stderr) without waiting, or would fail: a pipe then has room for
/// 4 KiB. It is waited for so long.
fn is_writable(file: Option<&File>, time: Option<Duration>) -> bool {
    let stderr = io::stderr();
    poll_fd(file.map_or(stderr.as_fd(), AsFd::as_fd), PollFlags::OUT, time).unwrap_or(false)
}

fn open_for_append(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn format_line(format: Format, entry: &AccessRecord, now: OffsetDateTime) -> String {
    let peer = entry.peer.to_string();
    let seconds = entry.duration.as_secs_f64();
    let &AccessRecord { user, method, path, status, bytes, id, .. } = entry;
    let mut line = match format {
        Format::Combined => {
            let time = now.format(COMBINED_TIME_FORMAT).unwrap_or_default();
            let user = user.unwrap_or("-");
            let mut line = String::new();
            // What a client says of itself (referrer, agent) may hold anything, so it is left out.
            let start = format_args!("{peer} - {user} [{time}] \"{method} {path} HTTP/1.1\" {status} {bytes}");
            write!(line, "{start} \"-\" \"-\" {seconds:.6} {id}").expect("a string takes all that is written");
            line
        }
        Format::Json => {
            let time = now.format(&Rfc3339).unwrap_or_default();
            let line = JsonRecord { time, peer, user, method, path, status, bytes, seconds, id };
            serde_json::to_string(&line).expect("plain values can be JSON")
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
        let entry = AccessRecord {
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
            format_line(Format::Combined, &entry, time),
            "192.0.2.1 - - [02/Jan/2026:03:04:05 +0000] \"GET /messages/2c26b46b HTTP/1.1\" 200 18 \"-\" \"-\" 0.001500 a1\n"
        );
        let json: serde_json::Value = serde_json::from_str(&format_line(Format::Json, &entry, time)).unwrap();
        assert_eq!((json["time"].as_str(), json["seconds"].as_f64()), (Some("2026-01-02T03:04:05Z"), Some(0.0015)));
        assert_eq!((json["user"].is_null(), json["bytes"].as_u64()), (true, Some(18)));
    }
}
