//! From rows to events. What is stored is checked again, so that damage is named rather than passed on.

use crate::error::store_error;
use bytes::{Bytes, BytesMut};
use eventcore::{
    ContentType, EventHeader, EventId, EventMetadata, EventStoreError, EventType, GlobalPosition, LogCursor, Payload,
    RecordedEvent, SchemaVersion, StreamId, StreamVersion, Timestamp,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Rows};
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

/// The names behind the numbers in the events' table, which never change, so a reader keeps those it met; and what else
/// consecutive events share.
#[derive(Default)]
pub(crate) struct Names {
    types: Kept<EventType>,
    streams: Kept<StreamId>,
    /// The number of the stream that was looked up last.
    looked_up: i64,
    /// The metadata read last: all events of one command have the same.
    metadata: Option<(String, EventMetadata)>,
    /// The time read last: all events of one commit have the same.
    recorded_at: Option<(i64, Timestamp)>,
    payloads: Payloads,
}

/// Names of one kind, each where its number belongs. The numbers are counted up by the file, and events that follow each other
/// mostly belong to streams of about the same age: their names lie side by side, where a map would scatter them.
struct Kept<T>(Vec<Option<(i64, T)>>);

/// Small payloads lie side by side in chunks that they share, so that an event costs no allocation of its own. A chunk goes
/// with the last of its events.
struct Payloads(BytesMut);

/// What tells whether an event is wanted.
pub(crate) struct EventKey {
    pub(crate) position: i64,
    pub(crate) stream: i64,
    pub(crate) event_type: i64,
}

impl EventKey {
    /// The key of a row with the columns of [`event_columns`].
    pub(crate) fn of(row: &Row<'_>) -> Result<Self, EventStoreError> {
        Ok(Self { position: integer(row, 0)?, stream: integer(row, 1)?, event_type: integer(row, 3)? })
    }
}

impl Names {
    /// So many streams are looked up at once if they are met one after the other.
    const LOOKED_UP_TOGETHER: i64 = 256;

    /// The event of a row with the columns of [`event_columns`].
    pub(crate) fn event(&mut self, connection: &Connection, row: &Row<'_>) -> Result<RecordedEvent, EventStoreError> {
        let key = EventKey::of(row)?;
        let stream_id = self.stream(connection, key.stream)?;
        self.event_in(stream_id, key.position, key.event_type, connection, row)
    }

    /// The same for a row whose key was read before.
    pub(crate) fn event_at(
        &mut self,
        key: &EventKey,
        connection: &Connection,
        row: &Row<'_>,
    ) -> Result<RecordedEvent, EventStoreError> {
        let stream_id = self.stream(connection, key.stream)?;
        self.event_in(stream_id, key.position, key.event_type, connection, row)
    }

    /// The same for a row of a stream whose name is known.
    pub(crate) fn event_of(
        &mut self,
        stream_id: &StreamId,
        connection: &Connection,
        row: &Row<'_>,
    ) -> Result<RecordedEvent, EventStoreError> {
        self.event_in(stream_id.clone(), integer(row, 0)?, integer(row, 3)?, connection, row)
    }

    fn event_in(
        &mut self,
        stream_id: StreamId,
        at: i64,
        event_type: i64,
        connection: &Connection,
        row: &Row<'_>,
    ) -> Result<RecordedEvent, EventStoreError> {
        let position = position(at)?;
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
            stream_id,
            version: version(integer(row, 2)?)?,
            id: event_id(blob(row, 6)?)?,
            event_type: self.event_type(connection, event_type)?,
            schema_version,
            recorded_at: self.recorded_at(integer(row, 7)?)?,
            metadata: match row.get_ref(8).map_err(store_error)? {
                ValueRef::Null => EventMetadata::empty(),
                value => self.metadata(value.as_str().map_err(|error| because(corrupt("the metadata"), error))?)?,
            },
        };
        Ok(RecordedEvent::new(header, Payload::new(content_type, self.payloads.keep(blob(row, 9)?))))
    }

    /// The cursor at a row with a position and an event id.
    pub(crate) fn cursor(row: &Row<'_>) -> Result<LogCursor, EventStoreError> {
        Ok(LogCursor { position: position(integer(row, 0)?)?, event_id: event_id(blob(row, 1)?)? })
    }

    pub(crate) fn stream(&mut self, connection: &Connection, id: i64) -> Result<StreamId, EventStoreError> {
        if let Some(name) = self.streams.get(id) {
            return Ok(name.clone());
        }
        // Who reads a log from its beginning meets streams in the order of their numbers: the next ones are looked up with it.
        let count = if id == self.looked_up + 1 { Self::LOOKED_UP_TOGETHER } else { 1 };
        let select = "select id, name from eventcore_streams where id >= ?1 order by id limit ?2";
        let mut select = connection.prepare_cached(select).map_err(store_error)?;
        let mut rows = select.query([id, count]).map_err(store_error)?;
        let mut wanted = None;
        loop {
            match next_name(&mut rows, stream_id) {
                Ok(Some((found, name))) => {
                    if found == id {
                        wanted = Some(name.clone());
                    }
                    self.streams.keep(found, name);
                    self.looked_up = found;
                }
                Ok(None) => return wanted.ok_or_else(|| missing_name(id)),
                // What is wrong with another name concerns the events of that stream.
                Err(error) => return wanted.ok_or(error),
            }
        }
    }

    fn event_type(&mut self, connection: &Connection, id: i64) -> Result<EventType, EventStoreError> {
        if let Some(name) = self.types.get(id) {
            return Ok(name.clone());
        }
        let select = "select id, name from eventcore_event_types where id = ?1";
        let mut select = connection.prepare_cached(select).map_err(store_error)?;
        let mut rows = select.query([id]).map_err(store_error)?;
        let (_, name) = next_name(&mut rows, event_type)?.ok_or_else(|| missing_name(id))?;
        self.types.keep(id, name.clone());
        Ok(name)
    }

    fn recorded_at(&mut self, micros: i64) -> Result<Timestamp, EventStoreError> {
        if let Some((last, time)) = self.recorded_at
            && last == micros
        {
            return Ok(time);
        }
        let time = timestamp(micros)?;
        self.recorded_at = Some((micros, time));
        Ok(time)
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
    /// How many names are kept, 5 MiB and what is longer than 23 bytes. Those whose numbers are so far apart take each other's
    /// place.
    const PLACES: i64 = 1 << 17;

    fn get(&self, id: i64) -> Option<&T> {
        match self.0.get(Self::place(id)) {
            Some(Some((kept, name))) if *kept == id => Some(name),
            _ => None,
        }
    }

    fn keep(&mut self, id: i64, name: T) {
        let place = Self::place(id);
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        if let Some(kept) = self.0.get_mut(place) {
            *kept = Some((id, name));
        }
    }

    const fn place(id: i64) -> usize {
        (id & (Self::PLACES - 1)) as usize
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl Payloads {
    /// The size of a chunk: so much is kept alive by whoever keeps one small payload.
    const CHUNK: usize = 4 * 1024;
    /// A larger payload gets memory of its own.
    const SMALL: usize = 512;

    fn keep(&mut self, payload: &[u8]) -> Bytes {
        if payload.len() > Self::SMALL {
            return Bytes::copy_from_slice(payload);
        }
        self.0.extend_from_slice(payload);
        self.0.split().freeze()
    }
}

impl Default for Payloads {
    fn default() -> Self {
        Self(BytesMut::with_capacity(Self::CHUNK))
    }
}

/// The next of the rows with a number and a name.
fn next_name<T>(
    rows: &mut Rows<'_>,
    read: impl FnOnce(ValueRef<'_>) -> Result<T, EventStoreError>,
) -> Result<Option<(i64, T)>, EventStoreError> {
    let Some(row) = rows.next().map_err(store_error)? else { return Ok(None) };
    Ok(Some((integer(row, 0)?, read(row.get_ref(1).map_err(store_error)?)?)))
}

fn missing_name(id: i64) -> EventStoreError {
    EventStoreError::corrupt(format!("an event refers to the name {id}, which is missing"))
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
    match row.get_ref(index) {
        Ok(ValueRef::Integer(number)) => Ok(number),
        // Names what is wrong with it.
        _ => row.get(index).map_err(store_error),
    }
}

fn blob<'a>(row: &'a Row<'_>, index: usize) -> Result<&'a [u8], EventStoreError> {
    let value = row.get_ref(index).map_err(store_error)?;
    value.as_blob().map_err(|error| because(format!("column {index} of an event"), error))
}

#[cfg(test)]
mod tests {
    use super::{Kept, Names};
    use rusqlite::Connection;

    #[test]
    fn names_whose_numbers_share_a_place_are_not_confused() {
        let mut names = Kept::default();
        for id in [1, 1 + Kept::<String>::PLACES, 1, 7, -1, 1 + 5 * Kept::<String>::PLACES, 7] {
            if let Some(name) = names.get(id) {
                assert_eq!(name, &id.to_string());
            }
            names.keep(id, id.to_string());
            assert_eq!(names.get(id), Some(&id.to_string()));
        }
    }

    #[test]
    fn as_many_names_are_kept_as_there_are_places() {
        let mut names = Kept::default();
        (1..=Kept::<i64>::PLACES).for_each(|id| names.keep(id, id));
        assert!((1..=Kept::<i64>::PLACES).all(|id| names.get(id) == Some(&id)));
    }

    /// A table of streams called `old-<number>`, with gaps.
    fn streams(numbers: impl Iterator<Item = i64>) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("create table eventcore_streams (id integer primary key, name text not null)")
            .unwrap();
        for id in numbers {
            connection.execute("insert into eventcore_streams values (?1, 'old-' || ?1)", [id]).unwrap();
        }
        connection
    }

    #[test]
    fn streams_met_in_order_are_looked_up_together_and_others_one_by_one() {
        let connection = streams(1..=2_000);
        let mut names = Names::default();
        let mut name = |id| names.stream(&connection, id).unwrap().to_string();
        assert_eq!((name(1_000), name(10), name(11)), ("old-1000".into(), "old-10".into(), "old-11".into()));
        connection.execute_batch("update eventcore_streams set name = 'new-' || id").unwrap();
        // What was looked up before has its old name here.
        let old = 11 + Names::LOOKED_UP_TOGETHER;
        assert_eq!(
            (name(1_001), name(9), name(old - 1)),
            ("new-1001".into(), "new-9".into(), format!("old-{}", old - 1))
        );
        assert_eq!((name(old), name(1_002)), (format!("new-{old}"), "new-1002".into()));
    }

    #[test]
    fn a_damaged_name_concerns_its_own_stream_alone() {
        let connection = streams(1..=20);
        connection.execute_batch("update eventcore_streams set name = '' where id in (1, 5)").unwrap();
        let mut names = Names::default();
        for id in 1..=20 {
            let whole = id != 1 && id != 5;
            assert_eq!(names.stream(&connection, id).is_ok(), whole, "{id}");
        }
        assert!(Names::default().stream(&connection, 1).is_err());
    }

    #[test]
    fn a_stream_that_is_missing_is_told_and_no_other_taken_for_it() {
        let connection = streams((1..=10).chain(12..=20));
        let mut names = Names::default();
        for id in [11, 1, 2, 11, 21] {
            let there = id < 11;
            assert_eq!(names.stream(&connection, id).is_ok(), there, "{id}");
        }
    }
}
