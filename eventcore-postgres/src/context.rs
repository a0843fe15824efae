//! The transaction that exactly-once projections apply their pages in.

use crate::checkpoint::{Save, fence};
use crate::dead_letter::{Park, about, discard_sql};
use crate::fault::{Fault, postgres, store_error};
use crate::retry::{Patience, Retry, Statement};
use crate::rows::{column, one};
use crate::store::PostgresEventStore;
use async_trait::async_trait;
use eventcore::{
    Checkpoint, CheckpointError, DeadLetter, DeadLetterId, Epoch, EventStoreError, ProjectionContext, ProjectionName,
    SharedError, UnitOfWork,
};
use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgDatabaseError, PgRow, PgTransactionManager as Manager};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres};
use sqlx_core::transaction::TransactionManager;
use std::error::Error as StdError;
use std::iter::successors;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::error::Elapsed;

/// The context of an exactly-once projection: a transaction of the store's database. What the projector writes through
/// [`connection`](Self::connection) commits together with the checkpoint of the page, or not at all.
///
/// The projector must not end the transaction itself. Between two statements it may take as long as
/// [`page_idle_timeout`](crate::PostgresConfig::page_idle_timeout) allows; then the server gives the page up.
///
/// ```no_run
/// use eventcore::{Event, ProjectionConfig, Projector, RecordedEvent, run_projection};
/// use eventcore_postgres::{PgContext, PostgresConfig, PostgresEventStore, sqlx};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(namespace = "bank")]
/// enum BankEvent {
///     MoneyDeposited { cents: i64 },
/// }
///
/// /// Keeps `create table balances (account text primary key, cents bigint not null)`.
/// struct Balances;
///
/// impl Projector for Balances {
///     type Event = BankEvent;
///     type Error = sqlx::Error;
///     type Context = PgContext;
///
///     fn name(&self) -> &str {
///         "balances"
///     }
///
///     async fn apply(&mut self, event: &RecordedEvent<BankEvent>, page: &mut PgContext) -> Result<(), sqlx::Error> {
///         let BankEvent::MoneyDeposited { cents } = event.payload();
///         sqlx::query(
///             "insert into balances as b values ($1, $2) \
///              on conflict (account) do update set cents = b.cents + excluded.cents",
///         )
///         .bind(event.stream_id().as_str())
///         .bind(cents)
///         .execute(page.connection())
///         .await?;
///         Ok(())
///     }
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresEventStore::connect("postgres://app:secret@localhost/bank", PostgresConfig::default()).await?;
/// run_projection(Balances, &store, ProjectionConfig::default().continuous()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PgContext {
    connection: PoolConnection<Postgres>,
    /// Whether the transaction was begun and has not ended.
    open: bool,
    patience: Patience,
    /// Pages may not take the whole pool: commands go on beside them.
    permit: Option<OwnedSemaphorePermit>,
}

impl PgContext {
    /// The connection, inside of the transaction.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// The rows that a statement of the store itself brings.
    pub(crate) async fn rows(&mut self, statement: Statement<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        self.patience.rows(&mut self.connection, statement).await
    }

    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        let begun = tokio::time::timeout(self.patience.answer_within, Manager::begin(&mut self.connection, None)).await;
        self.open = matches!(begun, Ok(Ok(())));
        self.unless_silent(begun)
    }

    /// If the answer is lost, what is stored tells: whoever goes on begins by loading it.
    pub(crate) async fn commit(mut self) -> Result<(), CheckpointError> {
        let committed = tokio::time::timeout(self.patience.answer_within, Manager::commit(&mut self.connection)).await;
        self.open = false;
        let committed = self.unless_silent(committed);
        committed.map_err(|error| EventStoreError::outcome_unknown(error).into())
    }

    async fn rollback(mut self) -> Result<(), sqlx::Error> {
        let back = tokio::time::timeout(self.patience.answer_within, Manager::rollback(&mut self.connection)).await;
        self.open = false;
        self.unless_silent(back)
    }

    /// A connection that does not answer, or that broke, is not used again: its server rolls back what was not committed.
    fn unless_silent(&mut self, answer: Result<Result<(), sqlx::Error>, Elapsed>) -> Result<(), sqlx::Error> {
        let answer = answer.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
        if answer.as_ref().is_err_and(|error| Fault::of(error) == Fault::Lost) {
            self.connection.close_on_drop();
        }
        answer
    }
}

/// Dropped without having been committed, it is rolled back before the connection is used again.
impl Drop for PgContext {
    fn drop(&mut self) {
        if self.open {
            Manager::start_rollback(&mut self.connection);
        }
    }
}

impl ProjectionContext for PgContext {
    const DURABLE: bool = true;
    const TRANSACTIONAL: bool = true;
}

#[async_trait]
impl UnitOfWork<PgContext> for PostgresEventStore {
    async fn resume(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        // After a commit whose answer was lost, what is stored now may be about to change.
        self.checkpoints()?.resume(name).await
    }

    async fn begin(&self, name: &ProjectionName, epoch: Epoch) -> Result<PgContext, CheckpointError> {
        let permit = self.page_permit().await?;
        let patience = self.page_patience();
        let mut retry = Retry::lasting(self.config().retry_for);
        // A connection that died unnoticed is only found out by using it; nothing has been done yet.
        let mut context = loop {
            let error = match self.pool().acquire().await {
                Ok(connection) => {
                    let mut context = PgContext { connection, open: false, patience, permit: None };
                    match context.begin().await {
                        Ok(()) => break context,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if Fault::of_acquire(&error) != Fault::Passing || !retry.pause().await {
                return Err(store_error(error).into());
            }
        };
        context.permit = Some(permit);
        let sql = format!("select {}.begin_page($1, $2)", self.config().schema);
        let begin = sqlx::query(AssertSqlSafe(sql))
            .bind(name.as_str())
            .bind(crate::config::millis(self.config().page_idle_timeout));
        let row = one(context.rows(begin).await.map_err(store_error)?)?;
        fence(name, epoch, column(&row, 0)?)?;
        Ok(context)
    }

    async fn commit(
        &self,
        mut context: PgContext,
        checkpoint: &Checkpoint,
        epoch: Epoch,
    ) -> Result<(), CheckpointError> {
        let save = Save::new(&self.config().schema, checkpoint, epoch)?;
        let row = one(context.rows(save.statement()).await.map_err(store_error)?)?;
        fence(&checkpoint.name, epoch, column(&row, 0)?)?;
        context.commit().await
    }

    async fn rollback(&self, context: PgContext) -> Result<(), CheckpointError> {
        match context.rollback().await {
            Ok(()) => Ok(()),
            // A transaction whose connection is gone is rolled back.
            Err(error) if Fault::of(&error) == Fault::Lost => Ok(()),
            Err(error) => Err(store_error(error).into()),
        }
    }

    async fn is_sound(
        &self,
        context: &mut PgContext,
        error: &(dyn StdError + Send + Sync + 'static),
    ) -> Result<(), CheckpointError> {
        // The server's own words about another transaction in the way, or about itself, which pass.
        if let Some(fault) = fault_of(error) {
            return Err(fault.into());
        }
        // A transaction that failed still answers; a connection that is gone does not, whatever the projector says of it.
        let within = context.patience.answer_within;
        let answered = tokio::time::timeout(within, context.connection.ping()).await;
        match context.unless_silent(answered) {
            Err(error) if Fault::of(&error) == Fault::Lost => Err(EventStoreError::unavailable(error).into()),
            _ => Ok(()),
        }
    }

    async fn park(&self, context: &mut PgContext, letter: &DeadLetter, _epoch: Epoch) -> Result<(), CheckpointError> {
        // The epoch was found in force when the page began, and the lock on the lease keeps it so.
        let park = Park::new(&self.config().schema, letter)?;
        context.rows(park.statement()).await.map_err(store_error)?;
        Ok(())
    }

    async fn unpark(&self, context: &mut PgContext, id: &DeadLetterId) -> Result<bool, CheckpointError> {
        let sql = discard_sql(&self.config().schema);
        let rows = context.rows(about(&sql, id)).await.map_err(store_error)?;
        Ok(!rows.is_empty())
    }
}

impl PostgresEventStore {
    fn page_patience(&self) -> Patience {
        Patience { retry_for: self.config().retry_for, answer_within: self.config().page_answer_timeout }
    }
}

/// The fault of the server that an error of a projector is, or was caused by, if no event is to blame for it.
fn fault_of(error: &(dyn StdError + 'static)) -> Option<EventStoreError> {
    let mut causes = successors(Some(error), |&error| error.source());
    let (server, text) = causes.find_map(|error| Some((words_of(error)?, error.to_string())))?;
    let source = SharedError::new(text);
    match server.code() {
        "53100" => Some(EventStoreError::StorageFull { source }),
        "40001" | "40P01" | "53000" | "53200" | "53300" => Some(EventStoreError::Unavailable { source }),
        _ => None,
    }
}

/// The server's own words, if this link of a chain of causes is they. A `#[error(transparent)]` error hands out the cause of
/// the one that it stands for, so the error of sqlx may not be in the chain, but only what it contains.
fn words_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a PgDatabaseError> {
    if let Some(sqlx) = error.downcast_ref::<sqlx::Error>() {
        return postgres(sqlx);
    }
    match error.downcast_ref::<Box<dyn DatabaseError>>() {
        Some(database) => database.try_downcast_ref(),
        None => error.downcast_ref(),
    }
}
