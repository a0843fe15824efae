//! The stores that the contract is tested with.

use crate::fixtures::Log;
use eventcore_postgres::{PgContext, PostgresEventStore};
use eventcore_testing::{Harness, HarnessError, StoreLimits, TransactionalHarness};

pub(crate) struct Postgres;

impl Harness for Postgres {
    type Store = PostgresEventStore;
    type Place = (Log, StoreLimits);
    const NAME: &'static str = "postgres";
    const GAPLESS: bool = false;
    const DURABLE: bool = true;

    async fn create(&self, limits: StoreLimits) -> Result<Self::Place, HarnessError> {
        let log = Log::new()?;
        log.run("create schema @; create table @.numbers (key text primary key, number bigint not null)").await?;
        Ok((log, limits))
    }

    async fn open(&self, (log, limits): &Self::Place) -> Result<Self::Store, HarnessError> {
        let config = log.config().append_limits(limits.append).max_read_events(limits.max_read_events);
        // The read model is found without naming the schema, which the harness is not told again.
        let url = format!("{}?options=-c%20search_path%3D{}", log.url, log.schema);
        Ok(PostgresEventStore::connect(&url, config).await?)
    }

    async fn remove(&self, (log, _): Self::Place) -> Result<(), HarnessError> {
        log.remove().await
    }
}

impl TransactionalHarness for Postgres {
    type Context = PgContext;

    async fn add(&self, context: &mut PgContext, key: &str, amount: i64) -> Result<(), HarnessError> {
        let add = "insert into numbers values ($1, $2) on conflict (key) do update set number = numbers.number + excluded.number";
        sqlx::query(add).bind(key).bind(amount).execute(context.connection()).await?;
        Ok(())
    }

    async fn value(&self, store: &PostgresEventStore, key: &str) -> Result<Option<i64>, HarnessError> {
        let number = sqlx::query_scalar("select number from numbers where key = $1").bind(key);
        Ok(number.fetch_optional(store.pool()).await?)
    }
}
