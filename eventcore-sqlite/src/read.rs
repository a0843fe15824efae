//! Reading streams and pages of the log, on one connection.

use crate::decode::{self, Names, event_columns};
use crate::error::store_error;
use crate::stretch::Stretch;
use crate::workers::Resource;
use crate::{receipt, stream};
use eventcore::{
    EventStoreError, GlobalPosition, LogCursor, PageSize, ReadStreams, RecordedEvent, StreamId, StreamPage,
    StreamPosition, StreamVersion, StreamsRead,
};
use rusqlite::{Connection, OptionalExtension, Params};

const SELECT_HEAD: &str = "select max(position) from eventcore_events";
const SELECT_EVENTS_OF_STREAM: &str = concat!(
    "select ",
    event_columns!(),
    " from eventcore_events e where e.stream = ?1 and e.version > ?2 order by e.version limit ?3"
);
/// From the name on, which is what a command knows. `cross` keeps the planner from another order.
const SELECT_EVENTS_OF_NAME: &str = concat!(
    "select ",
    event_columns!(),
    " from eventcore_streams s cross join eventcore_events e on e.stream = s.id \
     where s.name = ?1 and e.version > ?2 order by e.version"
);
const SELECT_ID: &str = "select id from eventcore_events where position = ?1";

/// What was read of streams as of one moment, and what is still to be read of the only one.
pub(crate) struct Begun {
    pub(crate) read: StreamsRead,
    pub(crate) rest: Option<Stretch>,
}

/// A connection that can only read, and the names it met.
pub(crate) struct Reader {
    pub(crate) connection: Connection,
    pub(crate) names: Names,
}

impl Reader {
    /// A stream of so many events is worth a look at how many there are, before all of them are read.
    const MANY: usize = 128;

    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, names: Names::default() }
    }

    /// Runs several reads as of one moment. It is also the moment of the jobs that follow in the same group, since these
    /// were all asked for before; [`rest`](Resource::rest) ends it.
    pub(crate) fn at_one_moment<R>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<R, EventStoreError>,
    ) -> Result<R, EventStoreError> {
        // Some errors end it before its time, and then the next job begins another one.
        if self.connection.is_autocommit() {
            self.run("begin").map_err(store_error)?;
        }
        read(self)
    }

    fn run(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute([]).map(drop)
    }

    /// Reads whole streams; calls `long` if it turns out that one of them is. Of a single one that is very long, only the
    /// beginning is read.
    pub(crate) fn read_streams(
        &mut self,
        request: &ReadStreams,
        limit: usize,
        mut long: impl FnMut(),
    ) -> Result<Begun, EventStoreError> {
        self.at_one_moment(|reader| {
            let mut result = StreamsRead::default();
            if let Some(command_id) = request.command_id() {
                result.receipt = receipt::find(&reader.connection, command_id)?;
                if result.receipt.is_some() && request.is_receipt_enough() {
                    return Ok(Begun { read: result, rest: None });
                }
            }
            let mut runs = 0;
            let most = if request.streams().len() == 1 { Stretch::WORTH_TWO } else { usize::MAX };
            let mut rest = None;
            for stream in request.streams() {
                let before = result.events.len();
                let version;
                (version, rest) = reader.rest_of_stream(stream, limit, most, &mut long, &mut result.events)?;
                result.versions.push(version);
                runs += usize::from(result.events.len() > before);
            }
            if runs > 1 {
                // A stable sort merges the runs that the streams are.
                result.events.sort_by_key(RecordedEvent::position);
            }
            Ok(Begun { read: result, rest })
        })
    }

    /// Adds the events of a stream after a version. Tells the version of the stream, and, if as many as `most` were to be
    /// read after the first ones, which were not.
    fn rest_of_stream(
        &mut self,
        stream: &StreamPosition,
        limit: usize,
        most: usize,
        long: &mut impl FnMut(),
        events: &mut Vec<RecordedEvent>,
    ) -> Result<(StreamVersion, Option<Stretch>), EventStoreError> {
        let too_large = || EventStoreError::ReadTooLarge { limit };
        let Self { connection, names } = self;
        let mut select = connection.prepare_cached(SELECT_EVENTS_OF_NAME).map_err(store_error)?;
        let mut rows = select.query((stream.stream_id.as_str(), stream.after.get())).map_err(store_error)?;
        let mut version = stream.after;
        let mut read = 0;
        while let Some(row) = rows.next().map_err(store_error)? {
            let event = names.event_of(&stream.stream_id, connection, row)?;
            version = follows(version, event.version())?;
            events.push(event);
            if events.len() > limit {
                return Err(too_large());
            }
            read += 1;
            if read == Self::MANY {
                long();
                let last = stream::find(connection, &stream.stream_id)?.map_or(version, |(_, last)| last);
                let rest = last.get().saturating_sub(version.get());
                let rest = usize::try_from(rest).map_err(|_| too_large())?;
                if rest > limit - events.len() {
                    return Err(too_large());
                }
                if rest >= most {
                    let stream_id = stream.stream_id.clone();
                    return Ok((last, Some(Stretch { stream_id, after: version, until: last })));
                }
                events.reserve(rest);
            }
        }
        if read > 0 {
            return Ok((version, None));
        }
        // Nothing lies behind `after`, which may also be beyond the end of the stream.
        let found = stream::find(connection, &stream.stream_id)?;
        Ok((found.map_or(StreamVersion::default(), |(_, version)| version), None))
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
        let params = (id, after.get(), limit.get() as i64);
        let full = self.events(SELECT_EVENTS_OF_STREAM, params, PageSize::FULL_BYTES, &mut events)?;
        events.iter().try_fold(after, |before, event| follows(before, event.version()))?;
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

impl Resource for Reader {
    fn rest(&mut self) -> bool {
        // It wrote nothing, so ending the moment either way is the same.
        if self.connection.is_autocommit() {
            return true;
        }
        let ended = self.run("rollback");
        if let Err(error) = &ended {
            tracing::warn!(error = error as &dyn std::error::Error, "a connection is given up");
        }
        ended.is_ok()
    }
}

/// Versions of a stream have no gaps, so one that is missing was lost.
pub(crate) fn follows(before: StreamVersion, version: StreamVersion) -> Result<StreamVersion, EventStoreError> {
    if before.get() + 1 == version.get() {
        return Ok(version);
    }
    let (expected, found) = (before.get() + 1, version.get());
    Err(EventStoreError::corrupt(format!("version {expected} of a stream: version {found} is there instead")))
}
