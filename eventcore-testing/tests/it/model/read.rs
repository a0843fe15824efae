//! Reading, rightly and wrongly.

use super::append::version;
use super::{Defect, ModelStore, State};
use async_trait::async_trait;
use eventcore::{
    EventFilter, EventReader, EventStoreError, GlobalPosition, LineageId, LogCursor, LogWatch, Page, PageSize,
    ReadStreams, RecordedEvent, StreamId, StreamPage, StreamPosition, StreamSelection, StreamVersion, StreamsRead,
};

#[async_trait]
impl EventReader for ModelStore {
    async fn read_page(
        &self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError> {
        tokio::task::consume_budget().await;
        let state = self.open()?;
        let behind = |event: &&RecordedEvent| match self.shared.defect {
            Some(Defect::PagesOverlap) => {
                after.is_none_or(|after| event.position() >= after && event.position().get() > 1)
            }
            _ => Some(event.position()) > after,
        };
        let log: Vec<_> = state.events.iter().filter(behind).collect();
        let wanted = log.iter().filter(|event| self.wants(filter, event)).copied();
        let (mut events, full) = self.fill(wanted, limit);
        let examined = match self.shared.defect {
            Some(Defect::CursorRunsAhead) => log.last().copied(),
            Some(Defect::CursorOnlyAtWanted) => events.last(),
            _ if full => events.last(),
            _ => log.last().copied(),
        };
        let mut cursor = examined.map(|event| LogCursor { position: event.position(), event_id: event.id() });
        if self.has(Defect::PagesOutOfOrder) {
            events.sort_by(|a, b| (a.stream_id(), a.version()).cmp(&(b.stream_id(), b.version())));
        }
        if self.has(Defect::DropsOneOfAFullPage) && full && events.len() > 2 {
            events.remove(1);
        }
        if self.has(Defect::CursorWithoutEvent)
            && let Some(cursor) = &mut cursor
        {
            cursor.event_id = eventcore::EventId::generate();
        }
        Ok(Page { events, cursor, more: full && !self.has(Defect::FullPageSaysNoMore) })
    }

    async fn read_stream(
        &self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError> {
        let state = self.open()?;
        let skipped = if self.has(Defect::StreamPagesOverlap) { after.get().saturating_sub(1) } else { after.get() };
        let events = self.events_of(&state, stream_id).filter(|event| event.version().get() > skipped);
        let (events, more) = self.fill(events, limit);
        Ok(StreamPage { events, more })
    }

    async fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
        let state = self.open()?;
        let found = state.events.iter().find(|event| event.position() == cursor.position).map(RecordedEvent::id);
        if self.has(Defect::DivergenceUnnoticed) || found == Some(cursor.event_id) {
            return Ok(());
        }
        Err(EventStoreError::LogDiverged { position: cursor.position, expected: cursor.event_id, found })
    }

    fn lineage(&self) -> LineageId {
        self.shared.lineage
    }

    fn watch_log(&self) -> LogWatch {
        self.shared.signal.watch()
    }
}

impl ModelStore {
    pub(super) async fn read_consistently(&self, request: &ReadStreams) -> Result<StreamsRead, EventStoreError> {
        let mut read = StreamsRead::default();
        let torn = self.has(Defect::TornReads);
        for wanted in request.streams().iter().filter(|_| torn) {
            self.gather(wanted, &self.open()?.events, &mut read)?;
            tokio::task::yield_now().await;
        }
        let state = self.open()?;
        for wanted in request.streams().iter().filter(|_| !torn) {
            self.gather(wanted, &state.events, &mut read)?;
        }
        if read.events.len() > self.shared.limits.max_read_events && !self.has(Defect::NoReadLimit) {
            return Err(EventStoreError::ReadTooLarge { limit: self.shared.limits.max_read_events });
        }
        if !self.has(Defect::ReadsStreamByStream) {
            read.events.sort_by_key(RecordedEvent::position);
        }
        if self.has(Defect::StaleReads) {
            // As a replica that is one event behind.
            let newest = state.events.last().map(RecordedEvent::position);
            read.events.retain(|event| Some(event.position()) != newest);
        }
        if self.has(Defect::VersionsSorted) {
            read.versions.sort();
        }
        if !self.has(Defect::ReceiptNotRead) {
            read.receipt = request.command_id().and_then(|id| state.receipts.get(id)).cloned();
        }
        Ok(read)
    }

    /// Adds what is wanted of one stream.
    fn gather(
        &self,
        wanted: &StreamPosition,
        log: &[RecordedEvent],
        read: &mut StreamsRead,
    ) -> Result<(), EventStoreError> {
        let name = self.stored_name(&wanted.stream_id)?;
        let stream = || log.iter().filter(|event| *event.stream_id() == name);
        read.events.extend(stream().filter(|event| event.version() > wanted.after).cloned());
        read.versions.push(version(stream().count() as u64)?);
        Ok(())
    }

    /// As many as a page holds, and whether it is full.
    fn fill<'s>(&self, wanted: impl Iterator<Item = &'s RecordedEvent>, limit: PageSize) -> (Vec<RecordedEvent>, bool) {
        let mut bytes = 0;
        let fits = |event: &&RecordedEvent| {
            let fits = bytes < PageSize::FULL_BYTES || self.has(Defect::PagesOfAnySize);
            bytes += event.size();
            fits
        };
        let events: Vec<_> = wanted.take(limit.get()).take_while(fits).cloned().collect();
        let full = events.len() == limit.get() || (bytes >= PageSize::FULL_BYTES && !self.has(Defect::PagesOfAnySize));
        (events, full)
    }

    fn events_of<'s>(
        &self,
        state: &'s State,
        stream_id: &StreamId,
    ) -> impl Iterator<Item = &'s RecordedEvent> + use<'s> {
        let name = self.stored_name(stream_id).unwrap_or_else(|_| stream_id.clone());
        state.events.iter().filter(move |event| *event.stream_id() == name)
    }

    fn wants(&self, filter: &EventFilter, event: &RecordedEvent) -> bool {
        let types = filter.event_types();
        let by_type = match self.shared.defect {
            Some(Defect::TypesIgnoreCase) => types
                .is_none_or(|types| types.iter().any(|t| t.as_str().eq_ignore_ascii_case(event.event_type().as_str()))),
            Some(Defect::TypeFilterIgnored) => true,
            _ => types.is_none_or(|types| types.contains(event.event_type())),
        };
        let name = event.stream_id().as_str();
        by_type
            && match (self.shared.defect, filter.stream_selection()) {
                (Some(Defect::PrefixIsAPattern), StreamSelection::Prefix(prefix)) => like(prefix.as_str(), name),
                (Some(Defect::PrefixIgnoresCase), StreamSelection::Prefix(prefix)) => {
                    name.to_lowercase().starts_with(&prefix.as_str().to_lowercase())
                }
                (Some(Defect::PrefixWithoutItsDash), StreamSelection::Prefix(prefix)) => {
                    name.starts_with(prefix.as_str().trim_end_matches('-'))
                }
                (Some(Defect::EmptySelectionIsAll), StreamSelection::Exact(streams)) if streams.is_empty() => true,
                (_, selection) => selection.matches(event.stream_id()),
            }
    }
}

/// SQL's `name like prefix || '%'`, without escapes.
fn like(prefix: &str, name: &str) -> bool {
    let mut name = name.chars();
    for wanted in prefix.chars() {
        match (wanted, name.next()) {
            ('%', _) => return true,
            ('_', Some(_)) => {}
            (wanted, Some(found)) if wanted == found => {}
            _ => return false,
        }
    }
    true
}
