//! The life of a server: listen, open the store, answer, drain, stop. It knows only `Messages`, not the store.

mod api;
mod budget;
mod cache;
mod door;
mod engine;
mod limits;
mod log;
mod metrics;
mod rights;
mod scrub;
mod service;
mod systemd;
#[cfg(test)]
mod testing;
pub mod tokens;
mod turns;
mod watch;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::messages::{self, Messages};
use budget::Budget;
#[cfg(fuzzing)]
pub use door::check_parser;
use door::tls::Certificate;
use door::{Door, Listener};
pub use limits::Limits;
use log::AccessLog;
pub use log::Format as LogFormat;
use rights::Rights;
pub use rights::{Scope, Scopes};
use service::{Service, Side};
use tokens::Tokens;

/// How often the files that may change are looked at.
const WATCH: Duration = Duration::from_secs(2);
/// How often it is said that the certificate expires soon.
const WARN: Duration = Duration::from_secs(24 * 3600);

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// `ADDRESS:PORT`, at least one.
    pub listen: Vec<String>,
    /// What connections speak.
    pub tls: Tls,
    /// Who may connect with TLS: only holders of certificates from the authorities in this file, PEM.
    pub client_ca: Option<PathBuf>,
    /// Who may do what, if not everyone: see [`tokens`].
    pub token_file: Option<PathBuf>,
    /// Where those come who have the store's files anyway, and may do everything: a socket that is made once the store
    /// is open.
    pub local: Option<PathBuf>,
    /// The longest message that the store takes, in bytes.
    pub max_message: u64,
    /// Where the metrics are shown, in plain HTTP, if not where the messages are.
    pub metrics_listen: Option<String>,
    /// How requests are written down, if they are.
    pub log_format: Option<LogFormat>,
    /// Where to; `None`: on stderr.
    pub log_file: Option<PathBuf>,
    /// What is done at all.
    pub offered: Scopes,
    /// Whether there is a page for people.
    pub page: bool,
    /// What is allowed, and how long it may take.
    pub limits: Limits,
    /// Bytes for replies that can be sent again as they are; 0 is none.
    pub cache_size: u64,
    /// How often everything is verified, if it is.
    pub scrub_interval: Option<Duration>,
    /// How long requests in flight may take to finish at the end.
    pub drain_timeout: Duration,
}

/// What connections speak.
#[derive(Debug, Clone)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// HTTPS with the user's pair, PEM. The key may stand in the certificate's file.
    Pair {
        /// The chain.
        cert: PathBuf,
        /// The key; `None`: in the chain's file.
        key: Option<PathBuf>,
    },
    /// HTTPS with a pair made once in this directory.
    SelfSigned(PathBuf),
}

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store would not open.
    #[error(transparent)]
    Store(#[from] messages::Error),
    /// The token file cannot be used.
    #[error(transparent)]
    Tokens(#[from] tokens::Error),
    /// What was tried, and why it failed.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// A certificate or key that cannot be used.
    #[error("{}: {why}", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The process may not open as many files as connections are wanted.
    #[error(
        "{needed} files may be open at a time with --max-connections {connections}, but the limit is {allowed}; \
         raise it (ulimit -n) or lower --max-connections"
    )]
    Descriptors {
        /// Connections that are wanted.
        connections: usize,
        /// Files that may have to be open.
        needed: u64,
        /// Files that may be.
        allowed: u64,
    },
}

/// What a running server reacts to.
enum Event {
    /// The store is open, or it would not open.
    Opened(Result<(), Error>),
    /// A signal came.
    Signal(i32),
    /// All connections at a door have ended.
    Empty,
}

/// Serves until SIGTERM or SIGINT, then drains and returns.
///
/// `open` opens the store; it runs while the door already answers `/livez` and `/readyz`. A line for each address that
/// is listened on goes to `out`, at once.
pub fn run(
    options: &Options,
    out: &mut dyn Write,
    open: impl FnOnce() -> Result<Arc<dyn Messages>, messages::Error> + Send + 'static,
) -> Result<(), Error> {
    let (events, happens) = mpsc::channel();
    watch_signals(&events).map_err(|error| Error::Io("watching for signals".into(), error))?;
    limits::raise_descriptors(options.limits.connections, options.listen.len())?;
    let certificate = Certificate::load(&options.tls)?;
    let tls = certificate.as_ref().map(|own| own.config(options.client_ca.as_deref())).transpose()?;
    let tokens = options.token_file.clone().map(Tokens::load).transpose()?;
    let log = open_log(options)?;
    let listeners = listen(options, out)?;
    let metrics_listener = listen_for_metrics(options)?;
    let local_limits = options.limits.local(options.max_message);
    let budget = Budget::new(options.limits.memory(&local_limits));
    let service = {
        let rights = Rights::new(options.offered, tokens);
        let service = Service::new(options.cache_size, budget, rights, log, metrics_listener.is_some());
        Arc::new(service.with_page(options.page))
    };
    let open_door = |listeners, limits: &Limits, tls, side| {
        let opened = Door::open(listeners, limits.clone(), tls, Arc::clone(&service), side);
        opened.map_err(|error| Error::Io("starting to accept connections".into(), error))
    };
    let public = open_door(listeners, &options.limits, tls, Side::Public)?;
    let open_metrics = |listener| open_door(vec![listener], &options.limits, None, Side::Metrics);
    let metrics_door = metrics_listener.map(open_metrics).transpose()?;
    let mut doors = vec![public];
    let mut scrub = None;

    open_store(open, &service, &events).map_err(|error| Error::Io("starting a thread".into(), error))?;
    let mut warned: Option<Instant> = None;
    let refresh = |always| {
        if let Some(certificate) = &certificate {
            certificate.refresh(always);
            service.expires(certificate.not_after().unwrap_or(0));
            if warned.is_none_or(|warned| warned.elapsed() > WARN) {
                certificate.warn();
                warned = Some(Instant::now());
            }
        }
        service.refresh(always);
    };
    wait(&happens, refresh, || {
        // Only now: whoever left a socket there does not have the store any more.
        if let Some(listener) = options.local.as_deref().and_then(listen_locally) {
            doors.push(open_door(vec![listener], &local_limits, None, Side::Local)?);
        }
        let start = |interval| service.scrub(interval).map_err(|error| Error::Io("starting to verify".into(), error));
        scrub = options.scrub_interval.map(start).transpose()?.flatten();
        Ok(())
    })?;

    systemd::notify("STOPPING=1");
    service.drain();
    drop(scrub);
    // Who watches may see the end coming; nobody waits for who watches.
    drop(metrics_door);
    for door in &mut doors {
        let events = events.clone();
        door.close(move || drop(events.send(Event::Empty)));
    }
    drain(&happens, options.drain_timeout, doors.len());
    Ok(())
}

/// Waits for the time to stop. An error if the store would not open.
///
/// `refresh` reads again the files that have changed, or all of them; `opened` is called once the store is open.
fn wait(
    happens: &mpsc::Receiver<Event>,
    mut refresh: impl FnMut(bool),
    mut opened: impl FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    refresh(false);
    loop {
        match happens.recv_timeout(WATCH) {
            Ok(Event::Opened(outcome)) => {
                outcome?;
                opened()?;
                systemd::notify("READY=1");
            }
            Ok(Event::Signal(SIGHUP)) => refresh(true),
            Ok(Event::Signal(_) | Event::Empty) | Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            Err(mpsc::RecvTimeoutError::Timeout) => refresh(false),
        }
    }
}

/// Waits until the last connection at each of the doors has ended, the time is up, or a second signal comes.
fn drain(happens: &mpsc::Receiver<Event>, time: Duration, mut doors: usize) {
    let start = Instant::now();
    while doors > 0 {
        match happens.recv_timeout(time.saturating_sub(start.elapsed())) {
            Ok(Event::Opened(_) | Event::Signal(SIGHUP)) => {}
            Ok(Event::Empty) => doors -= 1,
            Ok(Event::Signal(_)) => return note("stopped before the last requests were finished: asked twice"),
            Err(_) => return note("stopped before the last requests were finished: they took too long"),
        }
    }
}

fn open_store(
    open: impl FnOnce() -> Result<Arc<dyn Messages>, messages::Error> + Send + 'static,
    service: &Arc<Service>,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let (service, events) = (Arc::clone(service), events.clone());
    let work = move || {
        let outcome = open().map_err(Error::Store).and_then(|messages| service.open(messages));
        // Let go before it is said: after the last event nobody else holds the store.
        drop(service);
        let _ = events.send(Event::Opened(outcome));
    };
    thread::Builder::new().name("open".into()).spawn(work).map(drop)
}

fn watch_signals(events: &mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let events = events.clone();
    let mut work = move || signals.forever().try_for_each(|signal| events.send(Event::Signal(signal)));
    thread::Builder::new().name("signals".into()).spawn(move || drop(work())).map(drop)
}

/// Binds all, then says so.
fn listen(options: &Options, out: &mut dyn Write) -> Result<Vec<Listener>, Error> {
    let failed = |address: &str| {
        let what = format!("listening on {address}");
        move |error| Error::Io(what, error)
    };
    let mut listeners = Vec::new();
    let mut lines = String::new();
    let handed = systemd::listeners().map_err(failed("the sockets of systemd"))?;
    let bind = |address: &String| Listener::bind(address).map_err(failed(address));
    let bound: Vec<_> = match handed.is_empty() {
        true => options.listen.iter().map(bind).collect::<Result<_, _>>()?,
        false => {
            handed.into_iter().map(Listener::of).collect::<Result<_, _>>().map_err(failed("a socket of systemd"))?
        }
    };
    for listener in bound {
        let bound = listener.address().map_err(failed("a socket"))?;
        let scheme = if matches!(options.tls, Tls::Off) { "http" } else { "https" };
        lines.extend(["listening on ", scheme, "://", &bound.to_string(), "\n"]);
        if !bound.ip().to_canonical().is_loopback() && options.token_file.is_none() && options.client_ca.is_none() {
            let scopes = options.offered.and(Scopes::ANYONE).to_string().replace(',', " and ");
            note(format_args!("anyone who can connect to {bound} may {scopes}: there are no tokens"));
        }
        listeners.push(listener);
    }
    // Nobody may be reading; that is no reason not to serve.
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
    Ok(listeners)
}

/// Makes the socket of the local door. Without it the server serves all the same, which is noted.
fn listen_locally(path: &Path) -> Option<Listener> {
    let failed = |error| note(format_args!("no commands beside this server: {}: {error}", path.display()));
    Listener::local(path).map_err(failed).ok()
}

/// Binds where the metrics are shown, and says so.
fn listen_for_metrics(options: &Options) -> Result<Option<Listener>, Error> {
    let Some(address) = &options.metrics_listen else { return Ok(None) };
    let failed = |error| Error::Io(format!("listening on {address}"), error);
    let listener = Listener::bind(address).map_err(failed)?;
    note(format_args!("metrics on http://{}/metrics", listener.address().map_err(failed)?));
    Ok(Some(listener))
}

fn open_log(options: &Options) -> Result<Option<AccessLog>, Error> {
    let Some(format) = options.log_format else { return Ok(None) };
    let file = options.log_file.clone();
    let name = file.as_deref().map_or_else(String::new, |file| file.display().to_string());
    AccessLog::open(file, format).map(Some).map_err(|error| Error::Io(name, error))
}

/// A line for the operator. Unlike `eprintln!` it does not panic when nobody reads.
fn note(what: impl Display) {
    let _ = writeln!(io::stderr(), "sha-api: {what}");
}
