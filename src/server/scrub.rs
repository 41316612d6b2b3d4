//! Background verification of the store. After each step, the thread sleeps nine times as long as the step took. Damage
//! is only counted here: digests are confidential, so they are not logged.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tracing::warn;

use crate::message_store::{Error, MessageStore};

/// Ratio of the sleep after a step to the duration of the step.
const IDLE_RATIO: u32 = 9;
/// Delay of the next attempt after an error, unless the interval is shorter.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// A running background verification. Dropping it stops the thread and waits for its end.
pub(super) struct Scrub {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrub {
    /// Starts a thread that verifies the store every `interval`, counted from the end of the last verification. Calls
    /// `on_damage_count` with the number of damaged places after each one.
    pub(super) fn start(
        store: Arc<dyn MessageStore>,
        interval: Duration,
        on_damage_count: impl Fn(u64) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stop_rx) = mpsc::channel();
        let work = move || drop(run_scrub(&*store, interval, &on_damage_count, &stop_rx));
        let thread = thread::Builder::new().name("scrub".into()).spawn(work)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The result is ignored: a thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

/// The request to stop the thread.
struct Stopped;

fn run_scrub(
    store: &dyn MessageStore,
    interval: Duration,
    on_damage_count: &dyn Fn(u64),
    stop_rx: &Receiver<()>,
) -> Result<(), Stopped> {
    let last_verified = store.stats().ok().and_then(|stats| {
        on_damage_count(stats.damaged);
        stats.verified
    });
    let elapsed = last_verified.and_then(|time| SystemTime::now().duration_since(time).ok());
    let mut delay = elapsed.map_or(Duration::ZERO, |elapsed| interval.saturating_sub(elapsed));
    loop {
        sleep_or_stop(stop_rx, delay)?;
        delay = match verify_all(store, stop_rx)? {
            Ok(damaged) => {
                if damaged > 0 {
                    warn!(
                        "background verification found damage in {damaged} places; run `sha-api verify` to list them"
                    );
                }
                on_damage_count(damaged);
                interval
            }
            Err(error) => {
                warn!("background verification failed: {error}");
                interval.min(RETRY_AFTER)
            }
        };
    }
}

/// Verifies the whole store in steps. Returns the number of damaged places.
fn verify_all(store: &dyn MessageStore, stop_rx: &Receiver<()>) -> Result<Result<u64, Error>, Stopped> {
    let (mut damaged, mut cursor) = (0, None);
    loop {
        let started_at = Instant::now();
        let step = match store.verify(cursor.as_ref()) {
            Ok(step) => step,
            Err(error) => return Ok(Err(error)),
        };
        damaged += step.damage.len() as u64;
        cursor = step.next;
        if cursor.is_none() {
            return Ok(Ok(damaged));
        }
        sleep_or_stop(stop_rx, started_at.elapsed() * IDLE_RATIO)?;
    }
}

/// Sleeps for `duration`. Returns an error at once when the thread has to stop.
fn sleep_or_stop(stop_rx: &Receiver<()>, duration: Duration) -> Result<(), Stopped> {
    match stop_rx.recv_timeout(duration) {
        Err(RecvTimeoutError::Timeout) => Ok(()),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
    }
}
