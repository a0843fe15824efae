//! Checkpoints, and the epochs that fence them.

use crate::decode;
use crate::error::store_error;
use crate::store::SqliteEventStore;
use async_trait::async_trait;
use eventcore::{
    Checkpoint, CheckpointError, CheckpointStore, Epoch, EventStoreError, LineageId, LogCursor, ProjectionName,
    Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select name, position, event_id, filter, lineage, updated_at from eventcore_checkpoints \
             where filter is not null ",
            $rest
        )
    };
}
const SELECT: &str = select!("and name = ?1");
const SELECT_EVERY: &str = select!("order by name");
const SELECT_EPOCH: &str = "select epoch from eventcore_checkpoints where name = ?1";
const RAISE_EPOCH: &str = "insert into eventcore_checkpoints (name, epoch) values (?1, 1) \
     on conflict (name) do update set epoch = epoch + 1 returning epoch";
/// A follower of which nothing is known has never had a leader.
const SAVE: &str = "insert into eventcore_checkpoints (name, epoch, position, event_id, filter, lineage, updated_at) \
     values (?1, 0, ?2, ?3, ?4, ?5, ?6) on conflict (name) do update set position = excluded.position, \
     event_id = excluded.event_id, filter = excluded.filter, lineage = excluded.lineage, updated_at = excluded.updated_at";
const RESET: &str = "update eventcore_checkpoints set position = null, event_id = null, filter = null, lineage = null, \
     updated_at = null where name = ?1";

const FORGET: &str = "delete from eventcore_checkpoints where name = ?1 and epoch = 0";
const ADOPT: &str = "update eventcore_checkpoints set (position, event_id, filter, lineage, updated_at) = \
     (v.position, v.event_id, v.filter, v.lineage, v.updated_at) from eventcore_checkpoints v \
     where eventcore_checkpoints.name = ?1 and v.name = ?2";

/// Makes sure that `epoch` is the one in force. Within a transaction it stays so until that ends.
pub(crate) fn fence(connection: &Connection, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
    let current: Option<i64> = connection
        .prepare_cached(SELECT_EPOCH)
        .and_then(|mut select| select.query_row([name.as_str()], |row| row.get(0)).optional())
        .map_err(store_error)?;
    let current = current.map_or(Ok(Epoch::NONE), |number| read_epoch(name, number))?;
    if current == epoch {
        return Ok(());
    }
    Err(CheckpointError::Fenced { name: name.clone(), epoch, current })
}

/// Saves a checkpoint if `epoch` is in force.
pub(crate) fn save(connection: &Connection, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
    fence(connection, &checkpoint.name, epoch)?;
    write(connection, checkpoint)
}

/// Saves a checkpoint, for who has made sure that he leads.
pub(crate) fn write(connection: &Connection, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let filter = serde_json::to_string(&checkpoint.filter).map_err(EventStoreError::storage)?;
    let event_id = checkpoint.cursor.map(|cursor| cursor.event_id.as_uuid());
    let lineage = checkpoint.lineage.as_uuid();
    connection
        .prepare_cached(SAVE)
        .and_then(|mut save| {
            save.execute(params![
                checkpoint.name.as_str(),
                checkpoint.cursor.map(|cursor| cursor.position.get()),
                event_id.as_ref().map(|id| id.as_bytes()),
                filter,
                lineage.as_bytes(),
                Timestamp::now().as_micros(),
            ])
        })
        .map_err(store_error)?;
    Ok(())
}

/// Removes the checkpoint of a version of a read model. It has no epoch of its own.
pub(crate) fn forget(connection: &Connection, version: &ProjectionName) -> Result<(), CheckpointError> {
    let mut forget = connection.prepare_cached(FORGET).map_err(store_error)?;
    forget.execute([version.as_str()]).map_err(store_error)?;
    Ok(())
}

/// Makes the checkpoint of a version of a read model that of its projection.
pub(crate) fn adopt(
    connection: &Connection,
    projection: &ProjectionName,
    version: &ProjectionName,
) -> Result<(), CheckpointError> {
    // If the version has none, since the log was empty, neither has the projection.
    connection
        .prepare_cached(RESET)
        .and_then(|mut reset| reset.execute([projection.as_str()]))
        .and_then(|_| connection.prepare_cached(ADOPT)?.execute([projection.as_str(), version.as_str()]))
        .map_err(store_error)?;
    forget(connection, version)
}

/// Gives out the next epoch of a projection.
pub(crate) fn raise_epoch(connection: &Connection, name: &ProjectionName) -> Result<Epoch, CheckpointError> {
    let epoch: i64 = connection
        .prepare_cached(RAISE_EPOCH)
        .and_then(|mut raise| raise.query_row([name.as_str()], |row| row.get(0)))
        .map_err(store_error)?;
    read_epoch(name, epoch)
}

fn read_epoch(name: &ProjectionName, number: i64) -> Result<Epoch, CheckpointError> {
    u64::try_from(number).map(Epoch::new).map_err(|_| corrupt(name, format!("its epoch is {number}")))
}

fn corrupt(name: &ProjectionName, what: impl Into<String>) -> CheckpointError {
    CheckpointError::Corrupt { name: name.clone(), what: what.into() }
}

/// Reads a checkpoint, naming what cannot be understood.
fn read(row: &Row<'_>) -> Result<Checkpoint, CheckpointError> {
    let name: String = row.get(0).map_err(store_error)?;
    let name = ProjectionName::new(name)
        .map_err(|error| EventStoreError::corrupt_because("the name of a checkpoint", error))?;
    let position: Option<i64> = row.get(1).map_err(store_error)?;
    let event_id: Option<Vec<u8>> = row.get(2).map_err(store_error)?;
    let filter: String = row.get(3).map_err(store_error)?;
    let lineage: Option<Vec<u8>> = row.get(4).map_err(store_error)?;
    let updated_at: Option<i64> = row.get(5).map_err(store_error)?;

    let damaged = |error: EventStoreError| corrupt(&name, error.to_string());
    let cursor = match (position, event_id) {
        (None, None) => None,
        (Some(position), Some(event_id)) => Some(LogCursor {
            position: decode::position(position).map_err(damaged)?,
            event_id: decode::event_id(&event_id).map_err(damaged)?,
        }),
        _ => return Err(corrupt(&name, "it has a position without an event, or an event without a position")),
    };
    let filter = serde_json::from_str(&filter).map_err(|error| corrupt(&name, format!("its filter: {error}")))?;
    let lineage = lineage.ok_or_else(|| corrupt(&name, "its lineage is missing"))?;
    let lineage = LineageId::from_uuid(decode::uuid(&lineage, "its lineage").map_err(damaged)?);
    let updated_at = updated_at.ok_or_else(|| corrupt(&name, "its time is missing"))?;
    let updated_at = decode::timestamp(updated_at).map_err(damaged)?;
    Ok(Checkpoint { name, cursor, filter, lineage, updated_at })
}

#[async_trait]
impl CheckpointStore for SqliteEventStore {
    async fn load_checkpoint(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        let name = name.clone();
        let load = move |connection: &Connection| {
            let mut select = connection.prepare_cached(SELECT).map_err(store_error)?;
            let mut rows = select.query([name.as_str()]).map_err(store_error)?;
            rows.next().map_err(store_error)?.map(read).transpose()
        };
        self.shared().index.read(move |reader| Ok(load(&reader.connection))).await?
    }

    async fn save_checkpoint(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
        let checkpoint = checkpoint.clone();
        self.shared().side.write(move |connection| save(connection, &checkpoint, epoch)).await
    }

    async fn reset_checkpoint(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
        let name = name.clone();
        let reset = move |connection: &Connection| {
            fence(connection, &name, epoch)?;
            connection
                .prepare_cached(RESET)
                .and_then(|mut reset| reset.execute([name.as_str()]))
                .map_err(store_error)?;
            Ok(())
        };
        self.shared().side.write(reset).await
    }

    async fn list_checkpoints(&self) -> Result<Vec<Checkpoint>, CheckpointError> {
        let list = |connection: &Connection| {
            let mut select = connection.prepare_cached(SELECT_EVERY).map_err(store_error)?;
            let mut rows = select.query([]).map_err(store_error)?;
            let mut checkpoints = Vec::new();
            while let Some(row) = rows.next().map_err(store_error)? {
                checkpoints.push(read(row)?);
            }
            Ok(checkpoints)
        };
        self.shared().index.read(move |reader| Ok(list(&reader.connection))).await?
    }
}
