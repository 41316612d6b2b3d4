//! The connection pool: timeouts and retries. A connection on which a statement failed is not used again.

use std::fmt;
use std::time::{Duration, Instant};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{classify, is_connection_lost, is_serialization_failure};
use super::{Options, tls, url};
use crate::message_store::Error;

/// Maximum number of executions of a transaction that fails with a deadlock or a serialization failure.
const MAX_EXECUTIONS: u32 = 10;
/// Time that the client waits beyond a configured timeout, so that the database reports its timeout first.
const TIMEOUT_GRACE: Duration = Duration::from_secs(2);
/// Pause between two attempts to connect to an unavailable database.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// Error of one execution.
pub(super) enum QueryError {
    /// The database reported an error, or the connection failed.
    Statement(tokio_postgres::Error),
    /// The result was received, but cannot be used.
    Store(Error),
}

impl From<tokio_postgres::Error> for QueryError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Statement(error)
    }
}

impl From<Error> for QueryError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

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
    pool: Pool,
    ready_timeout: Duration,
    statement_timeout: Duration,
    response_timeout: Option<Duration>,
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
        let statement_timeout = options.statement_timeout;
        config.connect_timeout(options.connect_timeout).keepalives_idle(Duration::from_secs(15));
        config.keepalives_interval(Duration::from_secs(5)).keepalives_retries(3);
        if !statement_timeout.is_zero() {
            config.tcp_user_timeout(statement_timeout + TIMEOUT_GRACE);
        }
        let connector = MakeRustlsConnect::new(tls::config(&tls)?);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, connector, recycling);
        // With `synchronous_commit = off` for the role or the database, acknowledged messages could be lost.
        let setup = format!(
            "SET statement_timeout = {}; SELECT set_config('synchronous_commit', 'on', false) WHERE \
             current_setting('synchronous_commit') = 'off'",
            statement_timeout.as_millis()
        );
        let setup_hook = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let setup = setup.clone();
            Box::pin(async move { client.batch_execute(&setup).await.map_err(HookError::Backend) })
        });
        let checkout_timeout = Some(options.connect_timeout + TIMEOUT_GRACE);
        let builder = Pool::builder(manager).max_size(options.pool_size.max(1)).runtime(Runtime::Tokio1);
        let builder = builder.wait_timeout(checkout_timeout).create_timeout(checkout_timeout).post_create(setup_hook);
        let pool = builder.build().map_err(|error| Error::Unusable(format!("cannot use {name}: {error}")))?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        let runtime = runtime.map_err(|error| Error::io("cannot start the threads of the PostgreSQL client", error))?;
        let response_timeout = Some(statement_timeout + TIMEOUT_GRACE).filter(|_| !statement_timeout.is_zero());
        Ok(Self { name, pool, ready_timeout: options.ready_timeout, statement_timeout, response_timeout, runtime })
    }

    /// Returns the redacted URL of the database, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the maximum time for one statement; zero means no limit.
    pub(super) const fn statement_timeout(&self) -> Duration {
        self.statement_timeout
    }

    /// Returns whether all connections are in use and no more may be opened.
    pub(super) fn is_exhausted(&self) -> bool {
        let status = self.pool.status();
        status.available == 0 && status.size >= status.max_size
    }

    /// Runs `work` on a connection, and again after an error that a retry can resolve. Blocks.
    pub(super) fn run<T>(
        &self,
        idempotent: Idempotent,
        work: impl AsyncFn(&Object) -> Result<T, QueryError>,
    ) -> Result<T, Error> {
        self.run_with_timeout(self.response_timeout, idempotent, work)
    }

    /// Runs `work` like [`Self::run`], but with the given limit for each execution; `None` means no limit.
    #[allow(clippy::needless_pass_by_value, reason = "a closure is written where it is used")]
    pub(super) fn run_with_timeout<T>(
        &self,
        timeout: Option<Duration>,
        idempotent: Idempotent,
        work: impl AsyncFn(&Object) -> Result<T, QueryError>,
    ) -> Result<T, Error> {
        let mut was_lost = false;
        for execution in 1.. {
            let session = self.checkout()?;
            let outcome = self.runtime.block_on(async {
                match timeout {
                    Some(timeout) => tokio::time::timeout(timeout, work(&session)).await,
                    None => Ok(work(&session).await),
                }
            });
            let Ok(outcome) = outcome else {
                drop(Object::take(session));
                return Err(self.unavailable("no response in time; raise --db-statement-timeout"));
            };
            let error = match outcome {
                Ok(result) => return Ok(result),
                Err(QueryError::Store(error)) => return Err(error),
                Err(QueryError::Statement(error)) => error,
            };
            // The failed statement may have left an open transaction.
            drop(Object::take(session));
            match error.code() {
                Some(code) if is_serialization_failure(code) && execution < MAX_EXECUTIONS => {
                    std::thread::sleep(Duration::from_millis(5 * u64::from(execution)));
                }
                Some(code) if !is_connection_lost(code) => return Err(classify(&self.name, &error)),
                _ => {
                    // A pooled connection may have been closed before the statement was sent.
                    if was_lost || idempotent == Idempotent::No {
                        return Err(classify(&self.name, &error));
                    }
                    was_lost = true;
                }
            }
        }
        unreachable!("the loop returns a result or an error")
    }

    /// Returns a connection. An unavailable database is tried again until `ready_timeout` has passed.
    fn checkout(&self) -> Result<Object, Error> {
        let deadline = Instant::now() + self.ready_timeout;
        loop {
            let error = match self.runtime.block_on(self.pool.get()) {
                Ok(session) => return Ok(session),
                Err(PoolError::Timeout(_)) => {
                    self.unavailable("no connection in time; raise --db-connect-timeout or --db-pool-size")
                }
                Err(PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error))) => {
                    classify(&self.name, &error)
                }
                Err(error) => self.unavailable(&error.to_string()),
            };
            if !matches!(error, Error::Unavailable { .. }) || Instant::now() >= deadline {
                return Err(error);
            }
            std::thread::sleep(RECONNECT_DELAY);
        }
    }

    fn unavailable(&self, cause: &str) -> Error {
        Error::Unavailable { server: self.name.clone(), cause: cause.to_owned() }
    }
}
