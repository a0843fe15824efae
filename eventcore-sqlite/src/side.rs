//! The second writing connection: checkpoints, epochs, pruning and the pages of exactly-once projections.

use crate::error::store_error;
use crate::gate::Gate;
use crate::store_file::StoreFile;
use crate::workers::{Resource, Worker, Workers};
use crate::{SqliteConfig, connection, receipt};
use eventcore::{EventStoreError, Timestamp};
use rusqlite::{Connection, ErrorCode};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes beside the writer, on a thread of its own; the gate gives each its turn.
pub(crate) struct Side {
    pub(crate) workers: Workers<SideConnection>,
    pub(crate) gate: Arc<Gate>,
}

/// The connection, which only this module can commit.
pub(crate) struct SideConnection {
    connection: Connection,
    /// While it is set, every commit becomes a rollback.
    lent: Arc<AtomicBool>,
}

impl Side {
    /// How many receipts, or snapshots, are pruned in one transaction, so that appends get their turn in between.
    pub(crate) const PRUNED_AT_ONCE: u32 = 1_000;

    pub(crate) fn start(file: StoreFile, config: SqliteConfig, gate: Arc<Gate>) -> io::Result<Self> {
        let connect = move || SideConnection::open(&file, &config);
        // Who queues a job has the gate's turn, so there is hardly more than one at a time.
        Ok(Self { workers: Workers::start("eventcore-side", 1, 8, connect)?, gate })
    }

    /// Runs a job in one transaction, which is rolled back if the job fails.
    pub(crate) async fn write<R, E>(
        &self,
        job: impl FnOnce(&Connection) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<EventStoreError> + Send + 'static,
    {
        self.gate.leave_own_page().await?;
        let turn = self.gate.enter().await?;
        let run = move |worker: &mut Worker<'_, SideConnection>| {
            let _turn = turn;
            let side = worker.take()?;
            let result = side.begin().map_err(E::from).and_then(|()| job(&side.connection)).and_then(|answer| {
                side.commit()?;
                Ok(answer)
            });
            side.put_back(worker);
            Ok(result)
        };
        self.workers.run_with_worker(run).await?
    }

    pub(crate) async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        let mut pruned = 0;
        loop {
            let more = self.write(move |side| receipt::prune(side, older_than, Self::PRUNED_AT_ONCE)).await?;
            pruned += more;
            if more < u64::from(Self::PRUNED_AT_ONCE) {
                return Ok(pruned);
            }
        }
    }

    /// Refuses further jobs, finishes those under way, and closes the connection.
    pub(crate) async fn close(&self) {
        self.workers.close();
        self.workers.ended().await;
    }
}

impl Resource for SideConnection {}

impl SideConnection {
    fn open(file: &StoreFile, config: &SqliteConfig) -> Result<Self, EventStoreError> {
        let mut connection = file.connect(|path| connection::write(path, config))?;
        let lent = Arc::new(AtomicBool::new(false));
        let refuse = Arc::clone(&lent);
        connection.commit_hook(Some(move || refuse.load(Ordering::Acquire))).map_err(store_error)?;
        Ok(Self { connection, lent })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn begin(&self) -> Result<(), EventStoreError> {
        self.run("begin immediate").map_err(store_error)
    }

    /// Refuses every commit from now on, so that the connection can be lent.
    pub(crate) fn lend(&self) {
        self.lent.store(true, Ordering::Release);
    }

    /// Whether the transaction is still the one that was begun, after the connection was lent.
    pub(crate) fn is_in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    pub(crate) fn commit(&self) -> Result<(), EventStoreError> {
        self.lent.store(false, Ordering::Release);
        self.run("commit").map_err(|error| match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy | ErrorCode::DiskFull | ErrorCode::ReadOnly | ErrorCode::ConstraintViolation,
            ) => store_error(error),
            // It may be in the file and count when that is opened again.
            _ => EventStoreError::outcome_unknown(error),
        })
    }

    /// Rolls back what was not committed and gives the connection back to its thread. One that cannot even roll back is
    /// closed, and the next job opens another.
    pub(crate) fn put_back(self, worker: &mut Worker<'_, Self>) {
        self.lent.store(false, Ordering::Release);
        if self.is_in_transaction()
            && let Err(error) = self.run("rollback")
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "a connection is given up");
            return;
        }
        worker.put(self);
    }

    /// Not from the cache of prepared statements, which the borrower of the connection uses too.
    fn run(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.execute_batch(statement)
    }
}
