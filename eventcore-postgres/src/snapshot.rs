//! Snapshots of command state.

use crate::connections::Connections;
use crate::retry::{Patience, repeatable};
use crate::rows::{column, number, one, position};
use crate::{PostgresConfig, SchemaName};
use eventcore::{EventStoreError, Snapshot, SnapshotKey, SnapshotSchema, Timestamp};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use std::time::Duration;

/// Loads and saves snapshots.
#[derive(Debug)]
pub(crate) struct Snapshots {
    connections: Connections,
    schema: SchemaName,
    patience: Patience,
}

impl Snapshots {
    pub(crate) fn new(connections: Connections, config: &PostgresConfig) -> Self {
        // Commands do without a snapshot, so nothing is waited for.
        let patience = Patience { retry_for: Duration::ZERO, ..Patience::of(config) };
        Self { connections, schema: config.schema.clone(), patience }
    }

    pub(crate) async fn load(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, EventStoreError> {
        let sql = format!(
            "select schema, versions, position, payload, taken_at from {}.snapshots where key = $1",
            self.schema
        );
        let load = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(key.as_str());
        let rows = repeatable(&self.connections, self.patience, load).await?;
        rows.first().map(|row| snapshot(key, row)).transpose()
    }

    /// Saving says the same when it comes twice, so it may be repeated.
    pub(crate) async fn save(&self, snapshot: &Snapshot) -> Result<(), EventStoreError> {
        let streams = serde_json::to_string(&snapshot.streams).map_err(EventStoreError::storage)?;
        let sql = format!(
            "insert into {}.snapshots (key, schema, versions, position, payload, taken_at) \
             values ($1, $2, $3, $4, $5, clock_timestamp()) on conflict (key) do update set schema = excluded.schema, \
             versions = excluded.versions, position = excluded.position, payload = excluded.payload, \
             taken_at = excluded.taken_at",
            self.schema
        );
        let save = || {
            sqlx::query(AssertSqlSafe(sql.as_str()))
                .bind(snapshot.key.as_str())
                .bind(snapshot.schema.as_uuid())
                .bind(streams.as_str())
                .bind(number(snapshot.position.get()))
                .bind(snapshot.payload.as_ref())
        };
        repeatable(&self.connections, self.patience, save).await.map(drop)
    }

    pub(crate) async fn delete(&self, key: &SnapshotKey) -> Result<(), EventStoreError> {
        let sql = format!("delete from {}.snapshots where key = $1", self.schema);
        let delete = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(key.as_str());
        repeatable(&self.connections, self.patience, delete).await.map(drop)
    }

    pub(crate) async fn prune(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        let sql = format!(
            "with pruned as (delete from {}.snapshots where taken_at < $1 returning 1) select count(*) from pruned",
            self.schema
        );
        let prune = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(older_than.as_datetime());
        let row = one(repeatable(&self.connections, self.patience, prune).await?)?;
        Ok(u64::try_from(column::<i64>(&row, 0)?).unwrap_or_default())
    }
}

fn snapshot(key: &SnapshotKey, row: &PgRow) -> Result<Snapshot, EventStoreError> {
    let streams = serde_json::from_str(column(row, 1)?)
        .map_err(|error| EventStoreError::corrupt_because(format!("the streams of the snapshot {key}"), error))?;
    Ok(Snapshot {
        key: key.clone(),
        schema: SnapshotSchema::from_uuid(column(row, 0)?),
        streams,
        position: position(column(row, 2)?)?,
        payload: column::<Vec<u8>>(row, 3)?.into(),
        taken_at: Timestamp::from(column::<chrono::DateTime<chrono::Utc>>(row, 4)?),
    })
}
