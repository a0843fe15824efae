//! Dead letters, kept beside the checkpoints.

use crate::checkpoint::fence;
use crate::connections::Connections;
use crate::retry::{Patience, Statement, repeatable};
use crate::rows::{column, event_id, number, one, position, valid};
use crate::{PostgresConfig, SchemaName};
use eventcore::{
    CheckpointError, DeadLetter, DeadLetterId, Epoch, EventStoreError, EventType, GlobalPosition, PageSize,
    ProjectionName, StreamId, Timestamp,
};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use std::sync::Arc;

/// Keeps and lists letters. Each of its statements says the same when it comes twice, so it may be repeated.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    connections: Connections,
    schema: SchemaName,
    patience: Patience,
}

const COLUMNS: &str = "handler, position, event_id, event_type, stream, attempts, errors, parked_at";

const REPLACE: &str = "on conflict (handler, position) do update set event_id = excluded.event_id, \
     event_type = excluded.event_type, stream = excluded.stream, attempts = excluded.attempts, errors = excluded.errors, \
     parked_at = excluded.parked_at";

impl DeadLetters {
    pub(crate) fn new(connections: Connections, config: &PostgresConfig) -> Self {
        Self { connections, schema: config.schema.clone(), patience: Patience::of(config) }
    }

    pub(crate) async fn park(&self, letter: &DeadLetter, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
        let Some(epoch) = epoch else {
            let park = Park::new(&self.schema, letter)?;
            repeatable(&self.connections, self.patience, || park.statement()).await?;
            return Ok(());
        };
        // The lock on the lease lets nobody take over before the letter is there.
        let sql = format!(
            "with lease as (select epoch from {schema}.leases where name = $1 for key share), \
             parked as (insert into {schema}.dead_letters ({COLUMNS}) \
                 select $1, $2, $3, $4, $5, $6, $7, clock_timestamp() \
                 where coalesce((select epoch from lease), 0) = $8 {REPLACE}) \
             select coalesce((select epoch from lease), 0)",
            schema = self.schema
        );
        let park = Park { sql: sql.into(), ..Park::new(&self.schema, letter)? };
        let statement = || park.statement().bind(number(epoch.get()));
        let row = one(repeatable(&self.connections, self.patience, statement).await?)?;
        fence(&letter.id.handler, epoch, column(&row, 0)?)
    }

    pub(crate) async fn list(
        &self,
        handler: Option<&ProjectionName>,
        after: Option<&DeadLetterId>,
        limit: PageSize,
    ) -> Result<Vec<DeadLetter>, EventStoreError> {
        let sql = format!(
            "select {COLUMNS} from {}.dead_letters where ($1::text is null or handler = $1) \
             and (handler, position) > ($2, $3) order by handler, position limit $4",
            self.schema
        );
        let rows = repeatable(&self.connections, self.patience, || {
            sqlx::query(AssertSqlSafe(sql.as_str()))
                .bind(handler.map(ProjectionName::as_str))
                .bind(after.map_or("", |after| after.handler.as_str()))
                .bind(after.map_or(0, |after| number(after.position.get())))
                .bind(number(limit.get() as u64))
        })
        .await?;
        rows.iter().map(letter).collect()
    }

    pub(crate) async fn load(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, EventStoreError> {
        let sql = format!("select {COLUMNS} from {}.dead_letters where handler = $1 and position = $2", self.schema);
        let load = || about(&sql, id);
        repeatable(&self.connections, self.patience, load).await?.first().map(letter).transpose()
    }

    pub(crate) async fn discard(&self, id: &DeadLetterId) -> Result<bool, EventStoreError> {
        let sql = discard_sql(&self.schema);
        let rows = repeatable(&self.connections, self.patience, || about(&sql, id)).await?;
        Ok(!rows.is_empty())
    }

    pub(crate) async fn discard_after(
        &self,
        handler: &ProjectionName,
        after: Option<GlobalPosition>,
        epoch: Option<Epoch>,
    ) -> Result<u64, CheckpointError> {
        let sql = format!(
            "with lease as (select epoch from {schema}.leases where name = $1 for key share), \
             gone as (delete from {schema}.dead_letters where handler = $1 and position > $2 \
                 and ($3::bigint is null or coalesce((select epoch from lease), 0) = $3) returning 1) \
             select coalesce((select epoch from lease), 0), (select count(*) from gone)",
            schema = self.schema
        );
        let discard = || {
            sqlx::query(AssertSqlSafe(sql.as_str()))
                .bind(handler.as_str())
                .bind(after.map_or(0, |after| number(after.get())))
                .bind(epoch.map(|epoch| number(epoch.get())))
        };
        let row = one(repeatable(&self.connections, self.patience, discard).await?)?;
        if let Some(epoch) = epoch {
            fence(handler, epoch, column(&row, 0)?)?;
        }
        Ok(u64::try_from(column::<i64>(&row, 1)?).unwrap_or_default())
    }
}

/// Keeping a letter: a statement for whatever transaction it is sent in.
pub(crate) struct Park<'a> {
    sql: Arc<str>,
    letter: &'a DeadLetter,
    errors: String,
}

impl<'a> Park<'a> {
    pub(crate) fn new(schema: &SchemaName, letter: &'a DeadLetter) -> Result<Self, EventStoreError> {
        let sql = format!(
            "insert into {schema}.dead_letters ({COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, clock_timestamp()) {REPLACE}"
        );
        let errors = serde_json::to_string(&letter.errors).map_err(EventStoreError::storage)?;
        Ok(Self { sql: sql.into(), letter, errors })
    }

    pub(crate) fn statement(&self) -> Statement<'_> {
        let letter = self.letter;
        sqlx::query(AssertSqlSafe(Arc::clone(&self.sql)))
            .bind(letter.id.handler.as_str())
            .bind(number(letter.id.position.get()))
            .bind(letter.event_id.as_uuid())
            .bind(letter.event_type.as_str())
            .bind(letter.stream_id.as_str())
            // More attempts than that are not told apart.
            .bind(i32::try_from(letter.attempts).unwrap_or(i32::MAX))
            .bind(self.errors.as_str())
    }
}

/// Throwing a letter away: it brings a row if there was one. For whatever transaction it is sent in.
pub(crate) fn discard_sql(schema: &SchemaName) -> String {
    format!("delete from {schema}.dead_letters where handler = $1 and position = $2 returning 1")
}

/// A statement about one letter.
pub(crate) fn about<'q>(sql: &str, id: &'q DeadLetterId) -> Statement<'q> {
    sqlx::query(AssertSqlSafe(sql.to_owned())).bind(id.handler.as_str()).bind(number(id.position.get()))
}

fn letter(row: &PgRow) -> Result<DeadLetter, EventStoreError> {
    let handler: &str = column(row, 0)?;
    let handler = valid(ProjectionName::new(handler), || format!("the handler {handler:?} of a dead letter"))?;
    let id = DeadLetterId { handler, position: position(column(row, 1)?)? };
    let what = |part: &str| format!("{part} of the dead letter {id}");
    Ok(DeadLetter {
        event_id: event_id(column(row, 2)?)?,
        event_type: valid(EventType::new(column::<&str>(row, 3)?), || what("the event type"))?,
        stream_id: valid(StreamId::new(column::<&str>(row, 4)?), || what("the stream"))?,
        attempts: valid(u32::try_from(column::<i32>(row, 5)?), || what("the number of attempts"))?,
        errors: valid(serde_json::from_str(column(row, 6)?), || what("the errors"))?,
        parked_at: Timestamp::from(column::<chrono::DateTime<chrono::Utc>>(row, 7)?),
        id,
    })
}
