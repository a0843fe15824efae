//! From rows to events. What is stored is checked again, so that damage is named rather than passed on.

use crate::error::store_error;
use eventcore::{
    ContentType, EventHeader, EventId, EventMetadata, EventStoreError, EventType, GlobalPosition, LogCursor, Payload,
    RecordedEvent, SchemaVersion, StreamId, StreamVersion, Timestamp,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use std::collections::HashMap;
use std::error::Error;
use uuid::Uuid;

/// The columns that [`Names::event`] reads, in its order.
macro_rules! event_columns {
    () => {
        "e.position, e.stream, e.version, e.type, e.schema_version, e.content_type, e.id, e.recorded_at, e.metadata, \
         e.payload"
    };
}
pub(crate) use event_columns;

/// The names behind the numbers in the events' table. They never change, so a reader keeps those it met.
#[derive(Default)]
pub(crate) struct Names {
    types: Kept<EventType>,
    streams: Kept<StreamId>,
    /// The metadata read last: all events of one command have the same.
    metadata: Option<(String, EventMetadata)>,
}

/// Names of one kind by their numbers.
struct Kept<T> {
    /// The one asked for last: mostly the next event has the same stream or type.
    last: Option<(i64, T)>,
    all: HashMap<i64, T>,
}

impl Names {
    /// The event of a row with the columns of [`event_columns`].
    pub(crate) fn event(&mut self, connection: &Connection, row: &Row<'_>) -> Result<RecordedEvent, EventStoreError> {
        let position = position(integer(row, 0)?)?;
        let corrupt = |what: &str| format!("{what} of the event at position {position}");
        let schema_version = u32::try_from(integer(row, 4)?)
            .ok()
            .and_then(|version| SchemaVersion::try_new(version).ok())
            .ok_or_else(|| EventStoreError::corrupt(corrupt("the schema version")))?;
        let content_type = match integer(row, 5)? {
            0 => ContentType::Json,
            1 => ContentType::Binary,
            _ => return Err(EventStoreError::corrupt(corrupt("the content type"))),
        };
        let header = EventHeader {
            position,
            stream_id: self.stream(connection, integer(row, 1)?)?,
            version: version(integer(row, 2)?)?,
            id: event_id(blob(row, 6)?)?,
            event_type: self.event_type(connection, integer(row, 3)?)?,
            schema_version,
            recorded_at: timestamp(integer(row, 7)?)?,
            metadata: match row.get_ref(8).map_err(store_error)? {
                ValueRef::Null => EventMetadata::empty(),
                value => self.metadata(value.as_str().map_err(|error| because(corrupt("the metadata"), error))?)?,
            },
        };
        Ok(RecordedEvent::new(header, Payload::new(content_type, blob(row, 9)?.to_vec())))
    }

    /// The cursor at a row with a position and an event id.
    pub(crate) fn cursor(row: &Row<'_>) -> Result<LogCursor, EventStoreError> {
        Ok(LogCursor { position: position(integer(row, 0)?)?, event_id: event_id(blob(row, 1)?)? })
    }

    pub(crate) fn stream(&mut self, connection: &Connection, id: i64) -> Result<StreamId, EventStoreError> {
        let select = "select name from eventcore_streams where id = ?1";
        self.streams.get_or_find(id, || name(connection, select, id, stream_id))
    }

    fn event_type(&mut self, connection: &Connection, id: i64) -> Result<EventType, EventStoreError> {
        let select = "select name from eventcore_event_types where id = ?1";
        self.types.get_or_find(id, || name(connection, select, id, event_type))
    }

    fn metadata(&mut self, json: &str) -> Result<EventMetadata, EventStoreError> {
        if let Some((text, metadata)) = &self.metadata
            && text == json
        {
            return Ok(metadata.clone());
        }
        let metadata: EventMetadata =
            serde_json::from_str(json).map_err(|error| because("the metadata of an event", error))?;
        self.metadata = Some((json.to_owned(), metadata.clone()));
        Ok(metadata)
    }
}

impl<T: Clone> Kept<T> {
    /// How many names are kept before all are forgotten.
    const MOST: usize = 20_000;

    fn get_or_find(
        &mut self,
        id: i64,
        find: impl FnOnce() -> Result<T, EventStoreError>,
    ) -> Result<T, EventStoreError> {
        if let Some((last, name)) = &self.last
            && *last == id
        {
            return Ok(name.clone());
        }
        let name = match self.all.get(&id) {
            Some(name) => name.clone(),
            None => {
                let name = find()?;
                if self.all.len() >= Self::MOST {
                    self.all.clear();
                }
                self.all.insert(id, name.clone());
                name
            }
        };
        self.last = Some((id, name.clone()));
        Ok(name)
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { last: None, all: HashMap::new() }
    }
}

fn name<T>(
    connection: &Connection,
    select: &str,
    id: i64,
    read: impl FnOnce(ValueRef<'_>) -> Result<T, EventStoreError>,
) -> Result<T, EventStoreError> {
    let mut select = connection.prepare_cached(select).map_err(store_error)?;
    let mut rows = select.query([id]).map_err(store_error)?;
    let row = rows.next().map_err(store_error)?;
    let row =
        row.ok_or_else(|| EventStoreError::corrupt(format!("an event refers to the name {id}, which is missing")))?;
    read(row.get_ref(0).map_err(store_error)?)
}

pub(crate) fn stream_id(value: ValueRef<'_>) -> Result<StreamId, EventStoreError> {
    let text = value.as_str().map_err(|error| because("the name of a stream", error))?;
    StreamId::new(text).map_err(|error| because("the name of a stream", error))
}

fn event_type(value: ValueRef<'_>) -> Result<EventType, EventStoreError> {
    let text = value.as_str().map_err(|error| because("the name of an event type", error))?;
    EventType::new(text).map_err(|error| because("the name of an event type", error))
}

pub(crate) fn position(number: i64) -> Result<GlobalPosition, EventStoreError> {
    unsigned(number)
        .and_then(|number| GlobalPosition::try_new(number).ok())
        .ok_or_else(|| EventStoreError::corrupt(format!("the position {number} of an event")))
}

/// The version of an event, and of a stream that has events: from 1.
pub(crate) fn version(number: i64) -> Result<StreamVersion, EventStoreError> {
    unsigned(number)
        .filter(|&number| number > 0)
        .and_then(|number| StreamVersion::try_new(number).ok())
        .ok_or_else(|| EventStoreError::corrupt(format!("the version {number} of an event")))
}

pub(crate) fn timestamp(micros: i64) -> Result<Timestamp, EventStoreError> {
    Timestamp::from_micros(micros).map_err(|error| because("a time", error))
}

pub(crate) fn event_id(bytes: &[u8]) -> Result<EventId, EventStoreError> {
    EventId::try_new(uuid(bytes, "the id of an event")?).map_err(|error| because("the id of an event", error))
}

pub(crate) fn uuid(bytes: &[u8], what: &str) -> Result<Uuid, EventStoreError> {
    Uuid::from_slice(bytes).map_err(|error| because(what, error))
}

fn because(what: impl Into<String>, error: impl Error + Send + Sync + 'static) -> EventStoreError {
    EventStoreError::corrupt_because(what, error)
}

fn unsigned(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}

fn integer(row: &Row<'_>, index: usize) -> Result<i64, EventStoreError> {
    row.get(index).map_err(store_error)
}

fn blob<'a>(row: &'a Row<'_>, index: usize) -> Result<&'a [u8], EventStoreError> {
    let value = row.get_ref(index).map_err(store_error)?;
    value.as_blob().map_err(|error| because(format!("column {index} of an event"), error))
}
