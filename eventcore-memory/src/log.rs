//! The log itself: events, streams and receipts. It knows no locks and no tasks.

use crate::index::{Merged, TypeIndex};
use eventcore::{
    AppendRequest, Appended, AppendedEvent, CommandId, EventFilter, EventHeader, EventStoreError, EventToAppend,
    GlobalPosition, LogCursor, Page, PageSize, ReadStreams, Receipt, RecordedEvent, StreamId, StreamPage,
    StreamSelection, StreamVersion, StreamsRead, Timestamp,
};
use std::collections::HashMap;

/// All events in order, the event at index `i` at position `i + 1`.
///
/// An append is judged and numbered first, and then stored in steps that cannot fail.
#[derive(Default)]
pub(crate) struct Log {
    events: Vec<RecordedEvent>,
    /// Where the streams stand in `streams`, so that an append looks each name up once.
    slots: HashMap<StreamId, usize>,
    /// For every stream the indexes of its events; its length is the stream's version.
    streams: Vec<Vec<usize>>,
    receipts: HashMap<CommandId, Receipt>,
    types: TypeIndex,
}

/// A stream of a request: where it stands, unless it is new, and its version.
struct Target {
    slot: Option<usize>,
    version: StreamVersion,
}

impl Log {
    pub(crate) fn append(&mut self, request: &AppendRequest) -> Result<Appended, EventStoreError> {
        if let Some(claim) = request.command()
            && let Some(receipt) = self.receipts.get(&claim.command_id)
        {
            return receipt.replay(claim);
        }
        let mut targets: Vec<_> = request.streams().iter().map(|stream| self.target(&stream.stream_id)).collect();
        let mut actual = targets.iter().map(|target| target.version);
        request.judge(|_| actual.next().unwrap_or_default())?;

        let events = self.number(request, &mut targets)?;
        let recorded_at = Timestamp::now();
        self.events.reserve(events.len());
        for (item, place) in request.events().iter().zip(&events) {
            let slot = *targets[item.stream].slot.get_or_insert_with(|| {
                self.slots.insert(place.stream_id.clone(), self.streams.len());
                self.streams.push(Vec::new());
                self.streams.len() - 1
            });
            self.streams[slot].push(self.events.len());
            self.events.push(recorded(item, place, recorded_at));
        }
        if let Some(claim) = request.command() {
            let receipt = Receipt { claim: claim.clone(), events: events.clone(), recorded_at };
            self.receipts.insert(claim.command_id.clone(), receipt);
        }
        Ok(Appended { events, recorded_at, replayed: false })
    }

    /// Where the events of a request go; `targets` tells of each of its streams.
    fn number(&self, request: &AppendRequest, targets: &mut [Target]) -> Result<Vec<AppendedEvent>, EventStoreError> {
        let exhausted = EventStoreError::storage;
        let mut position = self.events.len() as u64;
        let mut places = Vec::with_capacity(request.events().len());
        for item in request.events() {
            position += 1;
            let target = &mut targets[item.stream];
            target.version = target.version.next().map_err(exhausted)?;
            places.push(AppendedEvent {
                stream_id: request.stream_of(item).clone(),
                version: target.version,
                position: GlobalPosition::try_new(position).map_err(exhausted)?,
            });
        }
        Ok(places)
    }

    fn target(&self, stream_id: &StreamId) -> Target {
        let slot = self.slots.get(stream_id).copied();
        Target { slot, version: version(slot.map_or(0, |slot| self.streams[slot].len())) }
    }

    pub(crate) fn read_streams(&self, request: &ReadStreams, limit: usize) -> Result<StreamsRead, EventStoreError> {
        let streams: Vec<&[usize]> = request.streams().iter().map(|s| self.stream(&s.stream_id)).collect();
        let wanted = || streams.iter().zip(request.streams()).map(|(all, s)| after_version(all, s.after));
        let count = wanted().map(<[usize]>::len).sum();
        if count > limit {
            return Err(EventStoreError::ReadTooLarge { limit });
        }
        let mut indexes = Vec::with_capacity(count);
        wanted().for_each(|stream| indexes.extend_from_slice(stream));
        // A stable sort merges the runs that the streams are.
        indexes.sort();
        Ok(StreamsRead {
            events: indexes.into_iter().map(|index| self.events[index].clone()).collect(),
            versions: streams.iter().map(|all| version(all.len())).collect(),
            receipt: request.command_id().and_then(|id| self.receipts.get(id)).cloned(),
        })
    }

    pub(crate) fn stream_version(&self, stream_id: &StreamId) -> StreamVersion {
        version(self.stream(stream_id).len())
    }

    pub(crate) fn head(&self) -> Option<GlobalPosition> {
        self.events.last().map(RecordedEvent::position)
    }

    pub(crate) fn prune_receipts(&mut self, older_than: Timestamp) -> u64 {
        let before = self.receipts.len();
        self.receipts.retain(|_, receipt| receipt.recorded_at >= older_than);
        (before - self.receipts.len()) as u64
    }

    pub(crate) fn read_page(&self, filter: &EventFilter, after: Option<GlobalPosition>, limit: PageSize) -> Page {
        // The event after position p has index p.
        let start = after.map_or(0, |position| index(position.get()).min(self.events.len()));
        let wanted = |&index: &usize| {
            let event = &self.events[index];
            filter.matches(event.stream_id(), event.event_type())
        };
        let (chosen, more) = self.candidates(filter, start, |candidates| self.fill(candidates.filter(wanted), limit));
        // A full page looked as far as its last event, any other one to the end.
        let examined =
            if more { chosen.last().copied() } else { self.events[start..].len().checked_sub(1).map(|n| start + n) };
        Page {
            events: chosen.iter().map(|&index| self.events[index].clone()).collect(),
            cursor: examined.map(|index| cursor(&self.events[index])),
            more,
        }
    }

    /// Hands the indexes from `start` on that `filter` may want to `read`, in order. The smaller of the indexes by stream
    /// and by type is followed; without any, the whole log is.
    fn candidates<T>(
        &self,
        filter: &EventFilter,
        start: usize,
        read: impl FnOnce(&mut dyn Iterator<Item = usize>) -> T,
    ) -> T {
        let by_stream = match filter.stream_selection() {
            StreamSelection::Exact(streams) => {
                Some(Merged::from(start, streams.iter().map(|stream_id| self.stream(stream_id))))
            }
            _ => None,
        };
        match (filter.event_types(), by_stream) {
            (None, None) => read(&mut (start..self.events.len())),
            (None, Some(mut by_stream)) => read(&mut by_stream),
            (Some(types), by_stream) => self.types.with(&self.events, |index| {
                let by_type = Merged::from(start, types.iter().map(|event_type| index.of(event_type)));
                let mut smaller = match by_stream {
                    Some(by_stream) if by_stream.len() <= by_type.len() => by_stream,
                    _ => by_type,
                };
                read(&mut smaller)
            }),
        }
    }

    pub(crate) fn read_stream(&self, stream_id: &StreamId, after: StreamVersion, limit: PageSize) -> StreamPage {
        let (chosen, more) = self.fill(after_version(self.stream(stream_id), after).iter().copied(), limit);
        StreamPage { more, events: chosen.iter().map(|&index| self.events[index].clone()).collect() }
    }

    /// As many as a page holds, and whether it is full.
    fn fill(&self, indexes: impl Iterator<Item = usize>, limit: PageSize) -> (Vec<usize>, bool) {
        let (mut chosen, mut bytes) = (Vec::new(), 0);
        for index in indexes {
            chosen.push(index);
            bytes += self.events[index].size();
            if chosen.len() == limit.get() || bytes >= PageSize::FULL_BYTES {
                return (chosen, true);
            }
        }
        (chosen, false)
    }

    pub(crate) fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
        let found = self.events.get(index(cursor.position.get() - 1)).map(RecordedEvent::id);
        if found == Some(cursor.event_id) {
            return Ok(());
        }
        Err(EventStoreError::LogDiverged { position: cursor.position, expected: cursor.event_id, found })
    }

    /// The indexes of a stream's events.
    fn stream(&self, stream_id: &StreamId) -> &[usize] {
        self.slots.get(stream_id).map_or(&[], |&slot| &self.streams[slot])
    }
}

fn recorded(item: &EventToAppend, place: &AppendedEvent, recorded_at: Timestamp) -> RecordedEvent {
    let event = &item.event;
    let header = EventHeader {
        position: place.position,
        stream_id: place.stream_id.clone(),
        version: place.version,
        id: event.id,
        event_type: event.event_type.clone(),
        schema_version: event.schema_version,
        recorded_at,
        metadata: event.metadata.clone(),
    };
    RecordedEvent::new(header, event.payload.clone())
}

fn cursor(event: &RecordedEvent) -> LogCursor {
    LogCursor { position: event.position(), event_id: event.id() }
}

/// The version of a stream with `count` events, all of which are in memory and so fewer than 2^63.
fn version(count: usize) -> StreamVersion {
    StreamVersion::try_new(count as u64).unwrap_or_default()
}

/// A number as an index; one beyond all memory stays beyond.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn after_version(stream: &[usize], after: StreamVersion) -> &[usize] {
    stream.get(index(after.get())..).unwrap_or_default()
}
