//! I/O of a connection on a thread that may be a leader. A leader's I/O does not block: an operation that would block
//! passes leadership on first, and then blocks until its deadline.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::deadline::{RateDeadline, deadline_after};
use super::stream::{Stream, Unsent};

/// Number of reads and writes on one connection after which a leader passes leadership on, so that a fast client does
/// not delay other connections.
const LEADER_IO_BUDGET: usize = 8;
/// Maximum number of bytes that a lingering close discards.
const LINGER_BYTES: u64 = 4 << 20;
/// Maximum duration of a lingering close.
const LINGER: Duration = Duration::from_secs(2);
/// Timeout of writing a TLS `close_notify`.
const CLOSE_NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// Leadership of the current thread. The thread must not block while it holds leadership.
pub(super) trait Leadership {
    /// Returns whether the current thread holds leadership.
    fn is_held(&self) -> bool;

    /// Passes leadership on to another thread, if it is held. May start a thread.
    fn pass_on(&mut self);
}

/// The stream of a connection, and the leadership of the thread that serves it.
pub(super) struct ConnectionIo<'a> {
    stream: &'a mut Stream,
    leadership: &'a mut dyn Leadership,
}

impl<'a> ConnectionIo<'a> {
    pub(super) fn new(stream: &'a mut Stream, leadership: &'a mut dyn Leadership) -> Self {
        match leadership.is_held() {
            true => stream.set_nonblocking(LEADER_IO_BUDGET),
            false => stream.set_blocking(),
        }
        Self { stream, leadership }
    }

    /// Passes leadership on, so that the current thread may block.
    pub(super) fn pass_on_leadership(&mut self) {
        self.leadership.pass_on();
        self.stream.set_blocking();
    }

    /// Performs `operation`. If it would block, passes leadership on and continues it.
    fn perform<T>(&mut self, mut operation: impl FnMut(&mut Stream) -> io::Result<T>) -> io::Result<T> {
        match operation(self.stream) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.pass_on_leadership();
                operation(self.stream)
            }
            result => result,
        }
    }

    /// Performs the TLS handshake.
    pub(super) fn handshake(&mut self, deadline: Instant) -> io::Result<()> {
        self.perform(|stream| stream.handshake(deadline))
    }

    /// Returns whether received plaintext is buffered.
    pub(super) fn has_buffered_plaintext(&mut self) -> bool {
        self.stream.has_buffered_plaintext()
    }

    /// Appends received bytes to `buf`. End of file is an error.
    pub(super) fn read(&mut self, buf: &mut Vec<u8>, deadline: Instant) -> io::Result<()> {
        match self.perform(|stream| stream.read(buf, deadline))? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Writes `head`, then `body`. The client must read at the rate of `rate_deadline`.
    pub(super) fn write(&mut self, head: &[u8], body: &[u8], mut rate_deadline: RateDeadline) -> io::Result<()> {
        let mut unsent = Unsent { head, body };
        while !unsent.is_empty() || self.stream.has_pending_records() {
            let sent = self.perform(|stream| stream.write(&mut unsent, rate_deadline.deadline()))?;
            rate_deadline.record_progress(sent);
        }
        Ok(())
    }

    /// Sends end of file, then discards input until the client closes or a limit is reached. Closing a socket with
    /// unread input sends a reset, and the client could lose the response.
    pub(super) fn lingering_close(&mut self) {
        let now = Instant::now();
        self.stream.queue_close_notify();
        if self.perform(|stream| stream.flush(deadline_after(now, CLOSE_NOTIFY_TIMEOUT))).is_err() {
            return;
        }
        self.stream.shutdown_write();
        let (mut remaining, mut discard) = (LINGER_BYTES, Vec::new());
        while let Ok(count @ 1..) = self.perform(|stream| stream.read_raw(&mut discard, deadline_after(now, LINGER))) {
            discard.clear();
            remaining = remaining.saturating_sub(count as u64);
            if remaining == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::thread;

    use super::super::socket::Socket;
    use super::*;

    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    /// Leadership, with the number of times that it was passed on.
    struct CountedLeadership(usize);

    impl Leadership for CountedLeadership {
        fn is_held(&self) -> bool {
            self.0 == 0
        }

        fn pass_on(&mut self) {
            self.0 += 1;
        }
    }

    fn stream() -> (Stream, UnixStream) {
        let (server, client) = UnixStream::pair().unwrap();
        (Stream::new(Arc::new(Socket::Unix(server)), None).unwrap(), client)
    }

    #[test]
    fn leadership_is_passed_on_when_a_write_would_block_and_no_byte_is_lost() {
        let (mut stream, mut client) = stream();
        let mut leadership = CountedLeadership(0);
        let rate_deadline = RateDeadline::new(TEST_TIMEOUT, 1);
        ConnectionIo::new(&mut stream, &mut leadership).write(b"head", b"", rate_deadline).unwrap();
        assert!(leadership.is_held());
        let body: Vec<u8> = (0..4 << 20).map(|number: u32| number.to_le_bytes()[1]).collect();
        let received = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut received = vec![0; b"headhead".len() + body.len()];
                client.read_exact(&mut received).unwrap();
                received
            });
            ConnectionIo::new(&mut stream, &mut leadership).write(b"head", &body, rate_deadline).unwrap();
            reader.join().unwrap()
        });
        assert_eq!(leadership.0, 1);
        assert!(received == [b"headhead", &body[..]].concat());
    }

    #[test]
    fn leadership_is_passed_on_when_the_io_budget_is_spent() {
        let (mut stream, _client) = stream();
        let mut leadership = CountedLeadership(0);
        let mut io = ConnectionIo::new(&mut stream, &mut leadership);
        for _ in 0..=LEADER_IO_BUDGET {
            assert!(io.leadership.is_held());
            io.write(b"a", b"", RateDeadline::new(TEST_TIMEOUT, 1)).unwrap();
        }
        assert!(!leadership.is_held());
    }
}
