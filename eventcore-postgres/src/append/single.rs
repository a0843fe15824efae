//! One event to one stream, without a command id: the request that has a function of its own.

use super::statement::{Contended, EventColumns, Judged, Locking, appended, expected, senseless};
use crate::SchemaName;
use crate::retry::Statement;
use crate::rows::{column, version};
use eventcore::{
    AppendRequest, Appended, EventStoreError, EventToAppend, StreamExpectation, Timestamp, VersionConflict,
};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use std::sync::Arc;

/// A request of this kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Single<'a> {
    stream: &'a StreamExpectation,
    item: &'a EventToAppend,
}

impl<'a> Single<'a> {
    /// The one request of a group, if it is of this kind.
    pub(crate) fn of(group: &[&'a AppendRequest], locking: Locking) -> Option<Self> {
        let [request] = group else { return None };
        let ([stream], [item]) = (request.streams(), request.events()) else { return None };
        (request.command().is_none() && locking == Locking::Try).then_some(Self { stream, item })
    }

    pub(crate) fn statement(self, sql: &Arc<str>) -> Statement<'a> {
        let event = EventColumns::of(&self.item.event);
        sqlx::query(AssertSqlSafe(Arc::clone(sql)))
            .bind(self.stream.stream_id.as_str())
            .bind(expected(self.stream.expected))
            .bind(event.id)
            .bind(event.event_type)
            .bind(event.schema_version)
            .bind(event.json)
            .bind(event.bytes)
            .bind(event.metadata)
    }

    pub(crate) fn judged(self, row: &PgRow) -> Result<Judged, EventStoreError> {
        let stream_id = self.stream.stream_id.clone();
        let at_version = column::<Option<i64>>(row, 1)?;
        match (column::<i16>(row, 0)?, at_version) {
            (1, Some(at_version)) => {
                let recorded_at = Timestamp::from(column::<chrono::DateTime<chrono::Utc>>(row, 3)?);
                let events = vec![appended(stream_id, at_version, column(row, 2)?)?];
                Ok(Judged::Appended(Appended { events, recorded_at, replayed: false }))
            }
            (3, Some(actual)) => {
                let (expected, actual) = (self.stream.expected, version(actual)?);
                Ok(Judged::Conflict(VersionConflict { stream_id, expected, actual }))
            }
            (5, _) => Ok(Judged::Busy(Contended::Stream(stream_id))),
            _ => Err(senseless()),
        }
    }
}

pub(crate) fn sql(schema: &SchemaName) -> Arc<str> {
    format!("select * from {schema}.append_one($1, $2, $3, $4, $5, $6, $7, $8)").into()
}
