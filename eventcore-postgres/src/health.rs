//! How a store is doing.

use crate::retry::{Patience, repeatable};
use crate::rows::{column, one, position};
use crate::store::PostgresEventStore;
use eventcore::{EventStoreError, GlobalPosition};
use sqlx::AssertSqlSafe;
use std::time::Duration;

/// How a store is doing, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The version of the server.
    pub server_version: String,
    /// The highest position of all visible events.
    pub head: Option<GlobalPosition>,
    /// How far followers may look; behind `head` while appends are under way.
    pub horizon: Option<GlobalPosition>,
    /// How long the oldest append that holds the horizon back has been under way. Minutes mean a transaction that was
    /// left open after `append_in_transaction`, or a prepared one that was forgotten.
    pub oldest_registration: Option<Duration>,
    /// Whether notifications of other processes are heard. If not, polling finds their appends. A store listens while somebody
    /// follows the log through it, except when so much is appended that looking every few milliseconds is cheaper; when the last
    /// one has gone it stops within the poll interval. Reading pages is not following.
    pub listening: bool,
    /// How many connections the pool has open.
    pub connections: u32,
    /// How many of them are idle.
    pub idle_connections: usize,
}

impl PostgresEventStore {
    /// How the store is doing. It asks the server.
    ///
    /// # Errors
    /// [`EventStoreError::Unavailable`] if the server does not answer, [`EventStoreError::Closed`] if the pool is closed.
    pub async fn health(&self) -> Result<Health, EventStoreError> {
        let sql = format!(
            "select current_setting('server_version'), \
             (select max(e.position) from {0}.events e), h.position, \
             (select (extract(epoch from max(clock_timestamp() - coalesce(a.xact_start, (select min(p.prepared) \
              from pg_catalog.pg_prepared_xacts p where p.database = current_database())))) * 1000)::bigint \
              from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a on a.pid = l.pid \
              where l.locktype = 'advisory' and l.classid = '{0}.positions'::regclass::oid and l.objsubid = 2 \
              and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())) \
             from {0}.horizon(null) h",
            self.config().schema
        );
        let ask = || sqlx::query(AssertSqlSafe(sql.as_str()));
        let row = one(repeatable(self.connections(), Patience::of(self.config()), ask).await?)?;
        let oldest: Option<i64> = column(&row, 3)?;
        Ok(Health {
            server_version: column(&row, 0)?,
            head: column::<Option<i64>>(&row, 1)?.map(position).transpose()?,
            horizon: column::<Option<i64>>(&row, 2)?.map(position).transpose()?,
            oldest_registration: oldest.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or_default())),
            listening: self.is_listening(),
            connections: self.pool().size(),
            idle_connections: self.pool().num_idle(),
        })
    }
}
