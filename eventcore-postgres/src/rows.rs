//! From rows to events.

use crate::retry::Sink;
use eventcore::{
    ContentType, EventHeader, EventId, EventMetadata, EventStoreError, EventType, GlobalPosition, LogCursor, Payload,
    RecordedEvent, SchemaVersion, StreamId, StreamVersion, Timestamp,
};
use sqlx::postgres::{PgRow, PgValueFormat};
use sqlx::{Decode, Row, Type};
use std::error::Error as StdError;
use uuid::Uuid;

/// The columns that [`EventRows::event`] reads, of a table called `e`. The kind of content follows from which payload there
/// is, so it is not sent. `json` is sent as it is, byte for byte; as `text` it would be copied twice more.
pub(crate) const EVENT_COLUMNS: &str = "e.position, e.version, e.event_id, e.type, e.schema_version, e.payload_json, \
     e.payload_bytes, e.metadata, e.recorded_at";

/// A limit that the planner cannot see, so that it plans for a small part of what there is.
///
/// It knows nothing of a young table, and thinks that a range holds fewer rows than the limit asks for. Then it sorts what it
/// takes for few rows: the whole rest of the log, or of a stream, for each page.
pub(crate) fn limit_of(rows: &str) -> String {
    format!("(select ({rows})::bigint)")
}

/// Reads events out of rows. Neighbours of one stream or type share the name.
///
/// Columns are taken as the bytes that the server sent: asking the driver to compare types with each of them took longer
/// than everything else about a row.
#[derive(Debug, Default)]
pub(crate) struct EventRows {
    stream: Option<StreamId>,
    event_type: Option<EventType>,
}

impl EventRows {
    /// The stream in a column.
    pub(crate) fn stream(&mut self, row: &PgRow, index: usize) -> Result<StreamId, EventStoreError> {
        let name = text(row, index)?;
        match &self.stream {
            Some(known) if known.as_str() == name => Ok(known.clone()),
            _ => Ok(self.stream.insert(valid(StreamId::new(name), || format!("the stream {name:?}"))?).clone()),
        }
    }

    /// The event of a stream in the columns from `first` on.
    pub(crate) fn event(
        &mut self,
        row: &PgRow,
        first: usize,
        stream_id: StreamId,
    ) -> Result<RecordedEvent, EventStoreError> {
        let position = position(int8(row, first)?)?;
        let at = |what: &str| format!("{what} of the event at position {position}");
        let name = text(row, first + 3)?;
        let event_type = match &self.event_type {
            Some(known) if known.as_str() == name => known.clone(),
            _ => self.event_type.insert(valid(EventType::new(name), || at("the type"))?).clone(),
        };
        let schema_version = u32::try_from(i32::from_be_bytes(fixed(row, first + 4)?)).unwrap_or_default();
        let metadata = match bytes(row, first + 7)? {
            None => EventMetadata::empty(),
            Some(json) => valid(serde_json::from_slice(json), || at("the metadata"))?,
        };
        let header = EventHeader {
            position,
            stream_id,
            version: version(int8(row, first + 1)?)?,
            id: event_id(Uuid::from_bytes(fixed(row, first + 2)?))?,
            event_type,
            schema_version: valid(SchemaVersion::try_new(schema_version), || at("the schema version"))?,
            recorded_at: time(row, first + 8)?,
            metadata,
        };
        let payload = match (bytes(row, first + 5)?, bytes(row, first + 6)?) {
            (Some(json), _) => Payload::new(ContentType::Json, json.to_vec()),
            (None, Some(binary)) => Payload::new(ContentType::Binary, binary.to_vec()),
            (None, None) => {
                return Err(EventStoreError::corrupt(format!("there is no payload at position {position}")));
            }
        };
        Ok(RecordedEvent::new(header, payload))
    }
}

/// The events of a page, from rows of the stream and [`EVENT_COLUMNS`], until they are `full` bytes.
#[derive(Debug)]
pub(crate) struct EventSink {
    reader: EventRows,
    events: Vec<RecordedEvent>,
    bytes: usize,
    full: usize,
    failed: Option<EventStoreError>,
}

impl EventSink {
    pub(crate) fn new(expected: usize, full: usize) -> Self {
        Self { reader: EventRows::default(), events: Vec::with_capacity(expected), bytes: 0, full, failed: None }
    }

    /// The events, how many bytes they are, and whether that is a full page.
    pub(crate) fn finish(self) -> Result<(Vec<RecordedEvent>, usize, bool), EventStoreError> {
        let full = self.bytes >= self.full;
        self.failed.map_or(Ok((self.events, self.bytes, full)), Err)
    }
}

impl Sink for EventSink {
    fn take(&mut self, row: PgRow) -> bool {
        let stream = self.reader.stream(&row, 0);
        match stream.and_then(|stream| self.reader.event(&row, 1, stream)) {
            Ok(event) => {
                self.bytes = self.bytes.saturating_add(event.size());
                self.events.push(event);
            }
            Err(error) => self.failed = Some(error),
        }
        self.failed.is_none() && self.bytes < self.full
    }
}

/// The bytes of a column, in the binary format that all statements with arguments are answered in; `None` for null.
fn bytes(row: &PgRow, index: usize) -> Result<Option<&[u8]>, EventStoreError> {
    let value = row.try_get_raw(index).map_err(|error| unexpected(index, error))?;
    if value.format() != PgValueFormat::Binary {
        return Err(EventStoreError::corrupt(format!("column {index} of a row is not in the binary format")));
    }
    Ok(value.as_bytes().ok())
}

fn fixed<const N: usize>(row: &PgRow, index: usize) -> Result<[u8; N], EventStoreError> {
    let value = bytes(row, index)?.and_then(|bytes| bytes.try_into().ok());
    value.ok_or_else(|| EventStoreError::corrupt(format!("column {index} of a row is not of {N} bytes")))
}

/// A `bigint`.
pub(crate) fn int8(row: &PgRow, index: usize) -> Result<i64, EventStoreError> {
    fixed(row, index).map(i64::from_be_bytes)
}

fn text(row: &PgRow, index: usize) -> Result<&str, EventStoreError> {
    let value = bytes(row, index)?.unwrap_or_default();
    std::str::from_utf8(value).map_err(|error| unexpected(index, error))
}

/// A `timestamptz`: microseconds from the beginning of 2000.
fn time(row: &PgRow, index: usize) -> Result<Timestamp, EventStoreError> {
    const YEAR_2000: i64 = 946_684_800_000_000;
    let time = int8(row, index)?.checked_add(YEAR_2000).and_then(chrono::DateTime::from_timestamp_micros);
    let wrong = || EventStoreError::corrupt(format!("column {index} of a row is a time that cannot be told"));
    time.map(Timestamp::from).ok_or_else(wrong)
}

fn unexpected(index: usize, error: impl StdError + Send + Sync + 'static) -> EventStoreError {
    EventStoreError::corrupt_because(format!("column {index} of a row"), error)
}

/// A column, or an error that says which one was not as expected.
pub(crate) fn column<'r, T: Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>>(
    row: &'r PgRow,
    index: usize,
) -> Result<T, EventStoreError> {
    row.try_get(index).map_err(|error| unexpected(index, error))
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
