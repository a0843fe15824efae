//! A state folded from streams, kept up to date.

use super::WatchError;
use crate::{Event, EventStore, LogCursor, ReadStreams, RecordedEvent, StreamId, StreamPosition, StreamVersion};

/// A state that is a fold of events and of nothing else.
pub trait StreamState: Default + Clone + Send + Sync + 'static {
    /// The events it is folded from.
    type Event: Event;

    /// Folds one event. Events come in global order.
    fn apply(&mut self, event: &RecordedEvent<Self::Event>);
}

/// The fold of some streams, and how far it has come.
#[derive(Debug, Clone)]
pub(super) struct Fold<T> {
    streams: Vec<StreamId>,
    versions: Vec<StreamVersion>,
    state: T,
    last: Option<LogCursor>,
}

impl<T: StreamState> Fold<T> {
    pub(super) fn new(streams: Vec<StreamId>) -> Self {
        Self { versions: vec![StreamVersion::default(); streams.len()], streams, state: T::default(), last: None }
    }

    /// The last event folded.
    pub(super) const fn last(&self) -> Option<LogCursor> {
        self.last
    }

    /// The state; `None` if there were no events.
    pub(super) fn state(&self) -> Option<T> {
        self.last.map(|_| self.state.clone())
    }

    /// Brings the fold up to date, in one consistent read, and tells whether anything was new. After an error nothing has
    /// changed.
    pub(super) async fn refresh(&mut self, store: &(impl EventStore + ?Sized)) -> Result<bool, WatchError> {
        let read = store.read_streams(self.request(&self.versions)?).await?;
        if read.events.is_empty() {
            return Ok(false);
        }
        let folded = self.last.map(|last| last.position);
        let mut next = self.clone();
        if read.events.iter().any(|event| Some(event.position()) <= folded) {
            // A commit that took longer came to light behind what is folded: the order has to be right, so all of it again.
            let nothing = vec![StreamVersion::default(); self.streams.len()];
            let all = store.read_streams(self.request(&nothing)?).await?;
            next = Self::new(self.streams.clone());
            next.fold(all.events)?;
            next.versions = all.versions;
        } else {
            next.fold(read.events)?;
            next.versions = read.versions;
        }
        *self = next;
        Ok(true)
    }

    fn request(&self, after: &[StreamVersion]) -> Result<ReadStreams, WatchError> {
        let positions = self.streams.iter().zip(after);
        let positions = positions.map(|(stream, after)| StreamPosition { stream_id: stream.clone(), after: *after });
        Ok(ReadStreams::after(positions).map_err(crate::EventStoreError::from)?)
    }

    fn fold(&mut self, events: Vec<RecordedEvent>) -> Result<(), WatchError> {
        for event in events {
            let (position, event_id) = (event.position(), event.id());
            let event = event.decode::<T::Event>().map_err(|source| WatchError::Decode { position, source })?;
            self.state.apply(&event);
            self.last = Some(LogCursor { position, event_id });
        }
        Ok(())
    }

    /// How many events were folded. Not the position of the last one: an event that comes to light behind it is a change.
    pub(super) fn generation(&self) -> u64 {
        self.versions.iter().fold(0, |events, version| events.saturating_add(version.get()))
    }
}
