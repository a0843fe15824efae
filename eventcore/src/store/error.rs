//! What can go wrong at the store, by meaning.

use crate::{CommandId, EventId, EventType, ExpectedVersion, GlobalPosition, SharedError, StreamId, VersionConflict};
use std::error::Error as StdError;
use thiserror::Error;

/// An error of [`EventStore`](super::EventStore) or [`EventReader`](super::EventReader).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum EventStoreError {
    /// Somebody else wrote to one of the streams in between. Read again and decide again.
    #[error(transparent)]
    Conflict(#[from] VersionConflict),
    /// The request makes no sense, whatever is stored.
    #[error(transparent)]
    Invalid(#[from] InvalidAppend),
    /// The command id was used before, by another command.
    #[error("command id {command_id} was used before, for another command type or other streams")]
    CommandIdReused {
        /// The id.
        command_id: CommandId,
    },
    /// An event is over the size limit of the store.
    #[error("event of type {event_type} for stream {stream_id} takes {size} bytes, the limit is {limit}")]
    EventTooLarge {
        /// The stream it was meant for.
        stream_id: StreamId,
        /// Its type.
        event_type: EventType,
        /// Its size in bytes, payload and metadata.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// All events of one append together are over the size limit of the store.
    #[error("the append takes {size} bytes, the limit is {limit}; split it")]
    AppendTooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A consistent read would bring more events than the store allows at once.
    #[error("the streams read hold more than {limit} events; read fewer streams or shorten them")]
    ReadTooLarge {
        /// The limit in events.
        limit: usize,
    },
    /// The store cannot be reached or is busy; nothing was written. Trying again may help.
    #[error("the store is unavailable")]
    Unavailable {
        /// What happened.
        #[source]
        source: SharedError,
    },
    /// The answer to a commit was lost, so it may or may not have happened. Send it again with the same event ids and
    /// expected versions, or look for its events.
    #[error("the outcome of the append is unknown")]
    OutcomeUnknown {
        /// What happened.
        #[source]
        source: SharedError,
    },
    /// There is no room left. Nothing was written; reading goes on.
    #[error("the storage is full")]
    StorageFull {
        /// What the storage said.
        #[source]
        source: SharedError,
    },
    /// The store can be read but not written.
    #[error("the store is read-only")]
    ReadOnly {
        /// What the storage said.
        #[source]
        source: SharedError,
    },
    /// What is stored cannot be what was written. Nothing is guessed.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// What was found where.
        what: String,
        /// What the storage said, if it noticed by itself.
        #[source]
        source: Option<SharedError>,
    },
    /// A position belongs to another history: the store was replaced by an older or a foreign copy.
    #[error(
        "the log has another history: position {position} should hold event {expected}; \
         the store was restored or replaced, so rebuild what follows it"
    )]
    LogDiverged {
        /// The position remembered.
        position: GlobalPosition,
        /// The event that was there.
        expected: EventId,
        /// The event that is there now, if any.
        found: Option<EventId>,
    },
    /// An append to a store from within a page of one of its own exactly-once projections, which would wait for itself.
    #[error("an append from within a transaction of a projection on the same store would wait for itself")]
    WithinProjection,
    /// The store or its writer was closed.
    #[error("the store is closed")]
    Closed,
    /// An earlier failure left the state of the storage unknown, so nothing more is written. Open the store again.
    #[error("the writer stopped after a failure that left the storage in an unknown state; open the store again")]
    Poisoned {
        /// The failure.
        #[source]
        source: SharedError,
    },
    /// The storage refused for a reason that no other variant names.
    #[error("the storage failed")]
    Storage {
        /// What the storage said.
        #[source]
        source: SharedError,
    },
}

/// What kind of failure an error is, and so what a caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Somebody else was faster. Read and decide again.
    Conflict,
    /// The domain said no.
    Rejected,
    /// The request can never succeed as it is.
    BadInput,
    /// The store is out of reach, busy or full for now.
    Unavailable,
    /// It may or may not have happened.
    OutcomeUnknown,
    /// What is stored is damaged, foreign or cannot be understood.
    Corrupt,
    /// The store was closed or stopped writing; it has to be opened again.
    Closed,
    /// Something else.
    Other,
}

impl EventStoreError {
    /// An [`Unavailable`](Self::Unavailable) error with its cause.
    pub fn unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable { source: SharedError::new(source) }
    }

    /// An [`OutcomeUnknown`](Self::OutcomeUnknown) error with its cause.
    pub fn outcome_unknown(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::OutcomeUnknown { source: SharedError::new(source) }
    }

    /// A [`Storage`](Self::Storage) error with its cause.
    pub fn storage(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Storage { source: SharedError::new(source) }
    }

    /// A [`Corrupt`](Self::Corrupt) error that says what was found where.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into(), source: None }
    }

    /// A [`Corrupt`](Self::Corrupt) error with what the storage or a constructor said.
    pub fn corrupt_because(what: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Corrupt { what: what.into(), source: Some(SharedError::new(source)) }
    }

    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Invalid(_)
            | Self::CommandIdReused { .. }
            | Self::EventTooLarge { .. }
            | Self::AppendTooLarge { .. }
            | Self::ReadTooLarge { .. }
            | Self::WithinProjection => ErrorKind::BadInput,
            Self::Unavailable { .. } | Self::StorageFull { .. } => ErrorKind::Unavailable,
            Self::OutcomeUnknown { .. } => ErrorKind::OutcomeUnknown,
            Self::Corrupt { .. } | Self::LogDiverged { .. } => ErrorKind::Corrupt,
            Self::Closed | Self::Poisoned { .. } => ErrorKind::Closed,
            Self::ReadOnly { .. } | Self::Storage { .. } => ErrorKind::Other,
        }
    }

    /// Whether the same call may succeed when it is made again a little later.
    ///
    /// A conflict answers `false`: the same append would conflict again; the command has to be decided again.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// An append that makes no sense, whatever is stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidAppend {
    /// There is nothing to append and no command to remember.
    #[error("an append needs at least one event or a command id")]
    Empty,
    /// One stream was expected at two versions.
    #[error("stream {stream_id} is expected at {first} and at {second}")]
    ContradictingExpectations {
        /// The stream.
        stream_id: StreamId,
        /// What was said first.
        first: ExpectedVersion,
        /// What was said later.
        second: ExpectedVersion,
    },
    /// Too many streams for one append or one consistent read.
    #[error("{count} streams, the limit is {limit}")]
    TooManyStreams {
        /// How many there are.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Too many events for one append.
    #[error("{count} events, the limit is {limit}; split the append")]
    TooManyEvents {
        /// How many there are.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A payload is declared to be JSON and is not, which this store cannot hold.
    #[error("the payload of an event of type {event_type} for stream {stream_id} is no JSON: {problem}")]
    MalformedJson {
        /// The stream it was meant for.
        stream_id: StreamId,
        /// Its type.
        event_type: EventType,
        /// What is wrong with it.
        problem: String,
    },
}
