//! Trying again what passes by itself.

use crate::PostgresConfig;
use crate::connections::Connections;
use crate::fault::{Fault, store_error};
use eventcore::EventStoreError;
use futures_util::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Connection, Postgres};
use std::time::Duration;
use tokio::time::Instant;

/// How long faults are retried, and how long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) retry_for: Duration,
    /// The server ends statements by itself before that. If it says nothing at all, the way to it is cut.
    pub(crate) answer_within: Duration,
}

impl Patience {
    const BEYOND_THE_SERVERS: Duration = Duration::from_secs(2);

    pub(crate) fn of(config: &PostgresConfig) -> Self {
        let answer_within = config.statement_timeout.saturating_add(Self::BEYOND_THE_SERVERS);
        Self { retry_for: config.retry_for, answer_within }
    }

    /// The rows that a statement brings. A connection that brings none in time, or that broke, is not used again.
    pub(crate) async fn rows(
        self,
        connection: &mut PoolConnection<Postgres>,
        statement: Statement<'_>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        // All rows, since only their end is the end of the statement's transaction.
        let mut rows = Vec::new();
        self.rows_into(connection, statement, &mut rows).await.map(|_| rows)
    }

    /// Hands the rows of a statement over as they come, as long as they are wanted. Tells whether all were; else the next
    /// statement on the connection throws away what comes behind.
    pub(crate) async fn rows_into(
        self,
        connection: &mut PoolConnection<Postgres>,
        statement: Statement<'_>,
        sink: &mut impl Sink,
    ) -> Result<bool, sqlx::Error> {
        let taken = async {
            let mut coming = statement.fetch(&mut **connection);
            while let Some(row) = coming.try_next().await? {
                if !sink.take(row) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let rows = match tokio::time::timeout(self.answer_within, taken).await {
            Ok(rows) => rows,
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        };
        let Err(error) = &rows else { return rows };
        // The server tells an error before it rolls back. Whoever tries again on another connection, or with a part, would
        // meet the locks of the first try; an answer to anything more comes after they are released.
        let lost = Fault::of(error) == Fault::Lost
            || !matches!(tokio::time::timeout(self.answer_within, connection.ping()).await, Ok(Ok(())));
        if lost {
            connection.close_on_drop();
        }
        rows
    }
}

/// Takes the rows of a statement as they come, so that they need not be kept.
pub(crate) trait Sink {
    /// Takes a row; tells whether more are wanted.
    fn take(&mut self, row: PgRow) -> bool;
}

impl Sink for Vec<PgRow> {
    fn take(&mut self, row: PgRow) -> bool {
        self.push(row);
        true
    }
}

/// How long is left for retries, and how long to wait before the next one.
#[derive(Debug)]
pub(crate) struct Retry {
    deadline: Instant,
    delay: Duration,
}

impl Retry {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_millis(500);

    pub(crate) fn lasting(time: Duration) -> Self {
        Self { deadline: Instant::now() + time, delay: Self::FIRST }
    }

    /// Waits before the next try; `false` if time is up.
    pub(crate) async fn pause(&mut self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        // Half of it random, so that those who failed together do not come again together.
        tokio::time::sleep(self.delay.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.delay = (self.delay * 2).min(Self::LONGEST);
        true
    }
}

/// A connection of the pool. Nothing has been sent yet, so whatever passes is tried again.
pub(crate) async fn acquire(
    connections: &Connections,
    retry: &mut Retry,
) -> Result<PoolConnection<Postgres>, EventStoreError> {
    loop {
        match connections.acquire().await {
            Ok(connection) => return Ok(connection),
            Err(error) if Fault::of_acquire(&error) == Fault::Passing && retry.pause().await => {
                tracing::debug!(error = &error as &dyn std::error::Error, "no connection yet");
            }
            Err(error) => return Err(store_error(error)),
        }
    }
}

/// A statement that can be sent again.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Runs what can be repeated without harm (reads, and writes that say the same when they come twice) until it succeeds, or
/// fails for good, or time is up. Brings all rows.
pub(crate) async fn repeatable<'q>(
    connections: &Connections,
    patience: Patience,
    statement: impl Fn() -> Statement<'q>,
) -> Result<Vec<PgRow>, EventStoreError> {
    repeatable_into(connections, patience, Vec::new, statement).await
}

/// As [`repeatable`], into a sink, a new one for each try.
pub(crate) async fn repeatable_into<'q, S: Sink>(
    connections: &Connections,
    patience: Patience,
    sink: impl Fn() -> S,
    statement: impl Fn() -> Statement<'q>,
) -> Result<S, EventStoreError> {
    let mut retry = Retry::lasting(patience.retry_for);
    loop {
        let mut connection = acquire(connections, &mut retry).await?;
        let mut sink = sink();
        let error = match patience.rows_into(&mut connection, statement(), &mut sink).await {
            Ok(all) => {
                // What is still to come, and is thrown away, is not to keep the next statement waiting: the pool sees to it.
                if all {
                    connections.keep(connection);
                }
                return Ok(sink);
            }
            Err(error) => error,
        };
        let again = matches!(Fault::of(&error), Fault::Lost | Fault::Passing | Fault::LockTimeout);
        if !again || !retry.pause().await {
            return Err(store_error(error));
        }
        tracing::debug!(error = &error as &dyn std::error::Error, "trying a statement again");
    }
}
