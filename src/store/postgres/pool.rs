//! Connections to a database: a pool of them, deadlines, and second tries. A connection on which anything failed is not
//! used again.

use std::fmt;
use std::time::{Duration, Instant};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{classify, is_connection_lost, is_serialization_failure};
use super::{Options, tls, url};
use crate::message_store::Error;

/// How often a statement is tried again that only others stood in the way of.
const MAX_RETRIES: u32 = 10;
/// How much longer than the database itself we wait for it.
const TIMEOUT_GRACE: Duration = Duration::from_secs(2);
/// Before a database that is not there is asked again.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// What came of one try.
pub(super) enum QueryError {
    /// The statement did.
    Statement(tokio_postgres::Error),
    /// It is known already what to say.
    Store(Error),
}

impl From<tokio_postgres::Error> for QueryError {
    fn from(why: tokio_postgres::Error) -> Self {
        Self::Statement(why)
    }
}

impl From<Error> for QueryError {
    fn from(why: Error) -> Self {
        Self::Store(why)
    }
}

/// Whether to do it a second time when it is not known what came of the first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Idempotent {
    Yes,
    /// The answer would be another.
    No,
}

/// A pool of connections.
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
    /// Connects to nothing yet.
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let url::Target { mut config, tls, name } = url::parse(&options.url)?;
        let limit = options.statement_timeout;
        config.connect_timeout(options.connect_timeout).keepalives_idle(Duration::from_secs(15));
        config.keepalives_interval(Duration::from_secs(5)).keepalives_retries(3);
        if !limit.is_zero() {
            config.tcp_user_timeout(limit + TIMEOUT_GRACE);
        }
        let connector = MakeRustlsConnect::new(tls::config(&tls)?);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, connector, recycling);
        // Nobody may lose what was acknowledged because `synchronous_commit` is off for this user or database.
        let setup = format!(
            "SET statement_timeout = {}; SELECT set_config('synchronous_commit', 'on', false) WHERE \
             current_setting('synchronous_commit') = 'off'",
            limit.as_millis()
        );
        let prepare = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let setup = setup.clone();
            Box::pin(async move { client.batch_execute(&setup).await.map_err(HookError::Backend) })
        });
        let connect = Some(options.connect_timeout + TIMEOUT_GRACE);
        let pool = Pool::builder(manager).max_size(options.pool_size.max(1)).runtime(Runtime::Tokio1);
        let pool = pool.wait_timeout(connect).create_timeout(connect).post_create(prepare).build();
        let pool = pool.map_err(|why| Error::Unusable(format!("cannot use {name}: {why}")))?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        let runtime = runtime.map_err(|why| Error::io("cannot start threads for the database", why))?;
        let deadline = Some(limit + TIMEOUT_GRACE).filter(|_| !limit.is_zero());
        Ok(Self {
            name,
            pool,
            ready_timeout: options.ready_timeout,
            statement_timeout: limit,
            response_timeout: deadline,
            runtime,
        })
    }

    /// What the database is called in errors.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How long a statement may take; zero is for ever.
    pub(super) const fn statement_timeout(&self) -> Duration {
        self.statement_timeout
    }

    /// Whether all connections are at work.
    pub(super) fn is_exhausted(&self) -> bool {
        let status = self.pool.status();
        status.available == 0 && status.size >= status.max_size
    }

    /// Does `work` on a connection, and again where that can change the outcome.
    pub(super) fn run<T>(
        &self,
        again: Idempotent,
        work: impl AsyncFn(&Object) -> Result<T, QueryError>,
    ) -> Result<T, Error> {
        self.run_with_timeout(self.response_timeout, again, work)
    }

    /// The same with a deadline of its own.
    #[allow(clippy::needless_pass_by_value, reason = "a closure is written where it is used")]
    pub(super) fn run_with_timeout<T>(
        &self,
        deadline: Option<Duration>,
        again: Idempotent,
        work: impl AsyncFn(&Object) -> Result<T, QueryError>,
    ) -> Result<T, Error> {
        let mut lost = false;
        for tried in 1.. {
            let session = self.checkout()?;
            let outcome = self.runtime.block_on(async {
                match deadline {
                    Some(deadline) => tokio::time::timeout(deadline, work(&session)).await,
                    None => Ok(work(&session).await),
                }
            });
            let Ok(outcome) = outcome else {
                drop(Object::take(session));
                return Err(self.unavailable("it does not answer in time"));
            };
            let why = match outcome {
                Ok(done) => return Ok(done),
                Err(QueryError::Store(why)) => return Err(why),
                Err(QueryError::Statement(why)) => why,
            };
            // Whatever it was, it may have left a transaction behind.
            drop(Object::take(session));
            match why.code() {
                Some(code) if is_serialization_failure(code) && tried < MAX_RETRIES => {
                    std::thread::sleep(Duration::from_millis(5 * u64::from(tried)));
                }
                Some(code) if !is_connection_lost(code) => return Err(classify(&self.name, &why)),
                _ => {
                    // A connection that was kept may have been dead before anything was sent on it.
                    if lost || again == Idempotent::No {
                        return Err(classify(&self.name, &why));
                    }
                    lost = true;
                }
            }
        }
        unreachable!("it ends with an answer or an error")
    }

    /// A connection, tried for until `patience` is over.
    fn checkout(&self) -> Result<Object, Error> {
        let until = Instant::now() + self.ready_timeout;
        loop {
            let why = match self.runtime.block_on(self.pool.get()) {
                Ok(session) => return Ok(session),
                Err(PoolError::Timeout(_)) => self.unavailable("no connection within --db-connect-timeout"),
                Err(PoolError::Backend(why) | PoolError::PostCreateHook(HookError::Backend(why))) => {
                    classify(&self.name, &why)
                }
                Err(why) => self.unavailable(&why.to_string()),
            };
            if !matches!(why, Error::Unavailable { .. }) || Instant::now() >= until {
                return Err(why);
            }
            std::thread::sleep(RECONNECT_DELAY);
        }
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::Unavailable { server: self.name.clone(), cause: why.to_owned() }
    }
}
