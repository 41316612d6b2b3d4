//! Reports of the running server: one line `sha-api: …` on stderr for each event of `tracing`.

use std::fmt;
use std::io;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Least severe events that are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures that need an operator.
    Error,
    /// Failures that the server handles.
    Warn,
    /// Changes of the server's state.
    Info,
    /// Details for the search of an error.
    Debug,
}

/// Starts reporting events up to `level`. Has no effect if events are already reported.
pub(super) fn init(level: LogLevel) {
    let max_level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // A closed stderr must not stop the server, so errors of writing are ignored.
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(max_level)
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(io::stderr)
        .event_format(LineFormat);
    let _ = tracing::subscriber::set_global_default(subscriber.finish());
}

/// Writes only the message of an event.
struct LineFormat;

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        writer.write_str("sha-api: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
