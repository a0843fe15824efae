//! From rows to events.

use eventcore::{
    ContentType, EventHeader, EventId, EventMetadata, EventStoreError, EventType, GlobalPosition, LogCursor, Payload,
    RecordedEvent, SchemaVersion, StreamId, StreamVersion, Timestamp,
};
use sqlx::postgres::PgRow;
use sqlx::{Decode, Row, Type};
use std::error::Error as StdError;
use uuid::Uuid;

/// The columns that [`EventRows::event`] reads, of a table called `e`.
pub(crate) const EVENT_COLUMNS: &str = "e.position, e.stream, e.version, e.event_id, e.type, e.schema_version, \
     e.content_type, e.payload_json::text, e.payload_bytes, e.metadata::text, e.recorded_at";

/// Reads events out of rows. Neighbours of one stream or type share the name.
#[derive(Debug, Default)]
pub(crate) struct EventRows {
    stream: Option<StreamId>,
    event_type: Option<EventType>,
}

impl EventRows {
    /// The event in the columns from `first` on.
    pub(crate) fn event(&mut self, row: &PgRow, first: usize) -> Result<RecordedEvent, EventStoreError> {
        let position = position(column(row, first)?)?;
        let at = |what: &str| format!("{what} of the event at position {position}");
        let stream: &str = column(row, first + 1)?;
        let stream_id = match &self.stream {
            Some(known) if known.as_str() == stream => known.clone(),
            _ => self.stream.insert(valid(StreamId::new(stream), || at("the stream"))?).clone(),
        };
        let name: &str = column(row, first + 4)?;
        let event_type = match &self.event_type {
            Some(known) if known.as_str() == name => known.clone(),
            _ => self.event_type.insert(valid(EventType::new(name), || at("the type"))?).clone(),
        };
        let schema_version: i32 = column(row, first + 5)?;
        let schema_version = u32::try_from(schema_version).unwrap_or_default();
        let metadata = match column::<Option<&str>>(row, first + 9)? {
            None => EventMetadata::empty(),
            Some(json) => valid(serde_json::from_str(json), || at("the metadata"))?,
        };
        let header = EventHeader {
            position,
            stream_id,
            version: version(column(row, first + 2)?)?,
            id: event_id(column(row, first + 3)?)?,
            event_type,
            schema_version: valid(SchemaVersion::try_new(schema_version), || at("the schema version"))?,
            recorded_at: Timestamp::from(column::<chrono::DateTime<chrono::Utc>>(row, first + 10)?),
            metadata,
        };
        let content_type: ContentType = valid(column::<&str>(row, first + 6)?.parse(), || at("the content type"))?;
        let bytes = match (column::<Option<String>>(row, first + 7)?, column::<Option<Vec<u8>>>(row, first + 8)?) {
            (Some(json), _) => json.into_bytes(),
            (None, Some(bytes)) => bytes,
            (None, None) => {
                return Err(EventStoreError::corrupt(format!("there is no payload at position {position}")));
            }
        };
        Ok(RecordedEvent::new(header, Payload::new(content_type, bytes)))
    }
}

/// The bytes of payload and metadata in a row of [`EVENT_COLUMNS`].
pub(crate) fn payload_size(row: &PgRow) -> usize {
    let length = |index| row.try_get_raw(index).ok().and_then(|value| value.as_bytes().ok().map(<[u8]>::len));
    (7..=9).filter_map(length).sum()
}

/// A column, or an error that says which one was not as expected.
pub(crate) fn column<'r, T: Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>>(
    row: &'r PgRow,
    index: usize,
) -> Result<T, EventStoreError> {
    row.try_get(index).map_err(|error| EventStoreError::corrupt_because(format!("column {index} of a row"), error))
}

/// The row of a statement that always brings one.
pub(crate) fn one(rows: Vec<PgRow>) -> Result<PgRow, EventStoreError> {
    rows.into_iter().next().ok_or_else(|| EventStoreError::corrupt("a statement that always brings a row brought none"))
}

pub(crate) fn position(number: i64) -> Result<GlobalPosition, EventStoreError> {
    valid(GlobalPosition::try_new(u64::try_from(number).unwrap_or_default()), || format!("position {number}"))
}

pub(crate) fn version(number: i64) -> Result<StreamVersion, EventStoreError> {
    valid(StreamVersion::try_new(u64::try_from(number).unwrap_or(u64::MAX)), || format!("version {number}"))
}

pub(crate) fn event_id(id: Uuid) -> Result<EventId, EventStoreError> {
    valid(EventId::try_new(id), || format!("event id {id}"))
}

pub(crate) fn cursor(at: i64, id: Uuid) -> Result<LogCursor, EventStoreError> {
    Ok(LogCursor { position: position(at)?, event_id: event_id(id)? })
}

/// A value that a constructor accepts, or an error that says what was not as expected.
pub(crate) fn valid<T, E: StdError + Send + Sync + 'static>(
    value: Result<T, E>,
    what: impl FnOnce() -> String,
) -> Result<T, EventStoreError> {
    value.map_err(|error| EventStoreError::corrupt_because(what(), error))
}

/// A number for the server. Positions and versions fit by construction.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
