//! Connections to a database: a pool of them, deadlines, and what an error means. A connection on which anything failed is
//! not used again.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Options, tls, url};
use crate::messages::Error;

/// How often a statement is tried again that only others stood in the way of.
const TRIES: u32 = 10;
/// How much longer than the database itself we wait for it.
const GRACE: Duration = Duration::from_secs(2);
/// Before a database that is not there is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// What came of one try.
pub(super) enum Failed {
    /// The statement did.
    Statement(tokio_postgres::Error),
    /// It is known already what to say.
    Said(Error),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(why: tokio_postgres::Error) -> Self {
        Self::Statement(why)
    }
}

impl From<Error> for Failed {
    fn from(why: Error) -> Self {
        Self::Said(why)
    }
}

/// Whether to do it a second time when it is not known what came of the first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Yes,
    /// The answer would be another.
    No,
}

/// A pool of connections.
pub(super) struct Sessions {
    name: String,
    pool: Pool,
    patience: Duration,
    deadline: Option<Duration>,
    runtime: tokio::runtime::Runtime,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Sessions {
    /// Connects to nothing yet.
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let url::Target { mut config, tls, name } = url::parse(&options.url)?;
        let limit = options.statement_timeout;
        config.connect_timeout(options.connect_timeout).keepalives_idle(Duration::from_secs(15));
        config.keepalives_interval(Duration::from_secs(5)).keepalives_retries(3);
        if !limit.is_zero() {
            config.tcp_user_timeout(limit + GRACE);
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
        let connect = Some(options.connect_timeout + GRACE);
        let pool = Pool::builder(manager).max_size(options.pool_size.max(1)).runtime(Runtime::Tokio1);
        let pool = pool.wait_timeout(connect).create_timeout(connect).post_create(prepare).build();
        let pool = pool.map_err(|why| Error::Unusable(format!("cannot use {name}: {why}")))?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        let runtime = runtime.map_err(|why| Error::io("cannot start threads for the database", why))?;
        let deadline = Some(limit + GRACE).filter(|_| !limit.is_zero());
        Ok(Self { name, pool, patience: options.patience, deadline, runtime })
    }

    /// What the database is called in errors.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether all connections are at work.
    pub(super) fn is_busy(&self) -> bool {
        let status = self.pool.status();
        status.available == 0 && status.size >= status.max_size
    }

    /// Does `work` on a connection, and again where that can change the outcome.
    pub(super) fn run<T>(&self, again: Again, work: impl AsyncFn(&Object) -> Result<T, Failed>) -> Result<T, Error> {
        self.run_within(self.deadline, again, work)
    }

    /// The same with a deadline of its own.
    #[allow(clippy::needless_pass_by_value, reason = "a closure is written where it is used")]
    pub(super) fn run_within<T>(
        &self,
        deadline: Option<Duration>,
        again: Again,
        work: impl AsyncFn(&Object) -> Result<T, Failed>,
    ) -> Result<T, Error> {
        let mut lost = false;
        for tried in 1.. {
            let session = self.session()?;
            let outcome = self.runtime.block_on(async {
                match deadline {
                    Some(deadline) => tokio::time::timeout(deadline, work(&session)).await,
                    None => Ok(work(&session).await),
                }
            });
            let Ok(outcome) = outcome else {
                drop(Object::take(session));
                return Err(self.away("it does not answer in time"));
            };
            let why = match outcome {
                Ok(done) => return Ok(done),
                Err(Failed::Said(why)) => return Err(why),
                Err(Failed::Statement(why)) => why,
            };
            // Whatever it was, it may have left a transaction behind.
            drop(Object::take(session));
            match why.code() {
                Some(code) if collided(code) && tried < TRIES => {
                    std::thread::sleep(Duration::from_millis(5 * u64::from(tried)));
                }
                Some(code) if !ended(code) => return Err(self.meaning(&why)),
                _ => {
                    // A connection that was kept may have been dead before anything was sent on it.
                    if lost || again == Again::No {
                        return Err(self.meaning(&why));
                    }
                    lost = true;
                }
            }
        }
        unreachable!("it ends with an answer or an error")
    }

    /// A connection, tried for until `patience` is over.
    fn session(&self) -> Result<Object, Error> {
        let until = Instant::now() + self.patience;
        loop {
            let why = match self.runtime.block_on(self.pool.get()) {
                Ok(session) => return Ok(session),
                Err(PoolError::Timeout(_)) => self.away("no connection within --connect-timeout"),
                Err(PoolError::Backend(why) | PoolError::PostCreateHook(HookError::Backend(why))) => self.meaning(&why),
                Err(why) => self.away(&why.to_string()),
            };
            if !matches!(why, Error::Unavailable { .. }) || Instant::now() >= until {
                return Err(why);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn away(&self, why: &str) -> Error {
        Error::Unavailable { server: self.name.clone(), why: why.to_owned() }
    }

    /// What to say of an error of the database, or of the way to it.
    pub(super) fn meaning(&self, why: &tokio_postgres::Error) -> Error {
        let server = self.name.clone();
        let Some(said) = why.as_db_error() else {
            // What it was is in the error behind it.
            let cause = why.source().map_or_else(|| why.to_string(), |cause| format!("{why}: {cause}"));
            return Error::Unavailable { server, why: cause };
        };
        let code = said.code();
        match code.code() {
            "53100" => Error::Full(PathBuf::from(server)),
            "25006" => Error::ReadOnly(server),
            "57014" => Error::Unavailable { server, why: "it took longer than --statement-timeout".to_owned() },
            _ if ended(code) || code.code().starts_with("53") => Error::Unavailable { server, why: text(said) },
            _ => Error::Server { server, why: text(said) },
        }
    }
}

/// Only the message: details may show what is stored.
fn text(said: &DbError) -> String {
    format!("{} ({})", said.message(), said.code().code())
}

/// Two transactions were in each other's way, and this one gave in.
fn collided(code: &SqlState) -> bool {
    ["40001", "40P01"].contains(&code.code())
}

/// The connection is of no more use.
fn ended(code: &SqlState) -> bool {
    code.code().starts_with("08") || ["57P01", "57P02", "57P03", "26000", "0A000"].contains(&code.code())
}
