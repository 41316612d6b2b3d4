//! Life cycle of a server: bind, open the store, serve, drain. The probes are answered before the store is open. The
//! server depends on `MessageStore` only, not on a particular store.

mod access_log;
mod api;
mod app;
mod auth;
mod budget;
mod cache;
mod change_detector;
mod coalescer;
mod engine;
mod error;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod http;
mod limits;
mod listen;
mod log;
mod metrics;
mod observability;
mod options;
mod poll;
mod proxies;
mod scrub;
mod semaphore;
mod systemd;

use std::io::{self, Write};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{debug, warn};

use crate::message_store::{self, MessageStore};
use access_log::AccessLog;
pub use access_log::Format as LogFormat;
use app::App;
use auth::{Auth, EndpointKind, MetricsAt};
pub use auth::{Scope, Scopes, token_file};
use budget::Budget;
pub use error::Error;
#[cfg(fuzzing)]
pub use fuzz::check_token_file;
use http::Endpoint;
#[cfg(fuzzing)]
pub use http::check_parser;
use http::tls::ReloadableCertificate;
pub use limits::Limits;
pub use log::LogLevel;
use observability::Observability;
pub use options::{Options, Tls};
pub use proxies::{IpNet, TrustedProxies};
use token_file::TokenFile;

/// Interval at which the certificate and the token file are checked for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// Minimum time between two warnings that the certificate expires soon.
const CERT_WARNING_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// An event that the main thread reacts to.
enum Event {
    /// The store was opened, or opening it failed.
    StoreOpened(Result<(), Error>),
    /// A signal was received.
    Signal(i32),
    /// All connections of one endpoint are closed.
    EndpointDrained,
}

/// Files that a reload reads: certificate, key and token file.
#[derive(Clone, Copy)]
enum ReloadFiles {
    /// Only files that changed since the last check.
    Changed,
    /// All files. The access log is reopened as well.
    All,
}

/// Serves until SIGTERM or SIGINT, then drains and returns.
///
/// `open` opens the store in a thread of its own, while the endpoints already answer `/livez` and `/readyz`. One line
/// for each listening address is written to `out` and flushed before the first connection is accepted.
pub fn run(
    options: &Options,
    out: &mut dyn Write,
    open: impl FnOnce() -> Result<Arc<dyn MessageStore>, message_store::Error> + Send + 'static,
) -> Result<(), Error> {
    log::init(options.log_level);
    let (events, events_rx) = mpsc::channel();
    watch_signals(&events).map_err(io_error("cannot handle signals"))?;
    limits::raise_fd_limit(
        options.limits.max_connections,
        options.listen.len() + engine::FD_COST + limits::MAX_REJECTED,
    )?;
    let certificate = ReloadableCertificate::load(&options.tls)?;
    let tls = certificate.as_ref().map(|current| current.config(options.client_ca.as_deref())).transpose()?;
    let token_file = options.token_file.clone().map(TokenFile::load).transpose()?;
    let access_log = open_access_log(options)?;
    let listeners = listen::bind_all(options, out)?;
    let metrics_listener = listen::bind_metrics(options)?;
    let local_limits = options.limits.for_local_socket(options.max_message);
    let budget = Budget::new(options.limits.memory_budget(&local_limits));
    let auth = Auth {
        enabled: options.enabled_scopes,
        token_file,
        metrics_at: if metrics_listener.is_some() { MetricsAt::Separate } else { MetricsAt::Public },
        ui_enabled: options.ui_enabled,
    };
    let app = Arc::new(App::new(options.cache_size, budget, auth, Observability::new(access_log)));
    let start_endpoint = |listeners, limits: &Limits, tls, kind| {
        let events = events.clone();
        let on_drained = move || drop(events.send(Event::EndpointDrained));
        let endpoint = Endpoint::start(listeners, limits.clone(), tls, Arc::clone(&app), kind, on_drained);
        endpoint.map_err(io_error("cannot start accepting connections"))
    };
    let public = start_endpoint(listeners, &options.limits, tls, EndpointKind::Public)?;
    let start_metrics = |listener| start_endpoint(vec![listener], &options.limits, None, EndpointKind::Metrics);
    let mut endpoints = vec![public];
    endpoints.extend(metrics_listener.map(start_metrics).transpose()?);
    let mut scrub = None;

    open_store(open, &app, &events).map_err(io_error("cannot start the thread that opens the store"))?;
    let mut warned_at: Option<Instant> = None;
    let reload = |files: ReloadFiles| {
        if let Some(certificate) = &certificate {
            match files {
                ReloadFiles::All => certificate.reload(),
                ReloadFiles::Changed => certificate.reload_if_changed(),
            }
            app.observability.metrics.set_certificate_expiry(certificate.not_after().unwrap_or(0));
            if warned_at.is_none_or(|warned_at| warned_at.elapsed() > CERT_WARNING_INTERVAL) {
                certificate.warn_if_expiring();
                warned_at = Some(Instant::now());
            }
        }
        match files {
            ReloadFiles::All => {
                app.observability.reopen_access_log();
                app.auth.reload();
            }
            ReloadFiles::Changed => app.auth.reload_if_changed(),
        }
    };
    run_until_signal(&events_rx, reload, || {
        // The socket is created after the store was opened, because it may replace the leftover of a dead server, and
        // only the holder of the store's lock may do that.
        if let Some(listener) = options.local_socket.as_deref().and_then(listen::bind_local_socket) {
            endpoints.push(start_endpoint(vec![listener], &local_limits, None, EndpointKind::Local)?);
        }
        let start_scrub =
            |interval| app.start_scrub(interval).map_err(io_error("cannot start the background verification"));
        scrub = options.scrub_interval.map(start_scrub).transpose()?.flatten();
        systemd::notify("READY=1");
        app.status.mark_ready();
        Ok(())
    })?;

    debug!("shutting down");
    systemd::notify("STOPPING=1");
    app.status.mark_draining();
    drop(scrub);
    let draining = endpoints.len();
    endpoints.into_iter().for_each(Endpoint::shut_down);
    wait_drained(&events_rx, options.drain_timeout, draining);
    Ok(())
}

/// Blocks until SIGTERM or SIGINT. Returns an error if the store cannot be opened or `on_opened` fails.
///
/// Calls `reload` at the start, every [`RELOAD_INTERVAL`] and on SIGHUP, and `on_opened` when the store is open.
fn run_until_signal(
    events_rx: &mpsc::Receiver<Event>,
    mut reload: impl FnMut(ReloadFiles),
    mut on_opened: impl FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    reload(ReloadFiles::Changed);
    loop {
        match events_rx.recv_timeout(RELOAD_INTERVAL) {
            Ok(Event::StoreOpened(outcome)) => {
                outcome?;
                debug!("store opened");
                on_opened()?;
            }
            Ok(Event::Signal(SIGHUP)) => reload(ReloadFiles::All),
            Ok(Event::Signal(_) | Event::EndpointDrained) | Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            Err(mpsc::RecvTimeoutError::Timeout) => reload(ReloadFiles::Changed),
        }
    }
}

/// Blocks until all `endpoints` are drained, `timeout` has passed, or a second signal is received.
fn wait_drained(events_rx: &mpsc::Receiver<Event>, timeout: Duration, mut endpoints: usize) {
    let started_at = Instant::now();
    while endpoints > 0 {
        match events_rx.recv_timeout(timeout.saturating_sub(started_at.elapsed())) {
            Ok(Event::StoreOpened(_) | Event::Signal(SIGHUP)) => {}
            Ok(Event::EndpointDrained) => endpoints -= 1,
            Ok(Event::Signal(_)) => return warn!("second signal received; aborting requests in flight"),
            Err(_) => return warn!("drain timeout reached; aborting requests in flight"),
        }
    }
}

/// Opens the store in a thread, which sends [`Event::StoreOpened`] when it is done.
fn open_store(
    open: impl FnOnce() -> Result<Arc<dyn MessageStore>, message_store::Error> + Send + 'static,
    app: &Arc<App>,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let (app, events) = (Arc::clone(app), events.clone());
    let work = move || {
        let outcome = open().map_err(Error::Store).and_then(|store| app.attach_store(store));
        // Dropped before the event is sent, so that this thread cannot keep the store open after a shutdown.
        drop(app);
        let _ = events.send(Event::StoreOpened(outcome));
    };
    thread::Builder::new().name("store-open".into()).spawn(work).map(drop)
}

fn watch_signals(events: &mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let events = events.clone();
    let mut work = move || signals.forever().try_for_each(|signal| events.send(Event::Signal(signal)));
    thread::Builder::new().name("signals".into()).spawn(move || drop(work())).map(drop)
}

/// Returns a function that adds `action`, which failed, to an I/O error.
fn io_error(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::Io(action.to_owned(), error)
}

fn open_access_log(options: &Options) -> Result<Option<AccessLog>, Error> {
    let Some(format) = options.access_log_format else { return Ok(None) };
    let path = options.access_log.clone();
    let name = path.as_deref().map_or_else(|| "stderr".to_owned(), |path| path.display().to_string());
    let opened = AccessLog::open(path, format);
    opened.map(Some).map_err(|error| Error::Io(format!("cannot open the access log {name}"), error))
}
