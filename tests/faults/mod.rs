//! Faults from outside, on the built binary: what was acknowledged is there and true, or its loss is said; nothing
//! hangs or panics; and without the cause it works again. `make test-faults` prints one table of all.

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

/// What came of some runs of one fault.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub runs: usize,
    /// Messages that were acknowledged and were asked for after the fault.
    pub acknowledged: usize,
    /// Of these, those that were not there.
    pub lost: usize,
    /// Of the lost, those whose loss was said.
    pub reported: usize,
    /// Runs after which, without the cause, everything worked again.
    pub recovered: usize,
    pub panics: usize,
    pub hangs: usize,
    /// Bytes that were handed out and hash to nothing that was asked for.
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
    /// Lost without a word.
    pub fn unreported(&self) -> usize {
        self.lost - self.reported
    }

    /// Adds a row to the table and fails if a promise was broken. `may_lose`: the fault destroys what is stored.
    pub fn record_and_assert(&self, fault: &str, may_lose: bool) {
        self.record_row(fault);
        assert!(self.runs > 0 && self.acknowledged > 0, "{fault}: nothing was tried: {self:?}");
        assert_eq!((self.panics, self.hangs, self.wrong_bytes), (0, 0, 0), "{fault}: {self:?}");
        assert_eq!(self.unreported(), 0, "{fault}: lost without a word: {self:?}");
        assert!(may_lose || self.lost == 0, "{fault}: lost: {self:?}");
        assert_eq!(self.recovered, self.runs, "{fault}: did not recover: {self:?}");
    }

    /// Adds the row of a run that must have lost something without a word: else the suite cannot see a loss.
    pub fn record_and_assert_loss(&self, fault: &str) {
        self.record_row(&format!("(control) {fault}"));
        assert!(self.unreported() > 0, "{fault}: a loss was not seen: {self:?}");
    }

    fn record_row(&self, fault: &str) {
        let Self { runs, acknowledged, lost, reported: said, recovered, panics, hangs, wrong_bytes: wrong } = self;
        let row = format!(
            "{fault:<46} {runs:>5} {acknowledged:>8} {lost:>7} {said:>5} {recovered:>6} {panics:>6} {hangs:>5} {wrong:>5}"
        );
        println!("{row}");
        let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/faults");
        let mut table = std::fs::File::options().create(true).append(true).open(path).unwrap();
        if table.metadata().unwrap().len() == 0 {
            writeln!(
                table,
                "{:<46} {:>5} {:>8} {:>7} {:>5} {:>6} {:>6} {:>5} {:>5}",
                "fault", "runs", "acknowl.", "lost", "said", "recov.", "panics", "hangs", "wrong"
            )
            .unwrap();
        }
        writeln!(table, "{row}").unwrap();
    }
}

/// Does every job, as many at a time as there are processors, and adds up what came of them.
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

/// Posts a message; the status of the reply, if a whole one came.
pub fn try_post(mut stream: TcpStream, message: &[u8]) -> Option<u16> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let text = crate::common::server::post_request(std::str::from_utf8(message).ok()?, "Connection: close\r\n");
    stream.write_all(text.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let status = reply.split(' ').nth(1)?.parse().ok()?;
    reply.trim_end().ends_with('}').then_some(status)
}
