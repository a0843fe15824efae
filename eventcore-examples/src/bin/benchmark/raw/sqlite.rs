//! The limit on SQLite: the columns and indexes of the library's table, without its triggers; the same settings.

use super::{Insert, RawRow, fold};
use crate::Failure;
use crate::domain::{Account, Entry};
use eventcore::{StreamName, Timestamp};
use eventcore_sqlite::rusqlite::{Connection, params};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const SCHEMA: &str = "
    create table streams (id integer primary key, name text not null unique) strict;
    create table events (
        position integer primary key, stream integer not null, version integer not null, type integer not null,
        schema_version integer not null, content_type integer not null, id blob not null, recorded_at integer not null,
        metadata text, payload blob not null
    ) strict;
    create unique index events_stream on events (stream, version);
    create index events_type on events (type);";
const COLUMNS: &str = "insert into events (stream, version, type, schema_version, content_type, id, recorded_at, payload) \
    select ?1, ?2 + 1, 1, 1, 0, ?3, ?4, ?5";
const CONDITION: &str = "where ?2 = (select coalesce(max(version), 0) from events where stream = ?1)";

pub(crate) struct RawSqlite {
    path: PathBuf,
    connection: Connection,
}

impl RawSqlite {
    pub(crate) fn create(path: &Path, accounts: u32) -> Result<Self, Failure> {
        let connection = Connection::open(path)?;
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "cache_size", -64 * 1_024)?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", 4_000, |_| Ok(()))?;
        connection.execute_batch(SCHEMA)?;
        connection.execute_batch("begin")?;
        for account in 0..accounts {
            let mut insert = connection.prepare_cached("insert into streams (id, name) values (?1, ?2)")?;
            insert.execute(params![account, Account(account).stream_id()?.as_str()])?;
        }
        connection.execute_batch("commit")?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// A connection beside, to read from.
    pub(crate) fn reader(&self) -> Result<Self, Failure> {
        Ok(Self { path: self.path.clone(), connection: Connection::open(&self.path)? })
    }

    pub(crate) fn insert(&mut self, rows: &[RawRow], insert: Insert) -> Result<usize, Failure> {
        let now = Timestamp::now().as_micros();
        let sql = match insert {
            Insert::Conditional => format!("{COLUMNS} {CONDITION}"),
            Insert::Plain => COLUMNS.to_owned(),
        };
        self.connection.prepare_cached("begin immediate")?.execute([])?;
        let mut inserted = 0;
        {
            let mut insert = self.connection.prepare_cached(&sql)?;
            for row in rows {
                inserted += insert.execute(params![
                    row.account,
                    row.expected,
                    row.id.as_bytes(),
                    now,
                    row.payload.as_bytes()
                ])?;
            }
        }
        self.connection.prepare_cached("commit")?.execute([])?;
        Ok(inserted)
    }

    pub(crate) fn fold_all(&self) -> Result<HashMap<u32, i64>, Failure> {
        let mut balances = HashMap::new();
        let mut select = self.connection.prepare_cached("select payload from events order by position")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            fold(&mut balances, row.get_ref(0)?.as_blob()?)?;
        }
        Ok(balances)
    }

    pub(crate) fn fold_one(&self, account: Account) -> Result<i64, Failure> {
        let mut balance = 0;
        let mut select = self.connection.prepare_cached(
            "select e.payload from streams s join events e on e.stream = s.id where s.name = ?1 order by e.version",
        )?;
        let mut rows = select.query([account.stream_id()?.as_str()])?;
        while let Some(row) = rows.next()? {
            balance += serde_json::from_slice::<Entry>(row.get_ref(0)?.as_blob()?)?.amount;
        }
        Ok(balance)
    }

    /// The last position of one read after a position.
    pub(crate) fn after(&self, position: i64) -> Result<Option<i64>, Failure> {
        let sql = "select position, payload from events where position > ?1 order by position limit 1000";
        let mut select = self.connection.prepare_cached(sql)?;
        let mut rows = select.query([position])?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            serde_json::from_slice::<Entry>(row.get_ref(1)?.as_blob()?)?;
            last = Some(row.get(0)?);
        }
        Ok(last)
    }
}
