//! Why a command had no effect.

use crate::{
    DecodeError, EncodeError, ErrorKind, EventStoreError, GlobalPosition, StreamId, ValidationError, VersionConflict,
};
use std::error::Error as StdError;
use thiserror::Error;

/// Why an execution failed. Except where it says that the outcome is unknown, nothing was appended.
///
/// `E` is the command's own error.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommandError<E: StdError + 'static> {
    /// The domain said no.
    #[error("the command was rejected")]
    Rejected(#[source] E),
    /// Somebody else was faster at every attempt.
    #[error("stream {stream} changed during each of {attempts} attempts")]
    Conflict {
        /// The stream of the last conflict.
        stream: StreamId,
        /// How often the command was decided.
        attempts: u32,
        /// The last conflict.
        #[source]
        source: VersionConflict,
    },
    /// A field makes no valid stream name, or the context no valid metadata.
    #[error("the command holds an invalid value")]
    Invalid(#[from] ValidationError),
    /// A stored event of one of its streams cannot be understood. A decision on half the facts would be wrong.
    #[error("event {position} of stream {stream} cannot be decoded")]
    Decode {
        /// The event's stream.
        stream: StreamId,
        /// Its position.
        position: GlobalPosition,
        /// Why not.
        #[source]
        source: DecodeError,
    },
    /// An event that the command decided on cannot be encoded.
    #[error("a decided event cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The command appended through a handle of another instance: to a stream that it did not declare as written.
    #[error("stream {stream} is not among those this command writes")]
    UndeclaredStream {
        /// The stream.
        stream: StreamId,
    },
    /// `discover` named new streams in every round.
    #[error("more streams were discovered in each of {limit} rounds")]
    TooManyRounds {
        /// How many rounds are allowed.
        limit: u32,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] EventStoreError),
}

impl<E: StdError + 'static> CommandError<E> {
    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) => ErrorKind::Rejected,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Invalid(_) | Self::Encode(_) | Self::UndeclaredStream { .. } | Self::TooManyRounds { .. } => {
                ErrorKind::BadInput
            }
            Self::Decode { .. } => ErrorKind::Corrupt,
            Self::Store(error) => error.kind(),
        }
    }

    /// Whether executing the same command again, a little later, may succeed.
    ///
    /// After [`ErrorKind::OutcomeUnknown`] only a command with an id may be executed again without a second effect.
    #[must_use]
    pub const fn retry_helps(&self) -> bool {
        matches!(self.kind(), ErrorKind::Conflict | ErrorKind::Unavailable)
    }
}
