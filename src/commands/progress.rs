//! Progress bar and notes on stderr. The bar appears only if stderr is a terminal.

use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Mutex};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use crate::store::{EventSink, StoreEvent};

const LOCK_POISONED: &str = "no thread panics while it holds this lock";

/// Progress of one command. `--quiet` disables the bar and the notes, `--json` the bar.
pub struct Progress {
    enabled: bool,
    json: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Progress {
    /// Creates progress output without a bar. If not `enabled`, it prints nothing.
    pub fn new(enabled: bool, json: bool) -> Self {
        Self { enabled, json, bar: Mutex::new(None) }
    }

    /// Returns an event sink that shows the events of a store.
    pub fn event_sink(self: &Arc<Self>) -> EventSink {
        let progress = self.clone();
        Arc::new(move |event| match event {
            StoreEvent::Message(text) => progress.print_notice(&text),
            StoreEvent::Warning(text) => progress.print_warning(&text),
            StoreEvent::ReplayProgress { done, total } => progress.show_bytes("reading the log", done, Some(total)),
        })
    }

    /// Prints a note on a line of its own, above the bar.
    pub fn print_notice(&self, text: &str) {
        if self.enabled {
            self.print_warning(text);
        }
    }

    /// Prints a line on stderr, with `--quiet` too.
    pub fn print_warning(&self, text: &str) {
        let bar = self.bar.lock().expect(LOCK_POISONED);
        match &*bar {
            Some(bar) => bar.suspend(|| output::print_notice(text, self.json)),
            None => output::print_notice(text, self.json),
        }
    }

    /// Shows progress in bytes. The bar disappears when `done` equals `total`.
    pub fn show_bytes(&self, label: &'static str, done: u64, total: Option<u64>) {
        let template = match total {
            Some(_) => "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            None => "{msg} {binary_bytes} {binary_bytes_per_sec} {elapsed}",
        };
        self.draw(done, || new_bar(label, total, template));
        if Some(done) == total {
            self.clear();
        }
    }

    fn draw(&self, done: u64, create: impl FnOnce() -> ProgressBar) {
        if self.enabled && !self.json && stderr().is_terminal() {
            self.bar.lock().expect(LOCK_POISONED).get_or_insert_with(create).set_position(done);
        }
    }

    /// Shows progress as a number of messages.
    pub fn show_count(&self, label: &'static str, done: u64, total: u64) {
        self.draw(done, || new_bar(label, Some(total), "{msg} {wide_bar} {pos}/{len} {per_sec} {eta}"));
    }

    /// Removes the bar.
    pub fn clear(&self) {
        if let Some(bar) = self.bar.lock().expect(LOCK_POISONED).take() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(label: &'static str, total: Option<u64>, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10)).with_style(style).with_message(label)
}
