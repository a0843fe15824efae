//! Snapshots of command state.

use crate::decode;
use crate::error::store_error;
use crate::side::Side;
use crate::store::SqliteEventStore;
use async_trait::async_trait;
use eventcore::{EventStoreError, Snapshot, SnapshotKey, SnapshotSchema, SnapshotStore, Timestamp};
use rusqlite::{Connection, Row, params};

const SELECT: &str = "select schema, versions, position, payload, taken_at from eventcore_snapshots where key = ?1";
const SAVE: &str = "insert into eventcore_snapshots (key, schema, versions, position, payload, taken_at) \
     values (?1, ?2, ?3, ?4, ?5, ?6) on conflict (key) do update set schema = excluded.schema, \
     versions = excluded.versions, position = excluded.position, payload = excluded.payload, taken_at = excluded.taken_at";
const DELETE: &str = "delete from eventcore_snapshots where key = ?1";
const PRUNE: &str = "delete from eventcore_snapshots where key in \
     (select key from eventcore_snapshots where taken_at < ?1 limit ?2)";

fn read(key: &SnapshotKey, row: &Row<'_>) -> Result<Snapshot, EventStoreError> {
    let what = |part: &str| format!("{part} of the snapshot {key}");
    let schema: Vec<u8> = row.get(0).map_err(store_error)?;
    let streams: String = row.get(1).map_err(store_error)?;
    let payload: Vec<u8> = row.get(3).map_err(store_error)?;
    Ok(Snapshot {
        key: key.clone(),
        schema: SnapshotSchema::from_uuid(decode::uuid(&schema, &what("the schema"))?),
        streams: serde_json::from_str(&streams)
            .map_err(|error| EventStoreError::corrupt_because(what("the streams"), error))?,
        position: decode::position(row.get(2).map_err(store_error)?)?,
        payload: payload.into(),
        taken_at: decode::timestamp(row.get(4).map_err(store_error)?)?,
    })
}

fn save(connection: &Connection, snapshot: &Snapshot) -> Result<(), EventStoreError> {
    let streams = serde_json::to_string(&snapshot.streams).map_err(EventStoreError::storage)?;
    let schema = snapshot.schema.as_uuid();
    connection
        .prepare_cached(SAVE)
        .and_then(|mut save| {
            save.execute(params![
                snapshot.key.as_str(),
                schema.as_bytes(),
                streams,
                snapshot.position.get(),
                snapshot.payload.as_ref(),
                Timestamp::now().as_micros()
            ])
        })
        .map(drop)
        .map_err(store_error)
}

#[async_trait]
impl SnapshotStore for SqliteEventStore {
    async fn load_snapshot(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, EventStoreError> {
        let key = key.clone();
        let load = move |connection: &Connection| {
            let mut select = connection.prepare_cached(SELECT).map_err(store_error)?;
            let mut rows = select.query([key.as_str()]).map_err(store_error)?;
            rows.next().map_err(store_error)?.map(|row| read(&key, row)).transpose()
        };
        self.shared().index.read(move |reader| load(&reader.connection)).await
    }

    async fn save_snapshot(&self, snapshot: &Snapshot) -> Result<(), EventStoreError> {
        let snapshot = snapshot.clone();
        self.shared().side.write(move |connection| save(connection, &snapshot)).await
    }

    async fn delete_snapshot(&self, key: &SnapshotKey) -> Result<(), EventStoreError> {
        let key = key.clone();
        let delete = move |connection: &Connection| {
            let mut delete = connection.prepare_cached(DELETE).map_err(store_error)?;
            delete.execute([key.as_str()]).map(drop).map_err(store_error)
        };
        self.shared().side.write(delete).await
    }

    async fn prune_snapshots(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        let prune = move |connection: &Connection| {
            let mut delete = connection.prepare_cached(PRUNE).map_err(store_error)?;
            let pruned = delete.execute(params![older_than.as_micros(), Side::PRUNED_AT_ONCE]).map_err(store_error)?;
            Ok::<_, EventStoreError>(pruned as u64)
        };
        let mut pruned = 0;
        loop {
            let more = self.shared().side.write(prune).await?;
            pruned += more;
            if more < u64::from(Side::PRUNED_AT_ONCE) {
                return Ok(pruned);
            }
        }
    }
}
