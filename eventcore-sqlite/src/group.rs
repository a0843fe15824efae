//! A group of appends within its transaction, each request judged on its own.

use crate::error::store_error;
use crate::{receipt, stream};
use eventcore::{
    AppendLimits, AppendRequest, Appended, AppendedEvent, ContentType, EventStoreError, EventToAppend, EventType,
    GlobalPosition, StreamId, StreamVersion, Timestamp,
};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use std::collections::HashMap;

const SELECT_HEAD: &str = "select coalesce(max(position), 0) from eventcore_events";
const INSERT_STREAM: &str = "insert into eventcore_streams (name) values (?1)";
const SELECT_TYPE: &str = "select id from eventcore_event_types where name = ?1";
const INSERT_TYPE: &str = "insert into eventcore_event_types (name) values (?1)";
const INSERT_EVENT: &str = "insert or fail into eventcore_events (position, stream, version, type, schema_version, content_type, \
     id, recorded_at, metadata, payload) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// What earlier groups found out about the file.
#[derive(Default)]
pub(crate) struct Known {
    /// Numbers of event types. They never change.
    types: HashMap<EventType, i64>,
    /// Where streams stand, as long as the log ends at `head`.
    streams: HashMap<StreamId, Stream>,
    head: u64,
}

/// Where a stream stands.
#[derive(Clone, Copy, Default)]
struct Stream {
    /// Its number, if it is stored.
    id: Option<i64>,
    version: StreamVersion,
}

/// Why a request was not appended.
pub(crate) enum Failure {
    /// It is its own verdict; nothing of it was written.
    Refused(EventStoreError),
    /// The storage failed, and the group with it.
    Storage(EventStoreError),
}

impl Known {
    /// The highest position.
    pub(crate) const fn head(&self) -> u64 {
        self.head
    }
}

/// A group within its transaction.
pub(crate) struct Group<'a> {
    connection: &'a Connection,
    known: &'a mut Known,
    limits: AppendLimits,
    now: Timestamp,
    /// Kept for the group, since every look into the cache of statements hashes their text.
    insert_event: CachedStatement<'a>,
}

impl<'a> Group<'a> {
    /// How many streams, and how many event types, are kept before all of them are forgotten.
    const KEPT: usize = 20_000;

    pub(crate) fn begin(
        connection: &'a Connection,
        known: &'a mut Known,
        limits: AppendLimits,
    ) -> Result<Self, EventStoreError> {
        let head: i64 = connection
            .prepare_cached(SELECT_HEAD)
            .and_then(|mut select| select.query_row([], |row| row.get(0)))
            .map_err(store_error)?;
        let head =
            u64::try_from(head).map_err(|_| EventStoreError::corrupt(format!("the highest position is {head}")))?;
        if known.head != head {
            // Another process has appended meanwhile.
            known.streams.clear();
            known.head = head;
        }
        let insert_event = connection.prepare_cached(INSERT_EVENT).map_err(store_error)?;
        Ok(Self { connection, known, limits, now: Timestamp::now(), insert_event })
    }

    /// Judges a request in full before anything of it is written.
    pub(crate) fn append(&mut self, request: &AppendRequest) -> Result<Appended, Failure> {
        self.limits.check(request).map_err(Failure::Refused)?;
        request.events().iter().try_for_each(|item| content_type(item).map(drop)).map_err(Failure::Refused)?;
        if let Some(claim) = request.command()
            && let Some(receipt) = receipt::find(self.connection, &claim.command_id).map_err(Failure::Storage)?
        {
            return receipt.replay(claim).map_err(Failure::Refused);
        }
        let mut streams = Vec::with_capacity(request.streams().len());
        for stream in request.streams() {
            streams.push(self.stream(&stream.stream_id).map_err(Failure::Storage)?);
        }
        let mut actual = streams.iter().map(|stream| stream.version);
        request.judge(|_| actual.next().unwrap_or_default()).map_err(|conflict| Failure::Refused(conflict.into()))?;
        let events = number(request, &mut streams, self.known.head).map_err(Failure::Refused)?;

        self.insert(request, &mut streams, &events).map_err(Failure::Storage)?;
        if let Some(claim) = request.command() {
            receipt::insert(self.connection, claim, self.now, &events).map_err(Failure::Storage)?;
        }
        Ok(Appended { events, recorded_at: self.now, replayed: false })
    }

    fn stream(&self, stream_id: &StreamId) -> Result<Stream, EventStoreError> {
        if let Some(stream) = self.known.streams.get(stream_id) {
            return Ok(*stream);
        }
        let found = stream::find(self.connection, stream_id)?;
        Ok(found.map_or_else(Stream::default, |(id, version)| Stream { id: Some(id), version }))
    }

    fn insert(
        &mut self,
        request: &AppendRequest,
        streams: &mut [Stream],
        events: &[AppendedEvent],
    ) -> Result<(), EventStoreError> {
        for (item, place) in request.events().iter().zip(events) {
            // `number` has found the stream of every event.
            let Some(stream) = streams.get_mut(item.stream) else { continue };
            let stream = match stream.id {
                Some(id) => id,
                None => *stream.id.insert(self.insert_name(INSERT_STREAM, place.stream_id.as_str())?),
            };
            let event_type = self.event_type(&item.event.event_type)?;
            self.insert_event(item, place, stream, event_type)?;
        }
        self.known.head += events.len() as u64;
        if self.known.streams.len() + streams.len() > Self::KEPT {
            self.known.streams.clear();
        }
        let stored = request.streams().iter().zip(streams).filter(|(_, stream)| stream.id.is_some());
        self.known.streams.extend(stored.map(|(request, stream)| (request.stream_id.clone(), *stream)));
        Ok(())
    }

    fn insert_event(
        &mut self,
        item: &EventToAppend,
        place: &AppendedEvent,
        stream: i64,
        event_type: i64,
    ) -> Result<(), EventStoreError> {
        let event = &item.event;
        let content_type = content_type(item)?;
        let id = event.id.as_uuid();
        let row = params![
            place.position.get(),
            stream,
            place.version.get(),
            event_type,
            event.schema_version.get(),
            content_type,
            id.as_bytes(),
            self.now.as_micros(),
            (!event.metadata.is_empty()).then(|| event.metadata.as_json()),
            &event.payload.bytes()[..],
        ];
        self.insert_event.execute(row).map(drop).map_err(store_error)
    }

    fn event_type(&mut self, name: &EventType) -> Result<i64, EventStoreError> {
        if let Some(&id) = self.known.types.get(name) {
            return Ok(id);
        }
        let stored = self
            .connection
            .prepare_cached(SELECT_TYPE)
            .and_then(|mut select| select.query_row([name.as_str()], |row| row.get(0)).optional())
            .map_err(store_error)?;
        let id = match stored {
            Some(id) => id,
            None => self.insert_name(INSERT_TYPE, name.as_str())?,
        };
        if self.known.types.len() >= Self::KEPT {
            self.known.types.clear();
        }
        self.known.types.insert(name.clone(), id);
        Ok(id)
    }

    fn insert_name(&self, insert: &str, name: &str) -> Result<i64, EventStoreError> {
        self.connection.prepare_cached(insert).and_then(|mut insert| insert.insert([name])).map_err(store_error)
    }
}

/// Where the events of a request go. Brings the versions of its `streams` up to date.
fn number(request: &AppendRequest, streams: &mut [Stream], head: u64) -> Result<Vec<AppendedEvent>, EventStoreError> {
    let mut places = Vec::with_capacity(request.events().len());
    for (position, item) in (head + 1..).zip(request.events()) {
        let stream = streams
            .get_mut(item.stream)
            .ok_or_else(|| EventStoreError::storage("an event of the append has no stream"))?;
        stream.version = stream.version.next().map_err(EventStoreError::storage)?;
        places.push(AppendedEvent {
            stream_id: request.stream_of(item).clone(),
            version: stream.version,
            position: GlobalPosition::try_new(position).map_err(EventStoreError::storage)?,
        });
    }
    Ok(places)
}

/// The number that stands for the encoding of a payload.
fn content_type(item: &EventToAppend) -> Result<i64, EventStoreError> {
    match item.event.payload.content_type() {
        ContentType::Json => Ok(0),
        ContentType::Binary => Ok(1),
        other => Err(EventStoreError::storage(format!("content type {} cannot be stored", other.as_str()))),
    }
}
