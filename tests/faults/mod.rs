//! Fault injection from outside, on the built binary. Every acknowledged message is readable and correct, or its loss
//! is reported. No command hangs or panics, and the store works again without the fault. `make test-faults` prints a
//! table of all results.

mod bit_flips;
mod clock;
mod disk;
mod failing_calls;
mod faulted_store;
mod file_damage;
mod full_disk;
mod kills;
mod permissions;
mod power_cuts;
mod removal;
mod scenarios;
mod skipped_writes;
mod strace;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::AddAssign;
use std::sync::Mutex;
use std::time::Duration;

/// Results of the runs of one fault.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub runs: usize,
    /// Number of acknowledged messages that were requested after the fault.
    pub acknowledged: usize,
    /// Number of acknowledged messages that were missing.
    pub lost: usize,
    /// Number of lost messages whose loss was reported.
    pub reported: usize,
    /// Number of runs after which the store worked again without the fault.
    pub recovered: usize,
    /// Number of commands that panicked or ended with an unexpected exit code.
    pub panics: usize,
    /// Number of commands that did not end within the timeout.
    pub hangs: usize,
    /// Number of returned messages that have none of the requested digests.
    pub wrong_bytes: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.reported += other.reported;
        self.recovered += other.recovered;
        self.panics += other.panics;
        self.hangs += other.hangs;
        self.wrong_bytes += other.wrong_bytes;
    }
}

impl Tally {
    /// Returns the number of lost messages whose loss was not reported.
    pub fn unreported(&self) -> usize {
        self.lost - self.reported
    }

    /// Adds a row to the table and asserts that no message was lost.
    pub fn assert_nothing_lost(&self, fault: &str) {
        self.assert_losses_reported(fault);
        assert_eq!(self.lost, 0, "{fault}: lost: {self:?}");
    }

    /// Adds a row to the table and asserts that all losses were reported, for a fault that destroys stored messages.
    pub fn assert_losses_reported(&self, fault: &str) {
        self.record_row(fault);
        assert!(self.runs > 0 && self.acknowledged > 0, "{fault}: nothing was tested: {self:?}");
        assert_eq!((self.panics, self.hangs, self.wrong_bytes), (0, 0, 0), "{fault}: {self:?}");
        assert_eq!(self.unreported(), 0, "{fault}: unreported losses: {self:?}");
        assert_eq!(self.recovered, self.runs, "{fault}: did not recover: {self:?}");
    }

    /// Adds the row of a control run to the table and asserts that the suite found an unreported loss in it.
    pub fn assert_loss_detected(&self, fault: &str) {
        self.record_row(&format!("(control) {fault}"));
        assert!(self.unreported() > 0, "{fault}: the loss was not detected: {self:?}");
    }

    fn record_row(&self, fault: &str) {
        let Self { runs, acknowledged, lost, reported, recovered, panics, hangs, wrong_bytes: wrong } = self;
        let row = format!(
            "{fault:<46} {runs:>5} {acknowledged:>8} {lost:>7} {reported:>8} {recovered:>6} {panics:>6} {hangs:>5} {wrong:>5}"
        );
        println!("{row}");
        let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/faults");
        let mut table = std::fs::File::options().create(true).append(true).open(path).unwrap();
        if table.metadata().unwrap().len() == 0 {
            writeln!(
                table,
                "{:<46} {:>5} {:>8} {:>7} {:>8} {:>6} {:>6} {:>5} {:>5}",
                "fault", "runs", "acknowl.", "lost", "reported", "recov.", "panics", "hangs", "wrong"
            )
            .unwrap();
        }
        writeln!(table, "{row}").unwrap();
    }
}

/// Runs all jobs, one at a time on each processor, and returns the sum of the results.
pub fn run_in_parallel<T: Send>(
    jobs: impl IntoIterator<Item = T, IntoIter: Send>,
    work: impl Fn(T) -> Tally + Sync,
) -> Tally {
    let (jobs, sum) = (Mutex::new(jobs.into_iter()), Mutex::new(Tally::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(job) = jobs.lock().unwrap().next() else { return };
                    let tally = work(job);
                    *sum.lock().unwrap() += tally;
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

/// Posts a message. Returns the status of the response, or `None` if no complete response arrived.
pub fn try_post(mut stream: TcpStream, message: &[u8]) -> Option<u16> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let text = crate::common::server::post_request(std::str::from_utf8(message).ok()?, "Connection: close\r\n");
    stream.write_all(text.as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let status = response.split(' ').nth(1)?.parse().ok()?;
    response.trim_end().ends_with('}').then_some(status)
}
