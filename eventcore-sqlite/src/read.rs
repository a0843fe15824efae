//! Reading streams and pages of the log, on one connection.

use crate::decode::{self, Names, event_columns};
use crate::error::store_error;
use crate::{receipt, stream};
use eventcore::{
    EventStoreError, GlobalPosition, LogCursor, PageSize, ReadStreams, RecordedEvent, StreamId, StreamPage,
    StreamVersion, StreamsRead,
};
use rusqlite::{Connection, OptionalExtension, Params};

const SELECT_HEAD: &str = "select max(position) from eventcore_events";
const SELECT_EVENTS_OF_STREAM: &str = concat!(
    "select ",
    event_columns!(),
    " from eventcore_events e where e.stream = ?1 and e.version > ?2 order by e.version limit ?3"
);
const SELECT_ID: &str = "select id from eventcore_events where position = ?1";

/// A connection that can only read, and the names it met.
pub(crate) struct Reader {
    pub(crate) connection: Connection,
    pub(crate) names: Names,
}

impl Reader {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, names: Names::default() }
    }

    /// Runs several reads as of one moment.
    pub(crate) fn at_one_moment<R>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<R, EventStoreError>,
    ) -> Result<R, EventStoreError> {
        self.run("begin")?;
        let result = read(self);
        // Some errors have ended it already, and are not to be hidden behind another one.
        if !self.connection.is_autocommit() {
            // It wrote nothing, so ending it either way is the same. If it cannot be ended the next read says so.
            self.run("rollback")?;
        }
        result
    }

    fn run(&self, statement: &str) -> Result<(), EventStoreError> {
        self.connection
            .prepare_cached(statement)
            .and_then(|mut statement| statement.execute([]))
            .map(drop)
            .map_err(store_error)
    }

    pub(crate) fn read_streams(&mut self, request: &ReadStreams, limit: usize) -> Result<StreamsRead, EventStoreError> {
        self.at_one_moment(|reader| {
            let mut result = StreamsRead::default();
            let mut wanted = Vec::with_capacity(request.streams().len());
            let mut count = 0_u64;
            for position in request.streams() {
                let stream = stream::find(&reader.connection, &position.stream_id)?;
                let version = stream.map_or(StreamVersion::default(), |(_, version)| version);
                result.versions.push(version);
                let events = version.get().saturating_sub(position.after.get());
                if let (Some((id, _)), 1..) = (stream, events) {
                    wanted.push((id, position.after));
                }
                count = count.saturating_add(events);
            }
            if count > limit as u64 {
                return Err(EventStoreError::ReadTooLarge { limit });
            }
            // `count` is at most `limit`, which is an usize.
            result.events.reserve(count as usize);
            for &(id, after) in &wanted {
                reader.events_of_stream(id, after, -1, usize::MAX, &mut result.events)?;
            }
            if result.events.len() as u64 != count {
                let what = format!("{} events of the streams are there instead of {count}", result.events.len());
                return Err(EventStoreError::corrupt(what));
            }
            if wanted.len() > 1 {
                // A stable sort merges the runs that the streams are.
                result.events.sort_by_key(RecordedEvent::position);
            }
            if let Some(command_id) = request.command_id() {
                result.receipt = receipt::find(&reader.connection, command_id)?;
            }
            Ok(result)
        })
    }

    pub(crate) fn read_stream(
        &mut self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError> {
        // Streams are never removed and only grow, so two reads one after the other do not contradict each other.
        let Some((id, _)) = stream::find(&self.connection, stream_id)? else { return Ok(StreamPage::default()) };
        let mut events = Vec::new();
        let full = self.events_of_stream(id, after, limit.get() as i64, PageSize::FULL_BYTES, &mut events)?;
        Ok(StreamPage { more: full || events.len() == limit.get(), events })
    }

    pub(crate) fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
        Ok(stream::find(&self.connection, stream_id)?.map_or(StreamVersion::default(), |(_, version)| version))
    }

    pub(crate) fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
        let head: Option<i64> = self
            .connection
            .prepare_cached(SELECT_HEAD)
            .and_then(|mut select| select.query_row([], |row| row.get(0)))
            .map_err(store_error)?;
        head.map(decode::position).transpose()
    }

    pub(crate) fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
        let found: Option<Vec<u8>> = self
            .connection
            .prepare_cached(SELECT_ID)
            .and_then(|mut select| select.query_row([cursor.position.get()], |row| row.get(0)).optional())
            .map_err(store_error)?;
        let found = found.map(|bytes| decode::event_id(&bytes)).transpose()?;
        if found == Some(cursor.event_id) {
            return Ok(());
        }
        Err(EventStoreError::LogDiverged { position: cursor.position, expected: cursor.event_id, found })
    }

    /// Adds up to `limit` events of a stream, all of them if it is negative, until they are so many bytes. Their versions
    /// have no gaps. Tells whether the bytes were reached.
    fn events_of_stream(
        &mut self,
        id: i64,
        after: StreamVersion,
        limit: i64,
        full: usize,
        events: &mut Vec<RecordedEvent>,
    ) -> Result<bool, EventStoreError> {
        let first = events.len();
        let full = self.events(SELECT_EVENTS_OF_STREAM, (id, after.get(), limit), full, events)?;
        let versions = events.iter().skip(first).map(|event| event.version().get());
        match versions.zip(after.get() + 1..).find(|(found, expected)| found != expected) {
            Some((found, expected)) => Err(EventStoreError::corrupt(format!(
                "version {expected} of a stream: version {found} is there instead"
            ))),
            None => Ok(full),
        }
    }

    /// Adds the events of a query that selects their columns, until they are so many bytes. Tells whether these were
    /// reached.
    pub(crate) fn events(
        &mut self,
        select: &str,
        params: impl Params,
        full: usize,
        events: &mut Vec<RecordedEvent>,
    ) -> Result<bool, EventStoreError> {
        let mut bytes = 0_usize;
        let Self { connection, names } = self;
        let mut select = connection.prepare_cached(select).map_err(store_error)?;
        let mut rows = select.query(params).map_err(store_error)?;
        while let Some(row) = rows.next().map_err(store_error)? {
            let event = names.event(connection, row)?;
            bytes = bytes.saturating_add(event.size());
            events.push(event);
            if bytes >= full {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
