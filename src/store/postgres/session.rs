//! One connection to the database. It keeps no state between transactions, and a commit that was not replicated to a
//! synchronous standby is an error.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Row, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::QueryError;
use super::statements::{BEGIN_WRITE, COMMIT, Statement};

/// Maximum time to deliver a request to cancel a statement.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Value of a parameter.
pub(super) type Param<'a> = &'a (dyn ToSql + Sync);

/// The stream of a connection with TLS.
type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Latest warning that a commit was not replicated.
type Warning = Arc<Mutex<Option<String>>>;

/// A connection to the database. It is closed on drop.
pub(super) struct Session {
    client: Client,
    warning: Warning,
    /// The task that owns the socket. It is aborted on drop.
    _driver: JoinSet<()>,
}

impl Session {
    /// Connects and logs in.
    pub(super) async fn connect(config: &Config, tls: MakeRustlsConnect) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = config.connect(tls).await?;
        let warning = Warning::default();
        let mut driver = JoinSet::new();
        driver.spawn(drive(connection, Arc::clone(&warning)));
        Ok(Self { client, warning, _driver: driver })
    }

    /// Returns whether the connection is known to be closed.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Asks the database to cancel the current statement. The result is unknown.
    pub(super) async fn cancel(&self, tls: MakeRustlsConnect) {
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, self.client.cancel_token().cancel_query(tls)).await;
    }

    /// Executes statements without parameters.
    pub(super) async fn simple(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, QueryError> {
        Ok(self.client.simple_query(sql).await?)
    }

    /// Executes a statement, outside of a transaction or in the current one.
    pub(super) async fn read<const N: usize>(
        &self,
        statement: &Statement<N>,
        params: [Param<'_>; N],
    ) -> Result<Vec<Row>, QueryError> {
        let params: Vec<_> = params.into_iter().zip(statement.types.iter().cloned()).collect();
        Ok(self.client.query_typed(statement.sql, &params).await?)
    }

    /// Executes a statement in a transaction of its own, in one round trip. Blocks until everything that the statement
    /// wrote or found is durable, and replicated if the database has a synchronous standby.
    pub(super) async fn write<const N: usize>(
        &self,
        statement: &Statement<N>,
        params: [Param<'_>; N],
    ) -> Result<Vec<Row>, QueryError> {
        // After an error, the statements that follow fail, and COMMIT rolls back.
        let (begun, (rows, committed)) = join(self.begin(), join(self.read(statement, params), self.commit())).await;
        begun?;
        let rows = rows?;
        committed?;
        Ok(rows)
    }

    /// Begins a transaction. An error leaves it open, so the session must then be dropped.
    pub(super) async fn begin(&self) -> Result<(), QueryError> {
        Ok(self.client.batch_execute(BEGIN_WRITE).await?)
    }

    /// Commits the current transaction. Fails if the commit is not replicated to a synchronous standby.
    pub(super) async fn commit(&self) -> Result<(), QueryError> {
        self.client.batch_execute(COMMIT).await?;
        match self.warning.lock().take() {
            Some(warning) => Err(QueryError::NotReplicated(warning)),
            None => Ok(()),
        }
    }
}

/// Polls both futures, the first one first, so that its request is sent first. Returns both results.
async fn join<A: Future, B: Future>(first: A, second: B) -> (A::Output, B::Output) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut first_output, mut second_output) = (None, None);
    poll_fn(|context| {
        if first_output.is_none()
            && let Poll::Ready(output) = first.as_mut().poll(context)
        {
            first_output = Some(output);
        }
        if second_output.is_none()
            && let Poll::Ready(output) = second.as_mut().poll(context)
        {
            second_output = Some(output);
        }
        match (first_output.take(), second_output.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            outputs => {
                (first_output, second_output) = outputs;
                Poll::Pending
            }
        }
    })
    .await
}

/// Moves data between the socket and the client until the connection ends.
async fn drive(mut connection: Connection<Socket, TlsStream>, warning: Warning) {
    // A notice is delivered before the response to the statement that caused it.
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notice(notice) = message
            && is_replication_warning(&notice)
        {
            *warning.lock() = Some(notice.message().to_owned());
        }
    }
}

/// Returns whether a notice says that a commit did not wait for the standby. The text may be translated, the name of the
/// function is not.
fn is_replication_warning(notice: &DbError) -> bool {
    notice.parsed_severity() == Some(Severity::Warning)
        && (notice.routine() == Some("SyncRepWaitForLSN") || notice.message().contains("synchronous replication"))
}
