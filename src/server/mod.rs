//! The life of a server: listen, open the store, answer, drain, stop. It knows only `Messages`, not the store.

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
mod http;
mod limits;
mod listen;
mod metrics;
mod options;
mod poll;
mod proxies;
mod scrub;
mod semaphore;
mod systemd;
pub mod token_file;

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::message_store::{self, MessageStore};
use access_log::AccessLog;
pub use access_log::Format as LogFormat;
use app::{App, EndpointKind};
use auth::Authorizer;
pub use auth::{Scope, Scopes};
use budget::Budget;
pub use error::Error;
use http::Endpoint;
#[cfg(fuzzing)]
pub use http::check_parser;
use http::tls::ReloadableCertificate;
pub use limits::Limits;
pub use options::{Options, Tls};
pub use proxies::{IpNet, TrustedProxies};
use token_file::TokenFile;

/// How often the files that may change are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is said that the certificate expires soon.
const CERT_WARNING_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// What a running server reacts to.
enum Event {
    /// The store is open, or it would not open.
    StoreOpened(Result<(), Error>),
    /// A signal came.
    Signal(i32),
    /// All connections at a door have ended.
    EndpointDrained,
}

/// Serves until SIGTERM or SIGINT, then drains and returns.
///
/// `open` opens the store; it runs while the door already answers `/livez` and `/readyz`. A line for each address that
/// is listened on goes to `out`, at once.
pub fn run(
    options: &Options,
    out: &mut dyn Write,
    open: impl FnOnce() -> Result<Arc<dyn MessageStore>, message_store::Error> + Send + 'static,
) -> Result<(), Error> {
    let (events, events_rx) = mpsc::channel();
    watch_signals(&events).map_err(|error| Error::Io("watching for signals".into(), error))?;
    limits::raise_fd_limit(options.limits.max_connections, options.listen.len())?;
    let certificate = ReloadableCertificate::load(&options.tls)?;
    let tls = certificate.as_ref().map(|own| own.config(options.client_ca.as_deref())).transpose()?;
    let tokens = options.token_file.clone().map(TokenFile::load).transpose()?;
    let log = open_access_log(options)?;
    let listeners = listen::bind_all(options, out)?;
    let metrics_listener = listen::bind_metrics(options)?;
    let local_limits = options.limits.for_local_socket(options.max_message);
    let budget = Budget::new(options.limits.memory_budget(&local_limits));
    let service = {
        let rights = Authorizer::new(options.enabled_scopes, tokens);
        let service = App::new(options.cache_size, budget, rights, log, metrics_listener.is_some());
        Arc::new(service.with_ui_enabled(options.ui_enabled))
    };
    let open_door = |listeners, limits: &Limits, tls, side| {
        let opened = Endpoint::start(listeners, limits.clone(), tls, Arc::clone(&service), side);
        opened.map_err(|error| Error::Io("starting to accept connections".into(), error))
    };
    let public = open_door(listeners, &options.limits, tls, EndpointKind::Public)?;
    let open_metrics = |listener| open_door(vec![listener], &options.limits, None, EndpointKind::Metrics);
    let mut doors = vec![public];
    doors.extend(metrics_listener.map(open_metrics).transpose()?);
    let mut scrub = None;

    open_store(open, &service, &events).map_err(|error| Error::Io("starting a thread".into(), error))?;
    let mut warned: Option<Instant> = None;
    let refresh = |always| {
        if let Some(certificate) = &certificate {
            certificate.reload(always);
            service.set_certificate_expiry(certificate.not_after().unwrap_or(0));
            if warned.is_none_or(|warned| warned.elapsed() > CERT_WARNING_INTERVAL) {
                certificate.warn_if_expiring();
                warned = Some(Instant::now());
            }
        }
        service.reload(always);
    };
    run_until_signal(&events_rx, refresh, || {
        // Only now: whoever left a socket there does not have the store any more.
        if let Some(listener) = options.local_socket.as_deref().and_then(listen::bind_local_socket) {
            doors.push(open_door(vec![listener], &local_limits, None, EndpointKind::Local)?);
        }
        let start =
            |interval| service.start_scrub(interval).map_err(|error| Error::Io("starting to verify".into(), error));
        scrub = options.scrub_interval.map(start).transpose()?.flatten();
        systemd::notify("READY=1");
        service.mark_ready();
        Ok(())
    })?;

    systemd::notify("STOPPING=1");
    service.mark_draining();
    drop(scrub);
    for door in &mut doors {
        let events = events.clone();
        door.shutdown(move || drop(events.send(Event::EndpointDrained)));
    }
    wait_drained(&events_rx, options.drain_timeout, doors.len());
    Ok(())
}

/// Waits for the time to stop. An error if the store would not open.
///
/// `refresh` reads again the files that have changed, or all of them; `opened` is called once the store is open.
fn run_until_signal(
    events_rx: &mpsc::Receiver<Event>,
    mut refresh: impl FnMut(bool),
    mut opened: impl FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    refresh(false);
    loop {
        match events_rx.recv_timeout(RELOAD_INTERVAL) {
            Ok(Event::StoreOpened(outcome)) => {
                outcome?;
                opened()?;
            }
            Ok(Event::Signal(SIGHUP)) => refresh(true),
            Ok(Event::Signal(_) | Event::EndpointDrained) | Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            Err(mpsc::RecvTimeoutError::Timeout) => refresh(false),
        }
    }
}

/// Waits until the last connection at each of the doors has ended, the time is up, or a second signal comes.
fn wait_drained(events_rx: &mpsc::Receiver<Event>, time: Duration, mut doors: usize) {
    let start = Instant::now();
    while doors > 0 {
        match events_rx.recv_timeout(time.saturating_sub(start.elapsed())) {
            Ok(Event::StoreOpened(_) | Event::Signal(SIGHUP)) => {}
            Ok(Event::EndpointDrained) => doors -= 1,
            Ok(Event::Signal(_)) => return warn("stopped before the last requests were finished: asked twice"),
            Err(_) => return warn("stopped before the last requests were finished: they took too long"),
        }
    }
}

fn open_store(
    open: impl FnOnce() -> Result<Arc<dyn MessageStore>, message_store::Error> + Send + 'static,
    service: &Arc<App>,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let (service, events) = (Arc::clone(service), events.clone());
    let work = move || {
        let outcome = open().map_err(Error::Store).and_then(|messages| service.attach_store(messages));
        // Let go before it is said: after the last event nobody else holds the store.
        drop(service);
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

fn open_access_log(options: &Options) -> Result<Option<AccessLog>, Error> {
    let Some(format) = options.access_log_format else { return Ok(None) };
    let file = options.access_log.clone();
    let name = file.as_deref().map_or_else(String::new, |file| file.display().to_string());
    AccessLog::open(file, format).map(Some).map_err(|error| Error::Io(name, error))
}

/// A line for the operator. Unlike `eprintln!` it does not panic when nobody reads.
fn warn(what: impl Display) {
    let _ = writeln!(io::stderr(), "sha-api: {what}");
}
