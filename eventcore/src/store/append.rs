//! The request to append, and the answer.

use super::{EventStoreError, InvalidAppend};
use crate::{
    CommandId, ExpectedVersion, GlobalPosition, NewEvent, StreamId, StreamVersion, Timestamp, VersionConflict,
};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// One atomic append: events for any number of streams, what is expected of these and of streams that were only
/// read, and the command it belongs to.
///
/// ```
/// use eventcore::{AppendRequest, EventId, EventMetadata, ExpectedVersion, NewEvent, Payload, SchemaVersion, StreamId};
///
/// let account = StreamId::new("account-1")?;
/// let event = NewEvent {
///     id: EventId::generate(),
///     event_type: "bank.AccountOpened".parse()?,
///     schema_version: SchemaVersion::default(),
///     payload: Payload::json("{}"),
///     metadata: EventMetadata::empty(),
/// };
/// let request = AppendRequest::builder()
///     .expect(account.clone(), ExpectedVersion::NoStream)
///     .event(account, event)
///     .build()?;
/// assert_eq!(request.events().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A clone shares everything, so that a request can be sent again as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest(Arc<RequestData>);

#[derive(Debug, PartialEq, Eq)]
struct RequestData {
    streams: Vec<StreamExpectation>,
    events: Vec<EventToAppend>,
    command: Option<CommandClaim>,
}

/// What an append expects of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamExpectation {
    /// The stream.
    pub stream_id: StreamId,
    /// What is expected of it.
    pub expected: ExpectedVersion,
    /// Whether the append has events for it. A stream that was only read is judged all the same.
    pub written: bool,
}

/// One event of an append, in the order in which the command emitted them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventToAppend {
    /// Which of [`AppendRequest::streams`] it goes to, by index.
    pub stream: usize,
    /// The event.
    pub event: NewEvent,
}

/// The command an append belongs to. Its receipt is written with the events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommandClaim {
    /// The command's identity.
    pub command_id: CommandId,
    /// What the command is: the same id with another fingerprint is refused.
    pub fingerprint: Fingerprint,
}

/// A stable digest of a command's type and streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(Uuid);

impl Fingerprint {
    /// The fingerprint of a command type on streams, whatever their order.
    #[must_use]
    pub fn of<'a>(command_type: &str, streams: impl IntoIterator<Item = &'a StreamId>) -> Self {
        let mut names: Vec<&str> = streams.into_iter().map(StreamId::as_str).collect();
        names.sort_unstable();
        names.dedup();
        // Names hold no control characters, so a newline separates them beyond doubt.
        let text = std::iter::once(command_type).chain(names).collect::<Vec<_>>().join("\n");
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()))
    }

    /// The fingerprint as stored.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The fingerprint for storing.
    #[must_use]
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl AppendRequest {
    /// The most streams that one append may name, read or written.
    pub const MAX_STREAMS: usize = 1_000;
    /// The most events that one append may hold.
    pub const MAX_EVENTS: usize = 10_000;

    /// Begins a request.
    #[must_use]
    pub fn builder() -> AppendRequestBuilder {
        AppendRequestBuilder::default()
    }

    /// A request, if it is not empty and not too large. `streams` names each stream once, and every event has its stream there.
    pub(crate) fn checked(
        streams: Vec<StreamExpectation>,
        events: Vec<EventToAppend>,
        command: Option<CommandClaim>,
    ) -> Result<Self, InvalidAppend> {
        if events.is_empty() && command.is_none() {
            return Err(InvalidAppend::Empty);
        }
        if streams.len() > Self::MAX_STREAMS {
            return Err(InvalidAppend::TooManyStreams { count: streams.len(), limit: Self::MAX_STREAMS });
        }
        if events.len() > Self::MAX_EVENTS {
            return Err(InvalidAppend::TooManyEvents { count: events.len(), limit: Self::MAX_EVENTS });
        }
        Ok(Self(Arc::new(RequestData { streams, events, command })))
    }

    /// Every stream of the request, each once.
    #[must_use]
    pub fn streams(&self) -> &[StreamExpectation] {
        &self.0.streams
    }

    /// The events in order.
    #[must_use]
    pub fn events(&self) -> &[EventToAppend] {
        &self.0.events
    }

    /// The command it belongs to.
    #[must_use]
    pub fn command(&self) -> Option<&CommandClaim> {
        self.0.command.as_ref()
    }

    /// The stream that `event` goes to.
    #[must_use]
    pub fn stream_of(&self, event: &EventToAppend) -> &StreamId {
        // `build` makes only events whose stream is in the list.
        &self.0.streams[event.stream].stream_id
    }

    /// Judges every expectation against the versions that `actual` tells, in order.
    ///
    /// # Errors
    /// The first [`VersionConflict`].
    pub fn judge(&self, mut actual: impl FnMut(&StreamId) -> StreamVersion) -> Result<(), VersionConflict> {
        self.0.streams.iter().try_for_each(|s| s.expected.judge(&s.stream_id, actual(&s.stream_id)))
    }

    /// The size of all events, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.events.iter().map(|e| e.event.size()).sum()
    }
}

/// Of so many streams on names are hashed; fewer are compared one by one, which is cheaper than a table.
pub(crate) const MANY_STREAMS: usize = 16;

/// Builds an [`AppendRequest`].
#[derive(Debug, Default)]
pub struct AppendRequestBuilder {
    streams: Vec<StreamExpectation>,
    events: Vec<EventToAppend>,
    /// Where the streams are in `streams`, once there are [`MANY_STREAMS`].
    index: HashMap<StreamId, usize>,
    /// Streams whose expectation was given, as opposed to assumed to be `Any`.
    stated: Vec<bool>,
    contradiction: Option<InvalidAppend>,
    command: Option<CommandClaim>,
}

impl AppendRequestBuilder {
    /// Expects something of a stream, whether the append writes to it or not. A stream without expectation is `Any`.
    #[must_use]
    pub fn expect(mut self, stream_id: StreamId, expected: ExpectedVersion) -> Self {
        let expected = expected.normalized();
        let index = self.index_of(stream_id);
        let stream = &mut self.streams[index];
        if self.stated[index] && stream.expected != expected {
            self.contradiction.get_or_insert(InvalidAppend::ContradictingExpectations {
                stream_id: stream.stream_id.clone(),
                first: stream.expected,
                second: expected,
            });
        }
        stream.expected = expected;
        self.stated[index] = true;
        self
    }

    /// Adds an event. Positions follow the order of these calls.
    #[must_use]
    pub fn event(mut self, stream_id: StreamId, event: NewEvent) -> Self {
        let stream = self.index_of(stream_id);
        self.streams[stream].written = true;
        self.events.push(EventToAppend { stream, event });
        self
    }

    /// Makes it the append of a command, which has one effect however often it is sent.
    #[must_use]
    pub fn command(mut self, claim: CommandClaim) -> Self {
        self.command = Some(claim);
        self
    }

    /// Finishes the request.
    ///
    /// # Errors
    /// [`InvalidAppend`] if there are neither events nor a command, if a stream is expected at two versions, or if
    /// there are more than 1,000 streams or 10,000 events.
    pub fn build(self) -> Result<AppendRequest, InvalidAppend> {
        if let Some(contradiction) = self.contradiction {
            return Err(contradiction);
        }
        AppendRequest::checked(self.streams, self.events, self.command)
    }

    fn index_of(&mut self, stream_id: StreamId) -> usize {
        let index = self.streams.len();
        let found = match index < MANY_STREAMS {
            true => self.streams.iter().position(|stream| stream.stream_id == stream_id),
            false => self.index.get(&stream_id).copied(),
        };
        if let Some(found) = found {
            return found;
        }
        if index + 1 == MANY_STREAMS {
            self.index = self.streams.iter().map(|stream| stream.stream_id.clone()).zip(0..).collect();
        }
        if index + 1 >= MANY_STREAMS {
            self.index.insert(stream_id.clone(), index);
        }
        self.streams.push(StreamExpectation { stream_id, expected: ExpectedVersion::Any, written: false });
        self.stated.push(false);
        index
    }
}

/// How large an event and an append may be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendLimits {
    /// The largest event, payload and metadata together, in bytes. Default 1 MiB.
    pub max_event_bytes: usize,
    /// The largest append, all its events together, in bytes. Default 16 MiB.
    pub max_append_bytes: usize,
}

impl Default for AppendLimits {
    fn default() -> Self {
        Self { max_event_bytes: 1024 * 1024, max_append_bytes: 16 * 1024 * 1024 }
    }
}

impl AppendLimits {
    /// Checks a request. Every adapter calls it before the request can reach storage.
    ///
    /// # Errors
    /// [`EventStoreError::EventTooLarge`] or [`EventStoreError::AppendTooLarge`].
    pub fn check(&self, request: &AppendRequest) -> Result<(), EventStoreError> {
        let mut total = 0;
        for item in request.events() {
            let size = item.event.size();
            total += size;
            if size > self.max_event_bytes {
                return Err(EventStoreError::EventTooLarge {
                    stream_id: request.stream_of(item).clone(),
                    event_type: item.event.event_type.clone(),
                    size,
                    limit: self.max_event_bytes,
                });
            }
        }
        if total > self.max_append_bytes {
            return Err(EventStoreError::AppendTooLarge { size: total, limit: self.max_append_bytes });
        }
        Ok(())
    }
}

/// Where one event of an append went.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppendedEvent {
    /// Its stream.
    pub stream_id: StreamId,
    /// Its version in the stream.
    pub version: StreamVersion,
    /// Its place in the one order of all events.
    pub position: GlobalPosition,
}

/// The answer to an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Where each event went, in the order of the request.
    pub events: Vec<AppendedEvent>,
    /// When the store recorded it.
    pub recorded_at: Timestamp,
    /// Whether nothing was written because the command had been executed before: this is its receipt.
    pub replayed: bool,
}

/// The lasting proof that a command was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The command.
    pub claim: CommandClaim,
    /// Where its events went; none for a command that decided to do nothing.
    pub events: Vec<AppendedEvent>,
    /// When it was recorded.
    pub recorded_at: Timestamp,
}

impl Receipt {
    /// The answer to a command that comes again.
    ///
    /// # Errors
    /// [`EventStoreError::CommandIdReused`] if `claim` is another command under the same id.
    pub fn replay(&self, claim: &CommandClaim) -> Result<Appended, EventStoreError> {
        if self.claim.fingerprint != claim.fingerprint {
            return Err(EventStoreError::CommandIdReused { command_id: claim.command_id.clone() });
        }
        Ok(Appended { events: self.events.clone(), recorded_at: self.recorded_at, replayed: true })
    }
}
