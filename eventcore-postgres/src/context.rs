//! The transaction that exactly-once projections apply their pages in.

use crate::checkpoint::{Save, fence};
use crate::dead_letter::{Park, about, discard_sql};
use crate::fault::{Fault, store_error};
use crate::retry::Retry;
use crate::rows::column;
use crate::store::PostgresEventStore;
use async_trait::async_trait;
use eventcore::{
    Checkpoint, CheckpointError, DeadLetter, DeadLetterId, Epoch, EventStoreError, ProjectionContext, ProjectionName,
    UnitOfWork,
};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};
use tokio::sync::OwnedSemaphorePermit;

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
    transaction: Transaction<'static, Postgres>,
    /// Pages may not take the whole pool: commands go on beside them.
    _permit: OwnedSemaphorePermit,
}

impl PgContext {
    /// The connection, inside of the transaction.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// If the answer is lost, what is stored tells: whoever goes on begins by loading it.
    pub(crate) async fn commit(self) -> Result<(), CheckpointError> {
        let committed = self.transaction.commit().await;
        committed.map_err(|error| EventStoreError::outcome_unknown(error).into())
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
        let mut retry = Retry::lasting(self.config().retry_for);
        // A connection that died unnoticed is only found out by using it; nothing has been done yet.
        let transaction = loop {
            match self.pool().begin().await {
                Ok(transaction) => break transaction,
                Err(error) if Fault::of_acquire(&error) == Fault::Passing && retry.pause().await => {}
                Err(error) => return Err(store_error(error).into()),
            }
        };
        let mut context = PgContext { transaction, _permit: permit };
        let sql = format!("select {}.begin_page($1, $2)", self.config().schema);
        let current: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(name.as_str())
            .bind(crate::config::millis(self.config().page_idle_timeout))
            .fetch_one(context.connection())
            .await
            .map_err(store_error)?;
        fence(name, epoch, current)?;
        Ok(context)
    }

    async fn commit(
        &self,
        mut context: PgContext,
        checkpoint: &Checkpoint,
        epoch: Epoch,
    ) -> Result<(), CheckpointError> {
        let save = Save::new(&self.config().schema, checkpoint, epoch)?;
        let row = save.statement().fetch_one(context.connection()).await.map_err(store_error)?;
        fence(&checkpoint.name, epoch, column(&row, 0)?)?;
        context.commit().await
    }

    async fn rollback(&self, context: PgContext) -> Result<(), CheckpointError> {
        match context.transaction.rollback().await {
            Ok(()) => Ok(()),
            // A transaction whose connection is gone is rolled back.
            Err(error) if Fault::of(&error) == Fault::Lost => Ok(()),
            Err(error) => Err(store_error(error).into()),
        }
    }

    async fn park(&self, context: &mut PgContext, letter: &DeadLetter, _epoch: Epoch) -> Result<(), CheckpointError> {
        // The epoch was found in force when the page began, and the lock on the lease keeps it so.
        let park = Park::new(&self.config().schema, letter)?;
        park.statement().execute(context.connection()).await.map_err(store_error)?;
        Ok(())
    }

    async fn unpark(&self, context: &mut PgContext, id: &DeadLetterId) -> Result<bool, CheckpointError> {
        let sql = discard_sql(&self.config().schema);
        let rows = about(&sql, id).fetch_all(context.connection()).await.map_err(store_error)?;
        Ok(!rows.is_empty())
    }
}
