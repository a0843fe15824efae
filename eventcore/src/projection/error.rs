//! Why a projection ended.

use crate::{
    CheckpointError, DecodeError, ErrorKind, EventStoreError, EventType, GlobalPosition, LeadershipError, LineageId,
    ProjectionName, ReadModelVersion, ValidationError,
};
use std::error::Error as StdError;
use thiserror::Error;

/// Why a projection ended before it was told to. Run again, it resumes from its checkpoint.
///
/// `E` is the projector's own error.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProjectionError<E: StdError + 'static> {
    /// The projector's name is no valid name.
    #[error("the projector's name is refused")]
    Name(#[source] ValidationError),
    /// The projector failed on an event, for good.
    #[error("event {position} ({event_type}) could not be applied in {attempts} attempts")]
    Apply {
        /// The event's position.
        position: GlobalPosition,
        /// The event's type.
        event_type: EventType,
        /// How often it was tried.
        attempts: u32,
        /// What the projector said.
        #[source]
        source: E,
    },
    /// An event cannot be decoded.
    #[error("event {position} could not be decoded")]
    Decode {
        /// The event's position.
        position: GlobalPosition,
        /// Why not.
        #[source]
        source: DecodeError,
    },
    /// Another instance leads, or took over.
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    /// This instance can no longer be sure that it leads.
    #[error("projection {name}: the leadership was lost")]
    LeadershipLost {
        /// The projection.
        name: ProjectionName,
    },
    /// The checkpoint belongs to another log.
    #[error(
        "projection {name}: its checkpoint was reached in log {checkpoint}, this is log {log}; \
         connect to that log, or rebuild it: with versions ask for a rebuild, else empty what it writes to and reset it"
    )]
    OtherLog {
        /// The projection.
        name: ProjectionName,
        /// The log of the checkpoint.
        checkpoint: LineageId,
        /// The log connected to.
        log: LineageId,
    },
    /// The checkpoint was reached with another filter.
    #[error(
        "projection {name}: its checkpoint was reached with another filter; accept the change, give it another \
         name, or rebuild it: with versions ask for a rebuild, else empty what it writes to and reset it"
    )]
    OtherFilter {
        /// The projection.
        name: ProjectionName,
    },
    /// The projector's event type reads more types than before, and the log holds events of these before the checkpoint.
    #[error(
        "projection {name}: it now reads {event_type}, which the log holds at position {position}, before its checkpoint; \
         accept that these events are left out, or rebuild it: with versions ask for a rebuild, else empty what it writes \
         to and reset it"
    )]
    NewTypesInHistory {
        /// The projection.
        name: ProjectionName,
        /// A type that is new to it.
        event_type: EventType,
        /// Where the first event of a new type stands.
        position: GlobalPosition,
    },
    /// A batch waited in vain for acknowledged events to come into the feed: something that was begun before them is still
    /// being committed. Run it again later, or with more [`batch_patience`](super::ProjectionConfig::batch_patience).
    #[error(
        "the feed did not reach position {target} in time, as earlier appends are still under way; run it again later"
    )]
    NotCaughtUp {
        /// The head of the log when the batch began.
        target: GlobalPosition,
        /// How far the feed came.
        reached: Option<GlobalPosition>,
    },
    /// A version of the read model could not be made, put into force or removed.
    #[error("version {version} of read model {name} could not be {step}")]
    Version {
        /// The projection.
        name: ProjectionName,
        /// The version.
        version: ReadModelVersion,
        /// What could not be done: prepared, activated or retired.
        step: &'static str,
        /// What the projector said.
        #[source]
        source: E,
    },
    /// The projector panicked.
    #[error("projection {name} panicked: {message}")]
    Panicked {
        /// The projection; that of a version that was being built has its number.
        name: ProjectionName,
        /// What it said.
        message: String,
    },
    /// The checkpoint could not be loaded or saved.
    #[error(transparent)]
    Checkpoint(CheckpointError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] EventStoreError),
}

impl<E: StdError + 'static> From<CheckpointError> for ProjectionError<E> {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Store(error) => Self::Store(error),
            other => Self::Checkpoint(other),
        }
    }
}

impl<E: StdError + 'static> ProjectionError<E> {
    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Apply { .. } | Self::Version { .. } | Self::Panicked { .. } => ErrorKind::Rejected,
            Self::Leadership(LeadershipError::Store(error)) | Self::Store(error) => error.kind(),
            Self::Leadership(_)
            | Self::LeadershipLost { .. }
            | Self::Checkpoint(CheckpointError::Fenced { .. } | CheckpointError::VersionChange { .. }) => {
                ErrorKind::Conflict
            }
            Self::NotCaughtUp { .. } => ErrorKind::Unavailable,
            Self::Decode { .. } | Self::OtherLog { .. } | Self::Checkpoint(_) => ErrorKind::Corrupt,
            Self::Name(_) | Self::OtherFilter { .. } | Self::NewTypesInHistory { .. } => ErrorKind::BadInput,
        }
    }

    /// Whether running the projection again, a little later, may succeed.
    #[must_use]
    pub const fn retry_helps(&self) -> bool {
        matches!(self, Self::Panicked { .. }) || matches!(self.kind(), ErrorKind::Conflict | ErrorKind::Unavailable)
    }
}
