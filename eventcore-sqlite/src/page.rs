//! Reading a page of the log through a filter.

use crate::decode::{EventKey, Names, event_columns};
use crate::error::store_error;
use crate::ids::{IdMap, IdSet};
use crate::read::Reader;
use crate::stream;
use eventcore::{
    EventFilter, EventStoreError, GlobalPosition, LogCursor, Page, PageSize, RecordedEvent, StreamPrefix,
    StreamSelection,
};
use rusqlite::{Connection, OptionalExtension, Rows};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const SELECT_ALL: &str =
    concat!("select ", event_columns!(), " from eventcore_events e where e.position > ?1 order by e.position limit ?2");
const SELECT_ONE: &str = concat!("select ", event_columns!(), " from eventcore_events e where e.position = ?1");
const SELECT_LAST: &str = "select position, id from eventcore_events order by position desc limit 1";
const SELECT_ID: &str = "select position, id from eventcore_events where position = ?1";
const SELECT_TYPE: &str = "select id from eventcore_event_types where name = ?1";
const SELECT_POSITIONS_OF_TYPE: &str =
    "select position, type from eventcore_events where type = ?1 and position > ?2 order by position";
const SELECT_POSITIONS_OF_STREAM: &str =
    "select position, type from eventcore_events where stream = ?1 and version > ?2 order by version";
const SELECT_POSITION: &str = "select position from eventcore_events where stream = ?1 and version = ?2";

/// How many events a page looks at one by one, for each that it may hold, before it turns to an index.
const SCANNED_PER_EVENT: u64 = 4;
/// How many events a page without a suitable index looks at. Then it ends, full or not, so that one reader of a rare
/// prefix does not occupy a connection.
const SCANNED_WITHOUT_INDEX: u64 = 20_000;
/// Up to how many types or streams are followed each by its index.
const MERGED: usize = 256;

impl Reader {
    pub(crate) fn read_page(
        &mut self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError> {
        let after = after.map_or(0, GlobalPosition::get);
        if *filter == EventFilter::all() {
            let mut events = Vec::new();
            let full =
                self.events(SELECT_ALL, (after as i64, limit.get() as i64), PageSize::FULL_BYTES, &mut events)?;
            let positions = events.iter().map(|event| event.position().get());
            positions.zip(after + 1..).try_for_each(|(found, expected)| in_order(found, expected))?;
            let more = full || events.len() == limit.get();
            return Ok(Page { cursor: events.last().map(cursor), more, events });
        }
        self.at_one_moment(|reader| reader.read_filtered(filter, after, limit.get()))
    }

    fn read_filtered(&mut self, filter: &EventFilter, after: u64, limit: usize) -> Result<Page, EventStoreError> {
        let Some(last) = self.last()? else { return Ok(Page::default()) };
        if last.position.get() <= after {
            return Ok(Page::default());
        }
        let wanted = Wanted::of(filter, &self.connection)?;
        let mut page = PageInHand { events: Vec::new(), bytes: 0, limit, examined: after, last };
        match wanted.index() {
            Index::None => page.scan(self, &wanted, SCANNED_WITHOUT_INDEX)?,
            Index::Types(types) => {
                // Mostly a reader wants most of the types, and looking at every event is fastest.
                page.scan(self, &wanted, SCANNED_PER_EVENT * limit as u64)?;
                if !page.is_done() {
                    let from = page.examined;
                    let sources = types.iter().map(|&id| (id, from)).collect();
                    page.merge(self, filter, &wanted, SELECT_POSITIONS_OF_TYPE, sources)?;
                }
            }
            Index::Streams(streams) => {
                let mut sources = Vec::with_capacity(streams.len());
                for (&id, &version) in streams {
                    sources.push((id, version_at(&self.connection, id, version, after)?));
                }
                page.merge(self, filter, &wanted, SELECT_POSITIONS_OF_STREAM, sources)?;
            }
        }
        page.finish(&self.connection)
    }

    fn last(&self) -> Result<Option<LogCursor>, EventStoreError> {
        let mut select = self.connection.prepare_cached(SELECT_LAST).map_err(store_error)?;
        let mut rows = select.query([]).map_err(store_error)?;
        rows.next().map_err(store_error)?.map(Names::cursor).transpose()
    }
}

/// A filter with the numbers that stand for its names. Names that are not stored are left out.
struct Wanted<'a> {
    types: Option<IdSet>,
    /// The numbers of streams, with their versions.
    streams: Option<IdMap<u64>>,
    prefix: Option<&'a StreamPrefix>,
}

enum Index<'a> {
    None,
    Types(&'a IdSet),
    Streams(&'a IdMap<u64>),
}

impl<'a> Wanted<'a> {
    fn of(filter: &'a EventFilter, connection: &Connection) -> Result<Self, EventStoreError> {
        let mut wanted = Self { types: None, streams: None, prefix: None };
        if let Some(types) = filter.event_types() {
            let mut select = connection.prepare_cached(SELECT_TYPE).map_err(store_error)?;
            let mut ids = IdSet::default();
            for name in types {
                ids.extend(
                    select.query_row([name.as_str()], |row| row.get::<_, i64>(0)).optional().map_err(store_error)?,
                );
            }
            wanted.types = Some(ids);
        }
        match filter.stream_selection() {
            StreamSelection::All => {}
            StreamSelection::Exact(streams) => {
                let mut ids = IdMap::default();
                for name in streams {
                    ids.extend(stream::find(connection, name)?.map(|(id, version)| (id, version.get())));
                }
                wanted.streams = Some(ids);
            }
            StreamSelection::Prefix(prefix) => wanted.prefix = Some(prefix),
            other => return Err(EventStoreError::storage(format!("the stream selection {other:?} is not supported"))),
        }
        Ok(wanted)
    }

    fn index(&self) -> Index<'_> {
        match (&self.streams, &self.types) {
            (Some(streams), _) if streams.len() <= MERGED => Index::Streams(streams),
            (None, Some(types)) if types.len() <= MERGED && self.prefix.is_none() => Index::Types(types),
            _ => Index::None,
        }
    }

    fn includes_type(&self, id: i64) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(&id))
    }

    fn includes(
        &self,
        connection: &Connection,
        names: &mut Names,
        stream: i64,
        type_id: i64,
    ) -> Result<bool, EventStoreError> {
        Ok(self.includes_type(type_id)
            && self.streams.as_ref().is_none_or(|streams| streams.contains_key(&stream))
            && match self.prefix {
                Some(prefix) => prefix.matches(&names.stream(connection, stream)?),
                None => true,
            })
    }
}

/// A page that is being filled.
struct PageInHand {
    events: Vec<RecordedEvent>,
    /// Their size.
    bytes: usize,
    limit: usize,
    /// How far the page looked.
    examined: u64,
    /// The end of the log.
    last: LogCursor,
}

impl PageInHand {
    fn is_done(&self) -> bool {
        self.is_full() || self.examined >= self.last.position.get()
    }

    fn is_full(&self) -> bool {
        self.events.len() == self.limit || self.bytes >= PageSize::FULL_BYTES
    }

    /// Looks at up to `budget` events one by one.
    fn scan(&mut self, reader: &mut Reader, wanted: &Wanted<'_>, budget: u64) -> Result<(), EventStoreError> {
        let Reader { connection, names } = reader;
        let mut select = connection.prepare_cached(SELECT_ALL).map_err(store_error)?;
        let mut rows = select.query((self.examined as i64, budget as i64)).map_err(store_error)?;
        let left = self.last.position.get() - self.examined;
        self.events.reserve(self.limit.min(usize::try_from(left).unwrap_or(self.limit)));
        while !self.is_done()
            && let Some(row) = rows.next().map_err(store_error)?
        {
            let key = EventKey::of(row)?;
            if wanted.includes(connection, names, key.stream, key.event_type)? {
                let event = names.event_at(&key, connection, row)?;
                self.bytes += event.size();
                self.events.push(event);
            }
            in_order(key.position.unsigned_abs(), self.examined + 1)?;
            self.examined += 1;
        }
        Ok(())
    }

    /// Follows several entries of an index at once, each a number and where it begins, up to the end of the log.
    fn merge(
        &mut self,
        reader: &mut Reader,
        filter: &EventFilter,
        wanted: &Wanted<'_>,
        select: &str,
        sources: Vec<(i64, u64)>,
    ) -> Result<(), EventStoreError> {
        for position in self.merged_positions(&reader.connection, wanted, select, sources)? {
            let before = self.events.len();
            reader.events(SELECT_ONE, [position], usize::MAX, &mut self.events)?;
            let found = self.events.get(before);
            self.bytes += found.map_or(0, RecordedEvent::size);
            let wanted = found.is_some_and(|event| filter.matches(event.stream_id(), event.event_type()));
            if !wanted || position.unsigned_abs() <= self.examined {
                let what = format!("an index names the event at position {position}, which is missing or another one");
                return Err(EventStoreError::corrupt(what));
            }
            self.examined = position.unsigned_abs();
            if self.is_full() {
                return Ok(());
            }
        }
        self.examined = self.last.position.get();
        Ok(())
    }

    fn merged_positions(
        &self,
        connection: &Connection,
        wanted: &Wanted<'_>,
        select: &str,
        sources: Vec<(i64, u64)>,
    ) -> Result<Vec<i64>, EventStoreError> {
        let statements: Result<Vec<_>, _> = sources.iter().map(|_| connection.prepare_cached(select)).collect();
        let mut statements = statements.map_err(store_error)?;
        let mut entries = Vec::with_capacity(sources.len());
        for (statement, (id, from)) in statements.iter_mut().zip(sources) {
            entries.push(statement.query((id, from as i64)).map_err(store_error)?);
        }
        // The next entry of each, the lowest position first.
        let mut next = BinaryHeap::with_capacity(entries.len());
        for (at, rows) in entries.iter_mut().enumerate() {
            next.extend(advance(rows, at)?);
        }
        let mut positions = Vec::new();
        while self.events.len() + positions.len() < self.limit
            && let Some(Reverse((position, type_id, at))) = next.pop()
        {
            if wanted.includes_type(type_id) {
                positions.push(position);
            }
            if let Some(rows) = entries.get_mut(at) {
                next.extend(advance(rows, at)?);
            }
        }
        Ok(positions)
    }

    fn finish(mut self, connection: &Connection) -> Result<Page, EventStoreError> {
        // Where few events were wanted, most of the room is given back before the page is kept for who knows how long.
        if self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to_fit();
        }
        let cursor = if self.examined >= self.last.position.get() {
            self.last
        } else {
            match self.events.last() {
                Some(event) if event.position().get() == self.examined => cursor(event),
                // The page ended between two events that are wanted.
                _ => cursor_at(connection, self.examined)?,
            }
        };
        // Also true of a page that is not full but did not come to the end: the next one should be read at once.
        let more = self.is_full() || cursor.position < self.last.position;
        Ok(Page { events: self.events, cursor: Some(cursor), more })
    }
}

/// What an entry of the index comes to: position, type, and which of the entries it is. The lowest position comes first.
type Next = Reverse<(i64, i64, usize)>;

fn advance(rows: &mut Rows<'_>, at: usize) -> Result<Option<Next>, EventStoreError> {
    let Some(row) = rows.next().map_err(store_error)? else { return Ok(None) };
    let column = |index| row.get(index).map_err(store_error);
    Ok(Some(Reverse((column(0)?, column(1)?, at))))
}

/// The version that a stream had when the log ended at `position`. Positions rise with versions, so it can be searched.
fn version_at(connection: &Connection, stream: i64, version: u64, position: u64) -> Result<u64, EventStoreError> {
    let mut select = connection.prepare_cached(SELECT_POSITION).map_err(store_error)?;
    let (mut low, mut high) = (0, version);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        let there: i64 = select.query_row((stream, middle as i64), |row| row.get(0)).map_err(store_error)?;
        if there.unsigned_abs() <= position {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

/// Positions have no gaps, so one that is missing was lost.
fn in_order(found: u64, expected: u64) -> Result<(), EventStoreError> {
    if found == expected {
        return Ok(());
    }
    Err(EventStoreError::corrupt(format!("the event at position {expected} is missing: position {found} is next")))
}

fn cursor_at(connection: &Connection, position: u64) -> Result<LogCursor, EventStoreError> {
    let mut select = connection.prepare_cached(SELECT_ID).map_err(store_error)?;
    let mut rows = select.query([position as i64]).map_err(store_error)?;
    let row = rows.next().map_err(store_error)?;
    Names::cursor(row.ok_or_else(|| EventStoreError::corrupt(format!("the event at position {position} is missing")))?)
}

fn cursor(event: &RecordedEvent) -> LogCursor {
    LogCursor { position: event.position(), event_id: event.id() }
}
