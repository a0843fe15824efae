//! The context of exactly-once projections: a transaction of the store itself.

use crate::gate::PageTurn;
use crate::side::SideConnection;
use crate::store::SqliteEventStore;
use crate::workers::Worker;
use crate::{checkpoint, dead_letter};
use async_trait::async_trait;
use eventcore::{
    Checkpoint, CheckpointError, CheckpointStore, DeadLetter, DeadLetterId, Epoch, EventStoreError, ProjectionContext,
    ProjectionName, SharedError, UnitOfWork,
};
use rusqlite::{Connection, ErrorCode};
use std::error::Error as StdError;
use std::fmt;
use std::iter::successors;
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// The context of a projector that keeps its read model in the store's own file: the read model and the checkpoint are
/// committed together, so every event has its effect exactly once.
///
/// It holds the store's write lock for the page, so appends wait meanwhile, for the projection's
/// [`hold_time`](eventcore::ProjectionConfig::hold_time) and one `apply`: keep that short and do nothing else in it. An
/// append from within it would wait for itself and is
/// [`WithinProjection`](eventcore::EventStoreError::WithinProjection). One from a task that `apply` spawned and waits for
/// is not recognised as such: it fails as unavailable after the
/// [`busy_timeout`](crate::SqliteConfig::busy_timeout), and says what it waited for.
///
/// The transaction belongs to the projection: a `COMMIT` is refused, and after a `ROLLBACK` the page fails. Names that
/// begin with `eventcore_` are the store's own.
///
/// Dropped without having been committed, it closes its connection, which rolls back.
///
/// ```
/// use eventcore::{Event, EventStore, ProjectionConfig, Projector, RecordedEvent, run_projection};
/// use eventcore_sqlite::{SqliteContext, SqliteEventStore, rusqlite};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(namespace = "bank")]
/// enum BankEvent {
///     MoneyDeposited { cents: i64 },
/// }
///
/// struct Balances;
///
/// impl Projector for Balances {
///     type Event = BankEvent;
///     type Error = rusqlite::Error;
///     type Context = SqliteContext;
///
///     fn name(&self) -> &str {
///         "balances"
///     }
///
///     async fn apply(&mut self, event: &RecordedEvent<BankEvent>, page: &mut SqliteContext) -> rusqlite::Result<()> {
///         let BankEvent::MoneyDeposited { cents } = event.payload();
///         let db = page.connection();
///         db.execute("CREATE TABLE IF NOT EXISTS balances (account TEXT PRIMARY KEY, cents INTEGER) STRICT", [])?;
///         db.prepare_cached(
///             "INSERT INTO balances VALUES (?1, ?2) ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents",
///         )?
///         .execute((event.stream_id().as_str(), cents))?;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("bank.db");
/// let store = SqliteEventStore::open(path).await?;
/// run_projection(Balances, &store, ProjectionConfig::default()).await?;
/// store.close().await?;
/// # Ok(())
/// # }
/// ```
///
/// Others read the table through a connection of their own to the same file.
///
/// A read model that is to be rebuilt while it serves has a table for each version, and a view over the one in force:
///
/// ```
/// use eventcore::{ProjectionConfig, ReadModelStore, ReadModelVersion, VersionedProjector, run_versioned_projection};
/// # use eventcore::{Event, EventStore, ProjectionName, Projector, RecordedEvent};
/// # use eventcore_sqlite::{SqliteContext, SqliteEventStore, rusqlite};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event(namespace = "bank")]
/// # enum BankEvent { MoneyDeposited { cents: i64 } }
/// struct Balances(ReadModelVersion);
///
/// impl VersionedProjector for Balances {
///     async fn prepare(&mut self, page: &mut SqliteContext) -> rusqlite::Result<()> {
///         let table = format!("CREATE TABLE balances_v{} (account TEXT PRIMARY KEY, cents INTEGER) STRICT", self.0);
///         page.connection().execute_batch(&table)
///     }
///
///     async fn activate(&mut self, page: &mut SqliteContext) -> rusqlite::Result<()> {
///         let view = format!("DROP VIEW IF EXISTS balances; CREATE VIEW balances AS SELECT * FROM balances_v{}", self.0);
///         page.connection().execute_batch(&view)
///     }
///
///     async fn retire(&mut self, page: &mut SqliteContext) -> rusqlite::Result<()> {
///         page.connection().execute_batch(&format!("DROP TABLE balances_v{}", self.0))
///     }
/// }
/// # impl Projector for Balances {
/// #     type Event = BankEvent;
/// #     type Error = rusqlite::Error;
/// #     type Context = SqliteContext;
/// #     fn name(&self) -> &str { "balances" }
/// #     async fn apply(&mut self, event: &RecordedEvent<BankEvent>, page: &mut SqliteContext) -> rusqlite::Result<()> {
/// #         let BankEvent::MoneyDeposited { cents } = event.payload();
/// #         let add = format!("INSERT INTO balances_v{} AS b VALUES (?1, ?2) ON CONFLICT (account) DO UPDATE SET cents = b.cents + excluded.cents", self.0);
/// #         page.connection().execute(&add, (event.stream_id().as_str(), cents))?;
/// #         Ok(())
/// #     }
/// # }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("bank.db");
/// let store = SqliteEventStore::open(path).await?;
/// let first = run_versioned_projection(Balances, &store, ProjectionConfig::default()).await?;
/// store.request_rebuild(&ProjectionName::new("balances")?).await?;
/// let second = run_versioned_projection(Balances, &store, ProjectionConfig::default()).await?;
/// assert!(second.in_force > first.in_force);
/// store.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct SqliteContext {
    /// A connection cannot be shared between threads, but the context may be: it is only reached through `&mut`.
    side: Mutex<SideConnection>,
    /// Declared, and so dropped, after the connection.
    turn: PageTurn,
}

#[derive(Debug, Error)]
#[error("a statement of the projector ended the transaction of the page; nothing of the page was kept")]
struct TransactionEnded;

impl ProjectionContext for SqliteContext {
    const DURABLE: bool = true;
    const TRANSACTIONAL: bool = true;
}

impl SqliteContext {
    /// The connection, within the transaction of the page.
    #[must_use]
    pub fn connection(&mut self) -> &Connection {
        self.side.get_mut().unwrap_or_else(PoisonError::into_inner).connection()
    }

    /// The connection, unless the projector has ended the transaction: then a write would stand by itself.
    fn within_page(&mut self) -> Result<&Connection, EventStoreError> {
        let side = self.side.get_mut().unwrap_or_else(PoisonError::into_inner);
        if side.is_in_transaction() { Ok(side.connection()) } else { Err(EventStoreError::storage(TransactionEnded)) }
    }

    /// Gives the connection back after `last`, rolled back if `last` did not commit, and then the turn.
    fn end<R>(self, worker: &mut Worker<'_, SideConnection>, last: impl FnOnce(&SideConnection) -> R) -> R {
        let _turn = self.turn;
        let side = self.side.into_inner().unwrap_or_else(PoisonError::into_inner);
        let result = last(&side);
        side.put_back(worker);
        result
    }
}

impl fmt::Debug for SqliteContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteContext").finish_non_exhaustive()
    }
}

impl SqliteEventStore {
    /// Commits what was done in the context with what `last` does. If that fails, nothing was done.
    pub(crate) async fn commit_with<R: Send + 'static>(
        &self,
        context: SqliteContext,
        last: impl FnOnce(&Connection) -> Result<R, CheckpointError> + Send + 'static,
    ) -> Result<R, CheckpointError> {
        let commit = move |side: &SideConnection| {
            if !side.is_in_transaction() {
                return Err(CheckpointError::Store(EventStoreError::storage(TransactionEnded)));
            }
            let answer = last(side.connection())?;
            side.commit()?;
            Ok(answer)
        };
        self.shared().side.workers.run_with_worker(move |worker| Ok(context.end(worker, commit))).await?
    }
}

/// The fault of the file or the machine that an error of a projector is, or was caused by: no event is to blame for it.
fn fault_of(error: &(dyn StdError + 'static)) -> Option<EventStoreError> {
    let mut causes = successors(Some(error), |&error| error.source());
    let (code, text) = causes.find_map(|error| Some((code_of(error)?, error.to_string())))?;
    match code {
        ErrorCode::DiskFull => Some(EventStoreError::StorageFull { source: SharedError::new(text) }),
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::SystemIoFailure
        | ErrorCode::OutOfMemory
        | ErrorCode::OperationInterrupted => Some(EventStoreError::unavailable(text)),
        _ => None,
    }
}

/// What SQLite said, if this link of a chain of causes is its answer. A `#[error(transparent)]` error hands out the cause of
/// the one that it stands for, so the error of rusqlite may not be in the chain, but only what it contains.
fn code_of(error: &(dyn StdError + 'static)) -> Option<ErrorCode> {
    match error.downcast_ref::<rusqlite::Error>() {
        Some(sqlite) => sqlite.sqlite_error_code(),
        None => error.downcast_ref::<rusqlite::ffi::Error>().map(|error| error.code),
    }
}

#[async_trait]
impl UnitOfWork<SqliteContext> for SqliteEventStore {
    async fn resume(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        self.load_checkpoint(name).await
    }

    async fn begin(&self, name: &ProjectionName, epoch: Epoch) -> Result<SqliteContext, CheckpointError> {
        self.shared().check_open()?;
        let side = &self.shared().side;
        let turn = side.gate.enter_page().await?;
        let name = name.clone();
        let begin = move |worker: &mut Worker<'_, SideConnection>| {
            let side = worker.take()?;
            let begun =
                side.begin().map_err(Into::into).and_then(|()| checkpoint::fence(side.connection(), &name, epoch));
            if let Err(error) = begun {
                side.put_back(worker);
                return Ok(Err(error));
            }
            side.lend();
            Ok(Ok(SqliteContext { side: Mutex::new(side), turn }))
        };
        side.workers.run_with_worker(begin).await?
    }

    async fn commit(
        &self,
        context: SqliteContext,
        checkpoint: &Checkpoint,
        epoch: Epoch,
    ) -> Result<(), CheckpointError> {
        let checkpoint = checkpoint.clone();
        self.commit_with(context, move |page| checkpoint::save(page, &checkpoint, epoch)).await
    }

    async fn rollback(&self, context: SqliteContext) -> Result<(), CheckpointError> {
        let end = move |worker: &mut Worker<'_, SideConnection>| {
            context.end(worker, |_| ());
            Ok(())
        };
        Ok(self.shared().side.workers.run_with_worker(end).await?)
    }

    async fn is_sound(
        &self,
        _context: &mut SqliteContext,
        error: &(dyn StdError + Send + Sync + 'static),
    ) -> Result<(), CheckpointError> {
        match fault_of(error) {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }

    async fn park(
        &self,
        context: &mut SqliteContext,
        letter: &DeadLetter,
        _epoch: Epoch,
    ) -> Result<(), CheckpointError> {
        // The epoch was found in force when the page began, and stays so until it ends.
        Ok(dead_letter::park(context.within_page()?, letter)?)
    }

    async fn unpark(&self, context: &mut SqliteContext, id: &DeadLetterId) -> Result<bool, CheckpointError> {
        Ok(dead_letter::discard(context.within_page()?, id)?)
    }
}
