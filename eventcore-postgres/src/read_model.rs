//! The versions of read models.

use crate::PgContext;
use crate::checkpoint::{Save, fence};
use crate::connections::Connections;
use crate::fault::store_error;
use crate::retry::{Patience, repeatable};
use crate::rows::{column, number, one};
use crate::store::PostgresEventStore;
use crate::{PostgresConfig, SchemaName};
use async_trait::async_trait;
use eventcore::{
    Checkpoint, CheckpointError, Epoch, EventStoreError, ProjectionName, ReadModel, ReadModelStore, ReadModelVersion,
    VersionChange, VersionedUnitOfWork,
};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;

/// Reads versions, and asks for new ones.
#[derive(Debug)]
pub(crate) struct ReadModels {
    connections: Connections,
    schema: SchemaName,
    patience: Patience,
}

const COLUMNS: &str = "in_force, building, retired, requested, failure";

impl ReadModels {
    pub(crate) fn new(connections: Connections, config: &PostgresConfig) -> Self {
        Self { connections, schema: config.schema.clone(), patience: Patience::of(config) }
    }

    pub(crate) async fn load(&self, name: &ProjectionName) -> Result<Option<ReadModel>, CheckpointError> {
        let sql = format!("select {COLUMNS} from {}.read_models where name = $1", self.schema);
        let load = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(name.as_str());
        let rows = repeatable(&self.connections, self.patience, load).await?;
        rows.first().map(|row| read_model(name, row)).transpose()
    }

    /// Asking says the same when it comes twice, so it may be repeated.
    pub(crate) async fn request(&self, name: &ProjectionName) -> Result<ReadModel, CheckpointError> {
        let sql = format!(
            "insert into {}.read_models as m (name, requested, updated_at) values ($1, true, clock_timestamp()) \
             on conflict (name) do update set requested = m.building is null, updated_at = clock_timestamp() \
             returning {COLUMNS}",
            self.schema
        );
        let request = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(name.as_str());
        let row = one(repeatable(&self.connections, self.patience, request).await?)?;
        read_model(name, &row)
    }
}

fn read_model(name: &ProjectionName, row: &PgRow) -> Result<ReadModel, CheckpointError> {
    let version = |index| {
        let number: Option<i64> = column(row, index)?;
        let Some(number) = number else { return Ok(None) };
        let version = u64::try_from(number).ok().and_then(|number| ReadModelVersion::try_new(number).ok());
        version.map(Some).ok_or_else(|| CheckpointError::Corrupt {
            name: name.clone(),
            what: format!("a version of its read model is {number}"),
        })
    };
    Ok(ReadModel {
        in_force: version(0)?,
        building: version(1)?,
        retired: version(2)?,
        requested: column(row, 3)?,
        failure: column(row, 4)?,
    })
}

/// Changes the versions in the transaction of a page.
async fn change(
    schema: &SchemaName,
    page: &mut PgContext,
    name: &ProjectionName,
    change: &VersionChange,
) -> Result<ReadModel, CheckpointError> {
    // Locked, so that no request is overwritten that comes in between.
    let sql = format!("select {COLUMNS} from {schema}.read_models where name = $1 for update");
    let select = sqlx::query(AssertSqlSafe(sql)).bind(name.as_str());
    let found = page.rows(select).await.map_err(store_error)?;
    let stands = found.first().map(|row| read_model(name, row)).transpose()?.unwrap_or_default();
    let next = stands.after(change).ok_or_else(|| CheckpointError::version_change(name, change, &stands))?;
    let sql = format!(
        "insert into {schema}.read_models (name, in_force, building, retired, requested, failure, updated_at) \
         values ($1, $2, $3, $4, $5, $6, clock_timestamp()) on conflict (name) do update set \
         in_force = excluded.in_force, building = excluded.building, retired = excluded.retired, \
         requested = excluded.requested, failure = excluded.failure, updated_at = excluded.updated_at"
    );
    let number_of = |version: Option<ReadModelVersion>| version.map(|version| number(version.into_inner()));
    let write = sqlx::query(AssertSqlSafe(sql))
        .bind(name.as_str())
        .bind(number_of(next.in_force))
        .bind(number_of(next.building))
        .bind(number_of(next.retired))
        .bind(next.requested)
        .bind(next.failure.as_deref());
    page.rows(write).await.map_err(store_error)?;
    let of = |version: Option<ReadModelVersion>| {
        let name = version.map(|version| version.checkpoint_name(name)).transpose();
        name.map_err(|error| CheckpointError::Store(EventStoreError::storage(error)))
    };
    let forget = format!("delete from {schema}.checkpoints where name = $1");
    let forgotten = match change {
        VersionChange::Begin => of(next.building)?,
        VersionChange::Forget => of(stands.retired)?,
        VersionChange::Swap => Some(name.clone()),
        _ => None,
    };
    if let Some(forgotten) = forgotten {
        let letters = format!("delete from {schema}.dead_letters where handler = $1");
        for forget in [forget, letters] {
            let forget = sqlx::query(AssertSqlSafe(forget)).bind(forgotten.as_str());
            page.rows(forget).await.map_err(store_error)?;
        }
    }
    if let (VersionChange::Swap, Some(version)) = (change, of(stands.building)?) {
        // Whoever loses the answer to this and asks where a version goes on waits until it has ended.
        let lock = format!("select {schema}.lock_checkpoint($1), {schema}.lock_checkpoint($2)");
        let lock = sqlx::query(AssertSqlSafe(lock)).bind(name.as_str()).bind(version.as_str());
        page.rows(lock).await.map_err(store_error)?;
        // If the version has none, since the log was empty, neither has the projection.
        let adopt = format!("update {schema}.checkpoints set name = $1 where name = $2");
        let letters = format!("update {schema}.dead_letters set handler = $1 where handler = $2");
        for adopt in [adopt, letters] {
            let adopt = sqlx::query(AssertSqlSafe(adopt)).bind(name.as_str()).bind(version.as_str());
            page.rows(adopt).await.map_err(store_error)?;
        }
    }
    Ok(next)
}

#[async_trait]
impl ReadModelStore for PostgresEventStore {
    async fn read_model(&self, name: &ProjectionName) -> Result<Option<ReadModel>, CheckpointError> {
        self.read_models()?.load(name).await
    }

    async fn request_rebuild(&self, name: &ProjectionName) -> Result<ReadModel, CheckpointError> {
        self.read_models()?.request(name).await
    }
}

#[async_trait]
impl VersionedUnitOfWork<PgContext> for PostgresEventStore {
    async fn commit_version(
        &self,
        mut context: PgContext,
        checkpoint: &Checkpoint,
        leader: &ProjectionName,
        epoch: Epoch,
    ) -> Result<(), CheckpointError> {
        let save = Save::of_version(&self.config().schema, checkpoint, leader, epoch)?;
        let row = one(context.rows(save.statement()).await.map_err(store_error)?)?;
        fence(leader, epoch, column(&row, 0)?)?;
        context.commit().await
    }

    async fn commit_change(
        &self,
        mut context: PgContext,
        name: &ProjectionName,
        change: &VersionChange,
        epoch: Epoch,
    ) -> Result<ReadModel, CheckpointError> {
        let schema = &self.config().schema;
        let sql = format!("select coalesce((select epoch from {schema}.leases where name = $1 for key share), 0)");
        let current = sqlx::query(AssertSqlSafe(sql)).bind(name.as_str());
        let row = one(context.rows(current).await.map_err(store_error)?)?;
        fence(name, epoch, column(&row, 0)?)?;
        let next = self::change(schema, &mut context, name, change).await?;
        context.commit().await?;
        Ok(next)
    }
}
