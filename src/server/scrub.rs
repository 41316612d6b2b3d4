//! Verifies the store in the background, gently: after each step it rests nine times as long as that took.
//! What it finds is counted here; the digests are capabilities, so only `verify` names them.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::warn;
use crate::message_store::{Error, MessageStore};

/// How long to rest, in what the last step took.
const IDLE_RATIO: u32 = 9;
/// After an error, it is tried again so much later, or at the usual time if that is sooner.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// Goes on until it is dropped.
pub(super) struct Scrub {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrub {
    /// Verifies everything once an `interval`, counted from the last time; `found` hears how much damage there is.
    pub(super) fn start(
        messages: Arc<dyn MessageStore>,
        interval: Duration,
        found: impl Fn(u64) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let work = move || drop(run_scrub(&*messages, interval, &found, &stopped));
        let thread = thread::Builder::new().name("scrub".into()).spawn(work)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If it has panicked, it has stopped as well.
            let _ = thread.join();
        }
    }
}

/// It is time to end.
struct Stopped;

fn run_scrub(
    messages: &dyn MessageStore,
    interval: Duration,
    found: &dyn Fn(u64),
    stopped: &Receiver<()>,
) -> Result<(), Stopped> {
    let last = messages.stats().ok().and_then(|stats| {
        found(stats.damaged);
        stats.verified
    });
    let since = last.and_then(|last| SystemTime::now().duration_since(last).ok());
    let mut wait = since.map_or(Duration::ZERO, |since| interval.saturating_sub(since));
    loop {
        sleep_or_stop(stopped, wait)?;
        wait = match verify_all(messages, stopped)? {
            Ok(damaged) => {
                if damaged > 0 {
                    warn(format_args!("verifying found damage in {damaged} places; `sha-api verify` names them"));
                }
                found(damaged);
                interval
            }
            Err(error) => {
                warn(format_args!("verifying broke off: {error}"));
                interval.min(RETRY_AFTER)
            }
        };
    }
}

/// How much damage there is.
fn verify_all(messages: &dyn MessageStore, stopped: &Receiver<()>) -> Result<Result<u64, Error>, Stopped> {
    let (mut damaged, mut from) = (0, None);
    loop {
        let began = Instant::now();
        let step = match messages.verify(from.as_ref()) {
            Ok(step) => step,
            Err(error) => return Ok(Err(error)),
        };
        damaged += step.damage.len() as u64;
        from = step.next;
        if from.is_none() {
            return Ok(Ok(damaged));
        }
        sleep_or_stop(stopped, began.elapsed() * IDLE_RATIO)?;
    }
}

fn sleep_or_stop(stopped: &Receiver<()>, time: Duration) -> Result<(), Stopped> {
    match stopped.recv_timeout(time) {
        Err(RecvTimeoutError::Timeout) => Ok(()),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
    }
}
