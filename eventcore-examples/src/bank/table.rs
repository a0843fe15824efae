//! What every account holds, in a table of the store's own database: exactly once, and rebuilt side by side.

use super::{AccountId, BankEvent};
use eventcore::{ProjectionContext, Projector, ReadModelVersion, RecordedEvent, ValidationError, VersionedProjector};
use eventcore_postgres::sqlx::{self, AssertSqlSafe};
use eventcore_postgres::{PgContext, PostgresEventStore};
use eventcore_sqlite::{SqliteContext, SqliteEventStore, rusqlite};
use std::fmt::Write;
use std::marker::PhantomData;
use thiserror::Error;

/// The read model `bank-balances`: the view `bank_balances (account, owner, minor_units)`, over a table for each version.
pub struct BalanceTable<C> {
    version: ReadModelVersion,
    context: PhantomData<fn() -> C>,
}

impl<C> BalanceTable<C> {
    /// The name of the projection.
    pub const NAME: &str = "bank-balances";

    /// The projector of one version.
    #[must_use]
    pub const fn new(version: ReadModelVersion) -> Self {
        Self { version, context: PhantomData }
    }

    fn create(&self) -> String {
        let version = self.version;
        format!(
            "create table bank_balances_v{version} (account text primary key, owner text, minor_units bigint not null)"
        )
    }

    fn activate_statements(&self) -> String {
        let version = self.version;
        let view =
            format!("create view bank_balances as select account, owner, minor_units from bank_balances_v{version}");
        format!("drop view if exists bank_balances; {view}")
    }

    fn drop_statement(&self) -> String {
        format!("drop table bank_balances_v{}", self.version)
    }

    /// `?1` and `$1` are the same to SQLite; Postgres knows only the latter.
    fn add(&self) -> String {
        let mut sql = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            sql,
            "insert into bank_balances_v{} as b (account, owner, minor_units) values ($1, $2, $3) on conflict (account) \
             do update set owner = coalesce(excluded.owner, b.owner), minor_units = b.minor_units + excluded.minor_units",
            self.version
        );
        sql
    }
}

/// An event that the table cannot take.
#[derive(Debug, Error)]
pub enum TableError {
    /// It stands in a stream that belongs to no account.
    #[error(transparent)]
    Stream(#[from] ValidationError),
    /// The amount is too large for a column of 64 bits.
    #[error("the amount is too large for the table")]
    TooLarge(#[from] std::num::TryFromIntError),
    /// The SQLite database said no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The PostgreSQL database said no.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// A row of what changes by an event.
fn change(event: &RecordedEvent<BankEvent>) -> Result<(AccountId, Option<String>, i64), TableError> {
    let account = AccountId::of_stream(event.stream_id())?;
    let owner = match event.payload() {
        BankEvent::AccountOpened { owner, .. } => owner.as_ref().map(ToString::to_string),
        _ => None,
    };
    Ok((account, owner, i64::try_from(event.payload().change().minor_units())?))
}

impl Projector for BalanceTable<SqliteContext> {
    type Event = BankEvent;
    type Error = TableError;
    type Context = SqliteContext;

    fn name(&self) -> &str {
        Self::NAME
    }

    async fn apply(&mut self, event: &RecordedEvent<BankEvent>, page: &mut SqliteContext) -> Result<(), TableError> {
        let (account, owner, amount) = change(event)?;
        let mut add = page.connection().prepare_cached(&self.add())?;
        add.execute((account.as_ref(), owner, amount))?;
        Ok(())
    }
}

impl VersionedProjector for BalanceTable<SqliteContext> {
    async fn prepare(&mut self, page: &mut SqliteContext) -> Result<(), TableError> {
        Ok(page.connection().execute_batch(&self.create())?)
    }

    async fn activate(&mut self, page: &mut SqliteContext) -> Result<(), TableError> {
        Ok(page.connection().execute_batch(&self.activate_statements())?)
    }

    async fn retire(&mut self, page: &mut SqliteContext) -> Result<(), TableError> {
        Ok(page.connection().execute_batch(&self.drop_statement())?)
    }
}

impl Projector for BalanceTable<PgContext> {
    type Event = BankEvent;
    type Error = TableError;
    type Context = PgContext;

    fn name(&self) -> &str {
        Self::NAME
    }

    async fn apply(&mut self, event: &RecordedEvent<BankEvent>, page: &mut PgContext) -> Result<(), TableError> {
        let (account, owner, amount) = change(event)?;
        let add = sqlx::query(AssertSqlSafe(self.add())).bind(account.as_ref()).bind(owner).bind(amount);
        add.execute(page.connection()).await?;
        Ok(())
    }
}

impl VersionedProjector for BalanceTable<PgContext> {
    async fn prepare(&mut self, page: &mut PgContext) -> Result<(), TableError> {
        run(page, self.create()).await
    }

    async fn activate(&mut self, page: &mut PgContext) -> Result<(), TableError> {
        // Readers queue behind a lock that is waited for, so it is not waited for long; the swap is tried again.
        run(page, format!("set local lock_timeout = '2s'; {}", self.activate_statements())).await
    }

    async fn retire(&mut self, page: &mut PgContext) -> Result<(), TableError> {
        run(page, format!("set local lock_timeout = '2s'; {}", self.drop_statement())).await
    }
}

async fn run(page: &mut PgContext, statements: String) -> Result<(), TableError> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(page.connection()).await?;
    Ok(())
}

/// The context of the bank's table in each store that has one.
pub trait TableStore {
    /// The store's transaction.
    type Context: ProjectionContext;
}

impl TableStore for SqliteEventStore {
    type Context = SqliteContext;
}

impl TableStore for PostgresEventStore {
    type Context = PgContext;
}
