//! The contract that all adapters share.

use crate::support::patient;
use eventcore::QueueCapacity;
use eventcore_sqlite::{SqliteConfig, SqliteContext, SqliteEventStore};
use eventcore_testing::{ContractViolation, Form, Harness, HarnessError, StoreLimits, TransactionalHarness, run_group};
use rusqlite::OptionalExtension;
use tempfile::TempDir;

pub(crate) struct Sqlite;

/// A file in a directory that vanishes.
pub(crate) struct Place {
    directory: TempDir,
    config: SqliteConfig,
}

impl Harness for Sqlite {
    type Store = SqliteEventStore;
    type Place = Place;
    const NAME: &'static str = "sqlite";
    const GAPLESS: bool = true;
    const DURABLE: bool = true;

    async fn create(&self, limits: StoreLimits) -> Result<Self::Place, HarnessError> {
        let config = patient().limits(limits.append).max_read_events(limits.max_read_events);
        Ok(Place { directory: TempDir::new()?, config })
    }

    async fn open(&self, place: &Self::Place) -> Result<Self::Store, HarnessError> {
        Ok(SqliteEventStore::open_with(place.directory.path().join("store.db"), place.config.clone()).await?)
    }
}

impl TransactionalHarness for Sqlite {
    type Context = SqliteContext;

    async fn add(&self, context: &mut SqliteContext, key: &str, amount: i64) -> Result<(), HarnessError> {
        let connection = context.connection();
        connection.execute_batch("create table if not exists numbers (key text primary key, number integer)")?;
        let add =
            "insert into numbers values (?1, ?2) on conflict (key) do update set number = number + excluded.number";
        connection.execute(add, (key, amount))?;
        Ok(())
    }

    async fn value(&self, store: &SqliteEventStore, key: &str) -> Result<Option<i64>, HarnessError> {
        let raw = rusqlite::Connection::open(store.path())?;
        if !raw.table_exists(None, "numbers")? {
            return Ok(None);
        }
        Ok(raw.query_row("select number from numbers where key = ?1", [key], |row| row.get(0)).optional()?)
    }
}

/// Stores whose writer has room for one request.
struct Narrow;

impl Harness for Narrow {
    type Store = SqliteEventStore;
    type Place = Place;
    const NAME: &'static str = "sqlite with a queue of one";
    const GAPLESS: bool = true;
    const DURABLE: bool = true;

    async fn create(&self, limits: StoreLimits) -> Result<Self::Place, HarnessError> {
        let Place { directory, config } = Sqlite.create(limits).await?;
        Ok(Place { directory, config: config.queue_capacity(QueueCapacity::try_new(1)?) })
    }

    async fn open(&self, place: &Self::Place) -> Result<Self::Store, HarnessError> {
        Sqlite.open(place).await
    }
}

#[test]
fn what_is_promised_of_commands_holds_with_a_queue_of_one() -> Result<(), ContractViolation> {
    run_group(|| Narrow, Form::Shared, "executing")
}

eventcore_testing::contract_tests!(Sqlite);
eventcore_testing::transactional_contract_tests!(Sqlite);
