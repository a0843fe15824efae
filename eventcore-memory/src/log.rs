//! The log itself: events, streams and receipts. It knows no locks and no tasks.

use crate::index::{Merged, TypeIndex};
use crate::payloads::Payloads;
use crate::segments::Segments;
use eventcore::{
    AppendRequest, Appended, AppendedEvent, CommandId, EventFilter, EventHeader, EventStoreError, EventToAppend,
    GlobalPosition, LogCursor, Page, PageSize, ReadStreams, Receipt, RecordedEvent, StreamId, StreamPage,
    StreamSelection, StreamVersion, StreamsRead, Timestamp,
};
use std::collections::HashMap;
use std::hint::black_box;

/// How many events are asked of memory at once.
const AT_ONCE: usize = 32;

/// All events in order, the event at index `i` at position `i + 1`.
///
/// An append is judged and numbered first, and then stored in steps that cannot fail.
#[derive(Default)]
pub(crate) struct Log {
    events: Segments<RecordedEvent>,
    payloads: Payloads,
    /// Where the streams stand in `streams`, so that an append looks each name up once.
    slots: HashMap<StreamId, usize>,
    streams: Vec<Stream>,
    receipts: HashMap<CommandId, Receipt>,
    types: TypeIndex,
    /// Room for what an append is told about its streams.
    targets: Vec<Target>,
}

struct Stream {
    /// The name that all of its events share.
    id: StreamId,
    /// The indexes of its events; their number is the stream's version.
    events: Vec<usize>,
}

/// A stream of a request: where it stands, unless it is new, and its version.
struct Target {
    slot: Option<usize>,
    version: StreamVersion,
}

impl Log {
    pub(crate) fn append(
        &mut self,
        request: &AppendRequest,
        recorded_at: Timestamp,
    ) -> Result<Appended, EventStoreError> {
        if let Some(claim) = request.command()
            && let Some(receipt) = self.receipts.get(&claim.command_id)
        {
            return receipt.replay(claim);
        }
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        targets.extend(request.streams().iter().map(|stream| self.target(&stream.stream_id)));
        let mut actual = targets.iter().map(|target| target.version);
        let judged = request.judge(|_| actual.next().unwrap_or_default()).map_err(EventStoreError::from);
        let events = judged.and_then(|()| self.number(request, &mut targets));
        if let Ok(events) = &events {
            self.store(request, &mut targets, events, recorded_at);
        }
        self.targets = targets;
        Ok(Appended { events: events?, recorded_at, replayed: false })
    }

    fn store(
        &mut self,
        request: &AppendRequest,
        targets: &mut [Target],
        events: &[AppendedEvent],
        recorded_at: Timestamp,
    ) {
        for (item, place) in request.events().iter().zip(events) {
            let slot = *targets[item.stream].slot.get_or_insert_with(|| {
                self.slots.insert(place.stream_id.clone(), self.streams.len());
                self.streams.push(Stream { id: place.stream_id.clone(), events: Vec::new() });
                self.streams.len() - 1
            });
            let stream = &mut self.streams[slot];
            stream.events.push(self.events.len());
            let payload = self.payloads.keep(&item.event.payload);
            self.events.push(RecordedEvent::new(header(item, place, &stream.id, recorded_at), payload));
        }
        if let Some(claim) = request.command() {
            let receipt = Receipt { claim: claim.clone(), events: events.to_vec(), recorded_at };
            self.receipts.insert(claim.command_id.clone(), receipt);
        }
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
        Target { slot, version: version(slot.map_or(0, |slot| self.streams[slot].events.len())) }
    }

    pub(crate) fn read_streams(&self, request: &ReadStreams, limit: usize) -> Result<StreamsRead, EventStoreError> {
        let receipt = request.command_id().and_then(|id| self.receipts.get(id)).cloned();
        if receipt.is_some() && request.is_receipt_enough() {
            return Ok(StreamsRead { receipt, ..StreamsRead::default() });
        }
        let streams: Vec<&[usize]> = request.streams().iter().map(|s| self.stream(&s.stream_id)).collect();
        let wanted = || streams.iter().zip(request.streams()).map(|(all, s)| after_version(all, s.after));
        let count = wanted().map(<[usize]>::len).sum();
        if count > limit {
            return Err(EventStoreError::ReadTooLarge { limit });
        }
        let mut events = Vec::with_capacity(count);
        if let [_] = streams[..] {
            wanted().for_each(|stream| self.copy(stream, &mut events));
        } else {
            let mut indexes = Vec::with_capacity(count);
            wanted().for_each(|stream| indexes.extend_from_slice(stream));
            // A stable sort merges the runs that the streams are.
            indexes.sort();
            self.copy(&indexes, &mut events);
        }
        Ok(StreamsRead { events, versions: streams.iter().map(|all| version(all.len())).collect(), receipt })
    }

    /// Copies events of streams, which lie far from each other. Memory is asked for some of them at once, payloads included:
    /// a copy changes a counter, and no processor looks far beyond that, so each would be waited for by itself.
    fn copy(&self, indexes: &[usize], events: &mut Vec<RecordedEvent>) {
        for some in indexes.chunks(AT_ONCE) {
            black_box(some.iter().fold(0, |all, &index| all ^ touch(self.events[index].payload().bytes())));
            events.extend(some.iter().map(|&index| self.events[index].clone()));
        }
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
        let (events, more) = self.chosen(filter, start, limit);
        // A full page looked as far as its last event, any other one to the end.
        let examined = match more {
            true => events.last(),
            false => self.events.last().filter(|_| start < self.events.len()),
        };
        Page { cursor: examined.map(cursor), events, more }
    }

    /// The events from `start` on that `filter` wants, as many as a page holds, and whether it is full. The smaller of the
    /// indexes by stream and by type is followed; without any, the whole log is.
    fn chosen(&self, filter: &EventFilter, start: usize, limit: PageSize) -> (Vec<RecordedEvent>, bool) {
        let streams = filter.stream_selection();
        let by_stream = match streams {
            StreamSelection::Exact(streams) => {
                Some(Merged::from(start, streams.iter().map(|stream_id| self.stream(stream_id))))
            }
            _ => None,
        };
        // What the followed index stands for need not be looked at again.
        let in_streams = |event: &RecordedEvent| streams.matches(event.stream_id());
        match (filter.event_types(), by_stream) {
            (None, None) => fill(self.events.iter_from(start).filter(|event| in_streams(event)), limit),
            (None, Some(by_stream)) => fill(by_stream.map(|index| &self.events[index]), limit),
            (Some(types), by_stream) => self.types.with(&self.events, |index| {
                let by_type = Merged::from(start, types.iter().map(|event_type| index.of(event_type)));
                match by_stream {
                    Some(by_stream) if by_stream.len() <= by_type.len() => {
                        let events = by_stream.map(|index| &self.events[index]);
                        fill(events.filter(|event| types.contains(event.event_type())), limit)
                    }
                    _ => {
                        let events = by_type.map(|index| &self.events[index]);
                        match streams {
                            StreamSelection::All => fill(events, limit),
                            _ => fill(events.filter(|event| in_streams(event)), limit),
                        }
                    }
                }
            }),
        }
    }

    pub(crate) fn read_stream(&self, stream_id: &StreamId, after: StreamVersion, limit: PageSize) -> StreamPage {
        let indexes = after_version(self.stream(stream_id), after);
        let (events, more) = fill(indexes.iter().map(|&index| &self.events[index]), limit);
        StreamPage { events, more }
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
        self.slots.get(stream_id).map_or(&[], |&slot| &self.streams[slot].events)
    }
}

/// Looks at a payload, but at no more of it than most have: the rest follows by itself.
fn touch(payload: &[u8]) -> u8 {
    [0, 64, 128, 192].into_iter().fold(0, |all, line| all ^ payload.get(line).copied().unwrap_or_default())
}

/// As many events as a page holds, and whether it is full.
fn fill<'a>(events: impl Iterator<Item = &'a RecordedEvent>, limit: PageSize) -> (Vec<RecordedEvent>, bool) {
    // As many as there are at least, if that is known.
    let (mut chosen, mut bytes) = (Vec::with_capacity(events.size_hint().0.min(limit.get())), 0);
    for event in events {
        bytes += event.size();
        chosen.push(event.clone());
        if chosen.len() == limit.get() || bytes >= PageSize::FULL_BYTES {
            return (chosen, true);
        }
    }
    (chosen, false)
}

fn header(item: &EventToAppend, place: &AppendedEvent, stream_id: &StreamId, recorded_at: Timestamp) -> EventHeader {
    let event = &item.event;
    EventHeader {
        position: place.position,
        stream_id: stream_id.clone(),
        version: place.version,
        id: event.id,
        event_type: event.event_type.clone(),
        schema_version: event.schema_version,
        recorded_at,
        metadata: event.metadata.clone(),
    }
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
