//! What is said on stderr while a command works: a progress bar on a terminal, and notes.

use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Mutex};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use crate::store::{EventSink, StoreEvent};

/// Nothing at all with `--quiet`, and no bar unless stderr is a terminal.
pub struct Progress {
    enabled: bool,
    json: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Progress {
    /// `loud` allows anything to be said.
    pub fn new(loud: bool, json: bool) -> Self {
        Self { enabled: loud, json, bar: Mutex::new(None) }
    }

    /// Where a store says what it finds.
    pub fn event_sink(self: &Arc<Self>) -> EventSink {
        let progress = self.clone();
        Arc::new(move |note| match note {
            StoreEvent::Message(text) => progress.print_notice(&text),
            StoreEvent::Warning(text) => progress.print_warning(&text),
            StoreEvent::ReplayProgress { done, total } => progress.show_bytes("reading the log", done, Some(total)),
        })
    }

    /// A line beside the results.
    pub fn print_notice(&self, text: &str) {
        if self.enabled {
            self.print_warning(text);
        }
    }

    /// Prints a line on stderr, with `--quiet` too.
    pub fn print_warning(&self, text: &str) {
        let bar = self.bar.lock().expect("no thread panics while it holds this lock");
        match &*bar {
            Some(bar) => bar.suspend(|| output::print_notice(text, self.json)),
            None => output::print_notice(text, self.json),
        }
    }

    /// How far something is, in bytes; done, it goes away.
    pub fn show_bytes(&self, what: &'static str, done: u64, total: Option<u64>) {
        let form = match total {
            Some(_) => "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            None => "{msg} {binary_bytes} {binary_bytes_per_sec} {elapsed}",
        };
        self.draw(done, || new_bar(what, total, form));
        if Some(done) == total {
            self.clear();
        }
    }

    fn draw(&self, done: u64, begin: impl FnOnce() -> ProgressBar) {
        if self.enabled && !self.json && stderr().is_terminal() {
            self.bar.lock().expect("nobody panics while holding this").get_or_insert_with(begin).set_position(done);
        }
    }

    /// How far something is that is counted in messages.
    pub fn show_count(&self, what: &'static str, done: u64, total: u64) {
        self.draw(done, || new_bar(what, Some(total), "{msg} {wide_bar} {pos}/{len} {per_sec} {eta}"));
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some(bar) = self.bar.lock().expect("nobody panics while holding this").take() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(what: &'static str, total: Option<u64>, form: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(form).expect("the template is sound");
    ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10)).with_style(style).with_message(what)
}
