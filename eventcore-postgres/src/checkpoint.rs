//! Checkpoints, fenced by the epoch in force.

use crate::connections::Connections;
use crate::retry::{Patience, Statement, repeatable};
use crate::rows::{column, cursor, number, one};
use crate::{PostgresConfig, SchemaName};
use eventcore::{
    Checkpoint, CheckpointError, Epoch, EventStoreError, FilterIdentity, LineageId, ProjectionName, Timestamp,
};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use std::sync::Arc;
use uuid::Uuid;

/// Loads and saves checkpoints.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    connections: Connections,
    schema: SchemaName,
    patience: Patience,
}

const COLUMNS: &str = "name, position, event_id, filter, lineage, updated_at";

impl Checkpoints {
    pub(crate) fn new(connections: Connections, config: &PostgresConfig) -> Self {
        Self { connections, schema: config.schema.clone(), patience: Patience::of(config) }
    }

    pub(crate) async fn load(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        let sql = format!("select {COLUMNS} from {}.checkpoints where name = $1", self.schema);
        let load = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(name.as_str());
        repeatable(&self.connections, self.patience, load).await?.first().map(checkpoint).transpose()
    }

    /// The checkpoint to go on from. Waits for a page that saved another one and whose transaction has not ended yet.
    pub(crate) async fn resume(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        let sql = format!("select {COLUMNS} from {}.resume_checkpoint($1)", self.schema);
        let resume = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(name.as_str());
        repeatable(&self.connections, self.patience, resume).await?.first().map(checkpoint).transpose()
    }

    pub(crate) async fn list(&self) -> Result<Vec<Checkpoint>, CheckpointError> {
        let sql = format!("select {COLUMNS} from {}.checkpoints order by name", self.schema);
        let rows = repeatable(&self.connections, self.patience, || sqlx::query(AssertSqlSafe(sql.as_str()))).await?;
        rows.iter().map(checkpoint).collect()
    }

    /// Saving says the same when it comes twice, so it may be repeated.
    pub(crate) async fn save(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
        let save = Save::new(&self.schema, checkpoint, epoch)?;
        let row = one(repeatable(&self.connections, self.patience, || save.statement()).await?)?;
        fence(&checkpoint.name, epoch, column(&row, 0)?)
    }

    pub(crate) async fn reset(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
        let sql = format!("select {}.reset_checkpoint($1, $2)", self.schema);
        let reset = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(name.as_str()).bind(number(epoch.get()));
        let row = one(repeatable(&self.connections, self.patience, reset).await?)?;
        fence(name, epoch, column(&row, 0)?)
    }
}

/// Saving a checkpoint: a statement for whatever transaction it is sent in. It brings the epoch in force.
pub(crate) struct Save<'a> {
    sql: Arc<str>,
    checkpoint: &'a Checkpoint,
    /// Whose epoch it is, if not that of the checkpoint's own name.
    leader: Option<&'a ProjectionName>,
    filter: String,
    epoch: Epoch,
}

impl<'a> Save<'a> {
    pub(crate) fn new(schema: &SchemaName, checkpoint: &'a Checkpoint, epoch: Epoch) -> Result<Self, EventStoreError> {
        let filter = serde_json::to_string(&checkpoint.filter).map_err(EventStoreError::storage)?;
        let sql = format!("select {schema}.save_checkpoint($1, $2, $3, $4, $5, $6)").into();
        Ok(Self { sql, checkpoint, leader: None, filter, epoch })
    }

    /// Saving the checkpoint of a version of a read model, whose projection is led.
    pub(crate) fn of_version(
        schema: &SchemaName,
        checkpoint: &'a Checkpoint,
        leader: &'a ProjectionName,
        epoch: Epoch,
    ) -> Result<Self, EventStoreError> {
        let sql = format!("select {schema}.save_version($7, $1, $2, $3, $4, $5, $6)").into();
        Ok(Self { sql, leader: Some(leader), ..Self::new(schema, checkpoint, epoch)? })
    }

    pub(crate) fn statement(&self) -> Statement<'_> {
        let cursor = self.checkpoint.cursor;
        let save = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql)))
            .bind(self.checkpoint.name.as_str())
            .bind(cursor.map(|cursor| number(cursor.position.get())))
            .bind(cursor.map(|cursor| cursor.event_id.as_uuid()))
            .bind(self.filter.as_str())
            .bind(self.checkpoint.lineage.as_uuid())
            .bind(number(self.epoch.get()));
        match self.leader {
            Some(leader) => save.bind(leader.as_str()),
            None => save,
        }
    }
}

/// Compares the caller's epoch with the one in force.
pub(crate) fn fence(name: &ProjectionName, epoch: Epoch, current: i64) -> Result<(), CheckpointError> {
    let current = Epoch::new(u64::try_from(current).unwrap_or_default());
    if current == epoch {
        return Ok(());
    }
    Err(CheckpointError::Fenced { name: name.clone(), epoch, current })
}

fn checkpoint(row: &PgRow) -> Result<Checkpoint, CheckpointError> {
    let name: &str = column(row, 0)?;
    let name = ProjectionName::new(name)
        .map_err(|error| EventStoreError::corrupt_because(format!("the checkpoint name {name:?}"), error))?;
    let corrupt = |what: String| CheckpointError::Corrupt { name: name.clone(), what };
    let cursor = match (column::<Option<i64>>(row, 1)?, column::<Option<Uuid>>(row, 2)?) {
        (Some(position), Some(id)) => {
            Some(cursor(position, id).map_err(|error| corrupt(format!("its cursor: {error}")))?)
        }
        _ => None,
    };
    let filter: FilterIdentity =
        serde_json::from_str(column(row, 3)?).map_err(|error| corrupt(format!("its filter: {error}")))?;
    Ok(Checkpoint {
        cursor,
        filter,
        lineage: LineageId::from_uuid(column(row, 4)?),
        updated_at: Timestamp::from(column::<chrono::DateTime<chrono::Utc>>(row, 5)?),
        name,
    })
}
