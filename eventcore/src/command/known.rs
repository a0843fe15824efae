//! A folded state that an execution can go on from, and what makes that right.

use super::CommandLogic;
use super::fold::StateFold;
use super::streams::BoundStream;
use crate::{
    AppendRequest, Appended, AppendedEvent, Event, EventHeader, FoldedStream, GlobalPosition, InvalidAppend,
    ReadStreams, RecordedEvent, StreamId, StreamPosition, StreamVersion, Timestamp,
};
use std::collections::HashMap;

/// A state, and exactly which events are folded into it: those of its streams up to these versions, in global order.
#[derive(Clone)]
pub(crate) struct Known<T> {
    pub(crate) state: T,
    /// In the order of the command's streams.
    pub(crate) streams: Vec<FoldedStream>,
    /// The highest position folded; `None` before the first event.
    pub(crate) position: Option<GlobalPosition>,
    /// How many events are folded that no stored snapshot has.
    pub(crate) unsaved: u64,
    /// Whether others had a part in the last append.
    pub(crate) crowded: bool,
}

/// Why what is known cannot be gone on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Useless {
    /// An event that is folded is not where it was: the log has another history, or lost its end.
    Diverged,
    /// An event came to light before the last one folded, by a commit that took longer.
    OutOfOrder,
}

impl<T: Default> Known<T> {
    /// The state before any event.
    pub(crate) fn nothing(streams: &[BoundStream]) -> Self {
        let nothing = |stream: &BoundStream| FoldedStream {
            stream_id: stream.stream_id.clone(),
            version: StreamVersion::default(),
            event_id: None,
        };
        Self {
            state: T::default(),
            streams: streams.iter().map(nothing).collect(),
            position: None,
            unsaved: 0,
            crowded: false,
        }
    }
}

impl<T> Known<T> {
    /// Whether this is of exactly these streams, in this order.
    pub(crate) fn is_of(&self, streams: &[BoundStream]) -> bool {
        self.streams.len() == streams.len()
            && self.streams.iter().zip(streams).all(|(known, stream)| known.stream_id == stream.stream_id)
    }

    /// What to read to go on: what is new, and the last event folded of each stream to make sure of it.
    pub(crate) fn request(&self) -> Result<ReadStreams, InvalidAppend> {
        ReadStreams::after(self.streams.iter().map(|stream| StreamPosition {
            stream_id: stream.stream_id.clone(),
            // One below, so that the event at the version itself is read too.
            after: StreamVersion::try_new(stream.version.get().saturating_sub(1)).unwrap_or_default(),
        }))
    }

    /// The events that are new in what [`request`](Self::request) read.
    ///
    /// What is folded has to be there still, event for event, and everything new has to come after it: then folding on
    /// gives what folding all of it would. That nothing is missing, [`is_at`](Self::is_at) tells once they are folded.
    pub(crate) fn news(&self, events: Vec<RecordedEvent>) -> Result<Vec<RecordedEvent>, Useless> {
        let folded: HashMap<&StreamId, &FoldedStream> = self.streams.iter().map(|s| (&s.stream_id, s)).collect();
        let mut news = Vec::with_capacity(events.len());
        for event in events {
            let stream = folded.get(event.stream_id()).ok_or(Useless::Diverged)?;
            if event.version() > stream.version {
                if Some(event.position()) <= self.position {
                    return Err(Useless::OutOfOrder);
                }
                news.push(event);
            } else if event.version() != stream.version || Some(event.id()) != stream.event_id {
                return Err(Useless::Diverged);
            }
        }
        Ok(news)
    }

    /// Notes that an event is folded.
    pub(crate) fn note(&mut self, stream: usize, event: &EventHeader) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.version = event.version;
            stream.event_id = Some(event.id);
        }
        self.position = Some(event.position);
        self.unsaved = self.unsaved.saturating_add(1);
    }

    /// Whether the store tells the versions that were folded up to. If not, it has lost some of what is folded.
    pub(crate) fn is_at(&self, versions: &[StreamVersion]) -> bool {
        self.streams.iter().map(|stream| stream.version).eq(versions.iter().copied())
    }

    /// The same after an append that was decided on it; `None` if the answer does not fit, so that nothing is known.
    ///
    /// Events are decoded from what was sent, since that is what will be read.
    pub(crate) fn after<C: CommandLogic<State = T>>(
        mut self,
        command: &C,
        fold: &StateFold<C>,
        request: &AppendRequest,
        appended: &Appended,
    ) -> Option<Self> {
        if appended.replayed || request.events().len() != appended.events.len() {
            return None;
        }
        for (sent, stored) in request.events().iter().zip(&appended.events) {
            let index = self.streams.iter().position(|stream| stream.stream_id == stored.stream_id)?;
            let next = self.streams.get(index)?.version.next().ok()?;
            if stored.version != next || Some(stored.position) <= self.position {
                return None;
            }
            let event = &sent.event;
            let header = EventHeader {
                position: stored.position,
                stream_id: stored.stream_id.clone(),
                version: stored.version,
                id: event.id,
                event_type: event.event_type.clone(),
                schema_version: event.schema_version,
                recorded_at: appended.recorded_at,
                metadata: event.metadata.clone(),
            };
            let payload = C::Event::decode(&event.event_type, event.schema_version, &event.payload).ok()?;
            self.note(index, &header);
            fold.apply(command, &mut self.state, &RecordedEvent::new(header, payload));
        }
        Some(self)
    }

    /// The same if an append that was decided on it, and nothing else, is stored next. Positions and times are made up, so
    /// this is for a fold that looks at neither, and for nothing that is kept.
    pub(crate) fn if_stored<C: CommandLogic<State = T>>(
        self,
        command: &C,
        fold: &StateFold<C>,
        request: &AppendRequest,
    ) -> Option<Self> {
        let mut versions: Vec<StreamVersion> = self.streams.iter().map(|stream| stream.version).collect();
        let mut position = self.position.map_or(0, GlobalPosition::get);
        let mut events = Vec::with_capacity(request.events().len());
        for item in request.events() {
            let stream_id = request.stream_of(item);
            let version = versions.get_mut(self.streams.iter().position(|stream| &stream.stream_id == stream_id)?)?;
            *version = version.next().ok()?;
            position += 1;
            let position = GlobalPosition::try_new(position).ok()?;
            events.push(AppendedEvent { stream_id: stream_id.clone(), version: *version, position });
        }
        let appended = Appended { events, recorded_at: Timestamp::from_micros(0).ok()?, replayed: false };
        self.after(command, fold, request, &appended)
    }
}
