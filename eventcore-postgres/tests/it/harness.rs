//! The stores that the contract is tested with.

use crate::fixtures::Log;
use eventcore::{GroupLimits, QueueCapacity};
use eventcore_postgres::{PgContext, PostgresConfig, PostgresEventStore};
use eventcore_testing::{ContractViolation, Form, Harness, HarnessError, StoreLimits, TransactionalHarness, run_group};

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
        connect(log, log.config().append_limits(limits.append).max_read_events(limits.max_read_events)).await
    }

    async fn remove(&self, (log, _): Self::Place) -> Result<(), HarnessError> {
        log.remove().await
    }
}

async fn connect(log: &Log, config: PostgresConfig) -> Result<PostgresEventStore, HarnessError> {
    // The read model is found without naming the schema, which the harness is not told again.
    let url = format!("{}?options=-c%20search_path%3D{}", log.url, log.schema);
    Ok(PostgresEventStore::connect(&url, config).await?)
}

/// Stores whose groups have one request, and whose writer has room for one more.
struct Narrow;

impl Harness for Narrow {
    type Store = PostgresEventStore;
    type Place = (Log, StoreLimits);
    const NAME: &'static str = "postgres with groups and a queue of one";
    const GAPLESS: bool = false;
    const DURABLE: bool = true;

    async fn create(&self, limits: StoreLimits) -> Result<Self::Place, HarnessError> {
        Postgres.create(limits).await
    }

    async fn open(&self, (log, limits): &Self::Place) -> Result<Self::Store, HarnessError> {
        let config = log.config().append_limits(limits.append).max_read_events(limits.max_read_events);
        let one = GroupLimits { requests: 1, ..GroupLimits::default() };
        connect(log, config.group_limits(one).queue_capacity(QueueCapacity::try_new(1)?)).await
    }

    async fn remove(&self, place: Self::Place) -> Result<(), HarnessError> {
        Postgres.remove(place).await
    }
}

#[test]
fn what_is_promised_of_commands_holds_with_groups_and_a_queue_of_one() -> Result<(), ContractViolation> {
    run_group(|| Narrow, Form::Shared, "executing")
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
