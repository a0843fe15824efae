//! The limit: the same rows by hand, on the raw driver, with the same indexes and the same durability.

mod memory;
mod postgres;
mod sqlite;
mod touch;

pub(crate) use memory::RawMemory;
pub(crate) use postgres::RawPostgres;
pub(crate) use sqlite::RawSqlite;
pub(crate) use touch::{touch_postgres, touch_sqlite};

use crate::Failure;
use crate::domain::{Account, Entry};
use eventcore::StreamName;
use std::collections::HashMap;
use uuid::Uuid;

/// Tables without a library.
pub(crate) enum Raw {
    Memory(RawMemory),
    Sqlite(RawSqlite),
    Postgres(RawPostgres),
}

/// A row to be inserted.
pub(crate) struct RawRow {
    pub(crate) account: u32,
    pub(crate) stream: String,
    /// The version that the stream has before.
    pub(crate) expected: i64,
    pub(crate) id: Uuid,
    pub(crate) payload: String,
}

/// Whether an insert looks for the version that it expects, or leaves it to the unique index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Insert {
    Conditional,
    Plain,
}

impl Raw {
    /// Inserts rows in one durable transaction; on PostgreSQL in one statement.
    pub(crate) async fn insert(&mut self, rows: &[RawRow], insert: Insert) -> Result<(), Failure> {
        let inserted = match self {
            Self::Memory(memory) => memory.insert(rows),
            Self::Sqlite(sqlite) => tokio::task::block_in_place(|| sqlite.insert(rows, insert))?,
            Self::Postgres(postgres) => postgres.insert(rows, insert).await?,
        };
        if inserted == rows.len() {
            return Ok(());
        }
        Err(format!("the limit inserted {inserted} of {} rows", rows.len()).into())
    }

    /// Reads, parses and folds all rows.
    pub(crate) async fn fold_all(&mut self) -> Result<HashMap<u32, i64>, Failure> {
        match self {
            Self::Memory(memory) => memory.fold_all(),
            Self::Sqlite(sqlite) => tokio::task::block_in_place(|| sqlite.fold_all()),
            Self::Postgres(postgres) => postgres.fold_all().await,
        }
    }

    /// Reads, parses and folds the rows of one account.
    pub(crate) async fn fold_one(&mut self, account: Account) -> Result<i64, Failure> {
        match self {
            Self::Memory(memory) => memory.fold_one(account),
            Self::Sqlite(sqlite) => tokio::task::block_in_place(|| sqlite.fold_one(account)),
            Self::Postgres(postgres) => postgres.fold_one(account).await,
        }
    }
}

/// Makes rows for the limit: deposits, a different account each as long as there are accounts.
pub(crate) struct RawRows {
    order: Vec<u32>,
    next: usize,
    versions: Vec<i64>,
}

impl RawRows {
    pub(crate) fn new(accounts: u32) -> Self {
        Self::of((0..accounts).collect())
    }

    /// Rows of these accounts alone.
    pub(crate) fn of(mut accounts: Vec<u32>) -> Self {
        fastrand::shuffle(&mut accounts);
        let versions = vec![0; accounts.iter().max().map_or(0, |&last| last as usize + 1)];
        Self { order: accounts, next: 0, versions }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<Vec<RawRow>, Failure> {
        (0..count).map(|_| self.one()).collect()
    }

    fn one(&mut self) -> Result<RawRow, Failure> {
        let account = self.order[self.next];
        self.next = (self.next + 1) % self.order.len();
        let version = &mut self.versions[account as usize];
        let expected = *version;
        *version += 1;
        Ok(RawRow {
            account,
            stream: Account(account).stream_id()?.to_string(),
            expected,
            id: Uuid::now_v7(),
            payload: serde_json::to_string(&Entry::new(Account(account), 1))?,
        })
    }
}

/// Parses a payload and adds it to a fold.
fn fold(balances: &mut HashMap<u32, i64>, payload: &[u8]) -> Result<(), Failure> {
    let entry: Entry = serde_json::from_slice(payload)?;
    *balances.entry(entry.account).or_default() += entry.amount;
    Ok(())
}
