//! The connection pool: time limits and retries. A connection on which anything failed is not used again.

use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{QueryError, is_connection_lost, is_serialization_failure, unavailable};
use super::options::Options;
use super::session::Session;
use super::{tls, url};
use crate::message_store::Error;

/// Maximum number of executions of a transaction that fails with a deadlock or a serialization failure.
const MAX_EXECUTIONS: u32 = 10;
/// Time that is added to the time limits of the sockets, so that their errors, which are more precise, come first.
const TIMEOUT_GRACE: Duration = Duration::from_secs(2);
/// Pause between two attempts to connect to an unavailable database.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// Permission to execute a transaction again after its connection was lost and its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Idempotent {
    Yes,
    /// A second execution would return another result.
    No,
}

/// A pool of connections to one database.
pub(super) struct ConnectionPool {
    name: String,
    config: Config,
    tls: MakeRustlsConnect,
    /// Maximum time to wait for a free connection and to establish a new one.
    checkout_timeout: Duration,
    ready_timeout: Duration,
    /// Time limit of an execution; `None` means no limit.
    statement_timeout: Option<Duration>,
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
    runtime: tokio::runtime::Runtime,
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ConnectionPool {
    /// Creates a pool without connections. Starts the threads of the runtime.
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let url::Target { mut config, tls, name } = url::parse(&options.url)?;
        let statement_timeout = (!options.statement_timeout.is_zero()).then_some(options.statement_timeout);
        config.connect_timeout(options.connect_timeout).keepalives_idle(Duration::from_secs(15));
        config.keepalives_interval(Duration::from_secs(5)).keepalives_retries(3);
        if let Some(limit) = statement_timeout {
            config.tcp_user_timeout(limit + TIMEOUT_GRACE);
        }
        // The time limit of a socket applies to each host of the URL.
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
        let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        Ok(Self {
            name,
            tls: MakeRustlsConnect::new(tls::config(&tls)?),
            checkout_timeout: options.connect_timeout.saturating_mul(hosts).saturating_add(TIMEOUT_GRACE),
            ready_timeout: options.ready_timeout,
            statement_timeout,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(options.pool_size.clamp(1, Semaphore::MAX_PERMITS)),
            runtime: runtime.map_err(|error| Error::io("cannot start the threads of the PostgreSQL client", error))?,
            config,
        })
    }

    /// Returns the redacted URL of the database, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the time limit of an execution; `None` means no limit.
    pub(super) const fn statement_timeout(&self) -> Option<Duration> {
        self.statement_timeout
    }

    /// Returns whether all connections are in use and no more may be opened.
    pub(super) fn is_exhausted(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// Runs `work` on a connection, and again after an error that a retry can resolve. Blocks for at most
    /// `--db-statement-timeout` per execution.
    #[allow(clippy::needless_pass_by_value, reason = "a closure is written where it is used")]
    pub(super) fn run<T>(
        &self,
        idempotent: Idempotent,
        work: impl AsyncFn(&Session) -> Result<T, QueryError>,
    ) -> Result<T, Error> {
        self.run_without_limit(idempotent, async |session| self.limit(session, work(session)).await)
    }

    /// Runs `work` like [`Self::run`]. The caller limits the time.
    #[allow(clippy::needless_pass_by_value, reason = "a closure is written where it is used")]
    pub(super) fn run_without_limit<T>(
        &self,
        idempotent: Idempotent,
        work: impl AsyncFn(&Session) -> Result<T, QueryError>,
    ) -> Result<T, Error> {
        let mut was_lost = false;
        for execution in 1.. {
            let (_permit, session) = self.checkout()?;
            let error = match self.runtime.block_on(work(&session)) {
                Ok(result) => {
                    self.idle.lock().push(session);
                    return Ok(result);
                }
                Err(error) => error,
            };
            let is_lost = match &error {
                QueryError::Statement(error) => error.code().is_none_or(is_connection_lost),
                _ => false,
            };
            if error.code().is_some_and(is_serialization_failure) && execution < MAX_EXECUTIONS {
                std::thread::sleep(Duration::from_millis(5 * u64::from(execution)));
            } else if is_lost && !was_lost && idempotent == Idempotent::Yes {
                // The connection may have been closed before the statement was sent, like the other idle ones.
                was_lost = true;
                self.idle.lock().clear();
            } else {
                return Err(error.classify(&self.name));
            }
        }
        unreachable!("the loop returns a result or an error")
    }

    /// Waits for the result of a statement on `session` within the time limit. After that, cancels the statement, so
    /// that it does not go on waiting in the database.
    pub(super) async fn limit<T>(
        &self,
        session: &Session,
        work: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, QueryError> {
        let Some(limit) = self.statement_timeout else { return work.await };
        match timeout(limit, work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                session.cancel(self.tls.clone()).await;
                Err(QueryError::TimedOut)
            }
        }
    }

    /// Opens a connection that does not belong to the pool.
    pub(super) async fn connect(&self) -> Result<Session, QueryError> {
        match timeout(self.checkout_timeout, Session::connect(&self.config, self.tls.clone())).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(QueryError::Store(self.no_connection())),
        }
    }

    /// Returns a connection. An unavailable database is tried again until `ready_timeout` has passed.
    fn checkout(&self) -> Result<(SemaphorePermit<'_>, Session), Error> {
        let deadline = Instant::now() + self.ready_timeout;
        loop {
            let error = match self.runtime.block_on(self.try_checkout()) {
                Ok(checked_out) => return Ok(checked_out),
                Err(error) => error,
            };
            if !matches!(error, Error::Unavailable { .. }) || Instant::now() >= deadline {
                return Err(error);
            }
            std::thread::sleep(RECONNECT_DELAY);
        }
    }

    async fn try_checkout(&self) -> Result<(SemaphorePermit<'_>, Session), Error> {
        let permit = timeout(self.checkout_timeout, self.permits.acquire()).await.map_err(|_| self.no_connection())?;
        let permit = permit.expect("the semaphore is never closed");
        while let Some(session) = self.pop_idle() {
            if !session.is_closed() {
                return Ok((permit, session));
            }
        }
        let session = self.connect().await.map_err(|error| error.classify(&self.name))?;
        Ok((permit, session))
    }

    fn pop_idle(&self) -> Option<Session> {
        self.idle.lock().pop()
    }

    fn no_connection(&self) -> Error {
        unavailable(&self.name, "no connection in time; raise --db-connect-timeout or --db-pool-size")
    }
}
