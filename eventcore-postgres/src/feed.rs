//! Pages of the log and of single streams.

use crate::SchemaName;
use crate::connections::Connections;
use crate::retry::{Patience, Statement, repeatable, repeatable_into};
use crate::rows::{EVENT_COLUMNS, EventSink, column, cursor, event_id, limit_of, number, position};
use crate::tail::Tail;
use eventcore::{
    EventFilter, EventStoreError, GlobalPosition, LogCursor, Page, PageSize, RecordedEvent, StreamId, StreamPage,
    StreamPrefix, StreamSelection, StreamVersion,
};
use sqlx::AssertSqlSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;
use uuid::Uuid;

/// How many positions one statement looks at in position order: a prefix has no index of its own there, and the planner takes the
/// whole rest of a large log for so much work that it compiles the statement first, for each page.
const WINDOW: u64 = 100_000;

/// From so many positions on a page is read by a task of its own, so that a processor can be busy with it while another one
/// is with the page before. At the end of the log that would only delay it.
const FAR: u64 = 256;

/// How many positions for each event of a page are looked at one by one for wanted types, before these are looked up by
/// their index. That takes some four times as long for an event that it finds.
const NEAR: u64 = 4;

/// However few are wanted: looking at these takes no longer than another statement.
const NEAR_AT_LEAST: u64 = 1_000;

/// How events of wanted types are found.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// One by one, in a range of positions that is not large.
    Near,
    /// By the index by type, in any range.
    Far,
}

/// The most events that room is made for before they are there.
const EXPECTED: usize = 1_024;

/// Reads pages.
#[derive(Debug)]
pub(crate) struct Feed {
    connections: Connections,
    schema: SchemaName,
    patience: Patience,
    /// How many bytes the events of the last page were on average. Large ones are asked for in smaller numbers.
    typical_size: AtomicUsize,
    everything: Arc<str>,
    near: Arc<str>,
    of_types: Arc<str>,
    of_streams: Arc<str>,
    of_prefix: Arc<str>,
    of_stream: Arc<str>,
}

impl Feed {
    pub(crate) fn new(connections: Connections, schema: SchemaName, patience: Patience) -> Self {
        let events = format!("{schema}.events");
        let few = limit_of("$3");
        // In the order of an index, whatever else is asked of the rows: a subquery with a limit is planned by itself. This limit
        // is never reached.
        let all = limit_of(&i64::MAX.to_string());
        let range = format!(
            "(select * from {events} x where x.position > $1 and x.position <= $2 order by x.position limit {all})"
        );
        let stream = format!(
            "(select * from {events} x where x.stream = s.name and x.version > v.version order by x.version limit {all})"
        );
        Self {
            connections,
            patience,
            typical_size: AtomicUsize::new(0),
            everything: format!(
                "select e.stream, {EVENT_COLUMNS} from {events} e where e.position > $1 and e.position <= $2 \
                 order by e.position limit {few}"
            )
            .into(),
            // Where wanted types are common, looking at every event in the order of positions is far cheaper than sorting and
            // joining what the index by type names.
            near: format!(
                "select e.stream, {EVENT_COLUMNS} from {range} e where e.type = any($4) order by e.position limit $3"
            )
            .into(),
            // Each type by its own index, so that a rare one is found without looking at the others. Rows are compared,
            // and ordered by both columns, since with `type =` the planner may prefer the index by position and filter.
            of_types: format!(
                "select e.stream, {EVENT_COLUMNS} from (select k.position from unnest($4::text[]) t(name) cross join lateral \
                 (select x.position from {events} x where (x.type, x.position) > (t.name, $1) \
                 and (x.type, x.position) <= (t.name, $2) order by x.type, x.position limit $3) k \
                 order by k.position limit $3) k join {events} e on e.position = k.position order by e.position"
            )
            .into(),
            // Each stream by its own index, from the version that it had at the position to begin after.
            of_streams: format!(
                "select e.stream, {EVENT_COLUMNS} from unnest($4::text[]) s(name) cross join lateral \
                 (select {schema}.version_at(s.name, $1) as version) v cross join lateral \
                 (select * from {stream} x where x.position <= $2 and ($5::text[] is null or x.type = any($5)) \
                 order by x.version limit {few}) e order by e.position limit $3"
            )
            .into(),
            of_prefix: format!(
                "select e.stream, {EVENT_COLUMNS} from {range} e where e.stream >= $4 and ($5::text is null or e.stream < $5) \
                 and ($6::text[] is null or e.type = any($6)) order by e.position limit $3"
            )
            .into(),
            of_stream: format!(
                "select e.stream, {EVENT_COLUMNS} from {events} e where e.stream = $1 and e.version > $2 order by e.version \
                 limit {few}"
            )
            .into(),
            schema,
        }
    }

    pub(crate) async fn page(
        self: &Arc<Self>,
        tail: &Tail,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError> {
        let Some(horizon) = tail.horizon(after).await? else { return Ok(Page::default()) };
        if after >= Some(horizon.position) {
            return Ok(Page::default());
        }
        let mut begin = after.map_or(0, GlobalPosition::get);
        let limit = self.limit(limit);
        let in_windows = match filter.stream_selection() {
            StreamSelection::Exact(_) => false,
            StreamSelection::Prefix(_) => true,
            _ => filter.event_types().is_none(),
        };
        loop {
            let end = if in_windows {
                horizon.position.get().min(begin.saturating_add(WINDOW))
            } else {
                horizon.position.get()
            };
            let (events, full) = self.wanted(filter, begin, end, limit).await?;
            if let Some(last) = events.last().filter(|_| full || events.len() >= limit) {
                let cursor = Some(LogCursor { position: last.position(), event_id: last.id() });
                return Ok(Page { events, cursor, more: true });
            }
            if end == horizon.position.get() {
                return Ok(Page { events, cursor: Some(horizon), more: false });
            }
            if let Some(cursor) = self.last_event(begin, end).await? {
                return Ok(Page { events, cursor: Some(cursor), more: true });
            }
            // Positions that were drawn in vain are passed over, however many; there is an event at the horizon.
            begin = self.next_position(end).await?.map_or(end, |next| next.get() - 1);
        }
    }

    /// How many events to ask for, so that not much more comes than a page holds.
    fn limit(&self, limit: PageSize) -> usize {
        let typical = self.typical_size.load(Ordering::Relaxed);
        PageSize::FULL_BYTES
            .checked_mul(2)
            .and_then(|bytes| bytes.checked_div(typical))
            .map_or(limit.get(), |events| limit.get().min(events.max(1)))
    }

    /// The events of a range of positions that the filter wants, up to a full page, and whether it is full.
    async fn wanted(
        self: &Arc<Self>,
        filter: &EventFilter,
        begin: u64,
        end: u64,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, bool), EventStoreError> {
        let near = end.min(begin.saturating_add(NEAR.saturating_mul(limit as u64).max(NEAR_AT_LEAST)));
        let everywhere = !matches!(filter.stream_selection(), StreamSelection::Exact(_) | StreamSelection::Prefix(_));
        if !everywhere || filter.event_types().is_none() {
            return self.events(filter, Look::Far, (begin, end), limit, PageSize::FULL_BYTES).await;
        }
        let bytes = PageSize::FULL_BYTES;
        let (mut events, full) = self.events(filter, Look::Near, (begin, near), limit, bytes).await?;
        if full || events.len() >= limit || near == end {
            return Ok((events, full));
        }
        // They are rare here, so the rest is looked up by type.
        let left = bytes.saturating_sub(events.iter().map(RecordedEvent::size).sum()).max(1);
        let (further, full) = self.events(filter, Look::Far, (near, end), limit - events.len(), left).await?;
        events.extend(further);
        Ok((events, full))
    }

    /// The same by one statement, until they are so many or so many bytes.
    async fn events(
        self: &Arc<Self>,
        filter: &EventFilter,
        look: Look,
        (begin, end): (u64, u64),
        limit: usize,
        bytes: usize,
    ) -> Result<(Vec<RecordedEvent>, bool), EventStoreError> {
        if end.saturating_sub(begin) < FAR || limit < FAR as usize {
            return self.selected(limit, bytes, || self.select(filter, look, begin, end, limit)).await;
        }
        let (feed, filter) = (Arc::clone(self), filter.clone());
        let read = async move { feed.selected(limit, bytes, || feed.select(&filter, look, begin, end, limit)).await };
        match AbortOnDropHandle::new(tokio::spawn(read.in_current_span())).await {
            Ok(read) => read,
            // A bug is not taken for an outage.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends.
            Err(_) => Err(EventStoreError::Closed),
        }
    }

    /// The events of a statement, up to a full page.
    async fn selected<'q>(
        &self,
        limit: usize,
        bytes: usize,
        select: impl Fn() -> Statement<'q>,
    ) -> Result<(Vec<RecordedEvent>, bool), EventStoreError> {
        let sink = || EventSink::new(limit.min(EXPECTED), bytes);
        let sink = repeatable_into(&self.connections, self.patience, sink, select).await?;
        let (events, bytes, full) = sink.finish()?;
        if let Some(typical) = bytes.checked_div(events.len()) {
            self.typical_size.store(typical, Ordering::Relaxed);
        }
        Ok((events, full))
    }

    fn select<'q>(&self, filter: &'q EventFilter, look: Look, begin: u64, end: u64, limit: usize) -> Statement<'q> {
        let query = |sql: &Arc<str>| {
            let query = sqlx::query(AssertSqlSafe(Arc::clone(sql)));
            query.bind(number(begin)).bind(number(end)).bind(number(limit as u64))
        };
        let types: Option<Vec<&str>> = filter.event_types().map(|types| types.iter().map(|t| t.as_str()).collect());
        match (filter.stream_selection(), types) {
            (StreamSelection::Exact(streams), types) => {
                let streams: Vec<&str> = streams.iter().map(StreamId::as_str).collect();
                query(&self.of_streams).bind(streams).bind(types)
            }
            (StreamSelection::Prefix(prefix), types) => {
                query(&self.of_prefix).bind(prefix.as_str()).bind(after_prefix(prefix)).bind(types)
            }
            (_, Some(types)) => match look {
                Look::Near => query(&self.near).bind(types),
                Look::Far => query(&self.of_types).bind(types),
            },
            (_, None) => query(&self.everything),
        }
    }

    /// The last event in a range of positions.
    async fn last_event(&self, begin: u64, end: u64) -> Result<Option<LogCursor>, EventStoreError> {
        let sql = format!(
            "select position, event_id from {}.events where position > $1 and position <= $2 order by position desc limit 1",
            self.schema
        );
        let last = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(number(begin)).bind(number(end));
        let rows = repeatable(&self.connections, self.patience, last).await?;
        rows.first().map(|row| cursor(column(row, 0)?, column::<Uuid>(row, 1)?)).transpose()
    }

    /// The position of the first event behind a position.
    async fn next_position(&self, after: u64) -> Result<Option<GlobalPosition>, EventStoreError> {
        let sql = format!("select position from {}.events where position > $1 order by position limit 1", self.schema);
        let next = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(number(after));
        let rows = repeatable(&self.connections, self.patience, next).await?;
        rows.first().map(|row| position(column(row, 0)?)).transpose()
    }

    pub(crate) async fn stream_page(
        &self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError> {
        let limit = self.limit(limit);
        let select = || {
            let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.of_stream))).bind(stream_id.as_str());
            query.bind(number(after.get())).bind(number(limit as u64))
        };
        let (events, full) = self.selected(limit, PageSize::FULL_BYTES, select).await?;
        Ok(StreamPage { more: full || events.len() >= limit, events })
    }

    /// Makes sure that the event of a cursor still stands where it stood.
    pub(crate) async fn verify(&self, expected: &LogCursor) -> Result<(), EventStoreError> {
        let sql = format!("select event_id from {}.events where position = $1", self.schema);
        let position = number(expected.position.get());
        let there = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(position);
        let rows = repeatable(&self.connections, self.patience, there).await?;
        let found = rows.first().map(|row| event_id(column::<Uuid>(row, 0)?)).transpose()?;
        if found == Some(expected.event_id) {
            return Ok(());
        }
        Err(EventStoreError::LogDiverged { position: expected.position, expected: expected.event_id, found })
    }
}

/// The first name, in the order of bytes, that is behind all that begin with the prefix; `None` if nothing is.
fn after_prefix(prefix: &StreamPrefix) -> Option<String> {
    let mut chars: Vec<char> = prefix.as_str().chars().collect();
    while let Some(last) = chars.pop() {
        // The order of UTF-8's bytes is the order of characters; surrogates are no characters.
        let next = if last == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_everything_that_begins_so() {
        for (prefix, end) in [
            ("account-", Some("account.")),
            ("a_", Some("a`")),
            ("x\u{D7FF}", Some("x\u{E000}")),
            ("x\u{10FFFF}", Some("y")),
            ("\u{10FFFF}", None),
        ] {
            assert_eq!(after_prefix(&StreamPrefix::new(prefix).unwrap()).as_deref(), end, "{prefix:?}");
        }
    }
}
