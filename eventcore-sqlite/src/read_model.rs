//! The versions of read models.

use crate::SqliteContext;
use crate::error::store_error;
use crate::store::SqliteEventStore;
use crate::{checkpoint, dead_letter};
use async_trait::async_trait;
use eventcore::{
    Checkpoint, CheckpointError, Epoch, EventStoreError, ProjectionName, ReadModel, ReadModelStore, ReadModelVersion,
    Timestamp, VersionChange, VersionedUnitOfWork,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

const SELECT: &str =
    "select in_force, building, retired, requested, failure from eventcore_read_models where name = ?1";
const WRITE: &str = "insert into eventcore_read_models (name, in_force, building, retired, requested, failure, updated_at) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7) on conflict (name) do update set in_force = excluded.in_force, \
     building = excluded.building, retired = excluded.retired, requested = excluded.requested, \
     failure = excluded.failure, updated_at = excluded.updated_at";

/// The numbers as stored.
type Stored = ([Option<i64>; 3], bool, Option<String>);

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(([row.get(0)?, row.get(1)?, row.get(2)?], row.get(3)?, row.get(4)?))
}

fn load(connection: &Connection, name: &ProjectionName) -> Result<Option<ReadModel>, CheckpointError> {
    let found = connection
        .prepare_cached(SELECT)
        .and_then(|mut select| select.query_row([name.as_str()], stored).optional())
        .map_err(store_error)?;
    let Some((versions, requested, failure)) = found else { return Ok(None) };
    let version = |number: Option<i64>| number.map(|number| version(name, number)).transpose();
    let [in_force, building, retired] = versions;
    let (in_force, building, retired) = (version(in_force)?, version(building)?, version(retired)?);
    Ok(Some(ReadModel { in_force, building, retired, requested, failure }))
}

fn version(name: &ProjectionName, number: i64) -> Result<ReadModelVersion, CheckpointError> {
    let version = u64::try_from(number).ok().and_then(|number| ReadModelVersion::try_new(number).ok());
    version.ok_or_else(|| CheckpointError::Corrupt {
        name: name.clone(),
        what: format!("a version of its read model is {number}"),
    })
}

fn write(connection: &Connection, name: &ProjectionName, model: &ReadModel) -> Result<(), EventStoreError> {
    let number = |version: Option<ReadModelVersion>| version.map(ReadModelVersion::into_inner);
    connection
        .prepare_cached(WRITE)
        .and_then(|mut write| {
            write.execute(params![
                name.as_str(),
                number(model.in_force),
                number(model.building),
                number(model.retired),
                model.requested,
                model.failure,
                Timestamp::now().as_micros(),
            ])
        })
        .map_err(store_error)?;
    Ok(())
}

fn change(
    connection: &Connection,
    name: &ProjectionName,
    change: &VersionChange,
    epoch: Epoch,
) -> Result<ReadModel, CheckpointError> {
    checkpoint::fence(connection, name, epoch)?;
    let stands = load(connection, name)?.unwrap_or_default();
    let next = stands.after(change).ok_or_else(|| CheckpointError::version_change(name, change, &stands))?;
    write(connection, name, &next)?;
    let of = |version: Option<ReadModelVersion>| {
        let name = version.map(|version| version.checkpoint_name(name)).transpose();
        name.map_err(|error| CheckpointError::Store(EventStoreError::storage(error)))
    };
    let forgotten = match change {
        VersionChange::Begin => of(next.building)?,
        VersionChange::Forget => of(stands.retired)?,
        _ => None,
    };
    if let Some(version) = &forgotten {
        checkpoint::forget(connection, version)?;
        dead_letter::discard_all(connection, version)?;
    }
    if let (VersionChange::Swap, Some(version)) = (change, of(stands.building)?) {
        checkpoint::adopt(connection, name, &version)?;
        dead_letter::hand_over(connection, &version, name)?;
    }
    Ok(next)
}

#[async_trait]
impl ReadModelStore for SqliteEventStore {
    async fn read_model(&self, name: &ProjectionName) -> Result<Option<ReadModel>, CheckpointError> {
        let name = name.clone();
        self.shared().index.read(move |reader| Ok(load(&reader.connection, &name))).await?
    }

    async fn request_rebuild(&self, name: &ProjectionName) -> Result<ReadModel, CheckpointError> {
        let name = name.clone();
        let request = move |connection: &Connection| {
            let mut model = load(connection, &name)?.unwrap_or_default();
            model.requested = model.building.is_none();
            write(connection, &name, &model)?;
            Ok(model)
        };
        self.shared().side.write(request).await
    }
}

#[async_trait]
impl VersionedUnitOfWork<SqliteContext> for SqliteEventStore {
    async fn commit_version(
        &self,
        context: SqliteContext,
        checkpoint: &Checkpoint,
        leader: &ProjectionName,
        epoch: Epoch,
    ) -> Result<(), CheckpointError> {
        let (checkpoint, leader) = (checkpoint.clone(), leader.clone());
        self.commit_with(context, move |page| {
            checkpoint::fence(page, &leader, epoch)?;
            checkpoint::write(page, &checkpoint)
        })
        .await
    }

    async fn commit_change(
        &self,
        context: SqliteContext,
        name: &ProjectionName,
        change: &VersionChange,
        epoch: Epoch,
    ) -> Result<ReadModel, CheckpointError> {
        let (name, what) = (name.clone(), change.clone());
        self.commit_with(context, move |page| self::change(page, &name, &what, epoch)).await
    }
}
